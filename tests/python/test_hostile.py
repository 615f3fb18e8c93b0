# SPDX-License-Identifier: Apache-2.0
"""Arguments that no one means well: texts without UTF-8, elements without bytes, objects whose methods raise, lists without
end. Each is an exception that names the argument, and what an object itself raises is not swallowed."""

import copy
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import unittest

import numpy as np
from reference import draw

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import tiny_encoder  # noqa: E402

import multihead  # noqa: E402
from multihead import Encoder, MultiHeadAttention, WeightsRequest, attention, attention_weights  # noqa: E402

Q = draw(1, 2, 3, 4)
WEIGHTS = {"qkv": draw(8, 24), "out": draw(8, 8)}
TENSORS = {"c_attn.weight": draw(8, 24), "c_attn.bias": draw(24), "c_proj.weight": draw(8, 8), "c_proj.bias": draw(8)}


def layer(**more):
    return MultiHeadAttention(2, **{"order": "in_out", **WEIGHTS, **more})


def loaded(layout="gpt2", tensors=None, **more):
    return MultiHeadAttention.from_tensors(layout, tensors or TENSORS, heads=2, **more)


# What takes a text, by the name that its sentence has.
TEXTS = {
    "layout": lambda text: attention(Q, Q, Q, layout=text),
    "weights: layout": lambda text: attention_weights(Q, Q, layout=text),
    "causal": lambda text: attention(Q, Q, Q, causal=text),
    "target": lambda text: attention(Q, Q, Q, target=text),
    "return_weights": lambda text: attention(Q, Q, Q, return_weights=text),
    "return_weights.point": lambda text: attention(Q, Q, Q, return_weights=WeightsRequest(point=text)),
    "keyword": lambda text: layer()(draw(3, 8), **{text: 1}),
    "a keyword": lambda text: layer(**{text: 1}),
    "explain": lambda text: multihead.explain(q_len=2, head_dim=4, **{text: 1}),
    "dtype": lambda text: multihead.explain(q_len=2, head_dim=4, dtype=text),
    "order": lambda text: layer(order=text),
    "fused_order": lambda text: layer(fused_order=text),
    "q_norm_kind": lambda text: layer(q_norm_kind=text),
    "rotary": lambda text: layer(rotary=text),
    "rotary_scaling": lambda text: layer(rotary="half_split", rotary_scaling=text),
    "from_tensors: layout": lambda text: loaded(text),
    "prefix": lambda text: loaded(prefix=text),
    "a name in tensors": lambda text: loaded(tensors={**TENSORS, text: Q}),
    "tasks_run: target": multihead.tasks_run,
    "folder": Encoder,
}


class Custom(Exception):
    """A caller's own."""


def raising(what):
    class Raises:
        def _raise(self, *_, **__):
            raise what

        __index__ = __float__ = __dlpack__ = _raise

    return Raises()


class Case(unittest.TestCase):
    def refused(self, error, sentence, call):
        with self.assertRaises(error) as caught:
            call()
        self.assertIs(type(caught.exception), error)
        self.assertIn(sentence, str(caught.exception))
        return caught.exception


class Texts(Case):
    def test_no_utf_8(self):
        for place, call in TEXTS.items():
            for text in ("\ud800", "bhsd\udfff"):
                with self.subTest(place=place, text=ascii(text)), self.assertRaises((TypeError, ValueError)) as caught:
                    if place != "folder" or text == "\ud800":
                        call(text)
                    else:
                        raise ValueError("folder")
                self.assertIn(place.split(" ")[-1], str(caught.exception).replace("_given", ""))

    def test_the_character_0(self):
        good = {"layout": "bhsd", "weights: layout": "bhsd", "causal": "top_left", "target": "baseline", "return_weights": "mean",
                "return_weights.point": "scaled", "keyword": "causal", "a keyword": "scale", "explain": "causal",
                "dtype": "float32", "order": "in_out", "fused_order": "blocks", "q_norm_kind": "none", "rotary": "half_split",
                "rotary_scaling": "default", "from_tensors: layout": "gpt2", "prefix": "", "a name in tensors": "other",
                "tasks_run: target": "baseline", "folder": os.path.dirname(__file__)}
        for place, call in TEXTS.items():
            with self.subTest(place=place), self.assertRaises((TypeError, ValueError)):
                call(good[place] + "\0zz")

    def test_other_types(self):
        for place, sentence, call in (
                ("tasks_run", "target has type int", lambda: multihead.tasks_run(3)),
                ("layout", "layout has type NoneType", lambda: loaded(None)),
                ("prefix", "prefix has type bytes", lambda: loaded(prefix=b"x")),
                ("tensors", "a name in tensors has type int", lambda: loaded(tensors={1: Q})),
                ("folder", "folder has type NoneType", lambda: Encoder(None)),
                ("folder", "folder has type int", lambda: Encoder(3))):
            with self.subTest(place=place):
                self.refused(TypeError, sentence, call)

    def test_folders_of_any_name(self):
        for folder in (b"/nowhere/\xff", os.fsdecode(b"/nowhere/\xff"), b"/nowhere/x", "/nowhere/\u00e9"):
            with self.subTest(folder=folder):
                self.refused(OSError, "nowhere", lambda folder=folder: Encoder(folder))


