# SPDX-License-Identifier: Apache-2.0
"""Bad input, the table of ../bad_input, through Python: NumPy's arrays."""

import pathlib
import sys
import tempfile
import unittest

import numpy

import multihead

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bad_input"))
import faces  # noqa: E402

PATTERN = 0xA5
MOST = 1 << 16  # elements of a test's tensor


class CannotBeSaid(Exception):
    """The face has no words for the case."""


class Elsewhere:
    """A tensor of another device, as far as anyone may look at it."""

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **_):
        raise BufferError("it is on a GPU")


def array(description, made):
    """One tensor of a case as a NumPy array."""
    if description.get("null"):
        raise CannotBeSaid("an array always has its elements")
    if description.get("absent"):
        return None
    if "device" in description:
        return Elsewhere()
    if "same_as" in description:
        return made[description["same_as"]]
    kind = description.get("type", "float32")
    if kind == "bfloat16":
        raise CannotBeSaid("NumPy alone has no bfloat16")
    shape, dtype = description["shape"], numpy.dtype(kind)
    strides = description.get("strides")
    if any(extent < 0 or extent > MOST for extent in shape) or any(abs(step) > MOST for step in strides or ()):
        raise CannotBeSaid("NumPy makes no such array")
    if strides is None:
        strides = [1] * len(shape)
        for axis in range(len(shape) - 2, -1, -1):
            strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    count = 1 + sum(max(extent - 1, 0) * step for extent, step in zip(shape, strides))
    offset = description.get("misaligned", 0)
    memory = numpy.full(count * dtype.itemsize + 8, PATTERN if description.get("output") else 0, numpy.uint8)
    memory.flags.writeable = not description.get("readonly", False)
    return numpy.ndarray(shape, dtype, memory, offset, [step * dtype.itemsize for step in strides])


def untouched(description, value):
    if not description.get("output") or value is None or description.get("readonly"):
        return True
    if "same_as" in description:
        return not value.any()
    return numpy.ascontiguousarray(value).view(numpy.uint8).tobytes().strip(bytes([PATTERN])) == b""


def number(value):
    return float(value) if isinstance(value, str) else value


def listed(options, name, made):
    value = options.get(name)
    if isinstance(value, dict):
        return array(value, made)
    return [number(item) for item in value] if isinstance(value, list) and not isinstance(value[0], list) else value


def pair(options, first, second):
    if first not in options and second not in options:
        return None
    if first not in options or second not in options:
        raise CannotBeSaid("the two come as a pair")
    return options[first], options[second]


def keywords(whole, made):
    """The options of a case in the words of multihead.attention."""
    options = whole.get("options", {})
    given = {name: number(options[name]) for name in ("scale", "softcap", "query_offset", "dropout", "dropout_seed",
                                                          "window_first") if name in options}
    given.update({name: listed(options, name, made)
                  for name in ("lengths", "prefixes", "keep_mask", "drop_mask", "bias", "alibi_slopes", "sinks")
                  if name in options})
    if "query_offsets" in options:
        given["query_offset"] = options["query_offsets"]
    if "window" in options:
        given["window"] = tuple(options["window"])
    for name, first, second in (("cu_seqlens", "cu_seqlens_q", "cu_seqlens_k"), ("segments", "q_segments", "kv_segments")):
        both = pair(options, first, second)
        if both is not None:
            given[name] = both
    if "relative_bias" in options:
        given["relative_bias"] = multihead.RelativeBias(
            array(options["relative_bias"], made), max_distance=options.get("relative_max_distance", 128))
    if options.get("causal"):
        given["causal"] = options.get("alignment", True)
    elif options.get("alignment") == "top_left":
        given["query_offset"] = 0
    given.update({name: whole["run"][name] for name in ("threads", "target") if name in whole.get("run", {})})
    return given


def attention(whole, made):
    if "lse" in made:
        raise CannotBeSaid("lse is returned, not given")
    if whole["tensors"]["out"].get("absent"):
        raise CannotBeSaid("out may be left out")
    return multihead.attention(made["q"], made["k"], made["v"], out=made["out"], **keywords(whole, made))


def attention_backward(whole, made):
    """The gradients are made by the call: what the table says of theirs has no words."""
    tensors = whole["tensors"]
    for name in ("q", "k", "v"):
        if tensors[f"d_{name}"] != {"shape": tensors[name]["shape"], "output": True}:
            raise CannotBeSaid("the arrays are made by the call")
    bias = whole.get("options", {}).get("bias")
    if bias and "d_bias" in tensors and tensors["d_bias"]["shape"] != bias["shape"]:
        raise CannotBeSaid("the array is made by the call")
    want = [name for name in ("q", "k", "v", "bias", "sinks") if f"d_{name}" in tensors]
    return multihead.attention_backward(made["d_out"], made["q"], made["k"], made["v"], made["out"], made["lse"],
                                        d_lse=made.get("d_lse"), want=want, **keywords(whole, made))


