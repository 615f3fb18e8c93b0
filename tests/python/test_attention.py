# SPDX-License-Identifier: Apache-2.0
"""attention() of Python: every option in every type and layout against the definition, results where they are asked for."""

import itertools
import unittest

import ml_dtypes
import numpy as np
import reference
from reference import draw

import multihead
from multihead import RelativeBias, WeightsRequest, attention

BATCH, HEADS, KV_HEADS, Q_LEN, KV_LEN, HEAD_DIM, VALUE_DIM = 2, 4, 2, 5, 7, 8, 6
TOLERANCE = {np.float64: 1e-12, np.float32: 2e-6, np.float16: 2e-3, ml_dtypes.bfloat16: 2e-2}
MASK = draw(BATCH, 1, Q_LEN, KV_LEN) > -0.5
OPTIONS = {
    "plain": {},
    "top_left": {"causal": "top_left"},
    "bottom_right": {"causal": "bottom_right"},
    "offset": {"causal": True, "query_offset": 1},
    "offsets": {"causal": True, "query_offset": [2, -1]},
    "window": {"window": (2, 1), "query_offset": 0},
    "window and first keys": {"window": (1, None), "causal": "bottom_right", "window_first": 2},
    "window of one side": {"window": (None, 1), "causal": "bottom_right"},
    "lengths": {"lengths": [4, 0]},
    "prefixes": {"causal": "top_left", "prefixes": [3, 0]},
    "keep": {"keep_mask": MASK},
    "drop": {"drop_mask": MASK[0, 0]},
    "bias": {"bias": draw(HEADS, 1, KV_LEN)},
    "bias in float16": {"bias": draw(1, 1, Q_LEN, KV_LEN, dtype=np.float16)},
    "alibi": {"alibi_slopes": [0.5, 0.25, 0.125, 0.0625], "query_offset": 2},
    "relative": {"relative_bias": draw(8, HEADS), "query_offset": 1},
    "relative one way": {"relative_bias": RelativeBias(draw(8, HEADS), bidirectional=False, max_distance=16),
                         "query_offset": 1},
    "softcap": {"softcap": 1.5},
    "sinks": {"sinks": [0.5, -1, 2, 0], "lengths": [0, 7]},
    "scale": {"scale": 0.3},
    "dropout": {"dropout": 0.4, "dropout_seed": 2 ** 64 - 3, "dropout_stream": 2 ** 32 - 1},
    "segments": {"segments": (np.array([[1, 1, 2, 2, 2], [5, 5, 5, 5, 3]], np.int32),
                              [[1, 1, 1, 2, 2, 2, 2], [5, 5, 3, 3, 3, 3, 3]]), "causal": "bottom_right"},
    "many": {"causal": "bottom_right", "window": (3, None), "lengths": np.array([7, 5], np.uint8), "keep_mask": MASK,
             "bias": draw(HEADS, Q_LEN, 1), "softcap": 2.0, "sinks": np.zeros(HEADS, np.float32), "scale": 0.5,
             "alibi_slopes": (0.1, 0.2, 0.3, 0.4), "dropout": np.float32(0.25), "dropout_seed": np.int64(7)},
}


def inputs(dtype, q_len=Q_LEN):
    return (draw(BATCH, HEADS, q_len, HEAD_DIM, dtype=dtype), draw(BATCH, KV_HEADS, KV_LEN, HEAD_DIM, dtype=dtype, seed=2),
            draw(BATCH, KV_HEADS, KV_LEN, VALUE_DIM, dtype=dtype, seed=3))


