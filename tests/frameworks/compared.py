# SPDX-License-Identifier: Apache-2.0
"""Runs a framework's case writer in a throw-away environment under the build folder, then layer_runner on its cases."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
CI = os.environ.get("CI") == "true"


def environment(name, python, requirements, system_packages):
    """The interpreter of the environment, made once for each set of requirements; or the reason why there is none."""
    folder = BUILD / "frameworks" / name
    stamp = folder / "requirements.txt"
    wanted = "\n".join([python, *requirements])
    interpreter = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return interpreter, ""
    shutil.rmtree(folder, ignore_errors=True)
    more = ["--system-site-packages"] if system_packages else []
    for command in ([python, "-m", "venv", *more, folder],
                    [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]):
        outcome = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if outcome.returncode != 0:
            return None, f"{name}: {' '.join(map(str, command))}: {outcome.stderr.strip()[-300:]}"
    stamp.write_text(wanted, encoding="utf-8")
    return interpreter, ""


def compare(test, script, interpreter):
    """Writes the cases and runs them; the names of those that passed."""
    runner = next(path for path in (BUILD / "tests" / "layer_runner", BUILD / "layer_runner") if path.exists())
    with tempfile.TemporaryDirectory() as folder:
        written = subprocess.run([str(interpreter), "-B", str(HERE / script), folder], capture_output=True, text=True,
                                 check=False)
        test.assertEqual(written.returncode, 0, written.stderr)
        print(written.stdout.strip())
        count = int(re.search(r"(\d+) cases written", written.stdout).group(1))
        ran = subprocess.run([str(runner), folder], capture_output=True, text=True, check=False)
        failed = [line for line in ran.stdout.splitlines() if line.startswith("FAILED")]
        test.assertEqual(failed, [], ran.stderr)
        test.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        passed = re.findall(r"^passed (\S+)", ran.stdout, re.MULTILINE)
        test.assertEqual(len(passed), count)
        return passed
