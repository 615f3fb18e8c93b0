# SPDX-License-Identifier: Apache-2.0
"""MultiHeadAttention of Python against its formula in NumPy, and the layouts of checkpoints."""

import unittest

import ml_dtypes
import numpy as np
import reference
from reference import draw

from multihead import Extents, MultiHeadAttention, WeightsRequest, multi_head_attention

MODEL_DIM, HEADS, KV_HEADS, HEAD_DIM, OUT_DIM, LENGTH = 12, 4, 2, 6, 10, 7


def weights(dtype=np.float64):
    return {"q": draw(MODEL_DIM, HEADS * HEAD_DIM, dtype=dtype), "k": draw(MODEL_DIM, KV_HEADS * HEAD_DIM, dtype=dtype, seed=2),
            "v": draw(MODEL_DIM, KV_HEADS * HEAD_DIM, dtype=dtype, seed=3), "out": draw(HEADS * HEAD_DIM, OUT_DIM, dtype=dtype),
            "q_bias": draw(HEADS * HEAD_DIM, dtype=dtype), "k_bias": draw(KV_HEADS * HEAD_DIM, dtype=dtype, seed=2),
            "v_bias": draw(KV_HEADS * HEAD_DIM, dtype=dtype, seed=3), "out_bias": draw(OUT_DIM, dtype=dtype)}


def heads_of(x, count):
    return x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)


