# SPDX-License-Identifier: Apache-2.0
"""Each example in C compiles without a warning as C99 and as C++, and prints what the example in C++ of its name prints."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
STRICT = ["-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{SOURCE / 'include'}"]


def output(*arguments):
    outcome = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, arguments))}\n{outcome.stdout}{outcome.stderr}")
    return outcome.stdout


class Examples(unittest.TestCase):
    def check(self, compiler, *language):
        if not shutil.which(compiler):
            self.skipTest(f"{compiler} is not installed")
        sources = sorted((SOURCE / "examples").glob("*.c"))
        self.assertTrue(sources)
        for source in sources:
            with self.subTest(source=source.name), tempfile.TemporaryDirectory() as folder:
                program = pathlib.Path(folder) / "program"
                output(compiler, *language, *STRICT, source, "-x", "none", "-o", program, f"-L{BUILD}", "-lmultihead_c",
                       f"-Wl,-rpath,{BUILD}")
                self.assertEqual(output(program), output(BUILD / "tests" / f"example_{source.stem}"))

    def test_as_c99_by_gcc(self):
        self.check("gcc", "-std=c99", "-x", "c")

    def test_as_c99_by_clang(self):
        self.check("clang", "-std=c99", "-x", "c")

    def test_as_cpp11_by_gcc(self):
        self.check("g++", "-std=c++11", "-x", "c++")

    def test_as_cpp20_by_clang(self):
        self.check("clang++", "-std=c++20", "-x", "c++")


if __name__ == "__main__":
    unittest.main()
