# SPDX-License-Identifier: Apache-2.0
"""Gradients against PyTorch's differentiation of the plain formula, for every option and every pair, and gradcheck."""

import itertools
import unittest
import unittest.mock

import torch
import torch_truth as truth
from torch.autograd import gradcheck

import multihead
import multihead.torch as ours
from multihead import flash_attn

HEADS, Q_LEN, KV_LEN = 4, 5, 7
THEIRS = torch.nn.functional.scaled_dot_product_attention
LEARNED = ("bias", "alibi_slopes", "relative_bias", "sinks")


def setUpModule():
    torch.set_num_threads(1)  # small problems; results do not depend on it


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def seen(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.7


# Each changes a call of (batch, heads, q_len, kv_len) = (2, 4, 5, 7) whose queries stand at positions 1 .. 5.
OPTIONS = {
    "causal": {"causal": True},
    "window": {"window": (2, 1)},
    "lengths": {"lengths": [7, 3]},
    "segments": {"segments": (torch.tensor([[1, 1, 1, 2, 2], [3, 4, 4, 4, 4]]),
                              torch.tensor([[1, 1, 1, 1, 2, 2, 2], [4, 4, 4, 5, 5, 5, 3]]))},
    "keep_mask": {"keep_mask": seen(2, 1, Q_LEN, KV_LEN)},
    "drop_mask": {"drop_mask": ~seen(1, HEADS, 1, KV_LEN, seed=1)},
    "bias": {"bias": draw(2, HEADS, Q_LEN, KV_LEN, seed=2)},
    "bias that repeats": {"bias": draw(1, HEADS, 1, KV_LEN, seed=3)},
    "alibi_slopes": {"alibi_slopes": draw(HEADS, seed=4).abs()},
    "relative_bias": {"relative_bias": draw(8, HEADS, seed=5)},
    "softcap": {"softcap": 1.5},
    "sinks": {"sinks": draw(HEADS, seed=6)},
    "scale": {"scale": -0.7},
    "dropout": {"dropout": 0.3, "dropout_seed": 2 ** 63 + 12345, "dropout_stream": 9},
    "grouped": {"kv_heads": 2},
    "value_dim": {"value_dim": 3},
    "d_lse": {"d_lse": True},
    "packed": {"cu_seqlens": ([0, 2, 2, 5], [0, 3, 4, 7]), "query_offset": [1, 0, 1]},
}
CONTRADICTORY = [{"bias", "bias that repeats"}, {"packed", "segments"}]


def as_packed(options):
    """The same options for a batch of one with three sequences."""
    first = {name: option[:1] for name, option in options.items() if name in ("keep_mask", "bias") and option.shape[0] > 1}
    return {**options, **first, **({"lengths": [3, 1, 2]} if "lengths" in options else {})}


class Formula(unittest.TestCase):
    """multihead.attention_backward, as all faces call it."""

    def compare(self, names, tolerance, dtype=torch.float64):
        options = {name: option for each in names for name, option in OPTIONS[each].items()}
        options = {"query_offset": 1, **(as_packed(options) if "packed" in names else options)}
        batch = 1 if "packed" in names else 2
        kv_heads, value_dim = options.pop("kv_heads", HEADS), options.pop("value_dim", 4)
        tensors = {"q": draw(batch, HEADS, Q_LEN, 4, seed=7, dtype=dtype),
                   "k": draw(batch, kv_heads, KV_LEN, 4, seed=8, dtype=dtype),
                   "v": draw(batch, kv_heads, KV_LEN, value_dim, seed=9, dtype=dtype)}
        d_out = draw(batch, HEADS, Q_LEN, value_dim, seed=10, dtype=dtype)
        sums = torch.float64 if dtype == torch.float64 else torch.float32
        d_lse = draw(batch, HEADS, Q_LEN, seed=11, dtype=sums) if options.pop("d_lse", False) else None
        if "bias" in options:
            options["bias"] = options["bias"].to(sums)
        learned = {name: options[name] for name in LEARNED if name in options}
        scale = options.get("scale", 0.5)

        inputs = {name: tensor.double().clone().requires_grad_() for name, tensor in {**tensors, **learned}.items()}
        if dtype in (torch.float64, torch.float32):  # a sum over all scores, in which the rounding of out adds up
            inputs["scale"] = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
        told = {**options, "scale": scale, **{name: inputs[name] for name in (*learned, "scale") if name in inputs}}
        drop = None
        if "dropout" in options:
            drop = truth.dropped((batch, HEADS, Q_LEN, KV_LEN), options["dropout"], options["dropout_seed"],
                                 options["dropout_stream"])
            told = {**told, "dropout": (options["dropout"],)}
        out, lse, _ = truth.attention(*(inputs[name] for name in "qkv"), drop=drop, **told)
        some = lse.isfinite()
        loss = (out * d_out).sum() + (0.0 if d_lse is None else (lse[some] * d_lse[some]).sum())
        wanted = dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values()))))

        called = dict(options, scale=scale)
        found_out, found_lse = multihead.attention(*tensors.values(), return_lse=True, **called)
        found = multihead.attention_backward(d_out, *tensors.values(), found_out, found_lse, d_lse=d_lse, want=list(inputs),
                                             **called)._asdict()
        self.assertEqual({name for name, gradient in found.items() if gradient is not None}, set(inputs))
        for name, want in wanted.items():
            gradient = torch.as_tensor(found[name], dtype=torch.float64)
            self.assertEqual(gradient.shape, want.shape)
            self.assertLessEqual(float((gradient - want).abs().max()), tolerance * max(1.0, float(want.abs().max())), name)

    def test_every_option_and_every_pair(self):
        count = 0
        for number in (1, 2):
            for names in itertools.combinations(OPTIONS, number):
                if set(names) in CONTRADICTORY:
                    continue
                count += 1
                with self.subTest(names=names):
                    self.compare(names, 1e-13)
        self.assertEqual(count, 18 + 18 * 17 // 2 - len(CONTRADICTORY))

    def test_all_at_once(self):
        self.compare(set(OPTIONS) - {"packed", "bias that repeats"}, 1e-13)
        self.compare(set(OPTIONS) - {"segments", "bias"}, 1e-13)

    def test_types(self):
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2.0 ** -6), (torch.float16, 2.0 ** -9)):
            for names in ([], ["causal", "grouped"], ["bias", "softcap", "sinks"], ["dropout", "d_lse", "alibi_slopes"]):
                with self.subTest(dtype=dtype, names=names):
                    self.compare(names, tolerance, dtype)


