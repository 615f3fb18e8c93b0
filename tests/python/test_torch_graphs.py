# SPDX-License-Identifier: Apache-2.0
"""multihead.torch under torch.compile, torch.export and other tracers, and what asks for a gradient."""

import io
import unittest
import warnings

import torch
from torch import library
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import multihead
import multihead.flash_attn
import multihead.torch as ours

WIDTH, HEADS = 16, 4
THEIRS = torch.nn.functional.scaled_dot_product_attention


def setUpModule():
    torch.set_num_threads(1)  # small problems; results do not depend on it


class Function(torch.nn.Module):
    def forward(self, query, key, value, mask):
        return ours.scaled_dot_product_attention(query, key, value, mask, scale=0.5)


class Block(torch.nn.Module):
    """A module of ours with everything around it that a compiler may want to fuse."""

    def __init__(self, **arguments):
        super().__init__()
        self.attention = ours.MultiheadAttention(WIDTH, HEADS, **arguments)

    def forward(self, x, padding):
        out, weights = self.attention(x.sin(), x, x, key_padding_mask=padding)
        return torch.relu(out), weights


def kernels_ran(call, *arguments):
    before = multihead.tasks_run()
    result = call(*arguments)
    assert multihead.tasks_run() > before, "no kernel of multihead ran"
    return result


class Compiled(unittest.TestCase):
    def tearDown(self):
        torch._dynamo.reset()

    def same(self, got, want):
        for left, right in zip(got, want) if isinstance(want, tuple) else ((got, want),):
            self.assertLessEqual(float((left - right).abs().max()), 1e-6)

    def test_function(self):
        q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8)
        mask = torch.rand(5, 7) < 0.7
        for backend in ("eager", "aot_eager", "inductor"):
            compiled = torch.compile(ours.scaled_dot_product_attention, fullgraph=True, backend=backend)
            got = kernels_ran(lambda: compiled(q, k, k, mask, enable_gqa=True))
            self.same(got, THEIRS(q, k, k, mask, enable_gqa=True))

    def test_lengths_that_change(self):
        compiled = torch.compile(ours.scaled_dot_product_attention, fullgraph=True, backend="aot_eager", dynamic=True)
        for length in (3, 5, 9):
            q = torch.randn(2, 4, length, 8)
            self.same(kernels_ran(compiled, q, q, q), THEIRS(q, q, q))

    def test_module(self):
        x, padding = torch.randn(5, 2, WIDTH), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
        for arguments in ({}, {"add_bias_kv": True, "add_zero_attn": True}):
            module = Block(**arguments)
            want = module(x, padding)
            for gradients in (True, False):
                with torch.set_grad_enabled(gradients):
                    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
                    self.same(kernels_ran(compiled, x, padding), want)
        compiled = torch.compile(module, fullgraph=True)
        got = kernels_ran(compiled, x, padding)
        self.same(got, want)
        with self.assertRaisesRegex(NotImplementedError, "no gradient"):
            got[0].sum().backward()

    def test_encoder(self):
        encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, batch_first=True), 2,
                                              enable_nested_tensor=False).eval()
        x = torch.randn(2, 5, WIDTH)
        with torch.no_grad():
            want = encoder(x)
            compiled = torch.compile(ours.replace(encoder), fullgraph=True, backend="aot_eager")
            self.same(kernels_ran(compiled, x), want)

    def test_flash_attention(self):
        q = torch.randn(2, 5, 4, 8)
        compiled = torch.compile(lambda x: multihead.flash_attn.flash_attn_func(x, x, x, causal=True), fullgraph=True,
                                 backend="aot_eager")
        self.same(kernels_ran(compiled, q), multihead.flash_attn.flash_attn_func(q, q, q, causal=True))


class Exported(unittest.TestCase):
    def check(self, module, arguments):
        """Exported, saved, loaded and run, also with a batch of another size."""
        batch = torch.export.Dim("batch")
        for shapes in (None, tuple({0: batch} for _ in arguments)):
            program = torch.export.export(module, arguments, dynamic_shapes=shapes)
            self.assertIn("multihead.attention", str(program.graph))
            file = io.BytesIO()
            torch.export.save(program, file)
            file.seek(0)
            loaded = torch.export.load(file).module()
            want = module(*arguments)
            got = kernels_ran(loaded, *arguments)
            if shapes:
                more = tuple(torch.cat([argument, argument]) for argument in arguments)
                self.assertEqual(loaded(*more)[0].shape, module(*more)[0].shape)
            for left, right in zip(got, want) if isinstance(want, tuple) else ((got, want),):
                self.assertTrue(torch.allclose(left, right, atol=1e-6))

    def test_function(self):
        q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8), torch.randn(2, 4, 7, 6)
        self.check(Function(), (q, k, v, torch.rand(2, 1, 5, 7) < 0.7))

    def test_module(self):
        x, padding = torch.randn(2, 5, WIDTH), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
        self.check(Block(batch_first=True).eval(), (x, padding))

    def test_other_tracers(self):
        q = torch.randn(2, 4, 5, 8)
        graph = make_fx(lambda x: ours.scaled_dot_product_attention(x, x, x))(q)
        self.assertIn("multihead.attention", graph.code)
        self.assertTrue(torch.allclose(graph(2 * q), THEIRS(2 * q, 2 * q, 2 * q), atol=1e-6))
        module = ours.MultiheadAttention(WIDTH, HEADS).eval()
        x = torch.randn(5, 2, WIDTH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module, (x, x, x))
        self.assertTrue(torch.allclose(traced(2 * x, x, x)[0], module(2 * x, x, x)[0], atol=1e-6))