def statistics(whole, made):
    call, tensors = whole["call"], whole["tensors"]
    entropy = {"shape": tensors["q"]["shape"][:3], "output": True}
    if tensors["entropy"] != entropy or "norms" in made and "weighted" not in tensors:
        raise CannotBeSaid("the arrays are made by the call")
    tokens = (call["q_tokens"], call["kv_tokens"]) if "q_tokens" in call else None
    if "duplicate_mass" in tensors and tokens is None:
        raise CannotBeSaid("without tokens none is asked for")
    top = tensors["top_keys"]["shape"][-1] if "top_keys" in tensors else 1
    request = multihead.StatisticsRequest(call["offsets"], call.get("keys", ()), tokens=tokens, top=top,
                                          bin=call.get("bin", 0), norms=made.get("norms"),
                                          norm_weighted="weighted" in tensors)
    return multihead.attention(made["q"], made["k"], made["v"], out=made["out"], return_statistics=request,
                               **keywords(whole, made))


def multi_head_attention(whole, made):
    return multihead.multi_head_attention(made["X"], made["Wq"], made["Wk"], made["Wv"], made["Wo"],
                                          whole["call"]["num_heads"], out=made["output"], **whole.get("run", {}))


def layer(whole, made):
    call = whole["call"]
    settings = {"order": "in_out", **{name: call[name] for name in ("kv_heads", "order") if name in call}}
    if "rotary_dim" in call:
        settings.update(rotary="half_split", rotary_dim=call["rotary_dim"])
    weights = {name: made[name] for name in ("q", "k", "v", "out", "q_bias", "bias_k") if name in made}
    built = multihead.MultiHeadAttention(call["heads"], **weights, **settings)
    more = {name: call[name] for name in ("gates", "q_positions", "k_positions") if name in call}
    return built(made["query"], made["key"], made["value"], out=made["output"], **more, **keywords(whole, made))


def explain(whole, made):
    return multihead.explain(**whole["call"], **keywords(whole, made))


def gates_of(call):
    return [[number(gate) for gate in row] for row in call["gates"]] if "gates" in call else None


def encoder(whole, made):
    output = whole["tensors"]["output"]
    if output["shape"][1] != 8 or "type" in output or "absent" in output:
        raise CannotBeSaid("an encoder makes its own output")
    call = whole["call"]
    with tempfile.TemporaryDirectory() as models:
        faces.write_models(pathlib.Path(models))
        opened = multihead.Encoder(pathlib.Path(models) / call["folder"],
                                   **{name: call[name] for name in ("precision", "products") if name in call})
        return opened(call["ids"], call.get("cu_seqlens"), call.get("token_types"), gates=gates_of(call), **whole.get("run", {}))


CALLS = {"attention": attention, "attention_backward": attention_backward, "statistics": statistics,
         "multi_head_attention": multi_head_attention, "layer": layer, "explain": explain, "encoder": encoder}


class Table:
    """What runs the table, for classes of tests."""

    def answer(self, call, whole, convert):
        """The kind of error or "ok", the sentence, and whether an output was written."""
        tensors = whole["tensors"]
        plain = {}
        for name in sorted(tensors, key=lambda name: "same_as" in tensors[name]):
            plain[name] = array(tensors[name], plain)
        made = {name: convert(value) for name, value in plain.items()}
        try:
            CALLS[call](whole, made)
            return "ok", "", False
        except (TypeError, ValueError, OverflowError, OSError) as error:
            written = not all(untouched(tensors[name], value) for name, value in plain.items())
            return type(error), str(error), written

    def run_table(self, face, convert):
        said = 0
        for call in faces.TABLE:
            for case, whole in faces.cases(call, face):
                with self.subTest(call=call, case=case["name"]):
                    try:
                        kind, sentence, written = self.answer(call, whole, convert)
                    except CannotBeSaid:
                        continue
                    said += 1
                    status = "ok" if kind == "ok" else None
                    self.assertEqual(faces.faults(case, status, sentence, written), [])
                    if case["status"] == "bad_type":
                        self.assertIs(kind, TypeError, sentence)
                    elif case["status"].startswith("file"):
                        self.assertTrue(issubclass(kind, OSError), sentence)
                    elif case["status"] not in ("ok", "bad_argument"):
                        self.assertIs(kind, ValueError, sentence)
        return said


class NumPy(Table, unittest.TestCase):
    def test_every_case(self):
        total = sum(len(entry["cases"]) for entry in faces.TABLE.values())
        self.assertGreaterEqual(self.run_table("Python", lambda value: value), total * 3 // 4)


if __name__ == "__main__":
    unittest.main()
