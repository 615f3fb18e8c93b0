# SPDX-License-Identifier: Apache-2.0
"""The command: golden outputs, help whose examples run, exit statuses and sentences, files in and out, colours."""

import array
import ast
import math
import os
import pathlib
import pty
import re
import struct
import subprocess
import tempfile
import unittest

import tiny_encoder

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
COMMAND = next((path for path in (BUILD / "multihead", BUILD / "cli" / "multihead") if path.is_file()), None)
GOLDEN = SOURCE / "tests" / "golden_cli"
SUBCOMMANDS = ["sample", "heads", "encode", "tokens", "attend", "info", "explain", "check"]
PLAIN = {"TERM": "dumb"}  # no variable that a colour or a target depends on
TARGETS = ["baseline", "avx2", "avx512", "avx512bf16", "amx", "neon"]
DESCRIPTION = {"f": "<f4", "d": "<f8", "e": "<f2"}


def run(*arguments, program=COMMAND, folder=None, environment=None, **more):
    settings = {key: value for key, value in os.environ.items()
                if key not in ("NO_COLOR", "COLORTERM", "TERM", "COLUMNS", "MULTIHEAD_TARGET", "MULTIHEAD_MODEL")}
    settings["PATH"] = f"{COMMAND.parent}{os.pathsep}{settings['PATH']}"
    settings.update(environment or PLAIN)
    more = more or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run([program, *map(str, arguments)], cwd=folder, env=settings, stdin=subprocess.DEVNULL,
                          text=True, timeout=300, check=False, **more)


def write_npy(path, code, shape, values):
    header = f"{{'descr': '{DESCRIPTION[code]}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    data = struct.pack(f"<{len(values)}{code}", *values)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("ascii") + data)


def read_npy(path):
    """The code of the elements, the shape, and the elements."""
    content = path.read_bytes()
    (length,) = struct.unpack("<H", content[8:10])
    header = ast.literal_eval(content[10:10 + length].decode("ascii"))
    code = {text: code for code, text in DESCRIPTION.items()}[header["descr"]]
    values = struct.unpack(f"<{math.prod(header['shape'])}{code}", content[10 + length:])
    return code, header["shape"], values


def available_targets():
    return [name for name in TARGETS if re.search(rf"target {name} +available", run("info").stdout)]


def matrix_after(text, title):
    lines = text[text.index(title):].splitlines()[1:]
    rows = []
    for line in lines:
        if not re.fullmatch(r"[\s\d.-]+", line):
            break
        rows.append([float(number) for number in line.split()])
    return rows


