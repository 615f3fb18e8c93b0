# SPDX-License-Identifier: Apache-2.0
"""MultiHeadAttention against the modules of torch and transformers themselves, in float64 where they compute in it."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402

PYTHON = "/usr/bin/python3"  # the one that python3-torch is packaged for
TORCH = pathlib.Path("/usr/lib/python3/dist-packages/torch/__init__.py")
REQUIREMENTS = ["transformers==4.41.2"]
FAMILIES = ["bert", "distilbert", "gpt2", "gpt_neox", "llama", "mistral", "phi3", "qwen2", "roberta", "t5", "torch"]


def interpreter_of(test):
    """The Python that has torch and transformers; without one the test is skipped, or fails where CI is set."""
    interpreter, why = None, "" if TORCH.exists() else "python3-torch is not installed"
    if not why:
        interpreter, why = compared.environment("torch", PYTHON, REQUIREMENTS, system_packages=True)
    if why:
        test.assertFalse(compared.CI, why)
        test.skipTest(why)
    return interpreter


class TorchLayer(unittest.TestCase):
    def test_modules_give_the_same_numbers(self):
        passed = compared.compare(self, "torch_cases.py", interpreter_of(self))
        for family in FAMILIES:
            self.assertTrue([name for name in passed if name.startswith(family)], family)
        for mask in ("none", "bool", "bool_heads", "float", "padding", "causal"):
            self.assertGreaterEqual(len([name for name in passed if name.endswith("_" + mask)]), 5, mask)


if __name__ == "__main__":
    unittest.main()
