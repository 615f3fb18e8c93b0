# SPDX-License-Identifier: Apache-2.0
"""What run_all.py runs: every build and suite as a Job, and which of them a run of CI takes."""

import dataclasses
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

TESTS = pathlib.Path(__file__).resolve().parent
SOURCE = TESTS.parent
LANES = 2  # unless --lanes
SUITE_SECONDS, BUILD_SECONDS = 900, 2400  # nothing healthy takes as long
THREADED = "*Thread*:*Parallel*:*Bits*"
# Emulated targets: what kernels can get wrong.
KERNELS = ("-MiniLM*:*Encoder*:WordPiece*:Json*:*Safetensors*:Npy*:Page*:Train*:Transformer*:Decode*:Checkpoint*"
           ":*.ReferenceIsTheDefinition")
# Under an emulator without: the reference against itself, which no target touches, trained models, and what the emulator
# cannot do. The x86-64 one, slow with the judge's long double, leaves the lengths to the random problems.
EMULATED = "-*.ReferenceIsTheDefinition:*.OneThreadCreatesNone:*.ForkIsSurvived:*Shipped*:WordTasks*"
# Emulators and sanitizers are slow: a run has a share of the tests there, the next turn the next one (of the
# address sanitizer a share of their files, since compiling them takes longer than running them). The
# emulated processor without AVX is there for what is dispatched and for the baseline, which every run here tests too.
NEHALEM_SHARDS, ARM64_SHARDS, TSAN_SHARDS, ASAN_PARTS = 8, 3, 2, 2
# What CI does beside the release build, a line a commit: none is more work than that build and its suites.
TURNS = [["asan", "onnx:asan"],
         ["clang", "fuzz", "c_abi_test:clang", "disassembly_test:clang", "packaging_test:clang"],
         ["arm64", "onnx:arm64", "arm64_command_test"],
         ["tsan"],
         ["deb_test", "reproducible_test", "mingw_test"],
         ["emulated", "nehalem", "onnx:nehalem"]]
# Comparisons with others' packages that are long and whose subject changes seldom: a line a commit.
PEERS = [["keras_flax_layer_test"], ["wordpiece_peer_test"], ["byte_pair_peer_test", "bleu_peer_test"]]
NEHALEM_SHARE = f"nehalem: {NEHALEM_SHARDS - 1} of {NEHALEM_SHARDS} tests, which run on the same target without an emulator"
ARM64_SHARE = f"arm64: {ARM64_SHARDS - 1} of {ARM64_SHARDS} tests, which the next turns run"
TSAN_SHARE = f"tsan: {TSAN_SHARDS - 1} of {TSAN_SHARDS} tests, which the next turns run"
ASAN_SHARE = f"asan: {ASAN_PARTS - 1} of {ASAN_PARTS} files of tests, which the next turns build and run"
EMULATOR_LACKS = ["OneThreadCreatesNone: qemu-user has threads of its own",
                  "ForkIsSurvived: qemu-user does not carry its threads through a fork"]
CI = os.environ.get("CI") == "true"
FUZZ_SECONDS = 12 if CI else 20
# The Python package is compiled of the release build's sources with its flags: what that build keeps is taken up there.
CACHE = {"CCACHE_NOHASHDIR": "1", "CCACHE_SLOPPINESS": "pch_defines,time_macros"}
# Compilers that are promised to build without a warning; a newer one may warn without failing the tests.
QUIET_COMPILERS = {"g++": "12", "clang++": "14", "aarch64-linux-gnu-g++": "12",
                   "x86_64-w64-mingw32-g++-posix": "12"}
# Modules of Python checks look at the first of these builds, but those that look at what a build made, and so look at
# each, and those with a build of their own.
LIBRARY_BUILDS = ["release", "clang"]
ON_EVERY_BUILD = {"c_abi_test", "disassembly_test", "packaging_test"}
LONG_CHECKS = {"mutation_test", "python_face_test", "torch_face_test", "transformers_face_test"}
OWN_BUILDS = {"deb_test": ["deb"], "reproducible_test": ["deb", "release"], "mingw_test": ["mingw"],
              "arm64_command_test": ["arm64"]}
COUNTED = subprocess.run(["git", "rev-list", "--count", "HEAD"], cwd=SOURCE, capture_output=True, text=True, check=False)
COMMITS = int(COUNTED.stdout) if COUNTED.returncode == 0 else 0
ROUND, TURN = divmod(COMMITS, len(TURNS))
NO_NETWORK = next((prefix for prefix in (["unshare", "-n"], ["unshare", "-rn"]) if shutil.which("unshare") and
                   subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0), [])


