# SPDX-License-Identifier: Apache-2.0
"""multihead.torch.scaled_dot_product_attention against PyTorch's own in float64, over a grid of every argument."""

import itertools
import math
import unittest
import unittest.mock

import torch

import multihead
import multihead.torch as ours
from multihead import flash_attn

THEIRS = torch.nn.functional.scaled_dot_product_attention
# What rounding may add, as a part of the largest output: the result is rounded once, sums are float32 or float64.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 2.0 ** -8, torch.float16: 2.0 ** -11}
NO_ROW = "no row"  # a mask under which one row sees no key

# Axes before the last two of query, key and value. With enable_gqa only where it differs.
LEADING = [((), (), ()), ((4,), (4,), (4,)), ((2, 4), (2, 4), (2, 4)), ((3, 2, 4), (3, 2, 4), (3, 2, 4)),
           ((2, 4), (1, 4), (2, 1)), ((2, 4), (1, 1), (1, 1)), ((4,), (2, 4), (2, 4)), ((2, 4), (), ()),
           ((2, 2, 1, 3), (2, 1, 2, 1), (1, 1, 1, 3)), ((0, 4), (0, 4), (0, 4)), ((2, 0), (2, 0), (2, 0))]
GROUPED = [((2, 4), (2, 2), (2, 2)), ((2, 4), (2, 1), (2, 1)), ((4,), (2,), (2,)), ((2, 4), (1, 2), (2, 2)),
           ((2, 6), (2, 3), (2, 2)), ((3, 2, 4), (3, 2, 2), (3, 2, 2)), ((2, 4), (2, 4), (2, 4))]
LENGTHS = [(5, 5), (1, 9), (7, 3), (3, 0), (0, 3)]


def draw(shape, dtype, generator):
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)


