#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""This library beside PyTorch, ONNX Runtime, OpenVINO and NumPy: same problems, in turns, answers compared first.

  compare.py [--quick] [--rows REGEX] [--threads N ...] [--rounds N] [--build DIR] [--output DIR] [--name NAME]
  compare.py --list | --prepare

One command does all of it: it brings the peers from PyPI into an environment in the cache, builds this library as users
do (Release, in build/compare), measures the ceilings of the core, runs every row with one thread and with two, and writes
NAME.md, NAME.json and two plots, all in docs/performance unless --output says otherwise. Minutes: 3 with --quick, up to
60 without. It ends with status 1 if an answer differs by more than its row allows.

What is fair: each contestant is a process of its own and has its operands in its own layout and type, its constant
weights packed, and masks and caches in the form that suits it, before anything is timed. Ours writes into an output that is there
already, as ONNX Runtime's and OpenVINO's bound outputs are; PyTorch's calls have no such thing. Turns are 0.1 s of calls,
in alternating order; a rate is the median of the turns, a ratio the median of the turns' ratios. Times of one thread are
those of the processor, all of a process, since others may be at work beside it; of two threads those on the clock, for
which the machine should have nothing else to do.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import environment  # noqa: E402
import limits  # noqa: E402
import peers  # noqa: E402
import problems  # noqa: E402
import report  # noqa: E402

SOURCE = environment.SOURCE
OURS, OTHERS = "multihead", ["PyTorch", "ONNX-Runtime", "OpenVINO", "NumPy"]
TURN_SECONDS = 0.1   # of calls in a turn, more where one call takes longer
ROW_SECONDS = 2.5    # of turns of one contestant, after which a row has no further round
LEAST_ROUNDS = 3
REST_SECONDS = 0.02  # before a turn: a peer's threads spin a while after their last call


class Process:
    """A contestant that answers lines: see main.cpp."""

    def __init__(self, command, settings=None):
        self.command = [str(word) for word in command]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **(settings or {})})

    def ask(self, *words):
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline().strip()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"{' '.join(self.command)} ended without an answer to: {' '.join(map(str, words))}")
        return answer

    def prepare(self, problem, folder, name):
        answer = self.ask("prepare", folder, name, *problem.words())
        return "" if answer == "ready" else answer.removeprefix("cannot ")

    def run(self, repeats):
        return float(self.ask("run", repeats))

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """multihead: kernels through a program, the small sample through Python, encoders through their own program."""

    def __init__(self, build, threads, folder):
        self.build, self.threads, self.folder = build, threads, folder
        self.program = Process([build / "multihead_compare_bench", threads])
        self.python = peer_process(OURS, build, threads)
        self.encoders, self.run = {}, self.program.run  # by what they multiply

    def prepare(self, problem, folder, name):
        if problem.kind == "encoder":
            return self.prepare_encoder(folder, name, problem.type)
        process = self.python if problem.kind == "sample" and not problem.caller else self.program
        self.run = process.run
        return process.prepare(problem, folder, name)

    def prepare_encoder(self, folder, name, products):
        import numpy
        program, model = self.build / "multihead_encoder_bench", environment.CACHE / "all-MiniLM-L6-v2"
        if not program.exists() or not model.is_dir():
            return "utf8proc or the model is missing (.ci/fetch-model brings the latter)"
        if products not in self.encoders:
            self.encoders[products] = peers.sibling("encoder").Ours(program, model, self.threads, self.folder, products)
        encoder, ids = self.encoders[products], numpy.load(folder / "ids.npy")
        numpy.save(folder / f"{name}.npy", encoder.output(ids).reshape(-1))
        self.run = lambda repeats: encoder.run(ids, repeats, processor=self.threads == 1)
        return ""

    def rates(self, names):
        """Of ceilings, now, all threads together."""
        return [float(word) for word in self.program.ask("rates", *names).split()] if names else []

    def end(self):
        self.program.end(), self.python.end()
        for encoder in self.encoders.values():
            encoder.process.stdin.close()
            encoder.process.wait()


