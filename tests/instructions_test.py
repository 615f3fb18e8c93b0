# SPDX-License-Identifier: Apache-2.0
"""A slower kernel shows without a clock: instructions of fixed problems, as valgrind counts them, beside those recorded.

instructions.json holds them by compiler, target and problem; instructions may move by 2 %, operations and bytes not at all.
A change that means to move them records anew: MULTIHEAD_BUILD=build/release python3 tests/instructions_test.py --record
"""

import concurrent.futures
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
RECORD = HERE / "instructions.json"
TARGETS = ["avx2", "baseline"]  # valgrind knows no AVX-512
ALLOWED = 0.02
AGAIN = "MULTIHEAD_BUILD=build/release python3 tests/instructions_test.py --record"


def runner():
    return next((path for path in (BUILD / "tests" / "instructions_runner", BUILD / "instructions_runner") if path.exists()),
                None)


def compiler():
    """Its first line about itself, and how the build optimises: "g++ (Debian 12.2.0-14) 12.2.0, Release"."""
    cache = (BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    value = lambda name: re.search(rf"^{name}:\w+=(.*)$", cache, re.MULTILINE).group(1)  # noqa: E731
    said = subprocess.run([value("CMAKE_CXX_COMPILER"), "--version"], capture_output=True, text=True, check=True).stdout
    return f"{said.splitlines()[0].replace('c++ ', 'g++ ', 1)}, {value('CMAKE_BUILD_TYPE')}"


def why_not():
    if platform.machine() != "x86_64":
        return "instructions are recorded for x86-64"
    if not shutil.which("valgrind"):
        return "valgrind is not installed"
    flags = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if not re.search(r"^flags.* avx2\b", flags, re.MULTILINE):
        return "this processor has no AVX2"
    return ""


def count(target, problem):
    """Operations, bytes and instructions of one call."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "counts"
        ran = subprocess.run(["valgrind", "--tool=callgrind", "--toggle-collect=counted_call",
                              f"--callgrind-out-file={out}", runner(), target, problem],
                             capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise AssertionError(f"{target} {problem}: {ran.stderr[-2000:]}")
        counts = json.loads(ran.stdout)
        counts["instructions"] = int(re.search(r"^totals: (\d+)$", out.read_text(encoding="utf-8"), re.MULTILINE).group(1))
        return counts


def count_all():
    problems = subprocess.run([runner()], capture_output=True, text=True, check=True).stdout.split()
    cases = [(target, problem) for target in TARGETS for problem in problems]
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        counted = pool.map(lambda case: count(*case), cases)
        return {f"{target} {problem}": counts for (target, problem), counts in zip(cases, counted)}


class Instructions(unittest.TestCase):
    def setUp(self):
        if lack := why_not():
            self.skipTest(lack)
        self.recorded = json.loads(RECORD.read_text(encoding="utf-8"))
        if compiler() not in self.recorded:
            self.skipTest(f"nothing is recorded of {compiler()}")

    def test_as_recorded(self):
        recorded, counted = self.recorded[compiler()], count_all()
        self.assertEqual(sorted(counted), sorted(recorded), f"record anew: {AGAIN}")
        for name, counts in counted.items():
            with self.subTest(problem=name):
                for exact in ("flops", "bytes"):
                    self.assertEqual(counts[exact], recorded[name][exact], f"{exact}; if that is meant: {AGAIN}")
                moved = counts["instructions"] / recorded[name]["instructions"] - 1
                self.assertLessEqual(abs(moved), ALLOWED, f"{counts['instructions']:,} instructions, "
                                     f"{recorded[name]['instructions']:,} recorded: {moved:+.1%}; if that is meant: {AGAIN}")
                self.assertGreater(counts["instructions"], counts["flops"] / 64, "the call was not counted")


def record():
    """What this build does, beside what other compilers' do."""
    recorded = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    recorded[compiler()] = count_all()
    RECORD.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{RECORD}: {compiler()}")


if __name__ == "__main__":
    if "--record" in sys.argv:
        sys.exit(why_not() or record())
    unittest.main()