@unittest.skipIf(COMMAND is None, "the command was not built: CLI11 or utf8proc is not installed")
class Command(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def succeed(self, *arguments, **more):
        outcome = run(*arguments, folder=self.folder, **more)
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        self.assertEqual(outcome.stderr, "")
        return outcome.stdout

    def refuse(self, status, sentence, *arguments, **more):
        outcome = run(*arguments, folder=self.folder, **more)
        self.assertEqual(outcome.returncode, status, outcome.stdout + outcome.stderr)
        self.assertRegex(outcome.stderr, rf"^multihead: {sentence}")
        return outcome


class Sample(Command):
    def test_golden(self):
        for name, arguments in {"sample": [], "sample_trace": ["--trace"],
                                "sample_trace_heads_3": ["--trace", "--heads", "3"]}.items():
            with self.subTest(name=name):
                golden = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
                self.assertEqual(self.succeed("sample", *arguments), golden)

    def test_every_target_and_thread_count_prints_the_same(self):
        expected = self.succeed("sample", "--trace")
        for target in available_targets():
            for threads in (1, 2, 5):
                self.assertEqual(self.succeed("sample", "--trace", "--target", target, "--threads", threads), expected)
            pinned = {**PLAIN, "MULTIHEAD_TARGET": target}
            self.assertEqual(self.succeed("sample", "--trace", environment=pinned), expected)

    def test_the_trace_by_hand(self):
        """Q, K and the scores of head 0 from the printed X and weights; rows of weights add up to one."""
        text = self.succeed("sample", "--trace")
        self.assertIn("Q0 = X Wq0", text)
        for row in re.findall(r"query \d  ([\d.]+) \[.*?\]  ([\d.]+)", text):
            self.assertAlmostEqual(sum(map(float, row)), 1, delta=2e-4)
        scores = matrix_after(text, "scores = Q0 K0^T")
        self.assertAlmostEqual(scores[0][0], (1.8 * 1.7 - 0.2 * 0.4 - 0.3 * 0.2) / math.sqrt(3), delta=1e-4)
        self.assertEqual(matrix_after(text, "Output:"), matrix_after(text, "[head 0 | head 1] Wo"))

    def test_the_example_program_prints_the_same(self):
        program = BUILD / "tests" / "example_attention"
        if not program.is_file():
            self.skipTest("the examples are not built: MULTIHEAD_TESTS is off")
        printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
        self.assertEqual(printed, self.succeed("sample")[-len(printed):])

    def test_saved_inputs(self):
        self.succeed("sample", "--save", ".")
        self.assertEqual(read_npy(self.folder / "X.npy"), ("d", (2, 3), (1, 0, 1, 0, 1, 1)))
        self.assertEqual(read_npy(self.folder / "Wo.npy")[:2], ("d", (6, 3)))


class Colors(Command):
    def on_terminal(self, environment):
        main, side = pty.openpty()
        with os.fdopen(main, "rb", buffering=0) as screen:
            outcome = run("sample", "--trace", environment=environment, stdout=side)
            os.close(side)
            self.assertEqual(outcome.returncode, 0)
            text = b""
            try:
                while block := screen.read(4096):
                    text += block
            except OSError:  # Linux ends a terminal that nobody holds open this way
                pass
        return text.decode("utf-8").replace("\r\n", "\n")

    def test_no_color_without_a_terminal(self):
        text = self.succeed("sample", "--trace", environment={"TERM": "xterm-256color", "COLORTERM": "truecolor"})
        self.assertNotIn("\x1b", text)

    def test_a_terminal(self):
        plain = self.succeed("sample", "--trace")
        for environment, code in {
            ("TERM=xterm-256color", "COLORTERM=truecolor"): "\x1b[48;2;",
            ("TERM=xterm-256color",): "\x1b[48;5;",
            ("TERM=xterm-256color", "NO_COLOR="): "\x1b[48;5;",
            ("TERM=xterm-256color", "NO_COLOR=1"): None,
            ("TERM=dumb", "COLORTERM=truecolor"): None,
            ("TERM=vt100",): None,
        }.items():
            with self.subTest(environment=environment):
                text = self.on_terminal(dict(item.split("=") for item in environment))
                if code:
                    self.assertIn(code, text)
                else:
                    self.assertEqual(text, plain)

    def test_asked_for(self):
        always = self.succeed("sample", "--trace", "--color=always", environment={"TERM": "dumb", "NO_COLOR": "1"})
        self.assertEqual(always.count("\x1b[48;5;"), 8)  # a cell each
        self.assertEqual(always.count("\x1b[0m"), 8)
        never = self.succeed("sample", "--trace", "--color=never", environment={"COLORTERM": "truecolor"})
        self.assertNotIn("\x1b", never)

    def test_a_larger_weight_is_lighter(self):
        text = self.succeed("sample", "--trace", "--color=always", environment={"COLORTERM": "truecolor"})
        cells = re.findall(r"\x1b\[48;2;(\d+);(\d+);(\d+);[\d;]+m +([\d.]+) +\x1b\[0m", text)
        self.assertEqual(len(cells), 8)
        light = [sum(share * int(part) for share, part in zip((0.299, 0.587, 0.114), cell))
                 for *cell, _ in sorted(cells, key=lambda cell: float(cell[3]))]
        self.assertEqual(light, sorted(light))


class Attend(Command):
    MATRICES = {"x": (4, 5), "wq": (5, 6), "wk": (5, 6), "wv": (5, 4), "wo": (4, 3)}

    def write_inputs(self, code):
        for name, (rows, columns) in self.MATRICES.items():
            count = rows * columns
            start = len(name) + ord(name[-1])
            values = array.array(code, [math.sin(start + 1.7 * i) for i in range(count)])
            write_npy(self.folder / f"{name}.npy", code, (rows, columns), values)

    def arguments(self, **changes):
        files = {name: f"{name}.npy" for name in self.MATRICES} | {"heads": "2", "out": "y.npy"} | changes
        return ["attend", *(part for name, value in files.items() for part in (f"--{name.replace('_', '-')}", value))]

    def expected(self, heads):
        """Output, and weights by head, in plain Python."""
        X, Wq, Wk, Wv, Wo = (self.rows(name) for name in self.MATRICES)
        weights, concat = [], [[] for _ in X]
        for h in range(heads):
            def block(W):
                width = len(W[0]) // heads
                return [row[h * width:(h + 1) * width] for row in W]
            Q, K, V = (self.product(X, block(W)) for W in (Wq, Wk, Wv))
            head = []
            for i, q in enumerate(Q):
                e = [math.exp(sum(a * b for a, b in zip(q, k)) / math.sqrt(len(q))) for k in K]
                head.append([x / sum(e) for x in e])
                concat[i] += self.product([head[i]], V)[0]
            weights.append(head)
        return self.product(concat, Wo), weights

    def rows(self, name):
        _, (rows, columns), values = read_npy(self.folder / f"{name}.npy")
        return [list(values[i * columns:(i + 1) * columns]) for i in range(rows)]

    @staticmethod
    def product(A, B):
        return [[sum(a * b for a, b in zip(row, column)) for column in zip(*B)] for row in A]

    def assert_close(self, values, expected, tolerance):
        self.assertEqual(len(values), len(expected))
        for value, wanted in zip(values, expected):
            self.assertAlmostEqual(value, wanted, delta=tolerance)

    def test_both_types(self):
        for code, tolerance in {"f": 3e-6, "d": 1e-14}.items():
            with self.subTest(type=code):
                self.write_inputs(code)
                printed = self.succeed(*self.arguments(weights="w.npy", mean_weights="m.npy"))
                self.assertIn(f"output        (4, 3)     float{32 if code == 'f' else 64}  y.npy", printed)
                output, weights = self.expected(2)
                found, shape, values = read_npy(self.folder / "y.npy")
                self.assertEqual((found, shape), (code, (4, 3)))
                self.assert_close(values, sum(output, []), tolerance)
                found, shape, values = read_npy(self.folder / "w.npy")
                self.assertEqual((found, shape), (code, (2, 4, 4)))
                self.assert_close(values, sum(sum(weights, []), []), tolerance)
                found, shape, mean = read_npy(self.folder / "m.npy")
                self.assertEqual((found, shape), (code, (4, 4)))
                self.assert_close(mean, [(a + b) / 2 for a, b in zip(values[:16], values[16:])], tolerance)

    def test_weights_change_no_bit_of_the_output(self):
        self.write_inputs("f")
        self.succeed(*self.arguments())
        before = (self.folder / "y.npy").read_bytes()
        self.succeed(*self.arguments(weights="w.npy"))
        self.assertEqual((self.folder / "y.npy").read_bytes(), before)

    def test_the_sample(self):
        shown = matrix_after(self.succeed("sample", "--save", "."), "Output:")
        names = {name: name.capitalize() + ".npy" for name in self.MATRICES}
        self.succeed(*self.arguments(**names))
        self.assert_close(read_npy(self.folder / "y.npy")[2], sum(shown, []), 5e-5)

    def test_bad_input(self):
        self.write_inputs("d")
        (self.folder / "y.npy").write_bytes(b"what was there")
        for name, code, *shape in (("single", "f", 5, 6), ("half", "e", 5, 6), ("flat", "d", 30), ("wide", "d", 6, 6)):
            write_npy(self.folder / f"{name}.npy", code, shape, [0] * math.prod(shape))
        (self.folder / "text.npy").write_text("hello", encoding="utf-8")
        for changes, sentence in (
            ({"wk": "single.npy"}, "attend: --wk single.npy holds float32, --x x.npy holds float64; .* one type"),
            ({"wk": "half.npy"}, "attend: --wk half.npy holds float16; it must hold float32 or float64"),
            ({"wq": "flat.npy"}, r"attend: --wq flat.npy has shape \(30,\); it must be a matrix"),
            ({"wk": "wide.npy"}, "multi_head_attention: Wk .*6.*5"),
            ({"heads": "4"}, "multi_head_attention: .*num_heads"),
            ({"heads": "2000000000", "weights": "w.npy"}, "multi_head_attention: .*num_heads"),
            ({"x": "none.npy"}, "read_npy: none.npy: cannot be opened"),
            ({"wo": "text.npy"}, "read_npy: text.npy: byte 0"),
            ({"out": "no/folder/y.npy"}, "write_npy: no/folder/y.npy"),
            ({"weights": "./y.npy"}, "attend: --out and --weights name one file"),
        ):
            with self.subTest(changes=changes):
                self.refuse(1, sentence, *self.arguments(**changes))
        self.assertEqual((self.folder / "y.npy").read_bytes(), b"what was there")


class Help(Command):
    def examples(self, text):
        lines = text[text.index("Examples:\n"):].replace("\\\n", "").splitlines()
        return [line.strip() for line in lines if re.match("  (echo .*[|] )?multihead ", line)]

    def test_examples_run(self):
        tiny_encoder.write(self.folder)
        settings = {**PLAIN, "MULTIHEAD_MODEL": str(self.folder)}
        for name in ["", *SUBCOMMANDS]:
            text = self.succeed(*filter(None, [name]), "--help")
            examples = self.examples(text)
            self.assertGreaterEqual(len(examples), 2)
            for example in examples:
                with self.subTest(example=example):
                    outcome = run("-c", example, program="sh", folder=self.folder, environment=settings)
                    self.assertEqual((outcome.returncode, outcome.stderr), (0, ""))
                    self.assertNotEqual(outcome.stdout, "")

    def test_nothing_is_left_out(self):
        """The page and the man page name every subcommand and option."""
        overview = self.succeed("--help")
        options = set(re.findall(r"--[a-z-]+", overview.partition("Subcommands:")[0]))
        for name in SUBCOMMANDS:
            self.assertRegex(overview, rf"(?m)^  {name} ")
            options |= set(re.findall(r"--[a-z-]+", self.succeed(name, "--help").partition("Also --")[0]))
        for page in ("command.md", "multihead.1"):
            text = (SOURCE / "docs" / page).read_text(encoding="utf-8").replace("\\-", "-")
            for word in [*SUBCOMMANDS, *sorted(options - {"--help"})]:
                with self.subTest(page=page, word=word):
                    self.assertIn(word, text)

    def test_version(self):
        header = (SOURCE / "include" / "multihead" / "multihead.hpp").read_text(encoding="utf-8")
        numbers = re.findall(r"define MULTIHEAD_VERSION_\w+ (\d+)", header)
        self.assertEqual(self.succeed("--version"), f"multihead {'.'.join(numbers)}\n")


class Statuses(Command):
    def test_usage(self):
        for arguments, sentence in (
            ([], "a subcommand is missing"),
            (["bogus"], ".*not expected: bogus"),
            (["sample", "info"], ".*not expected: info"),
            (["sample", "--bogus"], ".*not expected: --bogus"),
            (["sample", "--heads", "0"], "--heads: '0' is not a whole number of at least 1"),
            (["sample", "--heads", "3x"], "--heads: '3x' is not a whole number"),
            (["sample", "--heads", "99999999999"], "--heads: '99999999999' is not"),
            (["sample", "--heads"], "--heads: 1 required"),
            (["sample", "--color", "maybe"], "--color: 'maybe' is not one of auto, always, never"),
            (["attend"], "--x is required"),
            (["info", "--threads", "0"], "--threads: '0' is not a whole number of at least 1"),
            (["info", "--target", "sse9"], "target: 'sse9' is not one of baseline, avx2, avx512, avx512bf16, amx, neon"),
            (["explain", "--q-len", "3"], "--head-dim is required"),
            (["explain", "--q-len", "3", "--head-dim", "8", "--causal", "left"], "--causal: 'left' is not one of"),
            (["explain", "--q-len", "3", "--head-dim", "8", "--type", "int8"], "--type: 'int8' is not one of"),
            (["check", "--problems", "0"], "--problems: '0' is not"),
        ):
            with self.subTest(arguments=arguments):
                outcome = self.refuse(2, sentence, *arguments)
                self.assertEqual(outcome.stdout, "")
                self.assertIn("multihead --help", outcome.stderr)

    def test_bad_input(self):
        absent = next(name for name in TARGETS if name not in available_targets())
        for arguments, sentence in (
            (["sample", "--heads", "4"], "multi_head_attention: .*num_heads is 4"),
            (["sample", "--save", "no/folder"], "write_npy: no/folder/X.npy"),
            (["sample", "--target", absent], f"target: {absent} cannot run on this machine"),
            (["explain", "--q-len", "3", "--head-dim", "1025"], "explain: head_dim is 1025"),
            (["explain", "--q-len", "3", "--kv-len", "4", "--head-dim", "8", "--causal", "square"], "explain: causal"),
            (["explain", "--q-len", "3", "--heads", "3", "--kv-heads", "2", "--head-dim", "8"], "explain: .*kv_heads"),
        ):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.refuse(1, sentence, *arguments).stdout, "")

    def test_a_target_by_environment(self):
        for target in available_targets():
            text = self.succeed("info", environment={"MULTIHEAD_TARGET": target})
            self.assertRegex(text, rf"chosen +{target}, by MULTIHEAD_TARGET\n")
        for arguments in (["info"], ["sample"], ["check"], ["explain", "--q-len", "1", "--head-dim", "1"]):
            self.refuse(1, ".*'sse9' is not one of", *arguments, environment={"MULTIHEAD_TARGET": "sse9"})

    def test_output_that_cannot_be_written(self):
        reader, pipe = os.pipe()
        os.close(reader)
        with open("/dev/full", "w", encoding="utf-8") as full, os.fdopen(pipe, "w") as broken:
            for arguments in (["sample"], ["--help"]):
                for device in (full, broken):
                    with self.subTest(arguments=arguments, device=device.name):
                        outcome = run(*arguments, stdout=device, stderr=subprocess.PIPE)
                        self.assertEqual((outcome.returncode, outcome.stderr),
                                         (1, "multihead: standard output cannot be written\n"))


class Machine(Command):
    def test_info(self):
        text = self.succeed("info", "--threads", "3")
        self.assertRegex(text, r"(?m)^processor +\S")
        self.assertRegex(text, r"(?m)^threads +3 of \d+$")
        self.assertRegex(text, r"(?m)^chosen +\w+, the best available$")
        self.assertRegex(self.succeed("info", "--target", "baseline"), r"(?m)^chosen +baseline, by --target$")

    def test_check(self):
        text = self.succeed("check", "--problems", "60", "--threads", "2")
        for target in available_targets():
            for kind in ("float32", "float64", "bfloat16", "float16"):
                self.assertRegex(text, rf"(?m)^{target} +{kind} +60 +[\d.e-]+ +[\d.]+ +\d+ +passed$")
        self.assertEqual(text, self.succeed("check", "--problems", "60", "--threads", "1"))
        self.assertNotEqual(text, self.succeed("check", "--problems", "60", "--seed", "2"))
        alone = self.succeed("check", "--problems", "5", "--target", "baseline")
        self.assertEqual(len(re.findall(r"(?m) passed$", alone)), 4)


if __name__ == "__main__":
    unittest.main()
