# SPDX-License-Identifier: Apache-2.0
"""The shipped language model from a shell: what docs/learning.md shows of it, and the same text from learned and generate."""

import os
import re
import subprocess
import unittest

import cli_test

COMMAND = cli_test.COMMAND
PAGE = cli_test.SOURCE / "docs" / "learning.md"
FOLDER = "trained/language"


@unittest.skipIf(COMMAND is None, "the command was not built: CLI11 or utf8proc is not installed")
class Language(unittest.TestCase):
    maxDiff = None

    def succeed(self, *arguments):
        outcome = cli_test.run(*arguments, folder=cli_test.SOURCE, environment=cli_test.PLAIN)
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        return outcome.stdout

    def test_what_the_page_shows(self):
        text = PAGE.read_text(encoding="utf-8")
        blocks = re.findall(r"^```console\n((?:(?!```).*\n)*)```", text, re.MULTILINE)
        count = 0
        for command, shown in re.findall(r"^\$ (multihead generate .*)\n((?:(?!\$ ).*\n)*)", "".join(blocks), re.MULTILINE):
            count += 1
            with self.subTest(command=command):
                outcome = subprocess.run(
                    ["sh", "-euc", command], cwd=cli_test.SOURCE, capture_output=True, encoding="utf-8", check=False,
                    env={**os.environ, **cli_test.PLAIN, "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"})
                self.assertEqual(outcome.stdout, shown, outcome.stderr)
        self.assertGreaterEqual(count, 2)

    def test_generate_says_what_learned_shows(self):
        for prompt in ("The old farmer", "Once there was a", "Paul"):
            rest = self.succeed("generate", FOLDER, prompt)
            self.assertIn(f"\noutput  {prompt}{rest}", self.succeed("learned", "--model", FOLDER, "language", prompt))

    def test_a_training_writes_such_a_folder(self):
        files = {path.name for path in (cli_test.SOURCE / FOLDER).iterdir()}
        self.assertLessEqual({"config.json", "generation_config.json", "tokenizer.json", "model.safetensors", "command.txt"},
                             files)
        for name in files:
            self.assertLess((cli_test.SOURCE / FOLDER / name).stat().st_size, 2_000_000, name)
        self.assertIn("language", self.succeed("train", "--help"))

    def test_other_tasks_are_no_decoders(self):
        outcome = cli_test.run("generate", "trained/grammar", "The old farmer", folder=cli_test.SOURCE,
                               environment=cli_test.PLAIN)
        self.assertEqual(outcome.returncode, 1)
        self.assertRegex(outcome.stderr, r"config\.json")
        for text, sentence in (("caf\u00e9", "letters, full stops and commas"), ("x" * 300, "tokens; it may have 128")):
            outcome = cli_test.run("learned", "--model", FOLDER, "language", text, folder=cli_test.SOURCE,
                                   environment=cli_test.PLAIN)
            self.assertEqual((outcome.returncode, outcome.stdout), (1, ""))
            self.assertIn(sentence, outcome.stderr)


if __name__ == "__main__":
    unittest.main()