class Elements(Case):
    def test_no_bytes(self):
        nothing = np.empty((1, 1, 2, 2), "V0")
        self.refused(TypeError, "k has elements of no bytes", lambda: attention(Q, nothing, Q))
        self.refused(TypeError, "lengths has elements of no bytes", lambda: attention(Q, Q, Q, lengths=np.empty(2, "V0")))
        self.refused(TypeError, "X has elements of no bytes", lambda: multihead.self_attention(nothing[0, 0], Q, Q, Q))

    def test_masked_arrays(self):
        masked = np.ma.masked_array(Q, Q > 0)
        rows = np.ma.masked_array(draw(3, 3))
        for sentence, call in (
                ("k is a numpy.ma.MaskedArray", lambda: attention(Q, masked, Q)),
                ("out is a numpy.ma", lambda: attention(Q, Q, Q, out=masked)),
                ("lengths is a numpy.ma", lambda: attention(Q, Q, Q, lengths=np.ma.array([1]))),
                ("Wq is a numpy.ma", lambda: multihead.self_attention([[1, 2, 3]], rows, rows, rows)),
                ("query is a numpy.ma", lambda: layer()(np.ma.array(draw(3, 8))))):
            with self.subTest(sentence=sentence):
                self.refused(TypeError, sentence, call)
        self.assertEqual(attention(Q, masked.data, Q).tobytes(), attention(Q, Q, Q).tobytes())

    def test_bools_are_no_integers(self):
        for name, call in (
                ("threads", lambda: attention(Q, Q, Q, threads=True)), ("window", lambda: attention(Q, Q, Q, window=True)),
                ("window", lambda: attention(Q, Q, Q, window=(np.True_, 0))),
                ("query_offset", lambda: attention(Q, Q, Q, query_offset=False)),
                ("lengths has the element", lambda: attention(Q, Q, Q, lengths=[np.True_])),
                ("heads", lambda: layer(kv_heads=True)), ("threads", lambda: multihead.set_num_threads(True)),
                ("num_heads", lambda: multihead.multi_head_attention(*[draw(4, 4)] * 5, True))):
            with self.subTest(name=name):
                self.refused(TypeError, name, call)

    def test_flags_of_numpy(self):
        out, lse, weights = attention(Q, Q, Q, return_lse=np.True_, return_weights=np.True_)
        self.assertEqual((lse.shape, weights.shape), ((1, 2, 3), (1, 2, 3, 3)))
        self.assertEqual(attention(Q, Q, Q, return_lse=np.False_, return_weights=np.False_).tobytes(), out.tobytes())

    def test_tuples_are_pairs(self):
        q, k = draw(6, 2, 4), draw(4, 2, 4)
        pair = attention(q, k, k, layout="bshd", cu_seqlens=([0, 2, 6], [0, 3, 4]))
        ids = attention(q, k, k, layout="bshd", segments=([1, 1, 2, 2, 2, 2], [1, 1, 1, 2]))
        np.testing.assert_allclose(pair, ids, atol=1e-6)
        self.refused(ValueError, "cu_seqlens", lambda: attention(q, k, k, layout="bshd", cu_seqlens=[[0, 2, 6], [0, 3, 4]]))


class Passing(Case):
    CALLS = {
        "softcap": lambda bad: attention(Q, Q, Q, softcap=bad), "window": lambda bad: attention(Q, Q, Q, window=bad),
        "lengths": lambda bad: attention(Q, Q, Q, lengths=[bad]), "sinks": lambda bad: attention(Q, Q, Q, sinks=[bad, bad]),
        "k": lambda bad: attention(Q, bad, Q), "threads": lambda bad: attention(Q, Q, Q, threads=bad),
        "heads": lambda bad: layer(kv_heads=bad)}

    def test_what_is_no_refusal_passes(self):
        for what in (KeyboardInterrupt("now"), MemoryError("none left"), Custom("mine"), RuntimeError("broken")):
            for name, call in self.CALLS.items():
                with self.subTest(what=what, argument=name), self.assertRaises(type(what)) as caught:
                    call(raising(what))
                self.assertIs(caught.exception, what)

    def test_a_refusal_is_the_cause(self):
        for what in (TypeError("not I"), ValueError("not I"), OverflowError("not I"), BufferError("not I")):
            for name, call in self.CALLS.items():
                with self.subTest(what=what, argument=name), self.assertRaises((TypeError, ValueError)) as caught:
                    call(raising(what))
                self.assertIn(name, str(caught.exception))
                self.assertIs(caught.exception.__cause__, what)


