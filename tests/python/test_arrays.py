# SPDX-License-Identifier: Apache-2.0
"""How arrays go in and come out: the buffer protocol, DLPack in each of its forms, ml_dtypes; nothing copied, nothing kept."""

import array
import ctypes
import gc
import sys
import tracemalloc
import unittest

import capsules
import ml_dtypes
import numpy as np
from capsules import Producer
from reference import draw

import multihead
from multihead import attention


class Plain:
    """NumPy's own __dlpack__ and nothing else."""

    def __init__(self, given):
        self.given = given

    def __dlpack__(self, **more):
        return self.given.__dlpack__(**more)

    def __dlpack_device__(self):
        return self.given.__dlpack_device__()


def refused(test, error, sentence, call):
    with test.assertRaises(error) as caught:
        call()
    test.assertIn(sentence, str(caught.exception))


class Buffers(unittest.TestCase):
    def setUp(self):
        self.q = draw(1, 2, 3, 4)
        self.out = attention(self.q, self.q, self.q)

    def test_whatever_has_a_buffer(self):
        view = memoryview(self.q)
        flat = array.array("f", self.q.ravel().tolist())
        shaped = memoryview(flat).cast("B").cast("f", (1, 2, 3, 4))
        for given in (view, shaped, memoryview(self.q.tobytes()).cast("f", (1, 2, 3, 4))):
            found = attention(given, given, given)
            self.assertIsInstance(found, np.ndarray)
            self.assertEqual(found.tobytes(), self.out.tobytes())
        lent = (ctypes.c_float * 4 * 3 * 2 * 1).from_buffer_copy(self.q)  # a buffer without strides
        self.assertEqual(attention(lent, lent, lent).tobytes(), self.out.tobytes())
        room = array.array("f", bytes(4 * 24))
        self.assertIsInstance(attention(view, view, view, out=memoryview(room).cast("B").cast("f", (1, 2, 3, 4))), memoryview)
        self.assertEqual(room.tobytes(), self.out.tobytes())

    def test_what_cannot_be_read(self):
        q = self.q
        wide = np.zeros((1, 2, 3, 4), np.dtype([("a", "f4"), ("b", "i1")]))["a"]
        packed = np.frombuffer(bytes(97), np.uint8)[1:].view("f4").reshape(1, 2, 3, 4)
        for sentence, error, given in (
                ("k has a stride of 5 bytes", ValueError, wide), ("k begins at an address that is no multiple of 4", ValueError, packed),
                ("k has stride", ValueError, q[..., ::2]), ("k has rank 5", ValueError, q[None]),
                ("k has rank 0", ValueError, np.float32(1)), ("k has elements of int16", TypeError, q.astype(np.int16)),
                ("k has elements of uint8", TypeError, b"text"), ("k has elements of another type", TypeError, q * 1j),
                ("k has elements of another type", TypeError, q.astype(">f4")),
                ("k has elements of datetime64", TypeError, q.astype("M8[s]")),
                ("k has elements of another type", TypeError, q.astype(np.longdouble)), ("k has type str", TypeError, "text"),
                ("k has type list", TypeError, q.tolist()), ("k has type NoneType", TypeError, None)):
            with self.subTest(sentence=sentence):
                refused(self, error, "attention: " + sentence, lambda given=given: attention(q, given, q))

    def test_read_only_goes_in_and_not_out(self):
        q = self.q.copy()
        q.flags.writeable = False
        self.assertEqual(attention(q, q, q).tobytes(), self.out.tobytes())
        refused(self, ValueError, "out is read-only", lambda: attention(self.q, self.q, self.q, out=q))
        refused(self, ValueError, "out is read-only", lambda: attention(q, q, q, out=memoryview(bytes(96)).cast("f", q.shape)))

    def test_ml_dtypes(self):
        q = draw(1, 2, 3, 4, dtype=ml_dtypes.bfloat16)
        room = np.zeros_like(q)
        self.assertIs(attention(q, q, q, out=room), room)
        self.assertEqual(attention(q, q, q).tobytes(), room.tobytes())
        self.assertEqual(attention(q, q, q).dtype, ml_dtypes.bfloat16)
        for other in (np.uint16, ml_dtypes.float8_e4m3fn):
            with self.assertRaises(TypeError):
                attention(q, q.astype(other), q)

    def test_lists(self):
        q = draw(2, 2, 3, 4)
        wanted = attention(q, q, q, lengths=[1, 2]).tobytes()
        for given in ((1, 2), [1.0, 2.0], np.array([1, 2]), np.array([1, 2], np.uint64), np.array([1, 0, 2, 0], np.int8)[::2],
                      np.array([1, 2], np.float16), np.array([1, 2], ml_dtypes.bfloat16), array.array("i", [1, 2]), range(1, 3),
                      [np.int32(1), np.uint8(2)], Plain(np.array([1, 2], np.int16))):
            self.assertEqual(attention(q, q, q, lengths=given).tobytes(), wanted, given)
        for error, sentence, given in (
                (ValueError, "1.5", [1.5, 2]), (ValueError, "1.5", np.array([1.5, 2])), (ValueError, "nan", [float("nan"), 1]),
                (TypeError, "bool", np.array([True, False])), (TypeError, "True or False", [True, 1]), (TypeError, "str", ["a", 1]),
                (TypeError, "str", "ab"), (TypeError, "dict", {1: 2}), (ValueError, "rank 2", [[1, 2]]), (TypeError, "int", 3),
                (ValueError, "64 bits", [2**63, 1]), (ValueError, "64 bits", np.array([2**63, 1], np.uint64)),
                (ValueError, "lengths", [1, 2, 3]), (TypeError, "complex", [1j, 2])):
            with self.subTest(given=given):
                refused(self, error, sentence, lambda given=given: attention(q, q, q, lengths=given))
        sinks = attention(q, q, q, sinks=[1, 2.5]).tobytes()
        for given in (np.array([1, 2.5], np.float16), np.array([1, 2.5], ml_dtypes.bfloat16), np.array([1, 2.5], np.float32)):
            self.assertEqual(attention(q, q, q, sinks=given).tobytes(), sinks)