@dataclasses.dataclass
class Result:
    passed: int = 0
    failures: list = dataclasses.field(default_factory=list)  # one text each
    skips: list = dataclasses.field(default_factory=list)  # one reason each

    def line(self):
        return f"{self.passed} passed, {len(self.failures)} failed, {len(self.skips)} skipped"


@dataclasses.dataclass
class Job:
    name: str
    run: object  # Job, log path -> Result
    needs: tuple = ()  # the names of builds
    missing: str = ""  # why it cannot run here
    is_build: bool = False
    processes: int = 1  # of a build
    result: Result = None
    seconds: float = 0


def command(job, log, arguments, **environment):
    """Runs one command; its output goes to the log. Returns its exit status."""
    settings = {key: value for key, value in os.environ.items() if not key.startswith("MULTIHEAD_")}
    settings.update(PYTHONDONTWRITEBYTECODE="1", **CACHE, **environment)
    seconds = BUILD_SECONDS if job.is_build else SUITE_SECONDS
    with open(log, "a", encoding="utf-8") as out:
        out.write("$ " + " ".join(map(str, arguments)) + "\n")
        out.flush()
        try:
            return subprocess.run(
                arguments, cwd=SOURCE, env=settings, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, timeout=seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            out.write(f"\n{job.name}: no end after {seconds} s\n")
            return -1


def tail(log, lines=40):
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def fixed_addresses():
    """Sanitizers of today's distributions do not know the address layouts of all newer kernels."""
    prefix = ["setarch", "-R"]
    works = shutil.which("setarch") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    return prefix if works else []


# Builds ---------------------------------------------------------------------------------------------------------------

def built(job, log, steps, **environment):
    for step in steps:
        if command(job, log, step, **environment) != 0:
            return Result(failures=[f"{job.name}\n{tail(log)}"])
    return Result()


def build(preset, folder, compiler, *targets, bench=False, cached=False, parts=1):
    def run(job, log):
        version = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, check=True).stdout
        quiet = re.match(r"\d+", version).group() == QUIET_COMPILERS[compiler]
        configure = ["cmake", "--preset", preset, "-B", folder, f"-DMULTIHEAD_WERROR={'ON' if quiet else 'OFF'}",
                     f"-DMULTIHEAD_BENCH={'ON' if bench else 'OFF'}", f"-DMULTIHEAD_TEST_PART={ROUND % parts + 1}/{parts}"]
        if cached and shutil.which("ccache"):
            configure.append("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache")
        return built(job, log, [configure, ["cmake", "--build", folder, "--target", *(targets or ["all"]),
                                            "-j", str(job.processes)]])

    missing = "" if shutil.which(compiler) else f"{compiler} is not installed"
    return Job(f"build {preset}", run, missing=missing, is_build=True)


def build_emulated(folder):
    """The tests with targets of AVX-512 that any x86-64 machine with AVX2 runs; most of it is the release build's."""
    def run(job, log):
        return built(job, log, [["cmake", "--build", folder, "--target", "multihead_emulated_tests", "-j", str(job.processes)]])

    missing = "" if platform.machine() == "x86_64" else "the targets of AVX-512 want an x86-64 machine"
    return Job("build emulated", run, needs=("build release",), missing=missing, is_build=True)


def build_packages(folder):
    """As a distribution builds: from a copy of the source that lies elsewhere, without a network where that can be."""
    def run(job, log):
        copy = folder.with_name("deb source")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("build", "build-*", ".git", "__pycache__"))
        configure = ["cmake", "--preset", "deb", "-S", copy, "-B", folder,
                     "-DCPACK_PACKAGE_CONTACT=The tests <tests@multihead.dev>"]
        return built(job, log, [[*NO_NETWORK, *configure],
                                [*NO_NETWORK, "cmake", "--build", folder, "-j", str(job.processes)]],
                     SOURCE_DATE_EPOCH="1700000000", CCACHE_DISABLE="1")  # compared with the release build's objects

    missing = "" if shutil.which("dpkg-shlibdeps") else "dpkg-dev is not installed"
    return Job("build deb", run, missing=missing, is_build=True)


# Suites ---------------------------------------------------------------------------------------------------------------