def turned(x, theta=10000.0):
    """Rotary position embedding of half-split pairs, at positions 0, 1, 2 .."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[2])[:, None] * theta ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], axis=-1)


def layer_in_numpy(w, query, key, value, prepare=lambda x: x, gates=None, **options):
    q, k, v = (heads_of(x @ w[name] + w[name + "_bias"], count)
               for x, name, count in ((query, "q", HEADS), (key, "k", KV_HEADS), (value, "v", KV_HEADS)))
    out, lse, found = reference.attention(prepare(q), prepare(k), v, **options)
    gated = out if gates is None else out * np.asarray(gates)[:, None, None]
    joined = gated.swapaxes(1, 2).reshape(*query.shape[:2], -1)
    return joined @ w["out"] + w["out_bias"], lse, found, out


class Layer(unittest.TestCase):
    def setUp(self):
        self.w = weights()
        self.x = draw(2, LENGTH, MODEL_DIM, dtype=np.float64)
        self.layer = MultiHeadAttention(HEADS, order="in_out", kv_heads=KV_HEADS, **self.w)

    def test_everything_it_returns(self):
        found = self.layer(self.x, causal=True, window=(3, None), return_lse=True, return_weights=True, return_heads=True)
        wanted = layer_in_numpy(self.w, self.x, self.x, self.x, causal=True, window=(3, None))
        for one, other in zip(found, wanted):
            np.testing.assert_allclose(one, other, atol=1e-12)
        alone = self.layer(self.x, causal=True, window=(3, None))
        self.assertEqual(alone.tobytes(), found[0].tobytes())
        without = self.layer(self.x[1], causal=True, window=(3, None), return_weights="mean")
        self.assertEqual(without[0].tobytes(), alone[1].tobytes())
        np.testing.assert_allclose(without[1], wanted[2][1].mean(0), atol=1e-12)
        room = np.zeros_like(alone)
        self.assertIs(self.layer(self.x, self.x, self.x, causal=True, window=(3, None), out=room, threads=2), room)
        self.assertEqual(room.tobytes(), alone.tobytes())

    def test_cross_attention_and_gates(self):
        key, value = draw(2, 5, MODEL_DIM, dtype=np.float64, seed=4), draw(2, 5, MODEL_DIM, dtype=np.float64, seed=5)
        gates = [1, 0.5, 0, 2]
        found = self.layer(self.x, key, value, lengths=[5, 3], gates=gates)
        wanted = layer_in_numpy(self.w, self.x, key, value, lengths=[5, 3], gates=gates)[0]
        np.testing.assert_allclose(found, wanted, atol=1e-12)
        found = self.layer(self.x, key)
        np.testing.assert_allclose(found, layer_in_numpy(self.w, self.x, key, key)[0], atol=1e-12)

    def test_rotary(self):
        layer = MultiHeadAttention(HEADS, order="in_out", kv_heads=KV_HEADS, rotary="half_split", rotary_theta=100, **self.w)
        wanted = layer_in_numpy(self.w, self.x, self.x, self.x, prepare=lambda x: turned(x, 100.0), causal=True)[0]
        np.testing.assert_allclose(layer(self.x, causal=True), wanted, atol=1e-12)
        positions = np.tile(np.arange(LENGTH, dtype=np.int32), (2, 1))
        found = layer(self.x, causal=True, q_positions=positions, k_positions=positions.tolist())
        np.testing.assert_allclose(found, wanted, atol=1e-12)
        one = layer(self.x[0, 3:], self.x[0], query_offset=3, causal=True, q_positions=range(3, LENGTH),
                    k_positions=range(LENGTH))
        np.testing.assert_allclose(one, wanted[0, 3:], atol=1e-12)

    def test_orders_and_fused_weights(self):
        wanted = self.layer(self.x).tobytes()
        turned_over = {name: value.T.copy() if value.ndim == 2 else value for name, value in self.w.items()}
        self.assertEqual(MultiHeadAttention(HEADS, order="out_in", kv_heads=KV_HEADS, **turned_over)(self.x).tobytes(), wanted)
        fused = {"qkv": np.concatenate([self.w[n] for n in "qkv"], axis=1), "out": self.w["out"], "out_bias": self.w["out_bias"],
                 "qkv_bias": np.concatenate([self.w[n + "_bias"] for n in "qkv"])}
        self.assertEqual(MultiHeadAttention(HEADS, order="in_out", kv_heads=KV_HEADS, **fused)(self.x).tobytes(), wanted)

    def test_extra_keys(self):
        layer = MultiHeadAttention(HEADS, order="in_out", kv_heads=KV_HEADS, add_zero_attn=True,
                                   bias_k=draw(KV_HEADS * HEAD_DIM, dtype=np.float64),
                                   bias_v=draw(KV_HEADS * HEAD_DIM, dtype=np.float64), **self.w)
        found = layer(self.x, return_weights=WeightsRequest(rows=[0]))[1]
        self.assertEqual(found.shape, (2, HEADS, 1, LENGTH + 2))
        norms = layer(self.x, return_norms=True)[1]
        self.assertEqual(norms.shape, (2, HEADS, LENGTH + 2))
        np.testing.assert_array_equal(norms[:, :, -1], 0)  # the zero value
        self.assertEqual(layer.extents, Extents("float64", MODEL_DIM, MODEL_DIM, MODEL_DIM, HEADS, KV_HEADS, HEAD_DIM, HEAD_DIM,
                                                OUT_DIM, 2))

    def test_types(self):
        exact = layer_in_numpy(self.w, self.x, self.x, self.x)[0]
        for dtype, tolerance in ((np.float32, 1e-4), (np.float16, 0.3), (ml_dtypes.bfloat16, 2)):
            w, x = weights(dtype), self.x.astype(dtype)
            found, lse = MultiHeadAttention(HEADS, order="in_out", kv_heads=KV_HEADS, **w)(x, return_lse=True)
            self.assertEqual((found.dtype, lse.dtype), (np.dtype(dtype), np.float32))
            np.testing.assert_allclose(found.astype(np.float64), exact, atol=tolerance)

    def test_plain_options_are_multi_head_attention(self):
        w = {name: draw(8, 8, seed=i) for i, name in enumerate(("q", "k", "v", "out"))}
        x = draw(5, 8)
        found = MultiHeadAttention(2, order="in_out", **w)(x)
        self.assertEqual(found.tobytes(), multi_head_attention(x, *w.values(), 2).tobytes())

    def test_the_weights_are_copied(self):
        before = self.layer(self.x).tobytes()
        for value in self.w.values():
            value.fill(np.nan)
        self.assertEqual(self.layer(self.x).tobytes(), before)

    def test_layouts_of_checkpoints(self):
        x, qkv, out = draw(3, 8), draw(24, 8), draw(8, 8)
        qkv_bias, out_bias = draw(24), draw(8)
        plain = MultiHeadAttention(2, order="out_in", qkv=qkv, qkv_bias=qkv_bias, out=out, out_bias=out_bias)(x).tobytes()
        torch = {"in_proj_weight": qkv, "in_proj_bias": qkv_bias, "out_proj.weight": out, "out_proj.bias": out_bias}
        self.assertEqual(MultiHeadAttention.from_tensors("torch", torch, heads=2)(x).tobytes(), plain)
        named = {"layer.0." + name: tensor for name, tensor in torch.items()} | {"layer.1.in_proj_weight": out}
        self.assertEqual(MultiHeadAttention.from_tensors("torch", named, heads=2, prefix="layer.0.")(x).tobytes(), plain)
        gpt2 = {"c_attn.weight": np.ascontiguousarray(qkv.T), "c_attn.bias": qkv_bias,
                "c_proj.weight": np.ascontiguousarray(out.T), "c_proj.bias": out_bias}
        self.assertEqual(MultiHeadAttention.from_tensors("gpt2", gpt2, heads=2)(x).tobytes(), plain)

    def test_what_is_refused(self):
        w, x = self.w, self.x
        make = MultiHeadAttention
        for error, sentence, call in (
                (TypeError, "order", lambda: make(HEADS, **w)),
                (ValueError, "order is 'up'", lambda: make(HEADS, order="up", **w)),
                (TypeError, "unexpected keyword argument 'nothing'", lambda: make(HEADS, order="in_out", nothing=1, **w)),
                (ValueError, "output width 24; 5 must divide it", lambda: make(5, order="in_out", **w)),
                (TypeError, "k_bias", lambda: make(HEADS, order="in_out", kv_heads=2, **{**w, "k_bias": w["k_bias"].astype("f")})),
                (TypeError, "q has type list", lambda: make(HEADS, order="in_out", **{**w, "q": [[1.0]]})),
                (ValueError, "q_norm_kind is 'l2'", lambda: make(HEADS, order="in_out", q_norm_kind="l2", **w)),
                (TypeError, "unexpected keyword argument 'casual'", lambda: self.layer(x, casual=True)),
                (TypeError, "unexpected keyword argument 'layout'", lambda: self.layer(x, layout="bhsd")),
                (ValueError, "query has rank 4", lambda: self.layer(x[None])),
                (ValueError, "key has rank 2", lambda: self.layer(x, x[0])),
                (ValueError, "value is given without key", lambda: self.layer(x, None, x)),
                (ValueError, "query", lambda: self.layer(x[..., :5])),
                (TypeError, "query", lambda: self.layer(x.astype(np.float32))),
                (ValueError, "gates", lambda: self.layer(x, gates=[1])),
                (ValueError, "positions are given; the layer has no rotary", lambda: self.layer(x, q_positions=[[0]])),
                (ValueError, "out", lambda: self.layer(x, out=np.zeros((2, LENGTH, 3)))),
                (ValueError, "layout", lambda: make.from_tensors("nobody", {}, heads=2)),
                (ValueError, "in_proj_weight", lambda: make.from_tensors("torch", {"out_proj.weight": w["q"]}, heads=2))):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                call()
            self.assertIn(sentence, str(caught.exception))


if __name__ == "__main__":
    unittest.main()