class Sentences(Case):
    def test_numbers(self):
        self.refused(ValueError, "scale is too large", lambda: attention(Q, Q, Q, scale=10**400))
        self.refused(ValueError, "threads is an integer that 64 bits do not hold", lambda: attention(Q, Q, Q, threads=10**400))
        self.assertEqual(attention(Q, Q, Q, lengths=[np.array(3)]).tobytes(), attention(Q, Q, Q, lengths=[3]).tobytes())
        self.assertEqual(attention(Q, Q, Q, sinks=[np.array(1.0)] * 2).tobytes(), attention(Q, Q, Q, sinks=[1, 1]).tobytes())

    def test_lists_without_end(self):
        for given in (np.broadcast_to(np.int64(1), (10**12,)), np.broadcast_to(np.int8(1), (2**31, 2**31)), range(10**12),
                      [range(10**12)]):
            self.refused(ValueError, "elements; at most", lambda given=given: attention(Q, Q, Q, lengths=given))

    def test_devices(self):
        class Device:
            def __init__(self, said):
                self.said = said

            def __dlpack_device__(self):
                return self.said

            def __dlpack__(self, **_):
                raise BufferError

        for said in (3, None, ("cpu", 0), (1,), "ab", (None, None)):
            with self.subTest(said=said):
                self.refused(TypeError, "k has a __dlpack_device__ that returns", lambda said=said: attention(Q, Device(said), Q))
        self.refused(ValueError, "number 4294967297 of DLPack", lambda: attention(Q, Device((2**32 + 1, 0)), Q))

    def test_a_missing_lse(self):
        self.refused(ValueError, "attention_weights: lse is missing", lambda: attention_weights(Q, Q))
        self.assertEqual(attention_weights(Q, Q, weights=WeightsRequest("scaled")).shape, (1, 2, 3, 3))

    def test_heads_before_memory(self):
        for heads in (10**12, 0, -1, 3, 8):
            with self.subTest(heads=heads), self.assertRaises(ValueError) as caught:
                multihead.multi_head_attention(*[draw(4, 4)] * 5, heads, return_weights=True)
            self.assertIn("heads", str(caught.exception))


class Copies(Case):
    def test_what_never_changes_is_its_own_copy(self):
        with tempfile.TemporaryDirectory() as folder:
            tiny_encoder.write(pathlib.Path(folder))
            for made, sentence in ((layer(), "pass its weights on"), (Encoder(folder), "pass the name of its folder on")):
                self.assertIs(copy.copy(made), made)
                self.assertIs(copy.deepcopy([made])[0], made)
                self.refused(TypeError, sentence, lambda made=made: pickle.dumps(made))

    def test_folders_as_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            tiny_encoder.write(pathlib.Path(folder))
            for name in (folder.encode(), pathlib.Path(folder), folder):
                self.assertEqual(Encoder(name).extents.model_dim, 8)


class Process(Case):
    def run_program(self, program, **environment):
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False,
                              env={**os.environ, **environment})

    def test_nothing_is_printed_at_the_end(self):
        ran = self.run_program("""
import threading, numpy, multihead
layer = multihead.MultiHeadAttention(1, order="in_out", qkv=numpy.ones((4, 12)), out=numpy.ones((4, 4)))
threading.Thread(target=lambda kept: threading.Event().wait(), args=(layer,), daemon=True).start()
del layer
""")
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (0, "", ""))

    def test_a_target_that_is_none_changes_no_thread(self):
        ran = self.run_program("""
import multihead
print(multihead.get_num_threads(), multihead.tasks_run())
try:
    multihead.info()
except ValueError as error:
    assert "sse9" in str(error), error
    print("refused")
""", MULTIHEAD_TARGET="sse9")
        self.assertEqual(ran.stdout.split(), [str(multihead.info().threads), "0", "refused"], ran.stderr)

    def test_without_numpy(self):
        """What a memoryview cannot be is said, with the argument's name; NumPy is hidden once the arrays are made."""
        ran = self.run_program("""
import ctypes, sys, numpy
half = memoryview(numpy.zeros((1, 2, 2), numpy.float16))
sys.modules["numpy"] = None
import multihead
none = (ctypes.c_float * 2 * 0 * 1)()
for q, error in ((half, TypeError), (none, ValueError)):
    try:
        multihead.attention(q, q, q)
    except error as caught:
        print(caught)
""")
        self.assertEqual(ran.stdout.splitlines(), [
            "attention: out would have elements of float16; without NumPy (pip install numpy) none can be made",
            "attention: out would have no elements; without NumPy (pip install numpy) none can be made"], ran.stderr)


if __name__ == "__main__":
    unittest.main()
