# SPDX-License-Identifier: Apache-2.0
"""Encoder against the models of transformers themselves: every family, activation and way to store the weights."""

import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402
import torch_layer_test  # noqa: E402

VARIANTS = ["plain", "headed", "sharded", "float16", "bfloat16", "old", "products"]


class EncoderPeer(unittest.TestCase):
    def test_models_give_the_same_states_and_weights(self):
        runner = compared.BUILD / "tests" / "encoder_runner"
        if not runner.exists():
            self.skipTest("encoder_runner is not built: it needs utf8proc")
        interpreter = torch_layer_test.interpreter_of(self)
        ran = subprocess.run([str(interpreter), "-B", str(compared.HERE / "encoder_cases.py"), str(runner)],
                             capture_output=True, text=True, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout[-3000:] + ran.stderr[-3000:])
        self.assertEqual([line for line in ran.stdout.splitlines() if line.startswith("FAILED")], [])
        passed = re.findall(r"^passed (\S+) (\S+) (\S+)$", ran.stdout, re.MULTILINE)
        self.assertEqual(len(passed), 4 * 4 * len(VARIANTS))
        for variant in VARIANTS:
            self.assertEqual(len([name for name, _, _ in passed if name.endswith("_" + variant)]), 4 * 4, variant)
        narrow = [case for case in passed if case[0].endswith("_products")]
        exact = [case for case in passed if case not in narrow]
        print(f"{len(exact)} models, worst error of a hidden state {max(float(states) for _, states, _ in exact):.2g}, "
              f"of a weight {max(float(weights) for _, _, weights in exact):.2g}")
        print(f"{len(narrow)} with products of bfloat16: {max(float(share) for _, share, _ in narrow):.2g} of the bound from "
              f"PyTorch's bfloat16, {max(float(share) for _, _, share in narrow):.2g} of its error in the mean")


if __name__ == "__main__":
    unittest.main()