class Function(unittest.TestCase):
    def compare(self, tensors, mask=None, **options):
        """With PyTorch's function, in float64."""
        wanted_of = [tensor.double().detach().requires_grad_() for tensor in tensors]
        found_of = [tensor.detach().requires_grad_() for tensor in tensors]
        masks = [None, None]
        if mask is not None and mask.is_floating_point():
            masks = [mask.double().detach().requires_grad_(), mask.detach().requires_grad_()]
            wanted_of, found_of = [*wanted_of, masks[0]], [*found_of, masks[1]]
        elif mask is not None:
            masks = [mask, mask]
        want = THEIRS(*wanted_of[:3], masks[0], **options)
        above = draw(*want.shape, seed=20, dtype=tensors[0].dtype)
        wanted = torch.autograd.grad(want, wanted_of, above.double())
        before = multihead.tasks_run()
        out = ours.scaled_dot_product_attention(*found_of[:3], masks[1], **options)
        ran = multihead.tasks_run()
        found = torch.autograd.grad(out, found_of, above)
        if all(tensor.numel() for tensor in tensors):
            self.assertTrue(before < ran < multihead.tasks_run())
        # PyTorch sums what is broadcast in the lower type.
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2.0 ** -5, torch.float16: 2.0 ** -8}
        for one, other, tensor in zip(found, wanted, found_of):
            self.assertEqual((one.shape, one.dtype), (tensor.shape, tensor.dtype))
            if other.numel():
                bound = tolerance[tensors[0].dtype] * max(1.0, float(other.abs().max()))
                self.assertLessEqual(float((one.double() - other).abs().max()), bound)

    def test_the_grid(self):
        leading = [((), (), ()), ((4,), (4,), (1,)), ((2, 4), (2, 4), (2, 4)), ((3, 2, 4), (1, 2, 4), (3, 1, 4)),
                   ((2, 1), (1, 4), (2, 4))]
        for dtype, shapes in itertools.product((torch.float64, torch.float32, torch.bfloat16, torch.float16), leading):
            tensors = [draw(*axes, length, width, seed=place, dtype=dtype)
                       for place, (axes, length, width) in enumerate(zip(shapes, (5, 7, 7), (8, 8, 3)))]
            full = torch.broadcast_shapes(*shapes)
            masks = [None, seen(5, 7), draw(5, 7, dtype=dtype), draw(1, 7, dtype=dtype), draw(5, 1, dtype=dtype)]
            if full:
                masks += [draw(*full, 5, 7, dtype=dtype), draw(*full[:-1], 1, 1, 7, dtype=dtype)]
            for mask in masks:
                with self.subTest(dtype=dtype, shapes=shapes, mask=None if mask is None else mask.shape):
                    self.compare(tensors, mask)
            self.compare(tensors, is_causal=True, scale=-0.3)

    def test_grouped_heads(self):
        for dtype, kv_heads in itertools.product((torch.float64, torch.float32), ((2, 2), (1, 1), (2, 4), (4, 1))):
            tensors = [draw(2, 4, 5, 8, dtype=dtype), *(draw(2, heads, 7, 8, seed=heads, dtype=dtype) for heads in kv_heads)]
            self.compare(tensors, draw(2, 1, 5, 7, dtype=dtype), enable_gqa=True)
            self.compare(tensors, is_causal=True, enable_gqa=True)

    def test_lengths_that_fill_blocks(self):
        for q_len, kv_len in ((300, 300), (1, 1025), (129, 257)):
            tensors = [draw(1, 2, length, 64, seed=length, dtype=torch.float32) for length in (q_len, kv_len, kv_len)]
            self.compare(tensors, is_causal=True)
            self.compare(tensors, draw(q_len, kv_len, dtype=torch.float32))

    def test_empty(self):
        for q_len, kv_len in ((0, 3), (3, 0), (0, 0)):
            self.compare([draw(2, 4, length, 8) for length in (q_len, kv_len, kv_len)])
        hidden = torch.ones(5, 5, dtype=torch.bool)
        hidden[2] = False
        self.compare([draw(2, 4, 5, 8, seed=seed) for seed in range(3)], hidden)

    def test_masks_that_are_expanded(self):
        """Of a bias that repeats by strides each element has its own gradient, which PyTorch sums."""
        q = draw(2, 4, 5, 8)
        base = draw(5, 1, seed=1).requires_grad_()
        whole = base.expand(2, 4, 5, 5)
        whole.retain_grad()
        ours.scaled_dot_product_attention(q, q, q, whole).square().sum().backward()
        again = base.detach().requires_grad_()
        theirs = again.expand(2, 4, 5, 5)
        theirs.retain_grad()
        THEIRS(q, q, q, theirs).square().sum().backward()
        self.assertTrue(torch.allclose(whole.grad, theirs.grad, atol=1e-13))
        self.assertTrue(torch.allclose(base.grad, again.grad, atol=1e-13))

    def test_autocast(self):
        q, mask = draw(2, 4, 5, 8, dtype=torch.float32).requires_grad_(), draw(5, 5, dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu"):
            out = ours.scaled_dot_product_attention(q, q, q, mask)
        found = torch.autograd.grad(out.float().square().sum(), (q, mask))
        low = [tensor.detach().bfloat16().requires_grad_() for tensor in (q, q, q, mask)]
        wanted = torch.autograd.grad(ours.scaled_dot_product_attention(*low).float().square().sum(), low)
        self.assertEqual([gradient.dtype for gradient in found], [torch.float32] * 2)
        self.assertTrue(torch.allclose(found[0], sum(gradient.float() for gradient in wanted[:3]), atol=0.05))
        self.assertTrue(torch.equal(found[1], wanted[3].float()))

    def test_nothing_that_is_not_seen(self):
        """NaN in a key that no row sees reaches no gradient; a row that sees no key has none."""
        q, k, v = (draw(1, 2, 5, 8, seed=seed) for seed in range(3))
        k[:, :, 3], v[:, :, 3] = torch.nan, torch.inf
        mask = torch.ones(5, 5, dtype=torch.bool)
        mask[:, 3], mask[1] = False, False
        tensors = [tensor.requires_grad_() for tensor in (q, k, v)]
        above = draw(1, 2, 5, 8, seed=3)
        above[:, :, 1] = torch.nan
        found = torch.autograd.grad(ours.scaled_dot_product_attention(*tensors, mask), tensors, above)
        for gradient in found:
            self.assertTrue(gradient.isfinite().all())
        self.assertFalse(found[0][:, :, 1].any() or found[1][:, :, 3].any() or found[2][:, :, 3].any())

    def test_nothing_that_is_not_seen_through_weights(self):
        """NaN in a query, in a key and in the gradients of weights that are hidden: the pairs that see it have it alone."""
        above = draw(1, 2, 5, 5, seed=3).masked_fill(torch.ones(5, 5).triu(1) > 0, torch.nan)
        for place, rows, keys in (("q", [1], [0, 1]), ("k", [3, 4], [0, 1, 2, 3, 4]), (None, [], [])):
            q, k, v = (draw(1, 2, 5, 8, seed=seed) for seed in range(3))
            if place:
                {"q": q, "k": k}[place][:, :, 1 if place == "q" else 3, 2] = torch.nan
            tensors = [tensor.requires_grad_() for tensor in (q, k)]
            results = torch.ops.multihead.attention_weights(*tensors, v, *[None] * 4, "bhsd", True, None, 0.0, False)
            found = torch.autograd.grad(results[2], tensors, above)
            for gradient, reached in zip(found, (rows, keys)):
                self.assertEqual(gradient.isnan().any(-1)[0, 0].nonzero()[:, 0].tolist(), reached, place)

    def test_bits(self):
        """The same for any number of threads, and each time."""
        q = draw(2, 8, 200, 64, dtype=torch.float32).requires_grad_()
        results, before = [], torch.get_num_threads()
        try:
            for threads in (1, 2, 3, 3):
                torch.set_num_threads(threads)
                torch.manual_seed(3)
                out = ours.scaled_dot_product_attention(q, q, q, is_causal=True, dropout_p=0.2)
                results.append(torch.autograd.grad(out.square().sum(), q)[0])
        finally:
            torch.set_num_threads(before)
        for result in results[1:]:
            self.assertTrue(torch.equal(result, results[0]))

    def test_what_is_kept(self):
        """For the backward pass: what went in, out and lse; no weights."""
        q, k, v = (draw(2, 4, 300, 8, seed=seed).requires_grad_() for seed in range(3))
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tuple(tensor.shape)) or tensor, lambda x: x):
            ours.scaled_dot_product_attention(q, k, v, is_causal=True)
        self.assertEqual(sorted(kept), [(2, 4, 300), *[(2, 4, 300, 8)] * 4])


