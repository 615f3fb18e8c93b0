# SPDX-License-Identifier: Apache-2.0
"""MultiHeadAttention against the layers of Keras and Flax themselves."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402

REQUIREMENTS = ["keras==3.15.1", "flax==0.12.8", "jax==0.10.2"]


class KerasFlaxLayer(unittest.TestCase):
    def test_layers_give_the_same_numbers(self):
        interpreter, why = compared.environment("keras_flax", sys.executable, REQUIREMENTS, system_packages=False)
        if why:
            self.assertFalse(compared.CI, why)
            self.skipTest(why)
        passed = compared.compare(self, "keras_flax_cases.py", interpreter)
        for start, end in (("keras", "plain"), ("keras", "grouped"), ("flax", "plain"), ("flax", "normed")):
            names = [name for name in passed if name.startswith(start) and name.endswith(end)]
            self.assertGreaterEqual(len(names), 4, (start, end))


if __name__ == "__main__":
    unittest.main()
