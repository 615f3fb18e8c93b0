# SPDX-License-Identifier: Apache-2.0
"""Runs tests/python/test_torch_*.py and test_flash_*.py: the package's wheel beside PyTorch."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402

REQUIREMENTS = ["torch==2.15.0", "transformers==5.24.0"]  # one environment with transformers_face_test.py


class TorchFace(unittest.TestCase):
    def test_modules(self):
        interpreter, why = compared.installed("torch215", REQUIREMENTS)
        if why:
            self.assertFalse(compared.CI, why)
            self.skipTest(why)
        for pattern, least in (("test_torch_*.py", 50), ("test_flash_*.py", 17)):
            self.assertGreaterEqual(compared.face_tests(self, interpreter, pattern), least)


if __name__ == "__main__":
    unittest.main()
