# SPDX-License-Identifier: Apache-2.0
"""Runs tests/python/test_transformers_*.py and test_coming_from.py: the package's wheel beside PyTorch and Transformers."""

import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402

REQUIREMENTS = ["torch==2.15.0", "transformers==5.24.0"]
FOLDER = pathlib.Path(__file__).resolve().parent / "python"
WITH_WEIGHTS = "test_transformers_minilm"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODEL = pathlib.Path(os.environ.get("MULTIHEAD_MODEL") or CACHE / "multihead" / "all-MiniLM-L6-v2")


class TransformersFace(unittest.TestCase):
    def passes(self, *modules):
        interpreter, why = compared.installed("torch215", REQUIREMENTS)
        if why:
            self.assertFalse(compared.CI, why)
            self.skipTest(why)
        ran = subprocess.run([str(interpreter), "-B", "-m", "unittest", *modules], cwd=FOLDER, capture_output=True, text=True,
                             check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        print(ran.stderr.strip())
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertNotIn("skipped", ran.stderr)

    def test_small_models(self):
        modules = sorted(path.stem for path in FOLDER.glob("test_transformers_*.py"))
        self.assertGreaterEqual(len(modules), 6)
        self.passes("test_coming_from", *(name for name in modules if name != WITH_WEIGHTS))

    def test_minilm(self):
        if not (MODEL / "model.safetensors").is_file():
            self.assertFalse(compared.CI, f"{MODEL} is missing")
            self.skipTest(f"all-MiniLM-L6-v2 is not in {MODEL}; .ci/fetch-model fetches it")
        self.passes(WITH_WEIGHTS)


if __name__ == "__main__":
    unittest.main()
