# SPDX-License-Identifier: Apache-2.0
"""multihead.flash_attn against FlashAttention's documented rules, written out in float64."""

import itertools
import math
import subprocess
import sys
import unittest

import numpy
import torch
import torch_truth as truth

import multihead
from multihead import flash_attn
from multihead.torch._gradient import draw_seed

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2.0 ** -8, torch.float16: 2.0 ** -11}


def setUpModule():
    torch.set_num_threads(1)  # small problems; results do not depend on it


def reference(q, k, v, scale=None, causal=False, window=(-1, -1), softcap=0.0, slopes=None):
    """(out, lse) of one sequence: q (seqlen_q, heads, dim), k and v (seqlen_k, kv_heads, dim), slopes (heads)."""
    q, k, v = (tensor.double() for tensor in (q, k, v))
    q_len, heads, dim = q.shape
    k_len, kv_heads, _ = k.shape
    k, v = (tensor.repeat_interleave(heads // kv_heads, 1) for tensor in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) * (1 / math.sqrt(dim) if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    place = torch.arange(q_len)[:, None] + k_len - q_len  # the last query meets the last key
    key = torch.arange(k_len)[None]
    if slopes is not None:
        scores = scores - slopes.double()[:, None, None] * (place - key).abs()
    seen = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        seen &= key <= place
    if window[0] >= 0:
        seen &= key >= place - window[0]
    if window[1] >= 0:
        seen &= key <= place + window[1]
    scores = scores.masked_fill(~seen, -math.inf)
    lse = torch.logsumexp(scores, -1) if k_len else torch.full((heads, q_len), -math.inf, dtype=torch.float64)
    weights = torch.exp(scores - lse[..., None]).masked_fill(~seen, 0)
    return torch.einsum("hij,jhd->ihd", weights, v), lse


def draw(dtype, *shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


OPTIONS = [{"softmax_scale": scale, "causal": causal, "window_size": window, "softcap": softcap}
           for scale, causal, window, softcap in itertools.product(
               (None, 0.3), (False, True), ((-1, -1), (2, -1), (-1, 1), (1, 0), (0, 0), (3, 2), (100, 100)), (0.0, 2.5))]


class FlashAttention(unittest.TestCase):
    def close(self, got, want, dtype):
        self.assertEqual(got.shape, want.shape)
        finite = want.isfinite()
        self.assertTrue(torch.equal(got.double()[~finite], want[~finite]))
        difference = (got.double() - want)[finite].abs()
        if difference.numel():
            self.assertLessEqual(float(difference.max()), TOLERANCE[dtype] * max(1.0, float(want[finite].abs().max())))

    def compare(self, q, k, v, slopes=None, **options):
        """A batch; slopes (heads) or (batch, heads)."""
        before = multihead.tasks_run()
        out, lse, probabilities = flash_attn.flash_attn_func(q, k, v, alibi_slopes=slopes, return_attn_probs=True, **options)
        self.assertTrue(multihead.tasks_run() > before or not out.numel())
        self.assertIsNone(probabilities)
        self.assertEqual(out.dtype, q.dtype)
        self.assertEqual(lse.dtype, torch.float64 if q.dtype == torch.float64 else torch.float32)
        arguments = (options.get("softmax_scale"), options.get("causal", False), options.get("window_size", (-1, -1)),
                     options.get("softcap", 0.0))
        wants = [reference(q[b], k[b], v[b], *arguments, slopes if slopes is None or slopes.dim() == 1 else slopes[b])
                 for b in range(len(q))]
        self.close(out, torch.stack([want for want, _ in wants]), q.dtype)
        rounding = torch.float64 if q.dtype == torch.float64 else torch.float32  # lse is not rounded to q's type
        self.close(lse, torch.stack([want for _, want in wants]), rounding)
        plain = flash_attn.flash_attn_func(q, k, v, alibi_slopes=slopes, **options)
        self.assertTrue(torch.equal(plain, out))
        return out, lse

    def test_the_grid(self):
        slopes = torch.rand(4, generator=torch.Generator().manual_seed(1))
        for dtype, (q_len, k_len), kv_heads in itertools.product(TOLERANCE, [(5, 5), (2, 7), (7, 3), (1, 6)], (4, 2, 1)):
            q = draw(dtype, 2, q_len, 4, 8, seed=1)
            k, v = draw(dtype, 2, k_len, kv_heads, 8, seed=2), draw(dtype, 2, k_len, kv_heads, 6, seed=3)
            options = OPTIONS if dtype == torch.float64 else OPTIONS[::5]
            for own, each in itertools.product((None, slopes, torch.stack([slopes, 2 * slopes])), options):
                with self.subTest(dtype=dtype, lengths=(q_len, k_len), kv_heads=kv_heads, slopes=own, **each):
                    self.compare(q, k, v, own, **each)

    def test_bottom_right(self):
        """FlashAttention's own two pictures of causal, of 2 queries and 5 keys, and of 5 queries and 2 keys."""
        for q_len, k_len, picture in ((2, 5, ["11110", "11111"]), (5, 2, ["00", "00", "00", "10", "11"])):
            q, k = torch.zeros(1, q_len, 1, k_len), torch.zeros(1, k_len, 1, k_len)
            out = flash_attn.flash_attn_func(q, k, torch.eye(k_len)[None, :, None], causal=True)
            self.assertEqual(["".join(str(int(value > 0)) for value in row) for row in out[0, :, 0]], picture)

    def test_empty_rows(self):
        q, k = draw(torch.float32, 1, 5, 2, 8), draw(torch.float32, 1, 2, 2, 8)
        out, lse = self.compare(q, k, k, causal=True)
        self.assertFalse(out[0, :3].any())
        self.assertTrue((lse[0, :, :3] == -math.inf).all())
        self.compare(q, k[:, :0], k[:, :0])
        self.compare(q[:, :0], k, k)
        none = flash_attn.flash_attn_func(q[:0], k[:0], k[:0], alibi_slopes=torch.zeros(0, 2), return_attn_probs=True)
        self.assertEqual([tuple(none[0].shape), tuple(none[1].shape)], [(0, 5, 2, 8), (0, 2, 5)])

    def test_packed_sequences(self):
        starts_q, starts_k = [0, 3, 3, 8, 9], [0, 5, 7, 9, 9]
        slopes = torch.rand(4, 4, generator=torch.Generator().manual_seed(1))
        for dtype, own, each in itertools.product(TOLERANCE, (None, slopes[0], slopes), OPTIONS[::3]):
            q, k, v = (draw(dtype, total, heads, 8, seed=heads) for total, heads in ((9, 4), (9, 2), (9, 2)))
            for kind in (torch.int32, torch.int64):
                starts = [torch.tensor(some, dtype=kind) for some in (starts_q, starts_k)]
                out, lse, _ = flash_attn.flash_attn_varlen_func(q, k, v, *starts, 5, 5, alibi_slopes=own,
                                                                return_attn_probs=True, **each)
            arguments = (each["softmax_scale"], each["causal"], each["window_size"], each["softcap"])
            wants = [reference(q[a:b], k[c:d], v[c:d], *arguments, own if own is None or own.dim() == 1 else own[s])
                     for s, (a, b, c, d) in enumerate(zip(starts_q, starts_q[1:], starts_k, starts_k[1:]))]
            with self.subTest(dtype=dtype, slopes=own, **each):
                self.close(out, torch.cat([want for want, _ in wants]), dtype)
                self.close(lse, torch.cat([want for _, want in wants], 1),
                           torch.float64 if dtype == torch.float64 else torch.float32)

    def test_packed_projections(self):
        qkv = draw(torch.float32, 2, 5, 3, 4, 8)
        q, k, v = qkv.unbind(2)
        want = flash_attn.flash_attn_func(q, k, v, 0.0, None, True)
        self.assertTrue(torch.equal(flash_attn.flash_attn_qkvpacked_func(qkv, causal=True), want))
        self.assertTrue(torch.equal(flash_attn.flash_attn_kvpacked_func(q, qkv[:, :, 1:], 0.0, None, True), want))
        starts = torch.tensor([0, 2, 5])
        q, k, v = qkv[0].unbind(1)
        want = flash_attn.flash_attn_varlen_func(q, k, v, starts, starts, 3, 3, window_size=(1, 0))
        self.assertTrue(torch.equal(
            flash_attn.flash_attn_varlen_qkvpacked_func(qkv[0], starts, 3, window_size=(1, 0)), want))
        self.assertTrue(torch.equal(flash_attn.flash_attn_varlen_kvpacked_func(
            q, qkv[0][:, 1:], starts, starts, 3, 3, window_size=(1, 0)), want))

    def test_arrays_of_numpy(self):
        q, slopes = draw(torch.float32, 2, 5, 4, 8), torch.rand(2, 4)
        for own in (None, slopes[0], slopes):
            want, want_lse, _ = flash_attn.flash_attn_func(q, q, q, alibi_slopes=own, causal=True, return_attn_probs=True)
            got, lse, _ = flash_attn.flash_attn_func(*[q.numpy()] * 3, alibi_slopes=own if own is None else own.numpy(),
                                                     causal=True, return_attn_probs=True)
            self.assertIsInstance(got, numpy.ndarray)
            self.assertTrue(numpy.array_equal(got, want.numpy()) and numpy.array_equal(lse, want_lse.numpy()))
        starts = numpy.array([0, 2, 5], numpy.int32)
        got = flash_attn.flash_attn_varlen_func(*[q[0].numpy()] * 3, starts, starts, 3, 3, alibi_slopes=slopes.numpy())
        want = flash_attn.flash_attn_varlen_func(*[q[0]] * 3, [0, 2, 5], [0, 2, 5], 3, 3, alibi_slopes=slopes)
        self.assertTrue(numpy.array_equal(got, want.numpy()))

    def test_dropout(self):
        """Which weights: as the generator's seed says, each sequence with slopes of its own by a stream of its own."""
        q, k, v = (draw(torch.float64, 2, 5, 4, 8, seed=seed) for seed in range(3))
        slopes = torch.rand(2, 4, dtype=torch.float64)
        for rows, streams in ((slopes[0], (None,)), (slopes, (0, 1))):
            torch.manual_seed(5)
            seed = int(draw_seed("cpu"))
            torch.manual_seed(5)
            out = flash_attn.flash_attn_func(q, k, v, 0.4, causal=True, alibi_slopes=rows)
            wants = []
            for stream in streams:
                part = slice(None) if stream is None else slice(stream, stream + 1)
                tensors = [tensor[part].transpose(1, 2) for tensor in (q, k, v)]
                drop = truth.dropped((len(tensors[0]), 4, 5, 5), 0.4, seed, stream or 0)
                wants.append(truth.attention(*tensors, causal=True, alibi_slopes=rows if stream is None else rows[stream],
                                             drop=drop, dropout=(0.4,))[0].transpose(1, 2))
            self.assertTrue(torch.allclose(out, torch.cat(wants), atol=1e-12))
        arrays = [tensor.numpy() for tensor in (q, k, v)]
        results = []
        for seed in (1, 1, 2):
            numpy.random.seed(seed)
            results.append(flash_attn.flash_attn_func(*arrays, 0.4))
        self.assertTrue(numpy.array_equal(results[0], results[1]))
        self.assertFalse(numpy.array_equal(results[0], results[2]))

    def test_numpy_imports_no_torch(self):
        program = ("import numpy, sys; from multihead import flash_attn; q = numpy.ones((1, 2, 1, 4), numpy.float32); "
                   "flash_attn.flash_attn_func(q, q, q); assert 'torch' not in sys.modules")
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_strides(self):
        qkv = draw(torch.float32, 2, 3, 5, 4, 8).transpose(1, 2)
        self.compare(*qkv.unbind(2), causal=True)
        self.compare(*[draw(torch.float32, 2, 5, 8, 4).mT] * 3)


class Refused(unittest.TestCase):
    def refuse(self, error, words, function, *arguments, **options):
        before = multihead.tasks_run()
        with self.assertRaises(error) as raised:
            function(*arguments, **options)
        for word in words.split():
            self.assertIn(word, str(raised.exception))
        self.assertEqual(multihead.tasks_run(), before)

    def test_each(self):
        for q in (torch.randn(2, 5, 4, 8), numpy.ones((2, 5, 4, 8), numpy.float32)):
            function = flash_attn.flash_attn_func
            self.refuse(ValueError, "flash_attn_func dropout_p 1.0 below", function, q, q, q, 1.0)
            self.refuse(ValueError, "flash_attn_func dropout_p -0.1 below", function, q, q, q, -0.1)
            self.refuse(ValueError, "flash_attn_func q 4 axes", function, q[0], q, q)
            self.refuse(ValueError, "flash_attn_func v 4 axes", function, q, q, q[0])
            self.refuse(ValueError, "window_size (1,)", function, q, q, q, window_size=(1,))
            self.refuse(TypeError, "flash_attn_func k list", function, q, [1.0], q)
            self.refuse(ValueError, "heads", function, q, q[:, :, :3], q[:, :, :3])
            self.refuse(ValueError, "head_dim", function, q, q[..., :4], q)
            self.refuse(ValueError, "alibi_slopes", function, q, q, q, alibi_slopes=torch.ones(3))
            self.refuse(ValueError, "alibi_slopes 3 2", function, q, q, q, alibi_slopes=torch.ones(3, 4))
            self.refuse(ValueError, "softcap", function, q, q, q, softcap=-1.0)
            function, starts = flash_attn.flash_attn_varlen_func, [0, 2, 5]
            self.refuse(ValueError, "flash_attn_varlen_func q 3 axes", function, q, q, q, starts, starts, 3, 3)
            self.refuse(NotImplementedError, "block_table", function, *[q[0]] * 3, starts, starts, 3, 3, block_table=q)
            self.refuse(ValueError, "cu_seqlens", function, *[q[0]] * 3, [0, 2, 6], [0, 2, 6], 3, 3)
            self.refuse(ValueError, "cu_seqlens", function, *[q[0]] * 3, [0, 2, 5], [0, 5], 3, 3)
            self.refuse(ValueError, "cu_seqlens", function, *[q[0]] * 3, [0, 3, 2, 5], [0, 3, 2, 5], 3, 3)
            self.refuse(ValueError, "qkv 5 axes", flash_attn.flash_attn_qkvpacked_func, q)
            self.refuse(ValueError, "kv 4 axes", flash_attn.flash_attn_varlen_kvpacked_func, q[0], q, starts, starts, 3, 3)
    def test_slopes_of_each_sequence(self):
        """What a call with slopes (heads) refuses, one with slopes (sequences, heads) refuses before it computes."""
        for kind in (torch.ones, lambda *shape: numpy.ones(shape, numpy.float32)):
            q, rows = kind(9, 4, 8), kind(2, 4)
            for starts in (([0, 5, 2, 9], [0, 5, 2, 9]), ([0, 2, 7], [0, 2, 7]), ([1, 2, 9], [1, 2, 9]), ([0, 2, 12],) * 2,
                           ([0, 5, 9], [0, 3, 5, 9]), ([0, 5, 9], [0, 9])):
                for slopes in (kind(4), kind(len(starts[0]) - 1, 4)):
                    with self.subTest(starts=starts, slopes=tuple(slopes.shape)):
                        self.refuse(ValueError, "cu_seqlens", flash_attn.flash_attn_varlen_func, q, q, q, *starts, 9, 9,
                                    alibi_slopes=slopes)
            starts = [0, 5, 9]
            function = flash_attn.flash_attn_varlen_func
            for words, tensors in (("kv_len", (q, q, q[:8])), ("heads", (q, q[:, :3], q[:, :3])),
                                   ("head_dim", (q, q[..., :4], q))):
                self.refuse(ValueError, words, function, *tensors, starts, starts, 9, 9, alibi_slopes=rows)
            self.refuse(ValueError, "softcap", function, q, q, q, starts, starts, 9, 9, alibi_slopes=rows, softcap=-1.0)
            q = kind(2, 5, 4, 8)
            for k in (kind(3, 5, 4, 8), kind(1, 5, 4, 8)):
                for slopes in (kind(4), rows):
                    self.refuse(ValueError, "batch", flash_attn.flash_attn_func, q, k, k, alibi_slopes=slopes)
            self.refuse(ValueError, "kv_len", flash_attn.flash_attn_func, q, q, q[:, :4], alibi_slopes=rows)
            rows[1, 2] = math.nan
            self.refuse(ValueError, "alibi_slopes", flash_attn.flash_attn_func, q, q, q, alibi_slopes=rows)
        q = numpy.ones((2, 5, 4, 8), numpy.float32)
        self.refuse(TypeError, "float64", flash_attn.flash_attn_func, q, q.astype(float), q, alibi_slopes=numpy.ones((2, 4)))

    def test_slopes_that_are_none(self):
        for q in (torch.randn(2, 5, 4, 8), numpy.ones((2, 5, 4, 8), numpy.float32)):
            function = flash_attn.flash_attn_func
            for slopes in ([], torch.ones(0), torch.ones(0, 4), torch.ones(()), 0.5, torch.ones(1, 2, 4), [[0.5] * 4]):
                self.refuse(ValueError, "flash_attn_func alibi_slopes shape (4,) (2, 4)", function, q, q, q,
                            alibi_slopes=slopes)
            for slopes in ("slow", ["a"] * 4, [0.5, [0.5]]):
                self.refuse(TypeError, "flash_attn_func alibi_slopes numbers", function, q, q, q, alibi_slopes=slopes)
            for slopes in ([], [[0.5] * 4] * 0, torch.ones(0, 4), [0.5] * 4):
                self.assertEqual(function(q[:0], q[:0], q[:0], alibi_slopes=slopes).shape, (0, 5, 4, 8))
            self.assertEqual(function(q, q, q, alibi_slopes=[(0.5,) * 4] * 2).shape, q.shape)

    def test_starts_that_are_none(self):
        for q in (torch.randn(5, 4, 8), numpy.ones((5, 4, 8), numpy.float32)):
            function, starts = flash_attn.flash_attn_varlen_func, [0, 2, 5]
            for pair, name in (((None, None), "cu_seqlens_q"), ((None, starts), "cu_seqlens_q"),
                               ((starts, None), "cu_seqlens_k"), ((starts, "abc"), "cu_seqlens_k")):
                self.refuse(TypeError, f"flash_attn_varlen_func {name} integers", function, q, q, q, *pair, 3, 3)
            for starts in ([], [[0, 5]], 5):
                self.refuse(ValueError, "cu_seqlens_q shape", function, q, q, q, starts, starts, 3, 3)

    def test_numbers_that_are_none(self):
        for q in (torch.randn(2, 5, 4, 8), numpy.ones((2, 5, 4, 8), numpy.float32)):
            function = flash_attn.flash_attn_func
            for window in (None, 3, (None, None), (1.0, 2.0)):
                self.refuse(TypeError, f"flash_attn_func window_size {window} integers", function, q, q, q,
                            window_size=window)
            for name in ("softcap", "softmax_scale", "dropout_p"):
                self.refuse(TypeError, f"flash_attn_func {name} 'a' number", function, q, q, q, **{name: "a"})
            self.refuse(TypeError, "flash_attn_func softcap None", function, q, q, q, softcap=None)

    def test_types(self):
        q = torch.randn(2, 5, 4, 8)
        self.refuse(TypeError, "flash_attn_func k torch.float64", flash_attn.flash_attn_func, q, q.double(), q)
        self.refuse(TypeError, "flash_attn_func q torch.int64", flash_attn.flash_attn_func, *[q.long()] * 3)


if __name__ == "__main__":
    unittest.main()