class Dropout(unittest.TestCase):
    def test_the_formula_with_the_same_mask(self):
        tensors = [draw(2, 4, 5, 8, seed=seed).requires_grad_() for seed in range(3)]
        torch.manual_seed(4)
        seed = int(ours._gradient.draw_seed("cpu"))
        torch.manual_seed(4)
        out = ours.scaled_dot_product_attention(*tensors, is_causal=True, dropout_p=0.4)
        want, _, _ = truth.attention(*tensors, causal=True, drop=truth.dropped((2, 4, 5, 5), 0.4, seed), dropout=(0.4,))
        self.assertTrue(torch.allclose(out, want, atol=1e-13))
        above = draw(*out.shape, seed=3)
        for one, other in zip(*(torch.autograd.grad(result, tensors, above) for result in (out, want))):
            self.assertTrue(torch.allclose(one, other, atol=1e-12))

    def test_repeatable(self):
        q = draw(1, 4, 30, 8)
        outs = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            outs.append((ours.scaled_dot_product_attention(q, q, q, dropout_p=0.5),
                         ours.scaled_dot_product_attention(q, q, q, dropout_p=0.5)))
        self.assertTrue(torch.equal(outs[0][0], outs[1][0]) and torch.equal(outs[0][1], outs[1][1]))
        self.assertFalse(torch.equal(outs[0][0], outs[0][1]) or torch.equal(outs[0][0], outs[2][0]))

    def test_nothing_is_drawn_without_it(self):
        q = draw(1, 2, 3, 4)
        before = torch.get_rng_state()
        ours.scaled_dot_product_attention(q, q, q)
        ours.MultiheadAttention(4, 2, dropout=0.5, dtype=torch.float64).eval()(*[draw(3, 1, 4)] * 3)
        after = torch.get_rng_state()
        torch.set_rng_state(before)
        ours.MultiheadAttention(4, 2, dtype=torch.float64)  # its initial values alone
        self.assertTrue(torch.equal(after, torch.get_rng_state()))

    def test_the_mean_is_the_result_without_it(self):
        """Over 2000 masks, within five deviations."""
        q, v = draw(2000, 1, 3, 4)[:1].expand(2000, 1, 3, 4), draw(1, 1, 5, 2, seed=1).expand(2000, 1, 5, 2)
        k = draw(1, 1, 5, 4, seed=2).expand(2000, 1, 5, 4)
        outs = ours.scaled_dot_product_attention(q, k, v, dropout_p=0.3)[:, 0]
        want = THEIRS(q[0], k[0], v[0])[0]
        self.assertLess(float(((outs.mean(0) - want).abs() / (outs.std(0) / 2000 ** 0.5)).max()), 5)

    def test_checkpointing(self):
        """A pass that is computed again drops the same weights."""
        q = draw(1, 4, 30, 8).requires_grad_()
        gradients = []
        for again in (False, True):
            torch.manual_seed(6)
            call = lambda x: ours.scaled_dot_product_attention(x, x, x, dropout_p=0.5)  # noqa: E731
            out = torch.utils.checkpoint.checkpoint(call, q, use_reentrant=False) if again else call(q)
            gradients.append(torch.autograd.grad(out.square().sum(), q)[0])
        self.assertTrue(torch.equal(*gradients))