class Attention(unittest.TestCase):
    def assert_near(self, found, wanted, tolerance):
        self.assertEqual(found.shape, wanted.shape)
        np.testing.assert_allclose(np.asarray(found).astype(np.float64), wanted, rtol=0, atol=tolerance)

    def test_every_option_in_every_type(self):
        for (name, options), dtype in itertools.product(OPTIONS.items(), TOLERANCE):
            with self.subTest(options=name, dtype=np.dtype(dtype).name):
                q, k, v = inputs(dtype)
                out, lse, weights = attention(q, k, v, return_lse=True, return_weights=True, **options)
                wanted = reference.attention(q, k, v, **options)
                self.assertEqual(out.dtype, np.dtype(dtype))
                sums = np.float64 if dtype is np.float64 else np.float32
                self.assertEqual((lse.dtype, weights.dtype), (sums, sums))
                self.assert_near(out, wanted[0], TOLERANCE[dtype])
                self.assert_near(lse, wanted[1], min(TOLERANCE[dtype], 2e-5))
                self.assert_near(weights, wanted[2], min(TOLERANCE[dtype], 2e-5))

    def test_layouts_and_strides_give_the_same_bits(self):
        for (name, options), dtype in itertools.product(OPTIONS.items(), TOLERANCE):
            with self.subTest(options=name, dtype=np.dtype(dtype).name):
                q, k, v = inputs(dtype)
                out, lse = attention(q, k, v, return_lse=True, **options)
                there = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v)]
                other, lse_of_other = attention(*there, layout="bshd", return_lse=True, **options)
                self.assertEqual(other.swapaxes(1, 2).tobytes(), out.tobytes())
                self.assertEqual(lse_of_other.tobytes(), lse.tobytes())
                views = [x.swapaxes(1, 2) for x in there]
                wide = [np.concatenate([x, x], axis=3)[..., :x.shape[3]] for x in views]
                backward = [np.ascontiguousarray(x[:, ::-1])[:, ::-1] for x in views]
                self.assertLess(backward[0].strides[1], 0)
                for arrays in (views, wide, backward):
                    self.assertEqual(attention(*arrays, **options).tobytes(), out.tobytes())

    def test_rank_3_is_a_batch_of_one(self):
        q, k, v = (x[0] for x in inputs(np.float32))
        out, lse, weights = attention(q[None], k[None], v[None], return_lse=True, return_weights=True)
        found = attention(q, k, v, return_lse=True, return_weights=True)
        for one, whole in zip(found, (out, lse, weights)):
            np.testing.assert_array_equal(one, whole[0])
        mean = attention(q, k, v, return_weights="mean")[1]
        np.testing.assert_allclose(mean, weights[0].mean(0), atol=1e-6)

    def test_packed_sequences(self):
        lengths = [(3, 3), (1, 4), (4, 2)]
        starts = tuple([0, *itertools.accumulate(n[side] for n in lengths)] for side in (0, 1))
        q = draw(8, HEADS, HEAD_DIM)
        k, v = draw(9, KV_HEADS, HEAD_DIM, seed=2), draw(9, KV_HEADS, VALUE_DIM, seed=3)
        options = {"cu_seqlens": starts, "causal": "bottom_right", "lengths": [3, 2, 2]}
        out, lse = attention(q, k, v, layout="bshd", return_lse=True, **options)
        whole = [x.swapaxes(0, 1)[None] for x in (q, k, v)]
        wanted = reference.attention(*whole, **options)
        self.assert_near(out, wanted[0][0].swapaxes(0, 1), 2e-6)
        self.assert_near(lse, wanted[1][0], 2e-6)
        for s, valid in enumerate(options["lengths"]):
            rows, keys = slice(*starts[0][s:s + 2]), slice(starts[1][s], starts[1][s] + valid)
            alone = attention(q[rows], k[keys], v[keys], layout="bshd", causal="bottom_right")
            self.assertEqual(alone.tobytes(), out[rows].tobytes())
        same = attention(k, k, v, layout="bshd", cu_seqlens=np.array([0, 4, 9], np.int32), causal=True)
        self.assertEqual(same[:4].tobytes(), attention(k[:4], k[:4], v[:4], layout="bshd", causal=True).tobytes())

    def test_a_window_of_one_number(self):
        q, k, v = inputs(np.float64)
        found = attention(q, k, v, window=2, causal="bottom_right")
        self.assertEqual(found.tobytes(), attention(q, k, v, window=(2, None), causal="bottom_right").tobytes())
        self.assertEqual(found.tobytes(), attention(q, k, v, window=[2, -1], causal="bottom_right").tobytes())

    def test_out(self):
        for dtype in TOLERANCE:
            q, k, v = inputs(dtype)
            for layout in ("bhsd", "bshd"):
                given = [np.ascontiguousarray(x.swapaxes(1, 2)) if layout == "bshd" else x for x in (q, k, v)]
                made = attention(*given, layout=layout)
                room = np.zeros((*made.shape[:3], 2 * VALUE_DIM), dtype)[..., :VALUE_DIM]
                self.assertIs(attention(*given, layout=layout, out=room), room)
                self.assertEqual(room.tobytes(), made.tobytes())

    def test_threads_and_targets(self):
        q, k, v = draw(2, 4, 300, 32), draw(2, 4, 300, 32, seed=2), draw(2, 4, 300, 32, seed=3)
        out = attention(q, k, v)
        for threads in (1, 2, 3):
            self.assertEqual(attention(q, k, v, threads=threads).tobytes(), out.tobytes())
        for target in multihead.info().targets:
            before = multihead.tasks_run(target)
            np.testing.assert_allclose(attention(q, k, v, target=target), out, atol=1e-5)
            self.assertGreater(multihead.tasks_run(target), before)

    def test_zero_extents(self):
        q, k, v = inputs(np.float32)
        self.assertEqual(attention(q[:0], k[:0], v[:0]).shape, (0, HEADS, Q_LEN, VALUE_DIM))
        out, lse = attention(q, k[:, :, :0], v[:, :, :0], return_lse=True)
        self.assertFalse(out.any())
        self.assertTrue(np.isneginf(lse).all())
        self.assertEqual(attention(q[:, :, :0], k, v, return_weights=True)[1].shape, (BATCH, HEADS, 0, KV_LEN))