def masks(leading, q_len, kv_len, dtype, generator):
    """(name, mask) of every rank and broadcast: boolean, floating of the query's type and of float32, or None."""
    yield "none", None
    shapes = [(q_len, kv_len), (1, kv_len), (q_len, 1), (1, 1)]
    shapes += [(*leading[-count:], q_len, kv_len) for count in range(1, len(leading) + 1)]
    shapes += [(*leading[:-1], 1, q_len, kv_len), (*leading[:-1], 1, 1, kv_len)] if leading else []
    for shape in shapes:
        seen = torch.rand(shape, generator=generator) < 0.6
        yield f"bool {shape}", seen
        for kind in {dtype, torch.float32}:
            yield f"{kind} {shape}", draw(shape, kind, generator)
        yield f"-inf {shape}", torch.zeros(shape, dtype=dtype).masked_fill(~seen, -math.inf)
    if q_len and kv_len:
        seen = torch.ones(q_len, kv_len, dtype=torch.bool)
        seen[q_len // 2] = False
        yield NO_ROW, seen


def setUpModule():
    torch.set_num_threads(1)  # small problems; results do not depend on it


class Attention(unittest.TestCase):
    def compare(self, query, key, value, **arguments):
        want = THEIRS(query.double(), key.double(), value.double(),
                      **{name: other.double() if isinstance(other, torch.Tensor) and other.dtype != torch.bool else other
                         for name, other in arguments.items()})
        before = multihead.tasks_run()
        got = ours.scaled_dot_product_attention(query, key, value, **arguments)
        self.assertEqual(multihead.tasks_run() > before, got.numel() > 0)
        self.assertEqual((got.shape, got.dtype, got.is_contiguous()), (want.shape, query.dtype, True))
        bound = TOLERANCE[query.dtype] * max(1.0, float(value.abs().max()) if value.numel() else 0.0)
        if want.numel():
            self.assertLessEqual(float((got.double() - want).abs().max()), bound)
        return got

    def test_the_grid(self):
        generator = torch.Generator().manual_seed(1)
        count = 0
        for dtype, grouped in itertools.product(TOLERANCE, (False, True)):
            for shapes, (q_len, kv_len) in itertools.product(GROUPED if grouped else LEADING, LENGTHS):
                q, k, v = (draw((*leading, length, width), dtype, generator) for leading, length, width in
                           zip(shapes, (q_len, kv_len, kv_len), (8, 8, 5)))
                full = shapes[0] if grouped else torch.broadcast_shapes(*shapes)
                if 0 in (q_len, kv_len) and shapes[0] != tuple(full):
                    continue  # PyTorch then gives the shape of the query without broadcasting
                for scale in (None, -0.7):
                    self.compare(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
                for name, mask in masks(full, q_len, kv_len, dtype, generator):
                    count += 1
                    with self.subTest(dtype=dtype, shapes=shapes, lengths=(q_len, kv_len), mask=name):
                        got = self.compare(q, k, v, attn_mask=mask, enable_gqa=grouped)
                        if name == NO_ROW:
                            self.assertFalse(got[..., q_len // 2, :].any())
        self.assertGreater(count, 3000)

    def test_scale(self):
        generator = torch.Generator().manual_seed(2)
        q, k, v = (draw((2, 3, 6, 16), torch.float32, generator) for _ in range(3))
        for scale in (0.0, 1.0, 3.0, -1.0, torch.tensor(0.5)):
            self.compare(q, k, v, scale=scale)

    def test_lengths_that_fill_blocks(self):
        generator = torch.Generator().manual_seed(3)
        for dtype, (q_len, kv_len) in itertools.product(TOLERANCE, [(300, 300), (1, 1025), (129, 257)]):
            q, k, v = (draw((2, 4, length, 64), dtype, generator) for length in (q_len, kv_len, kv_len))
            self.compare(q, k, v, is_causal=True)
            self.compare(q, k, v, attn_mask=torch.rand(2, 1, q_len, kv_len, generator=generator) < 0.5)

    def test_strides(self):
        generator = torch.Generator().manual_seed(4)
        packed = draw((2, 6, 3, 4, 8), torch.float32, generator)  # (batch, length, 3, heads, dim)
        q, k, v = (packed[:, :, part].transpose(1, 2) for part in range(3))
        self.compare(q, k, v)
        wide = draw((2, 4, 8, 6), torch.float32, generator)
        self.compare(wide.mT, wide.mT, wide.mT)  # the last axis is not contiguous: copied
        self.compare(wide[..., ::2], wide[..., ::2], wide[..., 1::2])
        mask = torch.rand(6, 4, 2, 6, generator=generator) < 0.5
        self.compare(q, k, v, attn_mask=mask.permute(2, 1, 0, 3))

    def test_nothing_is_shared(self):
        q = torch.randn(2, 4, 5, 8)
        copy = q.clone()
        out = ours.scaled_dot_product_attention(q, q, q)
        out.zero_()
        self.assertTrue(torch.equal(q, copy))

    def test_autocast(self):
        q = torch.randn(2, 4, 5, 8)
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype=dtype):
                got = ours.scaled_dot_product_attention(q, q, q, torch.zeros(5, 5))
                self.assertEqual(got.dtype, THEIRS(q, q, q).dtype)
                double = ours.scaled_dot_product_attention(q.double(), q.double(), q.double())
                self.assertEqual(double.dtype, torch.float64)
            self.assertTrue(torch.equal(got, ours.scaled_dot_product_attention(*[q.to(dtype)] * 3)))

    def test_autocast_lowers_the_mask(self):
        """As PyTorch does: a floating mask is rounded to the lower type before it is added."""
        generator = torch.Generator().manual_seed(5)
        q = draw((2, 4, 5, 8), torch.float32, generator)
        mask = 100 + draw((5, 5), torch.float32, generator)
        low, rounded = q.to(torch.bfloat16), mask.to(torch.bfloat16)
        with torch.autocast("cpu"):
            got = ours.scaled_dot_product_attention(q, q, q, mask)
        self.assertTrue(torch.equal(got, ours.scaled_dot_product_attention(low, low, low, rounded)))
        self.assertFalse(torch.equal(got, ours.scaled_dot_product_attention(low, low, low, mask)))

    def test_threads(self):
        """torch.get_num_threads() of them are asked for, and one where a call is too small to share."""
        large, small = torch.randn(2, 4, 256, 64), torch.randn(2, 4, 5, 8)
        before = torch.get_num_threads()
        module = ours.MultiheadAttention(64, 4)
        calls = (lambda x: ours.scaled_dot_product_attention(x, x, x),
                 lambda x: flash_attn.flash_attn_func(x, x, x),
                 lambda x: flash_attn.flash_attn_func(x, x, x, alibi_slopes=torch.ones(len(x), x.shape[2])),
                 lambda x: module(*[torch.randn(len(x[0, 0]) * 4, 2, 64)] * 3))
        try:
            torch.set_num_threads(3)
            for call, (x, threads) in itertools.product(calls, ((large, 3), (small, 1))):
                with unittest.mock.patch("multihead.attention", wraps=multihead.attention) as attention:
                    call(x)
                self.assertEqual({each.kwargs["threads"] for each in attention.mock_calls}, {threads})
        finally:
            torch.set_num_threads(before)

    def test_threads_change_no_bit(self):
        q = torch.randn(2, 8, 200, 64)
        before = torch.get_num_threads()
        try:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(ours.scaled_dot_product_attention(q, q, q, is_causal=True))
        finally:
            torch.set_num_threads(before)
        self.assertTrue(torch.equal(results[0], results[1]) and torch.equal(results[0], results[2]))

    def test_meta_has_shapes(self):
        q = torch.empty(2, 4, 5, 8, device="meta")
        out = ours.scaled_dot_product_attention(q, q[:, :2], q[:, :2], enable_gqa=True)
        self.assertEqual((out.device.type, tuple(out.shape)), ("meta", (2, 4, 5, 8)))

    def test_results_lie_with_their_queries(self):
        """Whatever device tensors that name none are made on."""
        q = torch.randn(1, 2, 3, 4)
        layer = multihead.MultiHeadAttention(2, order="in_out", qkv=torch.randn(4, 12), out=torch.randn(4, 4))

        def results():
            return (*multihead.attention(q, q, q, return_lse=True, return_weights=True), layer(q[0]),
                    ours.scaled_dot_product_attention(q, q, q))

        wanted = results()
        torch.set_default_device("meta")
        try:
            found = results()
        finally:
            torch.set_default_device(None)
        for one, other in zip(found, wanted):
            self.assertTrue(torch.equal(one, other))

    def test_vmap(self):
        q = torch.randn(3, 2, 4, 5)
        with self.assertWarns(UserWarning):
            got = torch.vmap(ours.scaled_dot_product_attention)(q, q, q)
        self.assertTrue(torch.allclose(got, THEIRS(q, q, q), atol=1e-6))


class Refused(unittest.TestCase):
    """What PyTorch refuses, and what only it can do, is an error that names the argument, and nothing runs."""

    def refuse(self, error, words, *arguments, theirs=True, **options):
        before = multihead.tasks_run()
        with self.assertRaises(error) as raised:
            ours.scaled_dot_product_attention(*arguments, **options)
        for word in ("scaled_dot_product_attention", *words.split()):
            self.assertIn(word, str(raised.exception))
        self.assertEqual(multihead.tasks_run(), before)
        if theirs:
            with self.assertRaises((RuntimeError, IndexError, TypeError)):
                THEIRS(*arguments, **options)

    def test_each(self):
        q = torch.randn(2, 4, 5, 8)
        square = torch.ones(5, 5, dtype=torch.bool)
        self.refuse(ValueError, "is_causal attn_mask", q, q, q, square, 0.0, True)
        self.refuse(ValueError, "dropout_p 1.0 below", q, q, q, None, 1.0, theirs=False)
        self.refuse(ValueError, "dropout_p nan below", q, q, q, None, float("nan"), theirs=False)
        self.refuse(ValueError, "dropout_p -1 below", q, q, q, None, -1)
        self.refuse(ValueError, "query 1 axes", q[0, 0, 0], q, q)
        self.refuse(ValueError, "key 1 axes", q, q[0, 0, 0], q)
        self.refuse(TypeError, "key float64 query float32", q, q.double(), q)
        self.refuse(TypeError, "value int64", q, q, q.long())
        self.refuse(TypeError, "query complex64", *[q.to(torch.complex64)] * 3)
        self.refuse(TypeError, "query ndarray torch.Tensor", q.numpy(), q, q)
        self.refuse(ValueError, "key query last (2, 4, 5, 4)", q, q[..., :4], q)
        self.refuse(ValueError, "key value second (2, 4, 3, 8)", q, q, q[:, :, :3], theirs=False)
        self.refuse(ValueError, "broadcast (2, 2, 5, 8)", q, q[:, :2], q[:, :2], theirs=False)
        self.refuse(ValueError, "broadcast", q, q[:, :3], q[:, :3])
        self.refuse(ValueError, "query 4 heads key 3 multiple", q, q[:, :3], q[:, :3], enable_gqa=True)
        self.refuse(ValueError, "key 0 multiple", q, q[:, :0], q[:, :0], enable_gqa=True, theirs=False)
        self.refuse(ValueError, "enable_gqa heads", *[q[0, 0]] * 3, enable_gqa=True)
        self.refuse(TypeError, "scale 'a' number", q, q, q, scale="a")
        self.refuse(TypeError, "dropout_p None number", q, q, q, None, None)
        self.refuse(ValueError, "query sparse", q.to_sparse(), q, q)
        self.refuse(ValueError, "query nested", *[torch.nested.as_nested_tensor([q[0], q[1]])] * 3, theirs=False)

    def test_devices(self):
        """No result is made without data where only some tensors have none."""
        q = torch.randn(2, 4, 5, 8)
        meta = q.to("meta")
        for arguments, name in (((q, meta, q), "key"), ((q, q, meta), "value"), ((q, meta, meta), "key"),
                                ((q, q, q, torch.zeros(5, 5, device="meta")), "attn_mask"),
                                ((q, q, q, torch.zeros(5, 5, device="meta").bool()), "attn_mask")):
            self.refuse(ValueError, f"{name} device meta", *arguments, theirs=False)
        self.refuse(ValueError, "key device cpu", meta, q, q, theirs=False)
        for tensors in ((q, meta, q), (q, q, meta)):
            with self.assertRaisesRegex(ValueError, "on device meta"):
                torch.ops.multihead.attention(*tensors, None, None, None, None, "bhsd", False, None, 0.0)
            with self.assertRaisesRegex(ValueError, "on device meta"):
                torch.ops.multihead.attention_weights(*tensors, None, None, None, None, "bhsd", False, None, 0.0, False)
        with self.assertRaisesRegex(ValueError, "bias is on device meta"):
            torch.ops.multihead.attention(q, q, q, None, None, torch.zeros(1, 1, 5, 5, device="meta"), None, "bhsd", False,
                                          None, 0.0)
        packed = q[0]
        for name in ("k", "v", "alibi_slopes", "cu_seqlens_q", "cu_seqlens_k"):
            named = {"q": packed, "k": packed, "v": packed, "alibi_slopes": torch.ones(5),
                     "cu_seqlens_q": torch.tensor([0, 4]), "cu_seqlens_k": torch.tensor([0, 4])}
            named[name] = named[name].to("meta")
            with self.assertRaisesRegex(ValueError, f"flash_attn_varlen_func: {name} is on device meta, q on cpu"):
                flash_attn.flash_attn_varlen_func(**named, max_seqlen_q=4, max_seqlen_k=4)

    def test_other_devices(self):
        class Elsewhere(torch.Tensor):
            """What looks like a tensor of a device that this machine need not have."""

            @staticmethod
            def __new__(cls):
                return torch.Tensor._make_wrapper_subclass(cls, (2, 4, 5, 8), device="cuda:0")

            __torch_dispatch__ = None

        far, q = Elsewhere(), torch.randn(2, 4, 5, 8)
        for tensors, name in (((far, far, far), "query"), ((q, far, q), "key")):
            self.refuse(ValueError, f"{name} device cuda:0 {name}.cpu()", *tensors, theirs=False)
        self.refuse(ValueError, "attn_mask device cuda:0", q, q, q, far, theirs=False)

    def test_masks(self):
        q = torch.randn(2, 4, 5, 8)
        for mask in (torch.zeros(5), torch.zeros(()), torch.zeros(4, 5), torch.zeros(5, 4), torch.zeros(3, 1, 5, 5),
                     torch.zeros(2, 3, 5, 5), torch.zeros(1, 1, 1, 5, 5), torch.zeros(3, 1, 1, 5, 5)):
            with self.subTest(shape=mask.shape):
                self.refuse(ValueError, f"attn_mask {str(tuple(mask.shape))}", q, q, q, mask,
                            theirs=mask.shape != (1, 1, 1, 5, 5))
        for dtype in (torch.float64, torch.int64, torch.uint8, torch.bfloat16):
            with self.subTest(dtype=dtype):
                self.refuse(TypeError, f"attn_mask {dtype}", q, q, q, torch.zeros(5, 5, dtype=dtype))
        self.refuse(TypeError, "attn_mask list", q, q, q, [[True] * 5] * 5)
        self.refuse(ValueError, "attn_mask sparse", q, q, q, torch.zeros(5, 5).to_sparse())

    def test_the_librarys_limits(self):
        for wide in (torch.randn(1, 1, 2, 1025), torch.randn(1, 1, 2, 0)):
            with self.assertRaisesRegex(ValueError, "head_dim"):
                ours.scaled_dot_product_attention(wide, wide, torch.randn(1, 1, 2, 4))


if __name__ == "__main__":
    unittest.main()
