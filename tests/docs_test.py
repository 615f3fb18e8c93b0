# SPDX-License-Identifier: Apache-2.0
"""docs/chapter.md shows what the command and its C++ print, docs/heads.svg what its script draws; memory is linear.

A ```console block is a line with "$ " and a command, and below it what the command prints; a line "..." stands for lines
that are left out. The ```cpp blocks are one program, the first above main and the others inside; the ```text blocks, one
after the other, are what it prints.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
MISSING = "the command was not built: CLI11 is not installed"
CHAPTER = (SOURCE / "docs" / "chapter.md").read_text(encoding="utf-8")


def blocks(language):
    """(line, text) of each block of the chapter."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", CHAPTER, re.DOTALL | re.MULTILINE):
        yield CHAPTER.count("\n", 0, found.start()) + 1, found.group(1)


def run(*arguments, folder=None):
    settings = {key: value for key, value in os.environ.items() if key != "MULTIHEAD_TARGET"}
    settings.update(PATH=f"{BUILD}{os.pathsep}{settings['PATH']}", NO_COLOR="1")
    outcome = subprocess.run(arguments, cwd=folder, env=settings, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             check=False)
    if outcome.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, arguments))}\n{outcome.stdout}{outcome.stderr}")
    return outcome.stdout


def pattern_of(shown):
    """What matches the lines that are shown, with any lines where they say "..."."""
    lines = [r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"[ ]*\n" for line in shown.splitlines()]
    return "".join(lines)


class Chapter(unittest.TestCase):
    maxDiff = None

    @unittest.skipUnless((BUILD / "multihead").is_file(), MISSING)
    def test_commands(self):
        count = 0
        with tempfile.TemporaryDirectory() as folder:  # one for all: a command may read what an earlier one wrote
            for line, block in blocks("console"):
                self.assertTrue(block.startswith("$ "), f"line {line} shows no command")
                for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
                    count += 1
                    with self.subTest(line=line, command=command):
                        printed = run("sh", "-euc", command, folder=folder)
                        if not re.fullmatch(pattern_of(shown), printed):
                            self.assertEqual(printed, shown)
        self.assertGreater(count, 0)

    def test_the_pieces_of_cpp_are_one_program(self):
        (_, above), *inside = blocks("cpp")
        self.assertTrue(inside)
        text = above + "\nint main() {\n" + "".join(piece for _, piece in inside) + "}\n"
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "chapter.cpp").write_text(text, encoding="utf-8")
            run("g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", f"-I{SOURCE / 'include'}", "chapter.cpp", "-o", "chapter",
                f"-L{BUILD}", "-lmultihead", f"-Wl,-rpath,{BUILD}", "-pthread", folder=folder)
            self.assertEqual(run(folder / "chapter"), "".join(shown for _, shown in blocks("text")))

    def test_prose_uses_the_numbers_shown(self):
        shown = {number for language in ("console", "text") for _, block in blocks(language)
                 for number in re.findall(r"\d+\.\d{4}", block)}
        prose = re.sub(r"^```.*?^```$", "", CHAPTER, flags=re.DOTALL | re.MULTILINE)
        numbers = set(re.findall(r"\d+\.\d{4}", prose))
        self.assertTrue(numbers)
        self.assertEqual(sorted(numbers - shown), [])


@unittest.skipUnless((BUILD / "multihead").is_file(), MISSING)
class Memory(unittest.TestCase):
    def test_scratch_does_not_grow_beyond_a_megabyte_of_keys_and_values(self):
        def scratch(length, *more):
            plan = run("multihead", "explain", "--heads", "4", "--q-len", length, "--head-dim", "64", "--threads", "2", *more)
            return int(re.search(r"scratch +(\d+) bytes", plan).group(1))

        for more in ([], ["--causal", "square"], ["--type", "float64"], ["--type", "bfloat16"]):
            self.assertEqual(scratch("1048576", *more), scratch("16384", *more))
            self.assertLessEqual(scratch("256", *more), scratch("16384", *more))


class Picture(unittest.TestCase):
    svg = (SOURCE / "docs" / "heads.svg").read_text(encoding="utf-8")

    def test_the_script_draws_it(self):
        with tempfile.TemporaryDirectory() as folder:
            drawn = pathlib.Path(folder) / "heads.svg"
            run(sys.executable, "-B", SOURCE / "docs" / "make_heads_svg.py", drawn)
            self.assertEqual(drawn.read_text(encoding="utf-8"), self.svg, "docs/make_heads_svg.py draws it anew")

    @unittest.skipUnless((BUILD / "multihead").is_file(), MISSING)
    def test_its_numbers_are_the_commands(self):
        numbers = re.findall(r">(-?\d\.\d{4})<", self.svg)
        trace = run("multihead", "sample", "--trace")
        weights = [number for row in re.findall(r"query \d +([\d.]+) .*?  ([\d.]+) ", trace) for number in row]
        output = re.findall(r"-?\d+\.\d{4}", trace[trace.index("Output:"):])
        self.assertEqual(numbers, weights + output)


if __name__ == "__main__":
    unittest.main()
