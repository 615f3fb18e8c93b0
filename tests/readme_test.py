# SPDX-License-Identifier: Apache-2.0
"""The pages tell the truth: programs and command lines with an output below them are run, and the output compared.

A program is a ```cpp or ```c block with a main; a command line a ```sh block that begins with multihead. What they print stands in
the ```text block that follows.
"""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
PAGES = [SOURCE / "README.md", *sorted((SOURCE / "docs").glob("*.md"))]


def examples(page):
    """Each (line, language, source, output or None) of a page; output is the text block that follows, if one does."""
    text = page.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    for block, after in zip(blocks, [*blocks[1:], None]):
        language, source = block.groups()
        output = after.group(2) if after and after.group(1) == "text" else None
        yield text.count("\n", 0, block.start()) + 1, language, source, output


def lines(text):
    return [line.rstrip() for line in text.rstrip().splitlines()]


class Pages(unittest.TestCase):
    def run_in(self, folder, *arguments):
        path = f"{BUILD}{os.pathsep}{os.environ['PATH']}"
        outcome = subprocess.run(arguments, cwd=folder, env={**os.environ, "PATH": path, "NO_COLOR": "1"},
                                 capture_output=True, text=True, check=False)
        self.assertEqual(outcome.returncode, 0, outcome.stdout + outcome.stderr)
        return outcome.stdout

    def run_program(self, folder, source, language):
        compiler = {"cpp": ["g++", "-std=c++20", "-pthread"], "c": ["gcc", "-std=c99", "-pedantic"]}[language]
        library = {"cpp": "multihead", "c": "multihead_c"}[language]
        training = ["-lmultihead_train"] if "multi_head_training.hpp" in source else []
        (folder / f"program.{language}").write_text(source, encoding="utf-8")
        self.run_in(folder, *compiler, "-Wall", "-Wextra", "-Werror", f"-I{SOURCE / 'include'}", f"program.{language}",
                    "-o", "program", f"-L{BUILD}", *training, f"-l{library}", f"-Wl,-rpath,{BUILD}")
        return self.run_in(folder, "./program")

    def test_programs(self):
        count = 0
        for page in PAGES:
            for line, language, source, output in examples(page):
                if language in ("cpp", "c") and "int main" in source:
                    count += 1
                    with self.subTest(page=page.name, line=line), tempfile.TemporaryDirectory() as folder:
                        printed = self.run_program(pathlib.Path(folder), source, language)
                        self.assertIsNotNone(output, "the output is not shown")
                        self.assertEqual(lines(printed), lines(output))
        self.assertGreater(count, 0, "README.md shows no program")

    def test_command_lines(self):
        count = 0
        for page in PAGES:
            with tempfile.TemporaryDirectory() as folder:  # one a page: a command may read what an earlier one wrote
                for line, language, source, output in examples(page):
                    if language == "sh" and source.startswith("multihead ") and output is not None:
                        count += 1
                        with self.subTest(page=page.name, line=line):
                            self.assertEqual(lines(self.run_in(folder, "sh", "-euc", source)), lines(output))
        self.assertGreater(count, 0, "README.md shows no command line with its output")

    def test_links_lead_somewhere(self):
        for page in [*PAGES, SOURCE / "CONTRIBUTING.md"]:
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
                if not re.match(r"[a-z]+:", target):
                    with self.subTest(page=page.name, target=target):
                        self.assertTrue((page.parent / target).exists())


if __name__ == "__main__":
    unittest.main()
