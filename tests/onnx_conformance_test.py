# SPDX-License-Identifier: Apache-2.0
"""ONNX's own cases on every target, by name and count; and that the program which runs them can fail."""

import json
import math
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import unittest

CASES = pathlib.Path(__file__).resolve().parent / "conformance" / "onnx"
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
PROGRAM = BUILD / "tests" / "onnx_conformance"
OURS = {"Attention": 53, "RotaryEmbedding": 5, "TensorScatter": 2}
OTHERS = {"FlexAttention": 7, "LinearAttention": 8}


def run(*arguments):
    settings = {key: value for key, value in os.environ.items() if key != "MULTIHEAD_TARGET"}
    return subprocess.run([PROGRAM, *map(str, arguments)], env=settings, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=300, check=False)


def operators():
    """The operator of every case, by name."""
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8"))["op"] for path in CASES.glob("*/case.json")}


def write_npy(path, descr, shape, data):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("ascii") + data)


def data_of(path):
    content = path.read_bytes()
    return content[10 + struct.unpack("<H", content[8:10])[0]:]


@unittest.skipUnless(PROGRAM.is_file(), "onnx_conformance is not built: nlohmann_json is missing")
class Targets(unittest.TestCase):
    def all_cases(self, target):
        outcome = run(CASES, "--target", target)
        if "cannot run on this machine" in outcome.stderr and target != "baseline":
            self.skipTest(f"target {target} cannot run on this machine")
        self.assertEqual(outcome.stderr, "")
        first, *lines, last = outcome.stdout.splitlines()
        self.assertEqual(first, f"target {target}")
        self.assertEqual(last, f"{sum(OURS.values())} passed, 0 failed, {sum(OTHERS.values())} skipped")
        said = dict(line.split(": ", 1) for line in lines)
        self.assertEqual(len(said), len(lines))
        for name, operator in operators().items():
            with self.subTest(case=name):
                wanted = "passed" if operator in OURS else f"skipped: {operator} is another operator"
                self.assertEqual(said.pop(name).split(",")[0], wanted)
        self.assertEqual(said, {})
        self.assertEqual(outcome.returncode, 0)

    def test_baseline(self):
        self.all_cases("baseline")

    def test_avx2(self):
        self.all_cases("avx2")

    def test_avx512(self):
        self.all_cases("avx512")

    def test_avx512bf16(self):
        self.all_cases("avx512bf16")

    def test_amx(self):
        self.all_cases("amx")

    def test_neon(self):
        self.all_cases("neon")

    def test_the_cases_are_all_there(self):
        found = list(operators().values())
        self.assertEqual({operator: found.count(operator) for operator in set(found)}, OURS | OTHERS)


