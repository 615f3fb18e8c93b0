# SPDX-License-Identifier: Apache-2.0
"""clang-tidy, with the rules of .clang-tidy, over the library's source files outside the kernels' regions."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import unittest

import jobs

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()


class Tidy(unittest.TestCase):
    def test_sources(self):
        if not shutil.which("clang-tidy"):
            self.skipTest("clang-tidy is not installed")
        commands = json.loads((BUILD / "compile_commands.json").read_text(encoding="utf-8"))
        compiled = {command["file"] for command in commands}  # the others stand in for what is at hand here
        sources = [path for room in ("src", "bindings") for path in sorted((SOURCE / room).rglob("*.cpp"))
                   if not path.name.startswith("target_") and str(path) in compiled]
        sources = jobs.third(sources)
        self.assertTrue(sources)

        def tidied(path):  # the build may be g++'s, with warnings that clang has not
            return subprocess.run(["clang-tidy", "--quiet", "--extra-arg=-Wno-unknown-warning-option", "-p", BUILD, path],
                                  capture_output=True, text=True, check=False)

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for path, outcome in zip(sources, pool.map(tidied, sources)):
                with self.subTest(file=str(path.relative_to(SOURCE))):
                    self.assertEqual(outcome.returncode, 0, outcome.stdout)


if __name__ == "__main__":
    unittest.main()