class Checked(unittest.TestCase):
    """torch.autograd.gradcheck: central differences of each element."""

    def check(self, call, *shapes):
        inputs = [draw(*shape, seed=place).requires_grad_() for place, shape in enumerate(shapes)]

        def seeded(*tensors):
            torch.manual_seed(8)
            return call(*tensors)

        self.assertTrue(gradcheck(seeded, inputs))

    def test_function(self):
        call = ours.scaled_dot_product_attention
        q, k, v = (1, 2, 3, 4), (1, 2, 4, 4), (1, 2, 4, 3)
        self.check(call, q, k, v)
        for options in ({"is_causal": True}, {"scale": -0.4}, {"dropout_p": 0.4}, {"attn_mask": seen(3, 4)}):
            self.check(lambda *tensors: call(*tensors, **options), q, k, v)  # noqa: B023
        self.check(lambda *tensors: call(*tensors, enable_gqa=True, is_causal=True, dropout_p=0.3), q, (1, 1, 4, 4), (1, 1, 4, 3))
        for mask in ((3, 4), (1, 2, 3, 4), (2, 1, 4), (3, 1), (1, 1)):
            self.check(call, q, k, v, mask)

    def test_flash_attention(self):
        starts = [0, 2, 2, 5]
        every = [{}, {"causal": True}, {"window_size": (1, 1)}, {"softcap": 1.5}, {"softmax_scale": 0.3}, {"dropout_p": 0.4},
                 {"causal": True, "window_size": (2, -1), "softcap": 2.0, "dropout_p": 0.2, "deterministic": True}]
        for options, slopes in itertools.product(every, ((), (2,), (3, 2))):
            def packed(q, k, v, slope=None):
                return flash_attn.flash_attn_varlen_func(q, k, v, starts, starts, 3, 3, alibi_slopes=slope,
                                                         return_attn_probs=True, **options)[:2]  # noqa: B023

            self.check(packed, (5, 2, 3), (5, 1, 3), (5, 1, 2), *[slopes] * bool(slopes))
        for options, slopes in itertools.product(every, ((), (2,), (2, 2))):
            def batched(q, k, v, slope=None):
                return flash_attn.flash_attn_func(q, k, v, alibi_slopes=slope, return_attn_probs=True,
                                                  **options)[:2]  # noqa: B023

            self.check(batched, (2, 3, 2, 3), (2, 4, 1, 3), (2, 4, 1, 2), *[slopes] * bool(slopes))
        self.check(lambda qkv: flash_attn.flash_attn_qkvpacked_func(qkv, causal=True), (1, 3, 3, 2, 2))
        self.check(lambda q, kv: flash_attn.flash_attn_kvpacked_func(q, kv), (1, 3, 2, 2), (1, 4, 2, 1, 2))

    def test_flash_attention_of_no_sequence(self):
        q = torch.zeros(0, 2, 4, dtype=torch.float64, requires_grad=True)
        slopes = torch.zeros(0, 2, dtype=torch.float64, requires_grad=True)
        out = flash_attn.flash_attn_varlen_func(q, q, q, [0], [0], 0, 0, alibi_slopes=slopes)
        for gradient, tensor in zip(torch.autograd.grad(out.sum(), (q, slopes)), (q, slopes)):
            self.assertEqual(gradient.shape, tensor.shape)

    def test_module(self):
        mask, padding = ~seen(3, 4, seed=5), torch.tensor([[False] * 4, [False, False, True, True]])
        for options, (weights, mean) in itertools.product(
                ({}, {"add_bias_kv": True, "add_zero_attn": True}, {"dropout": 0.3, "kdim": 3, "vdim": 5}),
                ((False, True), (True, True), (True, False))):
            module = ours.MultiheadAttention(4, 2, batch_first=True, dtype=torch.float64, **options)
            names = [name for name, _ in module.named_parameters()]

            def call(q, k, v, added, *parameters):
                results = torch.func.functional_call(module, dict(zip(names, parameters)), (q, k, v), {  # noqa: B023
                    "attn_mask": mask if added is None else added, "key_padding_mask": padding,
                    "need_weights": weights, "average_attn_weights": mean})  # noqa: B023
                return results if weights else results[0]  # noqa: B023

            inputs = [draw(2, 3, 4), draw(2, 4, module.kdim, seed=1), draw(2, 4, module.vdim, seed=2), draw(3, 4, seed=3),
                      *(parameter.detach().clone() for parameter in module.parameters())]

            def seeded(*tensors):
                torch.manual_seed(8)
                return call(*tensors)  # noqa: B023

            self.assertTrue(gradcheck(seeded, [tensor.requires_grad_() for tensor in inputs]))


if __name__ == "__main__":
    unittest.main()