class Weights(unittest.TestCase):
    def test_requests(self):
        q, k, v = inputs(np.float64)
        weights = reference.attention(q, k, v, causal="bottom_right")[2]
        asked = WeightsRequest(heads=[2, 0], rows=np.array([4, 1]))
        out, found = attention(q, k, v, causal="bottom_right", return_weights=asked)
        np.testing.assert_allclose(found, weights[:, [2, 0]][:, :, [4, 1]], atol=1e-12)
        self.assertEqual(out.tobytes(), attention(q, k, v, causal="bottom_right").tobytes())
        found = attention(q, k, v, causal="bottom_right", return_weights="mean")[1]
        np.testing.assert_allclose(found, weights.mean(1), atol=1e-12)
        found = attention(q, k, v, causal="bottom_right", return_weights=asked._replace(mean=True))[1]
        np.testing.assert_allclose(found, weights[:, [2, 0]].mean(1)[:, [4, 1]], atol=1e-12)

    def test_norm_weighted(self):
        q, k, v = inputs(np.float64)
        norms = abs(draw(BATCH, HEADS, KV_LEN, dtype=np.float64))
        found = attention(q, k, v, return_weights=WeightsRequest(norm_weighted=True, norms=norms))[1]
        weights = reference.attention(q, k, v)[2]
        np.testing.assert_allclose(found, (weights * norms[:, :, None]).sum(1), atol=1e-12)

    def test_points(self):
        q, k, v = inputs(np.float64)
        options = {"softcap": 1.5, "bias": draw(HEADS, 1, KV_LEN), "lengths": [5, 7]}
        scaled = np.einsum("bhid,bhjd->bhij", q, k.repeat(2, 1)) / HEAD_DIM**0.5
        capped = 1.5 * np.tanh(scaled / 1.5)
        biased = capped + options["bias"]
        biased[0, :, :, 5:] = -np.inf
        for point, wanted in (("scaled", scaled), ("capped", capped), ("biased", biased)):
            found = attention(q, k, v, return_weights=WeightsRequest(point), **options)[1]
            np.testing.assert_allclose(found, wanted, atol=1e-12)

    def test_halves_merged(self):
        for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 2e-6)):
            q, k, v = inputs(dtype)
            whole, lse = attention(q, k, v, return_lse=True)
            halves = [attention(q, k[:, :, keys], v[:, :, keys], return_lse=True) for keys in (slice(3), slice(3, None))]
            out, joined = multihead.merge(*halves[0], *halves[1])
            np.testing.assert_allclose(out, whole, atol=tolerance)
            np.testing.assert_allclose(joined, lse, atol=tolerance)
            without = multihead.merge(*(x[0] for half in halves for x in half))
            np.testing.assert_array_equal(without[0], out[0])
            weights = multihead.attention_weights(q, k[:, :, :3], joined)
            np.testing.assert_allclose(weights, reference.attention(q, k, v)[2][..., :3], atol=tolerance)
            one = multihead.attention_weights(q[0], k[0, :, :3], joined[0], weights="mean")
            np.testing.assert_allclose(one, weights[0].mean(0), atol=tolerance)


if __name__ == "__main__":
    unittest.main()
