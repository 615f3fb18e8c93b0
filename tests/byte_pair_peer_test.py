# SPDX-License-Identifier: Apache-2.0
"""BytePair against Hugging Face tokenizers: ids of texts of many languages and of each code point, and the way back."""

import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402
import wordpiece_peer_test as wordpiece  # noqa: E402


class BytePairPeer(unittest.TestCase):
    def test_every_form_gives_the_same_tokens_and_texts(self):
        runner = compared.BUILD / "tests" / "pairs_runner"
        if not runner.exists():
            self.skipTest("pairs_runner is not built: it needs utf8proc")
        python = wordpiece.PYTHON if pathlib.Path(wordpiece.PYTHON).exists() else sys.executable
        interpreter, why = compared.environment("tokenizers", python, wordpiece.REQUIREMENTS, system_packages=False)
        if why:
            self.assertFalse(compared.CI, why)
            self.skipTest(why)
        script = compared.HERE / "byte_pair_cases.py"
        ran = subprocess.run([str(interpreter), "-B", str(script), str(runner), wordpiece.SHARE], capture_output=True,
                             text=True, check=False)
        print(ran.stdout.strip())
        self.assertEqual(ran.returncode, 0, ran.stdout[-3000:] + ran.stderr[-3000:])
        counts = dict(re.findall(r"^compared (\S+): (\d+) texts, 0 differ$", ran.stdout, re.MULTILINE))
        self.assertEqual(len(counts), 6)
        self.assertGreater(min(map(int, counts.values())), 3000)
        whole = min(int(counts[name]) for name in ("gpt2", "llama3"))
        self.assertGreater(whole, 25000 if wordpiece.SHARE == "full" else 3000)


if __name__ == "__main__":
    unittest.main()
