# SPDX-License-Identifier: Apache-2.0
"""return_statistics of attention, the layer and the encoder: float64 NumPy from dense weights, the same bits beside them."""

import pathlib
import sys
import tempfile
import unittest

import numpy as np
import reference
import statistics_truth as truth

import multihead
from multihead import StatisticsRequest, inspect

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import tiny_encoder  # noqa: E402

BATCH, HEADS, KV_HEADS, LENGTH, WIDTH = 2, 4, 2, 37, 16
IDS = np.random.default_rng(5).integers(0, 6, (BATCH, LENGTH))
TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5, np.float16: 1e-5}
OPTIONS = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window": (5, None)},
    "lengths": {"lengths": [20, 37]},
    "offset": {"causal": True, "query_offset": 3},
    "softcap and sinks": {"softcap": 3.0, "sinks": [0.5, -1.0, 2.0, 0.0]},
    "alibi": {"alibi_slopes": [0.5, 0.25, 0.125, 0.0625]},
    "mask": {"keep_mask": np.random.default_rng(6).random((BATCH, 1, LENGTH, LENGTH)) < 0.4},
    "segments": {"segments": np.repeat([[1, 2, 3], [4, 5, 6]], [10, 12, 15], axis=1), "causal": True},
}


def inputs(dtype=np.float32, sharp=2.0):
    q, k, v = (reference.draw(BATCH, heads, LENGTH, WIDTH, seed=seed) * scale
               for heads, seed, scale in ((HEADS, 1, sharp), (KV_HEADS, 2, 1), (KV_HEADS, 3, 1)))
    return [array.astype(dtype) for array in (q, k, v)]


def checked(case, found, wanted, tolerance):
    """Every array of a Statistics against the truth; those asked for are exactly those wanted."""
    arrays = dict(found.arrays())
    case.assertEqual(set(arrays), set(wanted))
    for name, array in arrays.items():
        with case.subTest(statistic=name):
            case.assertEqual(array.shape, wanted[name].shape)
            if name == "top_keys":
                np.testing.assert_array_equal(array, wanted[name])
                continue
            limit = tolerance * (array.shape[-1] if name == "received" else 1)
            np.testing.assert_allclose(array, wanted[name], rtol=0, atol=limit * max(1, np.nanmax(abs(wanted[name]))))


