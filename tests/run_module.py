# SPDX-License-Identifier: Apache-2.0
"""Runs one module of unittest for run_all.py, in a process of its own, and writes what came of it: MODULE REPORT."""

import json
import pathlib
import sys
import unittest


def run_module(path, report):
    suite = unittest.defaultTestLoader.discover(str(path.parent), pattern=path.name)
    outcome = unittest.TextTestRunner(verbosity=2).run(suite)
    failures = [f"{test.id()}\n{text}" for test, text in outcome.failures + outcome.errors]
    failures += [f"{test.id()} was expected to fail" for test in outcome.unexpectedSuccesses]
    failed = {getattr(test, "test_case", test).id() for test, _ in outcome.failures + outcome.errors}
    skips = [reason for _, reason in outcome.skipped]
    skipped = {getattr(test, "test_case", test).id() for test, _ in outcome.skipped}
    passed = max(0, outcome.testsRun - len(failed | skipped) - len(outcome.unexpectedSuccesses))
    report.write_text(json.dumps({"passed": passed, "failures": failures, "skips": skips}), encoding="utf-8")


if __name__ == "__main__":
    run_module(*map(pathlib.Path, sys.argv[1:]))
