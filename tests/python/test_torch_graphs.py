# SPDX-License-Identifier: Apache-2.0
"""multihead.torch under torch.compile, torch.export and other tracers, and gradients."""

import io
import unittest
import unittest.mock
import warnings

import torch
import torch._inductor.config
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
    torch._inductor.config.force_disable_caches = True  # nothing that was compiled for other operators of these names


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


SEED = torch.tensor(2 ** 62 + 1)


def learned(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def gradients_of(module, loss):
    return torch.autograd.grad(loss, list(module.parameters()))


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
            self.assertLessEqual(float((left - right).detach().abs().max()), 1e-6)

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
        wanted = gradients_of(module, want[0].square().sum() + want[1].square().sum())
        found = kernels_ran(gradients_of, module, got[0].square().sum() + got[1].square().sum())
        self.same(found, wanted)

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
        common = (keep, drop, bias, None, "bhsd", False, 0.5)
        library.opcheck(torch.ops.multihead.attention.default, (q, k, v, *common, 0.0))
        library.opcheck(torch.ops.multihead.attention.default, (*learned(q, k, v), keep, drop, *learned(bias), SEED,
                                                                "bhsd", False, 0.5, 0.25))
        for mean in (True, False):
            low = [tensor.bfloat16() for tensor in (q, k, v)]
            library.opcheck(torch.ops.multihead.attention_weights.default, (*low, *common, 0.0, mean))
            library.opcheck(torch.ops.multihead.attention_weights.default, (*learned(q, k, v), *common, 0.0, mean))
        starts = torch.tensor([0, 3, 5])
        q, k = torch.randn(5, 4, 8), torch.randn(5, 2, 8)
        library.opcheck(torch.ops.multihead.flash_attention.default,
                        (q, k, k, starts, starts, torch.rand(4), None, None, [2, 0], 0.0, 0.0))
        library.opcheck(torch.ops.multihead.flash_attention.default,
                        (*learned(q, k, k), starts, starts, *learned(torch.rand(2, 4)), SEED, None, [2, 0], 0.0, 0.25))
        library.opcheck(torch.ops.multihead.flash_attention.default,
                        (q[None], k[None], k[None], None, None, None, None, None, [-1, -1], 5.0, 0.0))

    def test_layouts(self):
        q = torch.randn(2, 4, 5, 8)
        want, lse = torch.ops.multihead.attention(*learned(q, q, q), None, None, None, SEED, "bhsd", True, None, 0.25)
        above = torch.randn(q.shape)
        wanted = torch.ops.multihead.attention_backward(above, None, None, q, q, q, want, lse, None, None, None, SEED, "bhsd",
                                                        True, None, 0.25, [True] * 3 + [False])
        for layout, axes in (("bshd", (0, 2, 1, 3)), ("sbhd", (2, 0, 1, 3))):
            moved = learned(*[q.permute(axes).contiguous()] * 3)
            got, sums = torch.ops.multihead.attention(*moved, None, None, None, SEED, layout, True, None, 0.25)
            self.assertTrue(got.is_contiguous())
            self.assertTrue(torch.equal(got, want.permute(axes)))
            self.assertTrue(torch.equal(sums, lse))
            for found, gradient in zip(torch.autograd.grad(got, moved, above.permute(axes)), wanted):
                self.assertTrue(found.is_contiguous())
                self.assertTrue(torch.equal(found, gradient.permute(axes)))


class Gradients(unittest.TestCase):
    """What a graph differentiates, and what is refused with a sentence: whoever asks never gets zeros."""

    def tearDown(self):
        torch._dynamo.reset()

    def test_compiled(self):
        q, k = learned(torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8))
        bias, = learned(torch.randn(4, 1, 7))

        def loss(query, key, added):
            out = ours.scaled_dot_product_attention(query.sin(), key, key, added, enable_gqa=True)
            flash = multihead.flash_attn.flash_attn_func(query.transpose(1, 2), key.transpose(1, 2), key.transpose(1, 2),
                                                         causal=True, softcap=3.0)
            return out.square().sum() + flash.square().sum()

        wanted = torch.autograd.grad(loss(q, k, bias), (q, k, bias))
        for backend in ("aot_eager", "inductor"):
            compiled = torch.compile(loss, fullgraph=True, backend=backend)
            for found, want in zip(torch.autograd.grad(kernels_ran(compiled, q, k, bias), (q, k, bias)), wanted):
                self.assertTrue(torch.allclose(found, want, atol=1e-5))

    def test_compiled_dropout(self):
        """The seed is a part of the graph: every call draws another, and torch.manual_seed repeats it."""
        q, = learned(torch.randn(1, 2, 6, 8))
        compiled = torch.compile(lambda x: ours.scaled_dot_product_attention(x, x, x, dropout_p=0.5), fullgraph=True,
                                 backend="aot_eager")
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            out = compiled(q)
            results.append((out, *torch.autograd.grad(out.square().sum(), q)))
        for first, again, other in zip(*results):
            self.assertTrue(torch.equal(first, again))
            self.assertFalse(torch.equal(first, other))
        with torch.no_grad():
            self.assertFalse(torch.equal(compiled(q), compiled(q)))

    def test_what_needs_none(self):
        q, bias = torch.randn(2, 4, 5, 8), torch.randn(5, 5, requires_grad=True)
        self.assertIsNone(ours.scaled_dot_product_attention(q, q, q).grad_fn)
        with torch.no_grad():
            self.assertIsNone(ours.scaled_dot_product_attention(q, q, q, bias).grad_fn)
        module = ours.MultiheadAttention(WIDTH, HEADS).requires_grad_(False)
        x = torch.randn(5, 2, WIDTH)
        self.assertIsNone(module(x, x, x)[0].grad_fn)

    def test_only_what_is_asked_for(self):
        for place in range(3):
            tensors = [torch.randn(2, 4, 5, 8, requires_grad=place == each) for each in range(3)]
            with unittest.mock.patch("multihead.attention_backward", wraps=multihead.attention_backward) as backward:
                ours.scaled_dot_product_attention(*tensors).sum().backward()
            self.assertEqual([tuple(each.kwargs["want"]) for each in backward.mock_calls], [("qkv"[place],)])
            self.assertEqual([tensor.grad is not None for tensor in tensors], [place == each for each in range(3)])

    def test_a_second_derivative_is_refused(self):
        q, x = torch.randn(2, 4, 5, 8, requires_grad=True), torch.randn(5, 2, WIDTH, requires_grad=True)
        module = ours.MultiheadAttention(WIDTH, HEADS)
        for out, tensor in ((ours.scaled_dot_product_attention(q, q, q), q), (module(x, x, x)[0], x), (module(x, x, x)[1], x),
                            (multihead.flash_attn.flash_attn_func(q, q, q), q)):
            gradient, = torch.autograd.grad(out.square().sum(), tensor, create_graph=True)
            with self.assertRaisesRegex(NotImplementedError, "no second derivative of attention"):
                gradient.sum().backward()

    def told(self, call):
        with self.assertRaisesRegex(NotImplementedError, "multihead has no forward-mode gradient of attention"):
            call()

    def test_forward_mode(self):
        q, x = torch.randn(2, 4, 5, 8), torch.randn(5, 2, WIDTH)
        module = ours.MultiheadAttention(WIDTH, HEADS)
        with forward_ad.dual_level():
            dual, x = forward_ad.make_dual(q, q), forward_ad.make_dual(x, x)
            self.told(lambda: ours.scaled_dot_product_attention(q, dual, q))
            self.told(lambda: module(x, x, x))
            self.told(lambda: multihead.flash_attn.flash_attn_func(q, q, dual))
        y = torch.randn(5, 2, WIDTH)
        operators = torch.ops.multihead
        common = (None, "bhsd", False, None, 0.0)
        for call, at in ((lambda t: ours.scaled_dot_product_attention(t, t, t), q),
                         (lambda t: ours.scaled_dot_product_attention(q, q, q, t), torch.randn(5, 5)),
                         (lambda t: module(t, y, y)[0], y),
                         (lambda t: multihead.flash_attn.flash_attn_func(t, q, q), q),
                         (lambda t: multihead.flash_attn.flash_attn_func(q, q, q, alibi_slopes=t), torch.ones(5)),
                         (lambda t: operators.attention(t, t, t, None, None, None, *common)[0], q),
                         (lambda t: operators.attention(q, q, q, None, None, t, *common)[1], torch.randn(1, 1, 5, 5)),
                         (lambda t: operators.attention_weights(t, t, t, None, None, None, *common, True)[2], q),
                         (lambda t: operators.flash_attention(t, q, q, *[None] * 5, [-1, -1], 0.0, 0.0)[0], q),
                         (lambda t: operators.attention_backward(t, None, None, q, q, q, q, q[..., 0], None, None, None, *common,
                                                                 [True, False, False, False])[0], q)):
            self.told(lambda: torch.func.jvp(call, (at,), (at,)))  # noqa: B023
        mask = torch.ones(5, 5, dtype=torch.bool)
        program = torch.export.export(Function(), (q, q + 1, q + 2, mask)).module()
        self.told(lambda: torch.func.jvp(lambda t: program(t, q, q, mask), (q,), (q,)))
        with self.assertRaises(RuntimeError):  # PyTorch's own refusal
            torch.func.grad(lambda t: ours.scaled_dot_product_attention(t, t, t).sum())(q)

    def test_vmap_of_backward(self):
        """The rows of a Jacobian at once, one call each."""
        q, = learned(torch.randn(1, 2, 3, 4, dtype=torch.float64))
        above = torch.eye(24, dtype=torch.float64).reshape(24, *q.shape)
        out = ours.scaled_dot_product_attention(q, q, q)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, = torch.autograd.grad(out, q, above, is_grads_batched=True)
        wanted = torch.autograd.functional.jacobian(lambda t: THEIRS(t, t, t), q.detach())
        self.assertTrue(torch.allclose(found.reshape(24, 24), wanted.reshape(24, 24), atol=1e-12))


if __name__ == "__main__":
    unittest.main()
