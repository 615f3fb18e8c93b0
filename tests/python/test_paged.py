# SPDX-License-Identifier: Apache-2.0
"""multihead.paged_attention: the bits of attention() over the keys that the pages hold, in every form of its arguments."""

import unittest

import numpy as np

import multihead
from multihead import attention, paged_attention

HEADS, KV_HEADS, DIM, PAGE = 4, 2, 8, 5
LENGTHS, TABLE = [13, 4, 20], [[4, 0, 7, -1], [2, -9, -1, -1], [1, 5, 3, 9]]


class Paged(unittest.TestCase):
    def setUp(self):
        draw = np.random.default_rng(0)
        self.q = draw.standard_normal((3, HEADS, 3, DIM), np.float32)
        self.k, self.v = (np.full((10, PAGE, KV_HEADS, width), np.nan, np.float32) for width in (DIM, 6))
        self.keys, self.values = [], []
        for pages, length in zip(TABLE, LENGTHS):
            k, v = (draw.standard_normal((KV_HEADS, length, width), np.float32) for width in (DIM, 6))
            for p in range(length):
                self.k[pages[p // PAGE], p % PAGE], self.v[pages[p // PAGE], p % PAGE] = k[:, p], v[:, p]
            self.keys.append(k[None]), self.values.append(v[None])

    def each(self, **options):
        """attention() of each sequence alone: [(out, lse)]."""
        return [attention(self.q[s:s + 1], k, v, return_lse=True, query_offset=length - 3, **options)
                for s, (k, v, length) in enumerate(zip(self.keys, self.values, LENGTHS))]

    def same(self, found, wanted):
        self.assertEqual(np.ascontiguousarray(found).tobytes(), np.concatenate(wanted).tobytes())

    def test_bits(self):
        for options in ({}, {"causal": True}, {"window": (2, 0)}, {"window": (2, 0), "window_first": 2}, {"softcap": 2.0},
                        {"causal": True, "sinks": [0.5] * HEADS, "alibi_slopes": [0.1] * HEADS, "scale": 0.5}):
            with self.subTest(options=options):
                out, lse = paged_attention(self.q, self.k, self.v, TABLE, LENGTHS, return_lse=True, **options)
                outs, lses = zip(*self.each(**options))
                self.same(out, outs)
                self.same(lse, lses)

    def test_forms(self):
        wanted = [out for out, _ in self.each(causal=True)]
        table, lengths = np.array(TABLE, np.int32), np.array(LENGTHS)
        turned = np.ascontiguousarray(self.q.transpose(0, 2, 1, 3))
        found = paged_attention(turned, self.k, self.v, table, lengths, layout="bshd", causal=True)
        self.same(found.transpose(0, 2, 1, 3), wanted)
        out = np.empty((3, HEADS, 3, 6), np.float32)
        self.assertIs(paged_attention(self.q, self.k, self.v, table, lengths, out=out, causal=True, threads=2), out)
        self.same(out, wanted)

    def test_queries_of_any_number(self):
        rows = np.concatenate([self.q[0, :, 2:], self.q[1], self.q[2, :, 1:]], 1)  # 1, 3 and 2 of the last
        out = paged_attention(rows, self.k, self.v, TABLE, LENGTHS, cu_seqlens=[0, 1, 4, 6], causal=True)
        wanted = [out[0] for out, _ in self.each(causal=True)]
        self.assertEqual(out.tobytes(), np.concatenate([wanted[0][:, 2:], wanted[1], wanted[2][:, 1:]], 1).tobytes())

    def test_what_is_refused(self):
        call = {"q": self.q, "k_pages": self.k, "v_pages": self.v, "block_table": TABLE, "lengths": LENGTHS}
        for kind, words, change in (
            (ValueError, "page", {"block_table": [[10, 0, 7, -1], *TABLE[1:]]}),
            (ValueError, "page", {"block_table": [[-1, 0, 7, -1], *TABLE[1:]]}),
            (ValueError, "length", {"lengths": [21, 4, 20]}),
            (ValueError, "length", {"lengths": [-1, 4, 20]}),
            (ValueError, "length", {"lengths": [13, 4]}),
            (ValueError, "block_table", {"block_table": [[2 ** 40, 0, 7, -1], *TABLE[1:]]}),
            (TypeError, "block_table", {"block_table": None}),
            (ValueError, "k_pages", {"k_pages": self.k[0]}),
            (TypeError, "v_pages", {"v_pages": self.v.astype(np.float64)}),
            (ValueError, "segments", {"segments": np.zeros((3, 3), int)}),
        ):
            with self.subTest(change=list(change), words=words):
                out = np.full((3, HEADS, 3, 6), 7, np.float32)
                with self.assertRaisesRegex(kind, f"paged_attention.*{words}"):
                    paged_attention(**{**call, **change}, out=out)
                self.assertTrue((out == 7).all())
        with self.assertRaisesRegex(TypeError, "float64"):
            paged_attention(**{name: x.astype(np.float64) if isinstance(x, np.ndarray) else x for name, x in call.items()})

    def test_it_is_offered(self):
        self.assertIn("paged_attention", multihead.__all__)


if __name__ == "__main__":
    unittest.main()