class Operators(unittest.TestCase):
    def test_pytorchs_own_checks(self):
        """Schema, shapes without data, and functionality, as PyTorch judges them."""
        q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 6)
        keep, drop = torch.rand(1, 1, 5, 7) < 0.8, torch.rand(2, 1, 1, 7) < 0.1
        bias = torch.randn(1, 4, 5, 7)
        common = (keep, drop, bias, "bhsd", False, 0.5)
        library.opcheck(torch.ops.multihead.attention.default, (q, k, v, *common))
        for mean in (True, False):
            library.opcheck(torch.ops.multihead.attention_weights.default, (q.bfloat16(), k.bfloat16(), v.bfloat16(),
                                                                                 *common, mean))
        starts = torch.tensor([0, 3, 5])
        q, k = torch.randn(5, 4, 8), torch.randn(5, 2, 8)
        library.opcheck(torch.ops.multihead.flash_attention.default,
                              (q, k, k, starts, starts, torch.rand(4), None, [2, 0], 0.0))
        library.opcheck(torch.ops.multihead.flash_attention.default,
                              (q[None], k[None], k[None], None, None, None, None, [-1, -1], 5.0))

    def test_layouts(self):
        q = torch.randn(2, 4, 5, 8)
        want = torch.ops.multihead.attention(q, q, q, None, None, None, "bhsd", True, None)
        for layout, axes in (("bshd", (0, 2, 1, 3)), ("sbhd", (2, 0, 1, 3))):
            moved = q.permute(axes).contiguous()
            got = torch.ops.multihead.attention(moved, moved, moved, None, None, None, layout, True, None)
            self.assertTrue(got.is_contiguous())
            self.assertTrue(torch.equal(got, want.permute(axes)))


class Gradients(unittest.TestCase):
    """No gradient is there yet: whoever asks is told, and never gets zeros."""

    def told(self, call):
        with self.assertRaisesRegex(NotImplementedError, "multihead has no gradient of attention yet: run the forward"):
            call()

    def test_function(self):
        for place in range(3):
            tensors = [torch.randn(2, 4, 5, 8, requires_grad=place == each) for each in range(3)]
            self.told(ours.scaled_dot_product_attention(*tensors).sum().backward)
        q, bias = torch.randn(2, 4, 5, 8), torch.randn(5, 5, requires_grad=True)
        self.told(ours.scaled_dot_product_attention(q, q, q, bias).sum().backward)
        out = ours.scaled_dot_product_attention(q, q, q, bias)
        self.told(lambda: torch.autograd.grad(out.sum(), bias))
        self.assertIsNone(ours.scaled_dot_product_attention(q, q, q).grad_fn)
        with torch.no_grad():
            self.assertIsNone(ours.scaled_dot_product_attention(q, q, q, bias).grad_fn)

    def test_module(self):
        x = torch.randn(5, 2, WIDTH)
        module = ours.MultiheadAttention(WIDTH, HEADS)
        out, weights = module(x, x, x)
        self.told(out.sum().backward)
        self.told(weights.sum().backward)
        module.requires_grad_(False)
        self.assertIsNone(module(x, x, x)[0].grad_fn)
        x.requires_grad_()
        self.told(module(x, x, x)[0].sum().backward)

    def test_flash_attention(self):
        q = torch.randn(2, 5, 4, 8, requires_grad=True)
        out, lse, _ = multihead.flash_attn.flash_attn_func(q, q, q, return_attn_probs=True)
        self.told(out.sum().backward)
        self.told(lse.sum().backward)

    def test_forward_mode(self):
        q, x = torch.randn(2, 4, 5, 8), torch.randn(5, 2, WIDTH)
        module = ours.MultiheadAttention(WIDTH, HEADS)
        with forward_ad.dual_level():
            dual, x = forward_ad.make_dual(q, q), forward_ad.make_dual(x, x)
            self.told(lambda: ours.scaled_dot_product_attention(q, dual, q))
            self.told(lambda: module(x, x, x))
            self.told(lambda: multihead.flash_attn.flash_attn_func(q, q, dual))
        y = torch.randn(5, 2, WIDTH)
        for call, at in ((lambda t: ours.scaled_dot_product_attention(t, t, t), q),
                         (lambda t: ours.scaled_dot_product_attention(q, q, q, t), torch.randn(5, 5)),
                         (lambda t: module(t, y, y)[0], y),
                         (lambda t: multihead.flash_attn.flash_attn_func(t, q, q), q),
                         (lambda t: multihead.flash_attn.flash_attn_func(q, q, q, alibi_slopes=t), torch.ones(5))):
            self.told(lambda: torch.func.jvp(call, (at,), (at,)))  # noqa: B023
        operator = lambda t: torch.ops.multihead.attention(t, t, t, None, None, None, "bhsd", False, None)  # noqa: E731
        self.assertFalse(torch.func.jvp(operator, (q,), (q,))[1].any())  # as docs/pytorch.md says of the operators
        with self.assertRaises(RuntimeError):  # PyTorch's own refusal
            torch.func.grad(lambda t: ours.scaled_dot_product_attention(t, t, t).sum())(q)


if __name__ == "__main__":
    unittest.main()
