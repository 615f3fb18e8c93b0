# SPDX-License-Identifier: Apache-2.0
"""BLEU against sacrebleu: values, brevity penalties and precisions of random corpora."""

import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402

REQUIREMENTS = ["sacrebleu==2.5.1"]


class Peer(unittest.TestCase):
    def test_values_are_the_same(self):
        runner = compared.BUILD / "tests" / "bleu_runner"
        if not runner.exists():
            self.skipTest("bleu_runner is not built")
        interpreter, why = compared.environment("sacrebleu", sys.executable, REQUIREMENTS, system_packages=False)
        if why:
            self.assertFalse(compared.CI, why)
            self.skipTest(why)
        ran = subprocess.run([str(interpreter), "-B", str(compared.HERE / "bleu_cases.py"), str(runner)], capture_output=True,
                             text=True, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout[-2000:] + ran.stderr[-2000:])
        self.assertGreater(int(re.search(r"compared 300 corpora, (\d+) between 0 and 1", ran.stdout).group(1)), 100)


if __name__ == "__main__":
    unittest.main()
