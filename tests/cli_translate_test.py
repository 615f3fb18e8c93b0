# SPDX-License-Identifier: Apache-2.0
"""multihead translate: what docs/learning.md shows, pages, and what is refused."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import cli_test

COMMAND = cli_test.COMMAND
TRAINED = cli_test.SOURCE / "trained"
PAGE = cli_test.SOURCE / "docs" / "learning.md"


@unittest.skipIf(COMMAND is None, "the command was not built: CLI11 or utf8proc is not installed")
class Translate(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="multihead_translate_")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.environment = {**cli_test.PLAIN, "MULTIHEAD_TRAINED": str(TRAINED)}

    def run_command(self, *arguments):
        return cli_test.run("translate", *arguments, folder=self.folder, environment=self.environment)

    def output(self, *arguments):
        outcome = self.run_command(*arguments)
        self.assertEqual((outcome.returncode, outcome.stderr), (0, ""))
        return re.search(r"^output  (.*)$", outcome.stdout, re.MULTILINE).group(1)

    def refused(self, sentence, *arguments, status=1):
        outcome = self.run_command(*arguments)
        self.assertEqual(outcome.returncode, status, outcome.stdout + outcome.stderr)
        self.assertRegex(outcome.stderr, sentence)
        self.assertEqual(outcome.stdout, "")

    def test_sentences(self):
        for english, french in (("The small cats sleep.", "les petits chats dorment"),
                                ("the tree is not green", "l'arbre n'est pas vert"),
                                ("an old bird sings", "un vieil oiseau chante"),
                                ("my bees will never work", "mes abeilles ne travailleront jamais")):
            for more in ([], ["--beam", "4"], ["--threads", "2"]):
                self.assertEqual(self.output(english, *more), french)
        self.assertEqual(self.output("--summarise", "the old men work outside because she is tired"),
                         "the old men work outside")

    def test_what_is_shown(self):
        shown = self.run_command("the small cats sleep").stdout
        self.assertEqual(re.findall(r"^(\w+ \d), head (\d)", shown, re.MULTILINE), [("cross 0", str(head)) for head in range(4)])
        shown = self.run_command("the small cats sleep", "--heads").stdout
        self.assertEqual(re.findall(r"^(\w+) \d, head \d", shown, re.MULTILINE), ["encoder"] * 4 + ["decoder"] * 4 + ["cross"] * 4)

    def test_pages(self):
        outcome = self.run_command("the small cats sleep", "--html", "heads.html")
        self.assertEqual((outcome.returncode, outcome.stderr), (0, ""))
        names = ["heads.html", "heads-decoder.html", "heads-cross.html"]
        self.assertEqual(outcome.stdout, "".join(f"html  {name}\n" for name in names))
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), sorted(names))
        self.assertIn("les petits chats dorment", (self.folder / "heads-cross.html").read_text(encoding="utf-8"))

    def test_refusals(self):
        self.refused(r"does not know the word 'elephants'; the nearest that it knows are \w+, \w+ and \w+", "two elephants sleep")
        self.refused(r"the text has 0 words", ".")
        self.refused(r"the text has 48 words; it must have 1 to 47", "cat " * 48)
        self.refused(r"--beam: '0' is not a whole number of at least 1", "the cat sleeps", "--beam", "0", status=2)
        self.refused(r"has learned noise; it must have learned translation", "the cat sleeps", "--model", TRAINED / "noise")
        self.refused(r"model\.safetensors", "the cat sleeps", "--model", self.folder)
        for arguments in ([], ["the cat sleeps", "the dog sleeps"]):
            self.assertEqual(self.run_command(*arguments).returncode, 2, arguments)

    def test_what_the_page_shows(self):
        text = PAGE.read_text(encoding="utf-8")
        blocks = re.findall(r"^```console\n\$ (multihead (?:translate|learned noise).*)\n((?:(?!```).*\n)*)```", text, re.MULTILINE)
        self.assertGreaterEqual(len(blocks), 3)
        for command, shown in blocks:
            with self.subTest(command=command):
                outcome = subprocess.run(
                    ["sh", "-euc", command], cwd=self.folder, capture_output=True, encoding="utf-8", check=False,
                    env={**os.environ, **self.environment, "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}",
                         "NO_COLOR": "1", "COLUMNS": "100"})
                printed = "".join(line.rstrip() + "\n" for line in (outcome.stdout + outcome.stderr).splitlines())
                pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in shown.splitlines())
                self.assertRegex(printed, rf"\A{pattern}\Z")


if __name__ == "__main__":
    unittest.main()
