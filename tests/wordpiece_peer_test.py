# SPDX-License-Identifier: Apache-2.0
"""WordPiece against Hugging Face tokenizers: ids, places and types of a hundred thousand texts and of each code point."""

import os
import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402

PYTHON = "/usr/bin/python3"
REQUIREMENTS = ["tokenizers==0.23.3"]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODEL = pathlib.Path(os.environ.get("MULTIHEAD_MODEL") or CACHE / "multihead" / "all-MiniLM-L6-v2")
SHARE = "quick" if os.environ.get("MULTIHEAD_TEST_SHARE") == "quick" else "full"


class Peer(unittest.TestCase):
    def compare(self, *model):
        """The number of texts of each comparison, by its name."""
        runner = compared.BUILD / "tests" / "tokens_runner"
        if not runner.exists():
            self.skipTest("tokens_runner is not built: it needs utf8proc")
        python = PYTHON if pathlib.Path(PYTHON).exists() else sys.executable
        interpreter, why = compared.environment("tokenizers", python, REQUIREMENTS, system_packages=False)
        if why:
            self.assertFalse(compared.CI, why)
            self.skipTest(why)
        script = compared.HERE / "wordpiece_cases.py"
        ran = subprocess.run([str(interpreter), "-B", str(script), str(runner), SHARE, *model], capture_output=True,
                             text=True, check=False)
        print(ran.stdout.strip())
        self.assertEqual(ran.returncode, 0, ran.stdout[-3000:] + ran.stderr[-3000:])
        self.assertNotIn("DIFFERS", ran.stdout)
        return {name: int(count) for name, count in re.findall(r"^compared (\S+): (\d+) texts", ran.stdout, re.MULTILINE)}

    def test_every_option_gives_the_same_tokens(self):
        counts = self.compare()
        self.assertEqual(len(counts), 2 + 24 + 5 + 1)
        self.assertGreater(min(counts["uncased"], counts["cased"]), 100000 if SHARE == "full" else 5000)

    def test_a_real_model_gives_the_same_tokens(self):
        if not (MODEL / "tokenizer.json").exists():
            self.skipTest(f"{MODEL} has no tokenizer.json; MULTIHEAD_MODEL names a folder that has")
        self.assertEqual(len(self.compare(str(MODEL))), 2)


if __name__ == "__main__":
    unittest.main()
