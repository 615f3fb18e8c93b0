# SPDX-License-Identifier: Apache-2.0
"""flash_attn_with_kvcache against flash_attn_func over the keys that the cache must hold, and its refusals."""

import itertools
import unittest

import numpy
import torch

from multihead.flash_attn import flash_attn_func, flash_attn_with_kvcache

HEADS, KV_HEADS, DIM, PAGE = 4, 2, 12, 8
TYPES = (torch.float32, torch.bfloat16, torch.float16)


def setUpModule():
    torch.set_num_threads(1)  # small problems; results do not depend on it


def draw(dtype, *shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Case:
    """A cache of three sequences of unlike lengths, in one tensor and in pages that lie anywhere."""

    def __init__(self, dtype, queries=3, new=2):
        self.lengths = torch.tensor([5, 17, 30], dtype=torch.int32)
        self.q = draw(dtype, 3, queries, HEADS, DIM, seed=1)
        self.k, self.v = draw(dtype, 3, new, KV_HEADS, DIM, seed=2), draw(dtype, 3, new, KV_HEADS, DIM, seed=3)
        self.caches = [draw(dtype, 3, 4 * PAGE, KV_HEADS, DIM, seed=seed) for seed in (4, 5)]
        self.table = torch.tensor([[7, 0, -1, -1], [3, 12, 5, -1], [1, 9, 2, 4]], dtype=torch.int32)

    def paged(self):
        """The caches as pages; those of no sequence are NaN."""
        pages = [torch.full((14, PAGE, KV_HEADS, DIM), torch.nan, dtype=cache.dtype) for cache in self.caches]
        for paged, cache in zip(pages, self.caches):
            for row, own in zip(self.table, cache.reshape(3, 4, PAGE, KV_HEADS, DIM)):
                for page, values in zip(row.tolist(), own):
                    if page >= 0:
                        paged[page] = values
        return pages

    def grown(self, s, k, v):
        """What sequence s must then hold."""
        n = int(self.lengths[s])
        return [torch.cat([cache[s, :n], new[s]])[None] for cache, new in zip(self.caches, (k, v))]


def turned(x, cos, sin, first, interleaved):
    """x (length, heads, dim) at positions from first on, pair by pair."""
    x, out = x.float(), x.float().clone()
    half = cos.shape[1]
    for i in range(x.shape[0]):
        for c in range(half):
            a, b = (2 * c, 2 * c + 1) if interleaved else (c, half + c)
            co, si = cos[first + i, c].float(), sin[first + i, c].float()
            out[i, :, a] = x[i, :, a] * co - x[i, :, b] * si
            out[i, :, b] = x[i, :, b] * co + x[i, :, a] * si
    return out


class FlashAttentionCache(unittest.TestCase):
    def test_bits_of_the_keys_that_the_cache_holds(self):
        slopes = torch.tensor([[0.5, 0.25, 0.125, 0.0625]] * 3) * torch.tensor([[1.0], [2.0], [3.0]])
        for dtype, in_pages, options in itertools.product(TYPES, (False, True), (
                {}, {"causal": True}, {"window_size": (6, 0)}, {"window_size": (3, 1), "softcap": 2.0},
                {"causal": True, "softmax_scale": 0.7, "alibi_slopes": slopes[0]}, {"causal": True, "alibi_slopes": slopes})):
            with self.subTest(dtype=dtype, in_pages=in_pages, options=options):
                case = Case(dtype)
                caches = case.paged() if in_pages else [cache.clone() for cache in case.caches]
                out, lse = flash_attn_with_kvcache(case.q, *caches, case.k, case.v, cache_seqlens=case.lengths,
                                                   block_table=case.table if in_pages else None, return_softmax_lse=True,
                                                   num_splits=3, **options)
                for s in range(3):
                    k, v = case.grown(s, case.k, case.v)
                    own = dict(options)
                    if "alibi_slopes" in own and own["alibi_slopes"].dim() == 2:
                        own["alibi_slopes"] = own["alibi_slopes"][s]
                    want, want_lse, _ = flash_attn_func(case.q[s:s + 1], k, v, return_attn_probs=True, **own)
                    self.assertTrue(torch.equal(out[s:s + 1], want))
                    self.assertTrue(torch.equal(lse[s:s + 1], want_lse))

    def test_what_is_written(self):
        case = Case(torch.float32)
        caches, pages = [cache.clone() for cache in case.caches], case.paged()
        before = [cache.clone() for cache in caches]
        flash_attn_with_kvcache(case.q, *caches, case.k, case.v, cache_seqlens=case.lengths)
        flash_attn_with_kvcache(case.q, *pages, case.k, case.v, cache_seqlens=case.lengths, block_table=case.table)
        for cache, paged, old, new in zip(caches, pages, before, (case.k, case.v)):
            for s, n in enumerate(case.lengths.tolist()):
                old[s, n:n + 2] = new[s]
                for p in range(n + 2):
                    self.assertTrue(torch.equal(paged[case.table[s, p // PAGE], p % PAGE], old[s, p]))
            self.assertTrue(torch.equal(cache, old))

    def test_rotary(self):
        for dtype, interleaved, causal, width in itertools.product(TYPES, (False, True), (False, True), (4, DIM)):
            with self.subTest(dtype=dtype, interleaved=interleaved, causal=causal, width=width):
                case = Case(dtype)
                angles = torch.arange(40)[:, None] * 0.3 ** torch.arange(width // 2)
                cos, sin = torch.cos(angles).to(dtype), torch.sin(angles).to(dtype)
                caches = [cache.clone() for cache in case.caches]
                out = flash_attn_with_kvcache(case.q, *caches, case.k, case.v, cos, sin, case.lengths, causal=causal,
                                              rotary_interleaved=interleaved)
                for s, n in enumerate(case.lengths.tolist()):
                    k = turned(case.k[s], cos, sin, n, interleaved)
                    error = (caches[0][s, n:n + 2].float() - k).abs().max()
                    self.assertLess(error, 4 * torch.finfo(dtype).eps * k.abs().max())
                    rows = case.q[s] if causal else case.q[s].reshape(1, -1, DIM)
                    q = turned(rows, cos, sin, n, interleaved).reshape(case.q[s].shape).to(dtype)[None]
                    want = flash_attn_func(q, *(cache[s:s + 1, :n + 2] for cache in caches), causal=causal)
                    bound = 8 * torch.finfo(dtype).eps * max(1.0, float(want.float().abs().max()))
                    self.assertLess((out[s:s + 1].float() - want.float()).abs().max(), bound)

    def test_places_in_the_cache(self):
        case = Case(torch.float32, queries=1)
        caches = [cache.clone() for cache in case.caches]
        out = flash_attn_with_kvcache(case.q[:2], *caches, cache_seqlens=case.lengths[[2, 0]],
                                      cache_batch_idx=torch.tensor([2, 0], dtype=torch.int32))
        for row, s in enumerate((2, 0)):
            n = int(case.lengths[s])
            want = flash_attn_func(case.q[row:row + 1], *(cache[s:s + 1, :n] for cache in case.caches))
            self.assertTrue(torch.equal(out[row:row + 1], want))

    def test_one_length_and_none(self):
        case = Case(torch.float32)
        for seqlens, n in ((9, 9), (None, 4 * PAGE), (torch.tensor([9, 9, 9]), 9)):
            out = flash_attn_with_kvcache(case.q, *case.caches, cache_seqlens=seqlens, causal=True)
            want = flash_attn_func(case.q, *(cache[:, :n] for cache in case.caches), causal=True)
            self.assertTrue(torch.equal(out, want))

    def test_arrays(self):
        case = Case(torch.float32)
        caches = [cache.clone() for cache in case.caches]
        want = flash_attn_with_kvcache(case.q, *caches, case.k, case.v, cache_seqlens=case.lengths, causal=True)
        arrays = [cache.numpy().copy() for cache in case.caches]
        out = flash_attn_with_kvcache(case.q.numpy(), *arrays, case.k.numpy(), case.v.numpy(),
                                      cache_seqlens=case.lengths.numpy(), causal=True)
        self.assertIsInstance(out, numpy.ndarray)
        self.assertEqual(out.tobytes(), want.numpy().tobytes())
        self.assertEqual(arrays[0].tobytes(), caches[0].numpy().tobytes())

    def test_no_gradients(self):
        case = Case(torch.float32)
        self.assertFalse(flash_attn_with_kvcache(case.q.requires_grad_(), *case.caches, cache_seqlens=3).requires_grad)

    def test_what_is_refused_writes_nothing(self):
        angles = torch.zeros(40, 2)
        for kind, words, change in (
            (ValueError, "k and v one is given", {"v": None}),
            (ValueError, "capacity|from 0 to 32", {"cache_seqlens": 31}),
            (ValueError, "cache_seqlens", {"cache_seqlens": torch.tensor([1, 2])}),
            (ValueError, "cache_seqlens", {"cache_seqlens": -1}),
            (TypeError, "cache_seqlens", {"cache_seqlens": torch.tensor([1.5, 2, 3])}),
            (ValueError, "k has shape", {"k": draw(torch.float32, 3, 2, HEADS, DIM)}),
            (TypeError, "k is", {"k": draw(torch.float64, 3, 2, KV_HEADS, DIM)}),
            (ValueError, "rotary_sin one", {"rotary_cos": angles}),
            (ValueError, "4 positions", {"rotary_cos": angles[:4], "rotary_sin": angles[:4]}),
            (ValueError, "without k and v", {"rotary_cos": angles, "rotary_sin": angles, "k": None, "v": None}),
            (ValueError, "both given", {"block_table": Case(torch.float32).table, "cache_batch_idx": torch.arange(3)}),
            (ValueError, "page 99", {"block_table": torch.full((3, 4), 99)}),
            (ValueError, "alibi_slopes", {"alibi_slopes": torch.ones(3)}),
            (ValueError, "softcap", {"softcap": -1.0}),
            (ValueError, "window_size", {"window_size": (1,)}),
            (TypeError, "num_splits", {"num_splits": 0.5}),
            (NotImplementedError, "cache_leftpad", {"cache_leftpad": torch.zeros(3, dtype=torch.int32)}),
        ):
            with self.subTest(words=words):
                case = Case(torch.float32)
                caches = [cache.clone() for cache in case.caches]
                given = {"k": case.k, "v": case.v, "cache_seqlens": case.lengths, **change}
                with self.assertRaisesRegex(kind, f"flash_attn_with_kvcache|explain") as raised:
                    flash_attn_with_kvcache(case.q, *caches, **given)
                self.assertRegex(str(raised.exception), words)
                for cache, old in zip(caches, case.caches):
                    self.assertTrue(torch.equal(cache, old))


if __name__ == "__main__":
    unittest.main()
