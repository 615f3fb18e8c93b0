# SPDX-License-Identifier: Apache-2.0
"""docs/multihead.1 says what the command's --help says, subcommand by subcommand; its examples run, its markup is clean."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import cli_test
import tiny_encoder

SOURCE = pathlib.Path(__file__).resolve().parent.parent
PAGE = SOURCE / "docs" / "multihead.1"
COMMON = {"--threads": True, "--target": True, "--version": False}  # and whether a value follows


def sections(text):
    """{title: text} of the page, .SS below .SH alike, without the marks of fonts and hyphens."""
    plain = re.sub(r"\\f[BIR]", "", text).replace("\\-", "-").replace("\\e", "\\")
    pieces = re.split(r"^\.S[HS] (.*)$", plain, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2]))


def options_of_page(section):
    """{option: whether a value follows} of the tagged paragraphs."""
    tags = re.findall(r"^\.TP\n(?:\.BR? )?(.*)$", section, re.MULTILINE)
    return {option: bool(value) for tag in tags for option, value in re.findall(r"(--[a-z-]+)(?: ([A-Z0]))?", tag)}


def options_of_help(text):
    text = text.partition("Subcommands:")[0].partition("Also --")[0].partition("Options:")[2]
    return {option: bool(value) for option, value in re.findall(r"^  (--[a-z-]+)(?: ([A-Z]+)\b)?", text, re.MULTILINE)}


class Markup(unittest.TestCase):
    text = PAGE.read_text(encoding="utf-8")

    def test_the_version(self):
        header = (SOURCE / "include" / "multihead" / "multihead.hpp").read_text(encoding="utf-8")
        version = ".".join(re.findall(r"define MULTIHEAD_VERSION_\w+ (\d+)", header))
        self.assertIn(f'"multihead {version}"', self.text.splitlines()[1])

    def clean(self, *arguments, **more):
        if not shutil.which(arguments[0]):
            self.skipTest(f"{arguments[0]} is not installed")
        outcome = subprocess.run([*arguments, PAGE], capture_output=True, text=True, check=False, **more)
        self.assertEqual((outcome.returncode, outcome.stderr), (0, ""), outcome.stdout)
        return outcome.stdout

    def test_mandoc(self):
        self.assertEqual(self.clean("mandoc", "-Tlint"), "")
        self.assertIn("MULTIHEAD(1)", self.clean("mandoc", "-Tascii"))


@unittest.skipIf(cli_test.COMMAND is None, "the command was not built: CLI11 or utf8proc is not installed")
class Content(unittest.TestCase):
    page = sections(PAGE.read_text(encoding="utf-8"))

    def test_common_options(self):
        self.assertEqual(options_of_help(cli_test.run("--help").stdout), COMMON)
        self.assertEqual(options_of_page(self.page["COMMON OPTIONS"]), {**COMMON, "--help": False})

    def test_subcommands_and_their_options(self):
        overview = cli_test.run("--help").stdout.partition("Subcommands:")[2].partition("\n\n")[0]
        names = re.findall(r"^  ([a-z]+) ", overview, re.MULTILINE)
        self.assertEqual([title for title in self.page if title.islower()], names)
        for name in names:
            with self.subTest(subcommand=name):
                helped = options_of_help(cli_test.run(name, "--help").stdout)
                self.assertTrue(helped or name == "info")
                self.assertEqual(options_of_page(self.page[name]), helped)

    def test_defaults(self):
        """A default that the help names stands in the page."""
        for name in [title for title in self.page if title.islower()]:
            helped = cli_test.run(name, "--help").stdout
            for option, default in re.findall(r"^  (--[a-z-]+) [A-Z]+=(\w+)", helped, re.MULTILINE):
                with self.subTest(subcommand=name, option=option):
                    said = re.search(rf"^{option} .*\n((?:(?!\.).*\n)*)", self.page[name], re.MULTILINE).group(1)
                    self.assertTrue(default in said or "As above" in said, said)

    def test_examples(self):
        text = self.page["EXAMPLES"].replace(".nf\n", "").replace(".fi\n", "").strip()
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "model").mkdir()
            tiny_encoder.write(folder / "model")
            settings = {**os.environ, "MULTIHEAD_MODEL": str(folder / "model"), "TERM": "dumb",
                        "PATH": f"{cli_test.COMMAND.parent}{os.pathsep}{os.environ['PATH']}"}
            for line in text.replace("\\\n", "").splitlines():
                with self.subTest(example=line):
                    self.assertTrue(line.startswith("multihead "))
                    outcome = subprocess.run(["sh", "-euc", line], cwd=folder, env=settings, capture_output=True, text=True,
                                             check=False)
                    self.assertEqual((outcome.returncode, outcome.stderr), (0, ""), outcome.stdout)
                    self.assertTrue(outcome.stdout or "--save" in line or "--out" in line)


if __name__ == "__main__":
    unittest.main()