class Attention(unittest.TestCase):
    def test_against_dense_weights(self):
        mask = IDS == 0
        for name, options in OPTIONS.items():
            for dtype, tolerance in TOLERANCE.items():
                with self.subTest(options=name, dtype=dtype.__name__):
                    q, k, v = inputs(dtype)
                    request = StatisticsRequest(offsets=(-1, 0, 1, -4), keys=(0, 2), tokens=IDS, top=5,
                                                classes={"zero": mask, "few": [1, 2, 30]})
                    _, found = multihead.attention(q, k, v, return_statistics=request, **options)
                    few = np.zeros((BATCH, LENGTH), bool)
                    few[:, [1, 2, 30]] = True
                    _, _, weights = reference.attention(q, k, v, **options)
                    wanted = truth.statistics(weights, options, offsets=(-1, 0, 1, -4), keys=(0, 2), masks=[mask, few],
                                              tokens=(IDS, IDS), top=5)
                    self.assertEqual(found.classes, ("zero", "few"))
                    self.assertEqual(found.entropy.dtype, np.float64 if dtype is np.float64 else np.float32)
                    checked(self, found, wanted, tolerance)

    def test_the_second_pass(self):
        q, k, v = inputs()
        norms = abs(reference.draw(BATCH, HEADS, LENGTH, seed=8)) + np.float32(0.1)
        request = StatisticsRequest(tokens=IDS, top=3, received=True, bin=16, norms=norms, norm_weighted=True)
        for name in ("plain", "causal", "lengths"):
            with self.subTest(options=name):
                options = OPTIONS[name]
                _, found = multihead.attention(q, k, v, return_statistics=request, **options)
                _, _, weights = reference.attention(q, k, v, **options)
                weighted = weights * norms[:, :, None]
                weighted /= weighted.sum(-1, keepdims=True)
                for part, dense in ((found, weights), (found.norm_weighted, weighted)):
                    checked(self, part, truth.statistics(dense, options, tokens=(IDS, IDS), top=3, received=True, bin=16),
                            1e-5)

    def test_no_bit_of_the_rest_changes(self):
        for name, options in OPTIONS.items():
            for dtype in TOLERANCE:
                with self.subTest(options=name, dtype=dtype.__name__):
                    q, k, v = inputs(dtype)
                    plain = multihead.attention(q, k, v, return_lse=True, return_weights=True, **options)
                    beside = multihead.attention(q, k, v, return_lse=True, return_weights=True, return_statistics=True,
                                                 **options)
                    for one, other in zip(plain, beside[:3], strict=True):
                        self.assertEqual(one.tobytes(), other.tobytes())
                    self.assertEqual(multihead.attention(q, k, v, return_statistics=True, **options)[0].tobytes(),
                                     plain[0].tobytes())

    def test_shapes_layouts_and_threads(self):
        q, k, v = inputs()
        _, whole = multihead.attention(q, k, v, return_statistics=True)
        swapped = [np.ascontiguousarray(array.swapaxes(1, 2)) for array in (q, k, v)]
        _, other = multihead.attention(*swapped, layout="bshd", threads=3, return_statistics=True)
        _, single = multihead.attention(q[1], k[1], v[1], return_statistics=True)
        for name, array in whole.arrays():
            self.assertEqual(array.tobytes(), getattr(other, name).tobytes())
            self.assertEqual(array[1].tobytes(), getattr(single, name).tobytes())
            self.assertEqual(array[1].shape, getattr(single, name).shape)
        self.assertEqual(single.summary(2).rows, LENGTH)
        self.assertIs(whole.map, None)
        self.assertIn("entropy", repr(whole))

    def test_only_what_is_asked_for(self):
        q, k, v = inputs()
        _, found = multihead.attention(q, k, v, return_statistics=StatisticsRequest(offsets=(), keys=(), top=0))
        self.assertEqual([name for name, _ in found.arrays()], ["visible", "entropy", "sum_squares", "distance"])
        with self.assertRaisesRegex(ValueError, "top is 0"):
            found.summary(0)
        self.assertIsInstance(multihead.attention(q, k, v, return_statistics=False), np.ndarray)

    def test_refusals(self):
        q, k, v = inputs()
        for error, words, request in (
                (TypeError, "True or a StatisticsRequest", 3),
                (ValueError, "top is 65", StatisticsRequest(top=65)),
                (ValueError, "bin is 5", StatisticsRequest(bin=5)),
                (ValueError, "bin is -1", StatisticsRequest(bin=-1)),
                (ValueError, "tokens is True", StatisticsRequest(tokens=True)),
                (ValueError, "a token of the statistics is -1", StatisticsRequest(tokens=IDS - 1)),
                (ValueError, "tokens", StatisticsRequest(tokens=IDS[:, 1:])),
                (ValueError, "norms is missing", StatisticsRequest(norm_weighted=True)),
                (ValueError, "norms is given", StatisticsRequest(norms=np.ones((BATCH, HEADS, LENGTH), np.float32))),
                (ValueError, "a key of statistics.keys", StatisticsRequest(keys=(-1,))),
                (ValueError, r'classes\["x"\] has the key 37', StatisticsRequest(classes={"x": [37]})),
                (ValueError, r'classes\["x"\] is a mask', StatisticsRequest(classes={"x": np.ones(3, bool)})),
                (TypeError, "a dict", StatisticsRequest(classes=[1])),
                (ValueError, "at most 32", StatisticsRequest(classes={str(i): [0] for i in range(33)})),
                (TypeError, "received", StatisticsRequest(received=1))):
            with self.subTest(words=words), self.assertRaisesRegex(error, words):
                multihead.attention(q, k, v, return_statistics=request)


class Heads(unittest.TestCase):
    def test_summaries_and_labels(self):
        weights = np.zeros((1, 3, 8, 8))
        at = np.arange(8)
        weights[0, 0, at, np.maximum(at - 1, 0)] = 1
        weights[0, 1, :, 0] = 1
        weights[0, 2] = 1 / 8
        found = inspect.statistics_of_weights(weights)
        first = found.summary(0)
        self.assertEqual((first.rows, first.entropy, first.top_offset), (8, 0, -1))
        self.assertEqual(first.offset_mass, {-1: 7 / 8, 0: 1 / 8, 1: 0})
        self.assertEqual(first.key_mass, {0: 2 / 8})
        self.assertAlmostEqual(found.summary(2).entropy_share, 1, places=6)
        self.assertIn("previous", [label.name for label in found.labels(0)])
        sink = [label for label in found.labels(1) if label.name == "sink"][0]
        self.assertEqual((sink.value, sink.threshold), (1, 0.3))
        self.assertEqual([label.name for label in found.labels(2)], ["mixed"])
        for head in (3, -1):
            with self.assertRaisesRegex(ValueError, f"head is {head}"):
                found.summary(head)

    def test_where_queries_stand(self):
        """The most frequent offset of the largest weight, for queries that do not begin at the first key."""
        weights = np.zeros((2, 1, 3, 9))
        weights[:, 0, np.arange(3), np.arange(3) + 4] = 1
        self.assertEqual(inspect.statistics_of_weights(weights, query_offset=5).summary(0).top_offset, -1)
        q, k = np.zeros((2, 1, 3, 4)), np.zeros((2, 1, 9, 4))
        q[:, 0, np.arange(3), 0], k[:, 0, 4, 0] = 50, 1
        for options, wanted in (({"query_offset": 6}, -2), ({"causal": "bottom_right"}, -2), ({"query_offset": [6, 6]}, -2),
                                ({"query_offset": [5, 6]}, None)):
            with self.subTest(options=options):
                _, found = multihead.attention(q, k, k, return_statistics=True, **options)
                self.assertEqual(found.query_offset is None, wanted is None)
                # rows look at key 4, standing at 6, 7, 8: of -2, -3 and -4, equally frequent, the nearest
                self.assertEqual(found.summary(0).top_offset, wanted)
                self.assertIsInstance(found.labels(0), list)