@unittest.skipUnless(PROGRAM.is_file(), "onnx_conformance is not built: nlohmann_json is missing")
class Changed(unittest.TestCase):
    """Copies of single cases with something changed."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def copy(self, name):
        for old in self.folder.iterdir():
            shutil.rmtree(old)
        return pathlib.Path(shutil.copytree(CASES / name, self.folder / name))

    def edit(self, case, change):
        """change gets what case.json holds and its tensors by name."""
        path = case / "case.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content, {tensor["name"]: tensor for tensor in content["tensors"]})
        path.write_text(json.dumps(content), encoding="utf-8")

    def add_input(self, case, name, descr, shape, data):
        write_npy(case / f"{name}.npy", descr, shape, data)
        dtype = {"<f4": "float32", "|b1": "bool", "<i8": "int64"}[descr]
        tensor = {"name": name, "role": "input", "file": f"{name}.npy", "dtype": dtype, "shape": shape}
        self.edit(case, lambda content, _: content["tensors"].append(tensor))

    def expect(self, status, pattern, *arguments):
        outcome = run(*(arguments or [self.folder]))
        self.assertRegex(outcome.stdout + outcome.stderr, pattern)
        self.assertEqual(outcome.returncode, status, outcome.stdout + outcome.stderr)

    def test_an_unchanged_copy_passes(self):
        self.copy("test_attention_4d")
        self.expect(0, r"\ntest_attention_4d: passed.*\n1 passed, 0 failed, 0 skipped\n$")

    def test_a_changed_value_fails_by_name(self):
        value = r"\[1, 2, 3, \d+\] is \S+, expected \S+, off by \S+, allowed 2e-06\n0 passed, 1 failed, 0 skipped"
        for name, tensor, words in (
            ("test_attention_4d", "y", value),
            ("test_attention_4d_with_qk_matmul", "qk_matmul_output", value),
            ("test_rotary_embedding", "y", r"\[1, 3, 2, 7\] is .*, allowed 2e-06\n"),
            ("test_attention_3d_with_past_and_present", "present_key", r"\[1, 2, 17, 7\] is .* the bits of"),
            ("test_attention_4d_gqa_with_past_and_present", "present_value", r"\[1, 2, 17, 7\] is .* the bits of"),
            ("test_tensorscatter_3d", "present_cache", r"\[2, 3, 4\] is .* the bits of"),
        ):
            with self.subTest(case=name, tensor=tensor):
                path = self.copy(name) / f"{tensor}.npy"
                content = path.read_bytes()
                (last,) = struct.unpack("<f", content[-4:])
                path.write_bytes(content[:-4] + struct.pack("<f", last + 4e-6))
                self.expect(1, rf"\n{name}: FAILED: {tensor}{words}")

    def test_a_float16_is_held_to_its_rounding(self):
        """One unit in the last place is too far."""
        for name in ("test_attention_4d_fp16", "test_attention_4d_gqa_causal_nonpad_decode_fp16"):
            for step in (1, -1):
                with self.subTest(case=name, step=step):
                    path = self.copy(name) / "y.npy"
                    content = path.read_bytes()
                    (bits,) = struct.unpack("<H", content[-2:])
                    path.write_bytes(content[:-2] + struct.pack("<H", bits + step))
                    self.expect(1, rf"{name}: FAILED: y\[.*, allowed \S+")

    def test_another_attribute_fails(self):
        for name, attribute, value in (
            ("test_attention_4d_causal", "is_causal", 0),
            ("test_attention_3d_scaled", "scale", 0.02),
            ("test_attention_4d_softcap", "softcap", 3.0),
            ("test_attention_local_window", "left_window_size", 1),
            ("test_attention_bidirectional_window", "right_window_size", 1),
            ("test_attention_4d_with_qk_matmul_softcap", "qk_matmul_output_mode", 0),
            ("test_attention_4d_with_qk_matmul_softcap", "qk_matmul_output_mode", 2),
            ("test_attention_4d_with_qk_matmul_softmax", "qk_matmul_output_mode", 2),
            ("test_attention_4d_with_qk_matmul_bias", "qk_matmul_output_mode", 1),
            ("test_rotary_embedding", "interleaved", 1),
        ):
            with self.subTest(case=name, attribute=attribute, value=value):
                self.edit(self.copy(name), lambda content, _: content["attributes"].update({attribute: value}))
                self.expect(1, f"{name}: FAILED: (y|qk_matmul_output)")

    def test_another_input_fails(self):
        for name, tensor, descr, values in (
            ("test_attention_4d_causal_nonpad_batch_prefill", "nonpad_kv_seqlen", "<3q", (2, 2, 2)),
            ("test_attention_4d_diff_heads_mask4d_padded_kv", "nonpad_kv_seqlen", "<2q", (4, 3)),
            ("test_rotary_embedding", "position_ids", "<6q", (0, 1, 2, 3, 4, 5)),
            ("test_tensorscatter_3d", "write_indices", "<3q", (0, 0, 0)),
        ):
            with self.subTest(case=name, tensor=tensor):
                path = self.copy(name) / f"{tensor}.npy"
                old, new = data_of(path), struct.pack(descr, *values)
                self.assertNotEqual(old, new)
                path.write_bytes(path.read_bytes()[:-len(new)] + new)
                self.expect(1, f"{name}: FAILED: (y|present_cache)")

    def test_a_short_mask_hides_the_keys_after_it(self):
        """Two keys more that are hidden change nothing: the expected values stay."""
        for descr, data in (("<f4", bytes(24)), ("|b1", b"\x01" * 6)):
            for opset, status, words in ((24, 0, ": passed"), (23, 2, r"shape \(6,\); it must broadcast to")):
                with self.subTest(mask=descr, opset=opset):
                    case = self.copy("test_attention_4d")
                    self.edit(case, lambda content, tensors: (
                        content.update(opset=opset),
                        tensors["k"].update(shape=[2, 3, 8, 8]), tensors["v"].update(shape=[2, 3, 8, 8])))
                    for tensor in ("k", "v"):
                        heads = struct.iter_unpack("192s", data_of(case / f"{tensor}.npy"))
                        more = struct.pack("<16f", *[1000.0] * 16)
                        longer = b"".join(head + more for (head,) in heads)
                        write_npy(case / f"{tensor}.npy", "<f4", (2, 3, 8, 8), longer)
                    self.add_input(case, "attn_mask", descr, [6], data)
                    self.expect(status, words)

    def test_a_length_past_the_buffer_moves_the_diagonal(self):
        """With it causal hides nothing, and the values of the case without causal are the expected ones."""
        for length, status in ((9, 0), (8, 1)):
            with self.subTest(length=length):
                case = self.copy("test_attention_4d")
                self.edit(case, lambda content, _: content.update(opset=24, attributes={"is_causal": 1}))
                self.add_input(case, "nonpad_kv_seqlen", "<i8", [2], struct.pack("<2q", length, length))
                self.expect(status, "test_attention_4d: " + ("passed" if status == 0 else "FAILED: y"))

    def test_a_malformed_case_is_an_error_by_file_and_rule(self):
        name = "test_attention_3d_attn_mask"
        where = rf"onnx_conformance: .*{name}/case\.json: "
        for words, change in (
            ("q.npy holds float32, its dtype here is float16", lambda _, tensors: tensors["q"].update(dtype="float16")),
            (r"q.npy has shape \(2, 4, 24\), its shape here is \(2, 4\)",
             lambda _, tensors: tensors["q"].update(shape=[2, 4])),
            ("'op' is missing", lambda content, _: content.pop("op")),
            ("'format' must be attn-conformance-1", lambda content, _: content.update(format="2")),
            ("'name' must be the name of its directory", lambda content, _: content.update(name="other")),
            ("'opset' must be an integer", lambda content, _: content.update(opset="23")),
            (r"'tensors\[1\].file' must be the name of a file",
             lambda _, tensors: tensors["k"].update(file="../k.npy")),
            (r"'tensors\[2\].role' must be input or output", lambda _, tensors: tensors["v"].update(role="weight")),
            ("'attributes.x' must be a number or a string", lambda content, _: content["attributes"].update(x=[1])),
            ("Attention of opset 23 has no attribute 'left_window_size'",
             lambda content, _: content["attributes"].update(left_window_size=1)),
            ("Attention of opset 23 has no input 'sink'", lambda _, tensors: tensors["attn_mask"].update(name="sink")),
            ("input 'v' is missing", lambda content, _: content["tensors"].pop(2)),
            ("output 'y' is missing", lambda content, _: content["tensors"].pop()),
            (r"q has shape \(2, 4, 24\); its last extent must be a multiple of its heads, 5",
             lambda content, _: content["attributes"].update(q_num_heads=5)),
            ("'attributes.is_causal' must be an integer",
             lambda content, _: content["attributes"].update(is_causal=0.5)),
            ("qk_matmul_output_mode must be 0 to 3",
             lambda content, _: content["attributes"].update(qk_matmul_output_mode=4)),
        ):
            with self.subTest(words=words):
                self.edit(self.copy(name), change)
                self.expect(2, where + words)

    def test_another_type_is_an_error(self):
        """Of the right shape, so that only the type can be refused."""
        for name, tensor, descr, dtype, size, wanted in (
            ("test_attention_4d", "y", "<f2", "float16", 2, "float32"),
            ("test_attention_4d_fp16", "y", "<f4", "float32", 4, "float16"),
            ("test_rotary_embedding", "y", "<f2", "float16", 2, "float32"),
            ("test_rotary_embedding", "position_ids", "<i4", "int32", 4, "int64"),
            ("test_attention_4d_causal_nonpad_batch_prefill", "nonpad_kv_seqlen", "<f4", "float32", 4, "int64"),
            ("test_tensorscatter_3d", "update", "<f8", "float64", 8, "float32"),
        ):
            with self.subTest(case=name, tensor=tensor):
                case = self.copy(name)
                self.edit(case, lambda _, tensors: tensors[tensor].update(dtype=dtype))
                content = json.loads((case / "case.json").read_text(encoding="utf-8"))
                shape = next(entry["shape"] for entry in content["tensors"] if entry["name"] == tensor)
                write_npy(case / f"{tensor}.npy", descr, shape, bytes(size * math.prod(shape)))
                self.expect(2, rf"{name}/case\.json: {tensor} holds {dtype}; it must hold {wanted}\n")

    def test_a_missing_or_broken_file_is_an_error(self):
        case = self.copy("test_attention_4d")
        (case / "v.npy").unlink()
        self.expect(2, r"onnx_conformance: read_npy: .*test_attention_4d/v\.npy: cannot be opened")
        (case / "v.npy").write_bytes(b"hello")
        self.expect(2, r"onnx_conformance: read_npy: .*test_attention_4d/v\.npy: byte 0")
        (case / "case.json").write_text("{", encoding="utf-8")
        self.expect(2, r"case\.json: byte \d+: not JSON")
        (case / "case.json").unlink()
        self.expect(2, r"test_attention_4d/case\.json: cannot be opened; every directory of cases holds one")

    def test_what_is_not_judged_is_skipped_by_reason(self):
        case = self.copy("test_attention_4d")
        self.edit(case, lambda content, _: content["attributes"].update(softmax_precision=11))
        self.expect(1, r": skipped: a softmax in float64 .*\n0 passed, 0 failed, 1 skipped\n$")
        self.copy("test_linear_attention_delta")
        self.expect(1, r": skipped: LinearAttention is another operator\n0 passed, 0 failed, 1 skipped\n$")

    def test_data_of_another_commit_are_named_where_they_fail(self):
        case = self.copy("test_attention_4d_with_qk_matmul_softcap")
        self.edit(case, lambda content, _: content["source"].update(commit="e9bad1d"))
        self.expect(0, "softcap: passed")
        self.edit(case, lambda content, _: content["attributes"].update(qk_matmul_output_mode=2))
        self.expect(1, r"FAILED: .* \(the data are of another commit, e9bad1d\)")

    def test_usage(self):
        self.expect(2, "a directory of cases is wanted\nusage: onnx_conformance DIR", "--target", "baseline")
        self.expect(2, "'--fast' is not understood", CASES, "--fast")
        self.expect(2, "'--target' is not understood", CASES, "--target")
        self.expect(2, "target: .*sse9", CASES, "--target", "sse9")
        self.expect(2, "nowhere: it is not a directory", CASES / "nowhere")
        self.expect(2, "it holds no case", self.folder)


if __name__ == "__main__":
    unittest.main()