class DLPack(unittest.TestCase):
    def setUp(self):
        self.q = draw(1, 2, 3, 4)
        self.out = attention(self.q, self.q, self.q).tobytes()

    def test_each_form(self):
        q = self.q
        wide = np.concatenate([q, q], axis=3)[..., :4]
        for given in (Plain(q), Producer(q), Producer(q, versioned=False), Producer(q, strides=False),
                      Producer(q, versioned=False, strides=False), Producer(wide), Producer(q, byte_offset=64),
                      Producer(q, minor=9), Producer(q, device_type=3)):
            found = attention(given, given, given)
            self.assertIsInstance(found, np.ndarray)
            self.assertEqual(found.tobytes(), self.out)
        room = np.zeros_like(q)
        attention(q, q, q, out=Producer(room))
        self.assertEqual(room.tobytes(), self.out)

    def test_bfloat16(self):
        q = draw(1, 2, 3, 4, dtype=ml_dtypes.bfloat16)
        given = Producer(q.view(np.uint16), code=capsules.BFLOAT)
        self.assertEqual(attention(given, given, given).tobytes(), attention(q, q, q).tobytes())

    def test_versions(self):
        given = Producer(self.q)
        attention(given, given, given)
        self.assertEqual(given.calls[0]["max_version"], (1, 1))
        given = Producer(self.q, versioned=False)
        attention(given, given, given)
        self.assertEqual(given.calls[:2], [{"max_version": (1, 1)}, {}])

    def test_what_is_refused(self):
        q = self.q

        class Broken:
            def __dlpack__(self, **more):
                raise BufferError("not today")

        class Odd:
            def __dlpack__(self, **more):
                return 3

        for error, sentence, given in (
                (ValueError, "k is on device cuda", Producer(q, device_type=2)),
                (ValueError, "k is on device number 8", Producer(q, device_type=8)),
                (ValueError, "k comes in version 2", Producer(q, major=2)), (ValueError, "k cannot be read: not today", Broken()),
                (TypeError, "k has a __dlpack__", Odd()), (TypeError, "another type", Producer(q, lanes=2)),
                (TypeError, "another type", Producer(q, code=5)),
                (ValueError, "k has elements and no memory", Producer(q, data=None)), (ValueError, "rank 5", Producer(q[None]))):
            with self.subTest(sentence=sentence):
                refused(self, error, sentence, lambda given=given: attention(q, given, q))
        refused(self, ValueError, "out is read-only", lambda: attention(q, q, q, out=Producer(np.zeros_like(q), flags=1)))


class Keeping(unittest.TestCase):
    def test_no_reference_is_kept(self):
        q = draw(1, 2, 3, 4)
        half, room, mask = q.astype(ml_dtypes.bfloat16), np.zeros_like(q), np.ones((3, 3), bool)
        given = [q, half, room, mask, Producer(q), (lengths := [3]), (names := [1.0, 2.0])]
        bad = np.zeros((1, 2, 3, 5), np.float32)

        def calls():
            attention(q, q, q, out=room, keep_mask=mask, lengths=lengths, sinks=names, return_lse=True, return_weights="mean")
            attention(half, half, half)
            attention(given[4], q, given[4])
            for wrong in (lambda: attention(q, bad, q, keep_mask=mask, out=room), lambda: attention(q, q, half),
                          lambda: attention(given[4], q, q, lengths=[9]), lambda: attention(q, q, q, bias=half, window="a"),
                          lambda: attention(half, q, q), lambda: attention(q, q, q, sinks=names, nothing=1)):
                with self.assertRaises((TypeError, ValueError)):
                    wrong()

        def counts():
            return [sys.getrefcount(x) for x in given] + [sys.getrefcount(x) for x in (None, True, np.float32)]

        for _ in range(20):
            calls()
        before = counts()
        tracemalloc.start()
        gc.collect()
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            calls()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - start
        tracemalloc.stop()
        for old, new in zip(before, counts()):
            self.assertLess(abs(new - old), 100)
        self.assertLess(grown, 50_000)

    def test_layers_do_not_leak(self):
        weights = {"qkv": draw(8, 24), "out": draw(8, 8)}
        x = draw(1, 3, 8)
        for _ in range(200):
            multihead.MultiHeadAttention(2, order="in_out", **weights)(x)
        self.assertEqual([sys.getrefcount(w) for w in weights.values()], [sys.getrefcount(w) for w in {1: draw(1)}.values()] * 2)


if __name__ == "__main__":
    unittest.main()