def read_gtest(report):
    result = Result()
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        failures = [failure.get("message", "") for failure in case.findall("failure")]
        skips = [skip.get("message", "") for skip in case.findall("skipped")]
        if failures:
            result.failures.append("\n".join([name, *failures]))
        elif skips:
            where, _, reason = skips[0].partition("\n")
            result.skips.append(reason.strip() or f"{name} gives no reason ({where})")
        elif case.get("status") == "notrun":
            result.skips.append(f"{name} is disabled")
        else:
            result.passed += 1
    return result


def gtest(name, folder, needs, prefix=(), filter_="*", quick=False, shards=1, missing="", left_out=(), program="multihead_tests"):
    def run(job, log):
        report = log.with_suffix(".xml")
        report.unlink(missing_ok=True)
        environment = {"ASAN_OPTIONS": "allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1",
                       "TSAN_OPTIONS": "die_after_fork=0", "GTEST_TOTAL_SHARDS": str(shards), "GTEST_SHARD_INDEX": str(ROUND % shards)}
        if quick:
            environment["MULTIHEAD_TEST_SHARE"] = "quick"
        tests = folder / "tests" / program
        status = command(job, log, [*prefix, tests, f"--gtest_filter={filter_}", f"--gtest_output=xml:{report}"],
                         **environment)
        if not report.exists():
            passed = len(re.findall(r"^\[ +OK \] .* ms\)$", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE))
            return Result(passed, [f"{name} ended with status {status} before its report\n{tail(log)}"])
        result = read_gtest(report)
        result.skips += left_out
        if status != 0 and not result.failures:
            result.failures.append(f"{name} ended with status {status}\n{tail(log)}")
        return result

    return Job(name, run, needs=(f"build {needs}",), missing=missing)


def conformance(name, folder, needs, prefix=(), missing=""):
    """ONNX's cases on the best target. Those of other operators are no tests of this library and are not counted."""
    def run(job, log):
        program = folder / "tests" / "onnx_conformance"
        status = command(job, log, [*prefix, program, TESTS / "conformance" / "onnx"])
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        result = Result(passed=sum(": passed" in line for line in lines),
                        failures=[line for line in lines if ": FAILED: " in line])
        if status != 0 and not result.failures:
            result.failures.append(f"{name} ended with status {status}\n{tail(log)}")
        return result

    return Job(name, run, needs=(f"build {needs}",), missing=missing)


def python_checks(path, name, folder, *needs):
    def run(job, log):
        report = log.with_suffix(".json")
        report.unlink(missing_ok=True)
        status = command(job, log, [sys.executable, TESTS / "run_module.py", path, report], MULTIHEAD_BUILD=str(folder))
        if not report.exists():
            return Result(failures=[f"{name} ended with status {status} before its report\n{tail(log)}"])
        return Result(**json.loads(report.read_text(encoding="utf-8")))

    return Job(name, run, needs=tuple(f"build {build}" for build in needs))


def fuzz(path, folder):
    def run(job, log):
        program = folder / "tests" / path.stem
        if not program.exists():
            return Result(skips=[f"{path.stem}: libFuzzer is missing"])
        found = log.with_suffix(".corpus")
        found.mkdir(exist_ok=True)
        seeds = TESTS / path.stem.replace("fuzz_", "corpus_")
        status = command(job, log, [program, f"-max_total_time={FUZZ_SECONDS}", "-timeout=10", "-rss_limit_mb=2048",
                                    f"-artifact_prefix={found}/", found, *([seeds] if seeds.is_dir() else [])])
        if status != 0:
            return Result(failures=[f"{path.stem} found something\n{tail(log)}"])
        return Result(passed=1)

    return Job(path.stem, run, needs=("build clang",))


