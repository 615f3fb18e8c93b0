# SPDX-License-Identifier: Apache-2.0
"""The throw-away environment with the peers, from PyPI at named versions, that the comparisons run in."""

import hashlib
import os
import pathlib
import platform
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "multihead"
REQUIREMENTS = ["torch==2.15.0", "onnxruntime==1.32.0", "openvino==2026.4.1", "onnx==1.23.2", "numpy==2.4.6",
                "transformers==5.24.0", "safetensors==0.8.0", "nanobind==3.1.0"]


def enter():
    """Starts this program again with the peers at hand, unless they are; the first time brings them, for minutes."""
    digest = hashlib.sha256("\n".join([sys.version, *REQUIREMENTS]).encode()).hexdigest()[:12]
    folder = CACHE / f"peers-{digest}"
    if pathlib.Path(sys.prefix) == folder:
        return
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        print(f"bringing {', '.join(REQUIREMENTS)} into {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        complete.touch()
    os.execv(python, [str(python), *sys.argv])


def processor():
    """Its name, as Linux has it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
