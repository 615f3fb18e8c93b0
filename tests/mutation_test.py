# SPDX-License-Identifier: Apache-2.0
"""Faults that attention code is known for, put into a copy of the source one at a time: each must turn a test red.

A fault is an exact text that stands once in a file and what replaces it. Its file, or the baseline target that reads it,
is compiled alone and linked before the library's archive, with the objects of the tests as the build has them. Where CI is
true a run takes a third of the faults, the next commit the next third.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
import unittest

import jobs

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
OBJECTS = ["attention_test", "few_queries_test", "hidden_test", "linear_test", "merge_test", "options_bits_test",
           "row_norm_test", "stretches_test", "weights_test", "c_api_test", "c_face", "c_validation_test", "backward_test",
           "backward_hidden_test", "allocations", "draw", "draw_options", "oracle", "part"]
KERNELS = "src/kernels/target_baseline.cpp"  # reads every .inl.hpp, and runs anywhere
SECONDS = 180  # for one compilation or one run


@dataclasses.dataclass
class Fault:
    name: str
    file: str
    changes: list  # (text, replacement)
    tests: str = "AttentionOf/0.Random*"


TERMS = "src/kernels/score_terms.inl.hpp"
TASK = "src/kernels/attention_task.inl.hpp"
BACKWARD = "src/kernels/backward.inl.hpp"
SCHEDULE = "src/kernels/schedule.cpp"
SEQUENCES = "src/kernels/sequences.cpp"
FAULTS = [
    Fault("scale of value_dim", SCHEDULE, [("default_scale(shape_.head_dim)", "default_scale(shape_.value_dim)")]),
    Fault("softcap after masks and biases", TERMS, [
        ("s[i] = tanh<T>(s[i]) * Lanes::splat(terms.cap);", "s[i] = s[i] * Lanes::splat(terms.cap);"),
        ("      largest = Lanes::max(s[i], largest);",
         "      if (terms.cap != 0) s[i] = tanh<T>(s[i] / Lanes::splat(terms.cap)) * Lanes::splat(terms.cap);\n"
         "      largest = Lanes::max(s[i], largest);")]),
    Fault("heads in tile order", SCHEDULE, [("kv = head / group_", "kv = head % shape_.kv_heads")]),
    Fault("diagonal off by one", SEQUENCES, [("std::max(p + 1, prefix)", "std::max(p, prefix)")]),
    Fault("prefixes not read", SEQUENCES, [("sequence.prefix = options_.prefixes[place]", "sequence.prefix = 0")]),
    Fault("bottom_right of the batch entry, not the sequence", SEQUENCES, [
        ("sequence.offset = sequence.kv_len - sequence.q_len", "sequence.offset = shape_.kv_len - shape_.q_len")]),
    Fault("window exclusive", SEQUENCES, [("std::max<std::int64_t>(p - rules.left, 0)",
                                           "std::max<std::int64_t>(p - rules.left + 1, 0)")]),
    Fault("a gap after first keys that is a key short", SCHEDULE, [("terms.left = rules_.left;", "terms.left = rules_.left + 1;")]),
    Fault("lengths not read", SEQUENCES, [("sequence.kv_len = options_.lengths[static_cast<std::size_t>(batch)]",
                                           "sequence.kv_len = shape_.kv_len")]),
    Fault("last of a run of keys or columns dropped", "src/kernels/attention.inl.hpp", [
        ("if (at < end) run.template operator()<1>(at);", "if (at + 1 < end) run.template operator()<1>(at);")]),
    Fault("rows that were widened of another head", "src/kernels/walk.inl.hpp", [
        ("if (std::exchange(task.kept_ids[place], id) != id) {", "if (std::exchange(task.kept_ids[place], id) == 0) {")],
          "StretchesOf/2.*"),
    Fault("few queries of a packed sequence over the first one's keys", "src/kernels/decode_rows.cpp", [
        (".k = call.k.at(b, kv_head, sequence.k_begin)", ".k = call.k.at(b, kv_head, 0)")], "FewQueries/0.*"),
    Fault("last row of a sequence dropped", SEQUENCES, [
        ("return (rows + kRowBlock - 1) / kRowBlock;", "return (rows + kRowBlock - 2) / kRowBlock;")]),
    Fault("sums of earlier blocks not rescaled", "src/kernels/attention.inl.hpp", [
        ("Lanes::fma(Lanes::load(rows.sum + lane), old_factor, sum)", "(Lanes::load(rows.sum + lane) + sum)")]),
    Fault("sink scaled", TASK, [("static_cast<T>(task.sink * std::numbers::log2e)",
                                 "static_cast<T>(task.sink * task.scale)")]),
    Fault("sink not in the sum", TASK, [("rows.sum[lane] = task.has_sink ? T(1) : T(0);", "rows.sum[lane] = T(0);")]),
    Fault("lse of an empty row without its sink", TASK, [("Lanes::splat(empty_lse)", "Lanes::splat(kMinusInfinity<T>)")]),
    Fault("ALiBi upside down", SCHEDULE, [("(-slopes[static_cast<std::size_t>(head)] * unit_)", "(slopes[static_cast<std::size_t>(head)] * unit_)")]),
    Fault("bias scaled", SCHEDULE, [("terms.bias_unit = static_cast<T>(unit_);", "terms.bias_unit = scale_;")]),
    Fault("drop mask read as keep mask", TERMS, [("join(terms.drop, ~0u)", "join(terms.drop, 0u)")]),
    Fault("broadcast axes walked", SCHEDULE, [("view.extents[axis] == 1 ? 0 : view.strides[axis]",
                                               "view.strides[axis]")]),
    Fault("relative bias mirrored", SCHEDULE, [("relative_bucket(r, ", "relative_bucket(-r, ")]),
    Fault("NaN of hidden values", TASK, [("bool partial = task.terms.dense();\n  for",
                                          "bool partial = false;\n  if (false) for")], "Hidden/0.InKeys*"),
    Fault("D left out of dS", BACKWARD, [("d = p[i] * (d - step.term);", "d = p[i] * d;")], "BackwardOf/0.Random*"),
    Fault("softcap's slope forgotten", BACKWARD, [("Lanes::fma(Lanes::splat(0) - t, t, Lanes::splat(1))", "Lanes::splat(1)")],
          "BackwardOf/0.Random*"),
    Fault("dropout not in the gradient of values", BACKWARD, [
        ("weight = weight * factor, d = d * factor;", "d = d * factor;")], "BackwardOf/0.Random*"),
    Fault("gradients of a group's last head alone", "src/kernels/backward_pass.cpp", [
        ("for (std::int64_t g = 0; g < group(); ++g) {", "for (std::int64_t g = group() - 1; g < group(); ++g) {")],
          "BackwardOf/0.Random*"),
    Fault("NaN of hidden keys in gradients", "src/kernels/backward_task.inl.hpp", [
        ("const bool careful = (hides || parts) && !step_is_finite(task, rows);", "const bool careful = false;")],
          "BackwardHidden/0.NaN*"),
    Fault("stored values cut off, not rounded", "src/kernels/convert.inl.hpp", [
        ("Stored(static_cast<float>(from[i]))",
         "Stored(std::bit_cast<float>(std::bit_cast<std::uint32_t>(static_cast<float>(from[i])) & 0xFFFF0000u))")],
        "AttentionOf/2.Random*"),
    Fault("mean of weights is their sum", "src/kernels/weights.cpp", [
        ("T(1) / static_cast<T>(head_count())", "T(1)")], "Weights/0.*"),
    Fault("merge of a side that saw nothing", "src/kernels/merge.inl.hpp", [
        ("Lanes::select(without_b, x, Lanes::fma(y, share_b, x))", "Lanes::fma(y, share_b, x)")], "Merge/0.*"),
    Fault("gelu of another variance", "src/kernels/activation.inl.hpp", [
        ("return x * half * (one + erf<T>(x * V::splat(std::numbers::sqrt2_v<T> / 2)));", "return x * half * (one + erf<T>(x));")],
          "LinearOf/0.*"),
    Fault("residual not in the norm", "src/kernels/norm.inl.hpp", [
        ("(residual ? V::load(from + i) + V::load(residual + i) : V::load(from + i)).store(x + i)",
         "V::load(from + i).store(x + i)")], "RowNormOf/0.*"),
]


C_OPTIONS = "bindings/c/options.cpp"
FAULTS += [
    Fault("C: sides of a window exchanged", C_OPTIONS, [
        ("{read.window_left, read.window_right, ", "{read.window_right, read.window_left, ")], "CApi/0.Attention*"),
    Fault("C: drop mask read as keep mask", C_OPTIONS, [
        ("made.drop_mask = mask(", "made.keep_mask = mask(")], "CApi/0.Attention*"),
    Fault("C: points of weights exchanged", "bindings/c/options.hpp", [
        ("WeightsPoint::scaled, WeightsPoint::capped", "WeightsPoint::capped, WeightsPoint::scaled")], "CApi/0.Attention*"),
    Fault("C: strides of a mask not read", "bindings/c/tensors.cpp", [
        ("= stride_of(tensor, static_cast<int>(axis));", "= 1;")],
        "CApi/0.Attention*"),
    Fault("C: a tensor of another type read as it is", "bindings/c/tensors.cpp", [
        ("if (tensor.type != type)", "if (tensor.type != type && type == MH_BOOL)")], "*CRules*"),
    Fault("C: a query offset not read is not refused", C_OPTIONS, [
        ("if (read.query_offset != 0 && read.alignment", "if (false && read.alignment")], "*CRules*"),
]


def compiled_by(file):
    if file.endswith(".cpp"):
        return file
    return "bindings/c/attention.cpp" if file.startswith("bindings/") else KERNELS


class Workshop:
    """A copy of the source, and the commands that build a program of tests from it and the build."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        for room in ("include", "src", "bindings/c"):
            shutil.copytree(SOURCE / room, self.folder / room)
        entries = json.loads((BUILD / "compile_commands.json").read_text(encoding="utf-8"))
        self.commands = {str(pathlib.Path(entry["file"]).relative_to(SOURCE)): entry for entry in entries
                         if pathlib.Path(entry["file"]).is_relative_to(SOURCE)}

    def run(self, *arguments, **settings):
        return subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False,
                              timeout=SECONDS, **settings)

    def compile(self, unit, target):
        entry = self.commands[unit]
        arguments = shlex.split(entry["command"])
        arguments = [argument.replace(f"-I{SOURCE}/", f"-I{self.folder}/") for argument in arguments]
        arguments[arguments.index("-o") + 1] = str(target)
        arguments[-1] = str(self.folder / unit)
        return self.run(*arguments, "-O1", "-w", cwd=entry["directory"])  # a fault may leave a name unused

    def link(self, unit, source, target):
        folder = BUILD / "tests" / "CMakeFiles" / "multihead_tests.dir"
        compiler = shlex.split(self.commands[KERNELS]["command"])[0]
        c_objects = (BUILD / "bindings" / "c" / "CMakeFiles" / "multihead_c_objects.dir").glob("*.cpp.o")
        others = [path for path in c_objects if source != f"bindings/c/{path.stem}"]
        models = BUILD / "libmultihead_models.a"
        return self.run(compiler, *[folder / f"{name}.cpp.o" for name in OBJECTS], unit, *others,
                        *([models, "-lutf8proc"] if models.exists() else []), BUILD / "libmultihead.a",
                        "-lgtest_main", "-lgtest", "-lpthread", "-o", target)

    def outcome(self, unit, tests):
        """Compiles, links and runs; the outcome of the run."""
        name = str(self.folder / "unit")
        for step in (self.compile(unit, name + ".o"), self.link(name + ".o", unit, name)):
            if step.returncode != 0:
                raise AssertionError(step.stderr)
        return self.run(name, f"--gtest_filter={tests}", "--gtest_brief=1",
                        env={**os.environ, "MULTIHEAD_TEST_SHARE": "quick"})

    def put(self, file, changes):
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