def all_jobs(root):
    """Every build and suite, the longest first."""
    x86 = platform.machine() == "x86_64"

    def emulator(program):
        if not x86:
            return "the emulated suites want an x86-64 machine"
        return "" if shutil.which(program) else f"{program} is not installed"

    folder = {name: root / name for name in ("release", "clang", "asan", "tsan", "arm64", "mingw", "deb")}
    steady = fixed_addresses()
    sanitizer = {"prefix": steady, "quick": True}
    arm64_emulator = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
    nehalem_emulator = ["qemu-x86_64", "-cpu", "Nehalem"]
    arm64 = build("arm64", folder["arm64"], "aarch64-linux-gnu-g++", "test_programs")
    no_properties = [f"{path.name}: RapidCheck is not packaged for cross builds"
                     for path in sorted(TESTS.glob("*_property_test.cpp"))]
    arm64.missing = emulator("qemu-aarch64") or arm64.missing
    jobs = [
        build("release", folder["release"], "g++", bench=True, cached=True),
        build("asan", folder["asan"], "g++", "test_programs", parts=ASAN_PARTS),
        gtest("asan", folder["asan"], "asan", left_out=[ASAN_SHARE], **sanitizer),
        conformance("onnx:asan", folder["asan"], "asan", prefix=steady),
        arm64,
        gtest("arm64", folder["arm64"], "arm64", prefix=arm64_emulator, quick=True,
              filter_=EMULATED + ":MiniLM.TokensStates*:MiniLM.Vectors*",
              shards=ARM64_SHARDS,
              left_out=EMULATOR_LACKS + no_properties + [ARM64_SHARE, "MiniLM takes minutes under qemu-user: tiny models stand for it"]),
        conformance("onnx:arm64", folder["arm64"], "arm64", prefix=arm64_emulator),
        gtest("nehalem", folder["release"], "release", prefix=nehalem_emulator, quick=True,
              filter_=EMULATED + ":*.UglyLengths", left_out=[*EMULATOR_LACKS, NEHALEM_SHARE], shards=NEHALEM_SHARDS,
              missing=emulator("qemu-x86_64")),
        conformance("onnx:nehalem", folder["release"], "release", prefix=nehalem_emulator,
                    missing=emulator("qemu-x86_64")),
        build("clang", folder["clang"], "clang++"),
        gtest("clang", folder["clang"], "clang", quick=True),
        build_packages(folder["deb"]),
        build("mingw", folder["mingw"], "x86_64-w64-mingw32-g++-posix"),
        build("tsan", folder["tsan"], "g++", "multihead_tests"),
        gtest("tsan", folder["tsan"], "tsan", filter_=THREADED, shards=TSAN_SHARDS, left_out=[TSAN_SHARE], **sanitizer),
        build_emulated(folder["release"]),
        gtest("emulated", folder["release"], "emulated", quick=True, filter_=KERNELS, program="multihead_emulated_tests"),
        gtest("release", folder["release"], "release"),
    ]
    for path in sorted(TESTS.glob("*_test.py"), key=lambda path: (path.stem not in LONG_CHECKS, path.stem)):
        every = path.stem in ON_EVERY_BUILD
        if path.stem in OWN_BUILDS:
            own = OWN_BUILDS[path.stem]
            jobs.append(python_checks(path, path.stem, folder[own[0]], *own))
            continue
        for needs in LIBRARY_BUILDS if every else LIBRARY_BUILDS[:1]:
            name = f"{path.stem}:{needs}" if every else path.stem
            jobs.append(python_checks(path, name, folder[needs], needs))
    jobs += [fuzz(path, folder["clang"]) for path in sorted(TESTS.glob("fuzz_*.cpp"))]
    return jobs


def of_this_turn(jobs):
    """The jobs of the release build but for some peers, and of the turn; what the other turns run is skipped by name."""
    turn_of = {name: turn for turn, names in enumerate(TURNS) for name in names}
    peers_turn_of = {name: turn for turn, names in enumerate(PEERS) for name in names}
    needed = set()
    for job in jobs:
        turn = turn_of.get("fuzz" if job.name.startswith("fuzz_") else job.name, TURN)
        if job.is_build:
            continue
        if turn != TURN:
            job.missing = f"it runs at another commit's turn; this one's is that of {TURNS[TURN][0]}"
        elif peers_turn_of.get(job.name, COMMITS % len(PEERS)) != COMMITS % len(PEERS):
            job.missing = f"it runs at another commit's turn; this one's is that of {PEERS[COMMITS % len(PEERS)][0]}"
        else:
            needed.update(job.needs)
            continue
        job.needs = ()
    return [job for job in jobs if not job.is_build or job.name in needed]


def third(things):
    """All of them, or where CI is set to true every third, by the number of commits."""
    return things[COMMITS % 3::3] if CI else things


def share_processors(jobs, lanes):
    """Gives each build its part of the processors, all of them where no other can be made beside it."""
    builds = [job for job in jobs if job.is_build]
    beside = min(lanes, max(1, sum(not job.needs for job in builds)))
    for job in builds:
        job.processes = max(1, (os.cpu_count() or 1) // beside)
