#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds every configuration and runs every test. Nothing but the standard library.

  run_all.py [--build-root DIR] [--lanes N] [SUITE ...]      all suites unless some are named; --list shows them

Two lanes take jobs from one list: a build, or a suite whose build is there. Each job prints a line when it ends; the end
gives the reason of every skip, and the last line counts: N passed, N failed, N skipped.

Where CI is set to true and no suite is named, the release build's suites run, and of the other builds one turn of TURNS,
by the number of commits: all of them take longer than a run may.
"""

import argparse
import pathlib
import re
import sys
import threading
import time

from jobs import CI, LANES, SOURCE, Result, all_jobs, of_this_turn, share_processors


class Schedule:
    def __init__(self, jobs, logs):
        self.waiting = list(jobs)
        self.logs = logs
        self.by_name = {job.name: job for job in jobs}
        self.changed = threading.Condition()

    def ready(self, job):
        return all(self.by_name[name].result is not None for name in job.needs)

    def take(self):
        """The first job whose build is there, or None when all are taken."""
        with self.changed:
            while self.waiting:
                for job in self.waiting:
                    if self.ready(job):
                        self.waiting.remove(job)
                        return job
                self.changed.wait()
            return None

    def outcome(self, job):
        needed = [self.by_name[name] for name in job.needs]
        missing = job.missing or next((build.missing for build in needed if build.missing), "")
        if missing:
            return Result() if job.is_build else Result(skips=[f"{job.name}: {missing}"])
        for build in needed:
            if build.result.failures:
                return Result(failures=[f"{job.name} was not run: {build.name} failed"])
        log = self.logs / (re.sub(r"\W+", "_", job.name) + ".log")
        log.unlink(missing_ok=True)
        result = job.run(job, log)
        if not job.is_build and not (result.passed or result.failures or result.skips):
            result.failures.append(f"{job.name} ran no test")
        return result

    def lane(self):
        while job := self.take():
            start = time.monotonic()
            try:
                result = self.outcome(job)
            except Exception as error:  # a fault of this script is a failure, not the end of the lane
                result = Result(failures=[f"{job.name}: {type(error).__name__}: {error}"])
            with self.changed:
                job.seconds = time.monotonic() - start
                job.result = result
                report(job)
                self.changed.notify_all()

    def run(self, count):
        lanes = [threading.Thread(target=self.lane) for _ in range(count)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()


def report(job):
    for failure in job.result.failures:
        print(f"---- failed: {failure}\n----")
    if job.is_build:
        text = "failed" if job.result.failures else job.missing or "built"
    else:
        text = job.result.line()
    print(f"{job.name:<28} {job.seconds:6.1f} s   {text}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Builds every configuration and runs every test.")
    parser.add_argument("--build-root", type=pathlib.Path, default=SOURCE / "build" / "test")
    parser.add_argument("--lanes", type=int, default=LANES, help="jobs at a time (%(default)s)")
    parser.add_argument("--list", action="store_true", help="show the suites")
    parser.add_argument("suites", nargs="*")
    arguments = parser.parse_args()
    root = arguments.build_root.resolve()
    jobs = all_jobs(root)
    suites = [job for job in jobs if not job.is_build]
    if arguments.list:
        return print("\n".join(job.name for job in suites))
    if CI and not arguments.suites:
        jobs = of_this_turn(jobs)
    if arguments.suites:
        wanted = [job for job in suites if {job.name, job.name.split(":")[0]} & set(arguments.suites)]
        unknown = set(arguments.suites) - {part for job in wanted for part in (job.name, job.name.split(":")[0])}
        if unknown:
            parser.error(f"no suite is named {', '.join(sorted(unknown))}; --list shows them")
        needed = {job.name for job in wanted} | {name for job in wanted for name in job.needs}
        jobs = [job for job in jobs if job.name in needed]
    share_processors(jobs, arguments.lanes)
    logs = root / "log"
    logs.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    Schedule(jobs, logs).run(arguments.lanes)
    print(f"{'all':<28} {time.monotonic() - start:6.1f} s")

    reasons = {}
    for job in jobs:
        for skip in job.result.skips:
            reasons.setdefault(skip, []).append(job.name)
    if reasons:
        print("\nSkipped:")
    for reason, names in reasons.items():
        print(f"  {len(names)} x {reason}   ({', '.join(sorted(set(names)))})")
    total = Result(sum(job.result.passed for job in jobs), [text for job in jobs for text in job.result.failures],
                   [text for job in jobs for text in job.result.skips])
    print(f"\n{total.line()}")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
