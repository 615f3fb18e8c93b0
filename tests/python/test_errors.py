# SPDX-License-Identifier: Apache-2.0
"""Each way to call attention() wrongly is an exception of the right type that names function, argument and rule, and writes
nothing."""

import unittest

import ml_dtypes
import numpy as np
from reference import draw

from multihead import WeightsRequest, attention, merge

Q, V = draw(2, 4, 3, 8), draw(2, 2, 3, 8)
SEGMENTS = [[1, 1, 2], [1, 2, 2]]
CASES = [
    # (exception, what its sentence says, changes of the arguments)
    (ValueError, "k has head_dim 7, q has 8", {"k": V[..., :7]}),
    (ValueError, "k has batch 1", {"k": V[:1]}),
    (ValueError, "v has kv_len 2", {"v": V[:, :, :2]}),
    (ValueError, "heads is 4, kv_heads is 3", {"k": draw(2, 3, 3, 8), "v": draw(2, 3, 3, 8)}),
    (TypeError, "v has type float64; it must be float32", {"v": V.astype(np.float64)}),
    (TypeError, "q has elements of int32", {"q": Q.astype(np.int32)}),
    (ValueError, "q has rank 2; 3 or 4 is wanted", {"q": Q[0, 0]}),
    (ValueError, "v has rank 3, q has rank 4", {"v": V[0]}),
    (ValueError, "q has stride 4 on its last axis", {"q": draw(2, 4, 8, 4).swapaxes(2, 3)[..., :3, :]}),
    (ValueError, "layout is 'sbhd'", {"layout": "sbhd"}),
    (ValueError, "layout is None", {"layout": None}),
    (ValueError, "causal is 'left'", {"causal": "left"}),
    (TypeError, "causal has type int", {"causal": 1}),
    (ValueError, "q_len", {"causal": True, "k": draw(2, 2, 5, 8), "v": draw(2, 2, 5, 8)}),
    (ValueError, "query_offset is given and causal names an alignment", {"causal": "top_left", "query_offset": 1}),
    (TypeError, "query_offset has type str", {"query_offset": "a"}),
    (ValueError, "query offsets has 1, batch is 2", {"query_offset": [1]}),
    (TypeError, "window has type str", {"window": "2"}),
    (TypeError, "window has type tuple", {"window": (1, 2, 3)}),
    (TypeError, "window has type float", {"window": (1.5, 0)}),
    (ValueError, "window has the bound -2", {"window": (-2, 0)}),
    (ValueError, "window_first is -1", {"window": 2, "window_first": -1}),
    (ValueError, "lengths", {"lengths": [1]}),
    (ValueError, "length is 4; it must be 0 to 3", {"lengths": [4, 0]}),
    (ValueError, "prefixes", {"prefixes": [1, 1]}),
    (ValueError, "cu_seqlens", {"cu_seqlens": [0, 3]}),
    (ValueError, "segments", {"segments": [[1, 1, 2]]}),
    (ValueError, "segments", {"segments": SEGMENTS, "cu_seqlens": [0, 3]}),
    (ValueError, "two runs", {"segments": [[1, 2, 1], [1, 1, 1]]}),
    (ValueError, "segments has rows of 3 and of 2 numbers", {"segments": [[1, 1, 1], [1, 1]]}),
    (ValueError, "segments has rows and numbers", {"segments": [[1, 1, 1], 2]}),
    (TypeError, "keep_mask has elements of float32", {"keep_mask": np.zeros((3, 3), np.float32)}),
    (TypeError, "drop_mask has elements of int64", {"drop_mask": np.zeros((3, 3), np.int64)}),
    (TypeError, "keep_mask has type list", {"keep_mask": [[True]]}),
    (ValueError, "keep_mask has kv_len 2", {"keep_mask": np.zeros((3, 2), bool)}),
    (TypeError, "bias has elements of bool", {"bias": np.zeros((3, 3), bool)}),
    (ValueError, "bias has rank 5", {"bias": np.zeros((1, 1, 1, 3, 3), np.float32)}),
    (ValueError, "bias is float64", {"bias": np.zeros((3, 3))}),
    (ValueError, "alibi_slopes has 1, heads is 4", {"alibi_slopes": [1]}),
    (ValueError, "sinks has 5, heads is 4", {"sinks": [1] * 5}),
    (ValueError, "relative_bias", {"relative_bias": np.zeros((8, 3), np.float32)}),
    (TypeError, "softcap has type str", {"softcap": "2"}),
    (ValueError, "softcap is -1", {"softcap": -1}),
    (TypeError, "scale has type list", {"scale": [1]}),
    (ValueError, "scale is not finite", {"scale": float("inf")}),
    (TypeError, "return_lse has type int", {"return_lse": 1}),
    (ValueError, "return_weights is 'all'", {"return_weights": "all"}),
    (TypeError, "return_weights has type int", {"return_weights": 3}),
    (ValueError, "return_weights.point is 'raw'", {"return_weights": WeightsRequest("raw")}),
    (ValueError, "head", {"return_weights": WeightsRequest(heads=[4])}),
    (ValueError, "row", {"return_weights": WeightsRequest(rows=[3])}),
    (ValueError, "head", {"return_weights": WeightsRequest(heads=[1, 1])}),
    (ValueError, "asks for no head or no row", {"return_weights": WeightsRequest(rows=[])}),
    (ValueError, "asks for mean and norm_weighted", {"return_weights": WeightsRequest(mean=True, norm_weighted=True)}),
    (ValueError, "norms", {"return_weights": WeightsRequest(norm_weighted=True)}),
    (ValueError, "threads is 0", {"threads": 0}),
    (ValueError, "threads is 99999", {"threads": 99999}),
    (TypeError, "threads has type float", {"threads": 1.0}),
    (ValueError, "'sse' is not one of baseline", {"target": "sse"}),
    (ValueError, "neon", {"target": "neon"}),
    (TypeError, "target has type int", {"target": 3}),
    (TypeError, "unexpected keyword argument 'casual'", {"casual": True}),
]