class Layer(unittest.TestCase):
    model_dim = HEADS * WIDTH

    def test_norms_are_the_layers_own(self):
        draw = {name: reference.draw(self.model_dim, self.model_dim, seed=seed) / np.float32(8)
                for seed, name in enumerate("qkvo", 20)}
        q, k, v, out = draw["q"], draw["k"], draw["v"], draw["o"]
        layer = multihead.MultiHeadAttention(HEADS, order="in_out", q=q, k=k, v=v, out=out)
        x = reference.draw(BATCH, LENGTH, self.model_dim, seed=30)
        gates = [1.0, -2.0, 0.5, 3.0]
        plain = layer(x, causal=True, gates=gates)
        request = StatisticsRequest(tokens=IDS, norm_weighted=True, received=True)
        output, weights, lengths, found = layer(x, causal=True, gates=gates, return_weights=True, return_norms=True,
                                                return_statistics=request)
        self.assertEqual(plain.tobytes(), output.tobytes())
        weights = weights.astype(np.float64)
        values = (x.astype(np.float64) @ v).reshape(BATCH, LENGTH, HEADS, WIDTH)
        rows = out.astype(np.float64).reshape(HEADS, WIDTH, self.model_dim)
        norms = np.linalg.norm(np.einsum("blhw,hwm->bhlm", values, rows), axis=-1) * abs(np.array(gates))[:, None]
        np.testing.assert_allclose(lengths, norms, rtol=1e-5)
        weighted = weights * norms[:, :, None]
        weighted /= weighted.sum(-1, keepdims=True)
        for part, dense in ((found, weights), (found.norm_weighted, weighted)):
            checked(self, part, truth.statistics(dense, {"causal": True}, tokens=(IDS, IDS), received=True), 2e-5)

    def test_refusals(self):
        square = reference.draw(8, 8)
        made = {"order": "in_out", "q": square, "k": square, "v": square, "out": square}
        x = reference.draw(3, 8)
        with self.assertRaisesRegex(ValueError, "norms"):
            multihead.MultiHeadAttention(2, **made)(x, return_statistics=StatisticsRequest(
                norm_weighted=True, norms=np.ones((2, 3), np.float32)))
        with self.assertRaisesRegex(ValueError, "statistics"):
            multihead.MultiHeadAttention(2, **made, add_zero_attn=True)(x, return_statistics=True)


class Encoder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        tiny_encoder.write(pathlib.Path(folder.name))
        self.encoder = multihead.Encoder(folder.name)

    def test_each_layer(self):
        extents = self.encoder.extents
        ids, starts = [1, 2, 1, 0, 2, 1, 1], [0, 4, 7]
        plain, weights = self.encoder(ids, starts, return_weights=True)
        request = StatisticsRequest(tokens=True, top=3, received=True)
        output, norms, layers = self.encoder(ids, starts, return_norms=True, return_statistics=request)
        self.assertEqual(plain.tobytes(), output.tobytes())
        self.assertEqual(len(layers), extents.layers)
        self.assertEqual((norms.shape, norms.dtype), ((extents.layers, extents.heads, len(ids)), np.float32))
        for head in range(extents.heads):
            asked = [multihead.WeightsRequest(heads=[head], norm_weighted=True)] * extents.layers
            found = self.encoder(ids, starts, return_weights=asked)[1]
            for layer in range(extents.layers):
                np.testing.assert_array_equal(found[layer], weights[layer][head] * norms[layer, head])
        tokens = np.array([ids])
        for found, dense in zip(layers, weights, strict=True):
            wanted = truth.statistics(dense[None].astype(np.float64), {"cu_seqlens": starts}, tokens=(tokens, tokens), top=3,
                                      received=True)
            checked(self, found, {name: array[0] for name, array in wanted.items()}, 1e-5)
        some = [None] * extents.layers
        some[0] = True
        _, layers = self.encoder(ids, starts, return_statistics=some)
        self.assertEqual([layer is None for layer in layers], [asked is None for asked in some])

    def test_gates(self):
        extents = self.encoder.extents
        gates = np.ones((extents.layers, extents.heads))
        ids = [1, 2, 1, 0]
        plain = self.encoder(ids)
        self.assertEqual(self.encoder(ids, gates=gates).tobytes(), plain.tobytes())
        gates[0, 0] = 0
        self.assertNotEqual(self.encoder(ids, gates=gates.tolist()).tobytes(), plain.tobytes())
        with self.assertRaisesRegex(ValueError, "gates"):
            self.encoder(ids, gates=gates[:, 1:])

    def test_as_many_requests_as_layers(self):
        with self.assertRaisesRegex(ValueError, "return_statistics has 1 requests|equal in number"):
            self.encoder([1], return_statistics=[True] * (self.encoder.extents.layers + 1))


if __name__ == "__main__":
    unittest.main()