def peer_process(name, build, threads):
    settings = {"PYTHONPATH": str(build / "python"), "OMP_NUM_THREADS": str(threads)}
    return Process([sys.executable, "-B", pathlib.Path(peers.__file__), name, threads], settings)


def build_ours(build):
    """Release, with the programs and the Python module that are run here."""
    commands = [["cmake", "-S", SOURCE, "--preset", "release", "-B", build, "-DMULTIHEAD_BENCH=ON", "-DMULTIHEAD_TESTS=OFF",
                 "-DMULTIHEAD_PYTHON=ON", f"-DPython_EXECUTABLE={sys.executable}"],
                ["cmake", "--build", build, "--target", "multihead_bench", "multihead_compare_bench", "_core"]]
    for command in commands:
        subprocess.run([str(word) for word in command], cwd=SOURCE, check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", str(build), "--target", "multihead_encoder_bench"], check=False, stdout=sys.stderr)


def ceilings_of(build):
    """Name to rate, and the target, from the benchmark's own rows."""
    ran = subprocess.run([build / "multihead_bench", "--benchmark_filter=^ceiling/", "--benchmark_format=json"],
                         capture_output=True, text=True, check=True)
    rows = json.loads(ran.stdout)
    found = {row["name"].split("/")[1]: row for row in rows["benchmarks"]}
    ceilings = {name: {key: row[key] for key in (*report.UNITS, "bytes") if key in row} for name, row in found.items()}
    return ceilings, rows["context"]["target"]


def difference(ours, theirs):
    """The largest, as a share of our largest value; infinite where an answer is not finite."""
    import numpy
    if ours.shape != theirs.shape or not numpy.isfinite(theirs).all():
        return float("inf")
    return float(abs(ours - theirs).max() / abs(ours).max())


def prepare_all(problem, contestants, folder):
    """Name to what it answers, or why it cannot; differences from ours."""
    import numpy
    for name, array in problem.arrays().items():
        numpy.save(folder / f"{name}.npy", array)
    (folder / "results").mkdir()
    answers, lacks = {}, {}
    for name, contestant in contestants.items():
        place = f"results/{name}-{problem.name}"
        lack = contestant.prepare(problem, folder, place)
        if lack:
            lacks[name] = lack
        else:
            answers[name] = numpy.load(folder / f"{place}.npy").astype(numpy.float64)
    differences = {name: difference(answers[OURS], answer) for name, answer in answers.items() if OURS in answers}
    return list(answers), lacks, differences


def timed(names, contestants, rounds, ceilings):
    """Name to the seconds of one call in each round, and name to the rate of a ceiling in each; the order turns round."""
    repeats = {name: max(1, round(TURN_SECONDS / contestants[name].run(1))) for name in names}
    seconds, rates, spent = {name: [] for name in names}, {name: [] for name in ceilings}, 0.0
    for turn in range(rounds):
        if turn >= LEAST_ROUNDS and spent > ROW_SECONDS * len(names):
            break
        for name in names if turn % 2 == 0 else names[::-1]:
            time.sleep(REST_SECONDS)
            seconds[name].append(contestants[name].run(repeats[name]))
            spent += seconds[name][-1] * repeats[name]
        for name, rate in zip(ceilings, contestants[OURS].rates(ceilings)):
            rates[name].append(float(f"{rate:.5g}"))
    return seconds, rates


def row_of(problem, threads, times, lacks, differences):
    """What is reported of a problem; times: what timed() gives."""
    seconds, ceilings = times
    row = {"name": problem.name, "title": problem.title, "kind": problem.kind, "type": problem.type, "threads": threads,
           "unit": problem.unit, "work": problem.work, "tolerance": problem.tolerance, "none": lacks, "contestants": {}, "ceilings": ceilings}
    scale = 1e-9 if problem.unit in ("GFLOP/s", "GB/s") else 1.0
    for name, each in seconds.items():
        rates = sorted(problem.work * scale / one for one in each)
        quarter = len(rates) // 4
        row["contestants"][name] = {
            "rate": statistics.median(rates), "quartiles": [rates[quarter], rates[-1 - quarter]], "seconds": [float(f"{one:.5g}") for one in each],
            "difference": differences.get(name)}
    sound = [name for name in seconds if name != OURS and differences.get(name, 0) <= problem.tolerance]
    row["differing"] = [name for name in differences if name != OURS and name not in sound]
    if OURS in seconds and sound:
        row["fastest_peer"] = min(sound, key=lambda name: statistics.median(seconds[name]))
        row["ratio"] = statistics.median(theirs / ours for theirs, ours in zip(seconds[row["fastest_peer"]], seconds[OURS]))
    if problem.kind == "product" and problem.rows < 16:
        row["weight_bytes"] = problem.weight_bytes
    if problem.kind == "decode":
        row["cache_bytes"], row["flops"] = problem.cache_bytes, problem.flops
    return row


def line_of(row):
    rates = "  ".join(f"{name} {found['rate']:.4g}" for name, found in row["contestants"].items())
    ratio = f"  {row['ratio']:.2f} times {row['fastest_peer']}" if "ratio" in row else ""
    differing = f"  DIFFERS: {', '.join(row['differing'])}" if row["differing"] else ""
    return f"{row['threads']} {row['name']:<44} {row['unit']}: {rates}{ratio}{differing}"


def compare(chosen, threads, rounds, build, found):
    """Rows of so many threads; found: what is known of the machine and its ceilings."""
    rows = []
    with tempfile.TemporaryDirectory() as root:
        folder = pathlib.Path(root)
        contestants = {OURS: Ours(build, threads, folder)}
        contestants.update({name: peer_process(name, build, threads) for name in OTHERS})
        for index, problem in enumerate(chosen):
            place = folder / str(index)
            place.mkdir()
            names, lacks, differences = prepare_all(problem, contestants, place)
            bounds = limits.names(problem, found["machine"]["target"], found["ceilings"], threads)
            rows.append(row_of(problem, threads, timed(names, contestants, rounds, bounds), lacks, differences))
            print(line_of(rows[-1]), file=sys.stderr, flush=True)
        for contestant in contestants.values():
            contestant.end()
    return rows


def arguments_of():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rows of each kind, three rounds")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only rows whose names match; --list shows them")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, help="of each row; 3 with --quick, else 7")
    parser.add_argument("--build", type=pathlib.Path, default=SOURCE / "build" / "compare")
    parser.add_argument("--output", type=pathlib.Path, default=SOURCE / "docs" / "performance")
    parser.add_argument("--name", help="of the files; the processor's name and the target unless given")
    parser.add_argument("--list", action="store_true", help="the names of the rows")
    parser.add_argument("--prepare", action="store_true", help="bring the peers, build, and measure nothing")
    return parser.parse_args()


def main():
    arguments = arguments_of()
    chosen = [problem for problem in problems.rows(arguments.quick) if re.search(arguments.rows, problem.name)]
    if arguments.list:
        print("\n".join(problem.name for problem in chosen))
        return 0
    environment.enter()
    build, rounds = arguments.build.resolve(), arguments.rounds or (3 if arguments.quick else 7)
    build_ours(build)
    if arguments.prepare:
        return 0
    ceilings, target = ceilings_of(build)
    found = {"machine": report.machine(target), "ceilings": ceilings, "rounds": rounds,
             "command": " ".join(["bench/compare/compare.py", *sys.argv[1:]]), "rows": []}
    for threads in arguments.threads:
        # The sample is too small to share out.
        of_these = [p for p in chosen if threads == 1 or p.kind != "sample"]
        found["rows"] += compare(of_these, threads, rounds, build, found)
    found["ceilings_after"], _ = ceilings_of(build)
    report.write(found, arguments.output, arguments.name or report.name_of(found["machine"]))
    return 1 if any(row["differing"] for row in found["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
