# SPDX-License-Identifier: Apache-2.0
"""Decoder against the models of transformers themselves: logits after each token, and the texts that greedy search gives."""

import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402
import torch_layer_test  # noqa: E402

KINDS = 20


class DecoderPeer(unittest.TestCase):
    def test_models_give_the_same_logits_and_texts(self):
        runner = compared.BUILD / "tests" / "decoder_runner"
        if not runner.exists():
            self.skipTest("decoder_runner is not built: it needs utf8proc")
        interpreter = torch_layer_test.interpreter_of(self)
        ran = subprocess.run([str(interpreter), "-B", str(compared.HERE / "decoder_cases.py"), str(runner)],
                             capture_output=True, text=True, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout[-3000:] + ran.stderr[-3000:])
        self.assertEqual([line for line in ran.stdout.splitlines() if line.startswith("FAILED")], [])
        passed = re.findall(r"^passed (\S+) (\S+)$", ran.stdout, re.MULTILINE)
        self.assertEqual(len(passed), 3 * KINDS)
        narrow = [case for case in passed if "_products_" in case[0]]
        exact = [case for case in passed if case not in narrow]
        print(f"{len(exact)} models, worst error of a logit {max(float(error) for _, error in exact):.2g} of the largest")
        print(f"{len(narrow)} with products of bfloat16, at most {max(float(share) for _, share in narrow):.2g} of the mean error "
              "of PyTorch's bfloat16")


if __name__ == "__main__":
    unittest.main()
