# SPDX-License-Identifier: Apache-2.0
"""trained/language is a GPT-2 to transformers too, with the same logits, and its tokenizer is the one that its script makes."""

import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402
import torch_layer_test  # noqa: E402

FOLDER = compared.SOURCE / "trained" / "language"
TASKS = compared.SOURCE / "src" / "train" / "tasks"


class LanguagePeer(unittest.TestCase):
    def test_transformers_opens_the_learned_folder(self):
        runner = compared.BUILD / "tests" / "language_runner"
        interpreter = torch_layer_test.interpreter_of(self)
        ran = subprocess.run([str(interpreter), "-B", str(compared.HERE / "language_cases.py"), str(runner), str(FOLDER),
                              str(TASKS / "make_tokenizer.py")], capture_output=True, text=True, check=False,
                             env={**os.environ, "HF_HUB_OFFLINE": "1"})
        self.assertEqual(ran.returncode, 0, ran.stdout[-3000:] + ran.stderr[-3000:])
        told = ran.stdout.splitlines()
        self.assertEqual([line.split()[:2] for line in told if not line.startswith("generated ")],
                         [["passed", "logits"], ["passed", "tokenizer"]])
        command = compared.BUILD / "multihead"
        if command.exists():
            shown = subprocess.run([str(command), "learned", "--model", str(FOLDER)], capture_output=True, text=True, check=True)
            generated = next(line.removeprefix("generated ") for line in told if line.startswith("generated "))
            self.assertIn(f"\noutput  {generated}\n", shown.stdout)
        print("\n".join(told))

    def test_the_tokenizer_is_the_trained_ones(self):
        self.assertEqual((FOLDER / "tokenizer.json").read_bytes(), (TASKS / "tokenizer.json").read_bytes())


if __name__ == "__main__":
    unittest.main()