class Errors(unittest.TestCase):
    def test_each(self):
        for error, sentence, changes in CASES:
            with self.subTest(sentence=sentence):
                given = {"q": Q, "k": V, "v": V, "out": np.full_like(Q, 7), **changes}
                with self.assertRaises(error) as caught:
                    attention(**given)
                self.assertIn(sentence, str(caught.exception))
                self.assertTrue((given["out"] == 7).all(), "something was written")

    def test_out(self):
        for error, sentence, out in (
                (ValueError, "out has batch 1", np.empty((1, 4, 3, 8), np.float32)),
                (TypeError, "out has type float64", np.empty(Q.shape)), (ValueError, "out overlaps q", Q),
                (ValueError, "out has rank 3", np.empty((4, 3, 8), np.float32)), (TypeError, "out has type str", "out"),
                (TypeError, "out has elements of int64", np.empty(Q.shape, np.int64)),
                (ValueError, "out", np.empty((2, 4, 8, 3), np.float32).swapaxes(2, 3)),
                (TypeError, "out has type bfloat16", np.empty(Q.shape, ml_dtypes.bfloat16))):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                attention(Q, V, V, out=out)
            self.assertIn(sentence, str(caught.exception))

    def test_merge(self):
        out, lse = attention(Q, V, V, return_lse=True)
        for error, sentence, given in (
                (ValueError, "lse_a has rank 4; 3 is wanted", (out, out, out, lse)), (ValueError, "out_b", (out, lse, out[:1], lse)),
                (ValueError, "out_a has rank 2; 4 is wanted", (out[0, 0], lse, out, lse)),
                (TypeError, "lse_b", (out, lse, out, lse.astype(np.float64))),
                (TypeError, "out_a has type NoneType", (None, lse, out, lse))):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                merge(*given)
            self.assertIn(sentence, str(caught.exception))


if __name__ == "__main__":
    unittest.main()