class Mutation(unittest.TestCase):
    def setUp(self):
        if not (BUILD / "libmultihead.a").exists():
            self.skipTest("the static library is linked with one object replaced")

    def test_without_a_fault_all_is_green(self):
        """What the faults are measured against: the copy as it is, and every test that is to catch one."""
        tests = ":".join(sorted({fault.tests for fault in FAULTS}))
        with tempfile.TemporaryDirectory() as folder:
            outcome = Workshop(folder).outcome(KERNELS, tests)
            self.assertEqual(outcome.returncode, 0, outcome.stdout[-3000:])

    def turns_red(self, fault):
        with tempfile.TemporaryDirectory() as folder:
            workshop = Workshop(folder)
            workshop.put(fault.file, fault.changes)
            return workshop.outcome(compiled_by(fault.file), fault.tests)

    def test_each_fault_turns_a_test_red(self):
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = {fault.name: pool.submit(self.turns_red, fault) for fault in jobs.third(FAULTS)}
            for name, outcome in outcomes.items():
                with self.subTest(fault=name):
                    found = outcome.result()
                    self.assertIn("[  FAILED  ]", found.stdout, f"{name} was not noticed: {found.returncode}")

    def test_every_fault_has_its_place(self):
        """Those too whose turn is another commit's."""
        for fault in FAULTS:
            text = (SOURCE / fault.file).read_text(encoding="utf-8")
            for old, new in fault.changes:
                with self.subTest(fault=fault.name):
                    self.assertEqual(text.count(old), 1, f"{fault.file}: {old}")
                text = text.replace(old, new)

    def test_names_are_unique(self):
        self.assertEqual(len({fault.name for fault in FAULTS}), len(FAULTS))


if __name__ == "__main__":
    unittest.main()
