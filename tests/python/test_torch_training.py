# SPDX-License-Identifier: Apache-2.0
"""multihead.torch.MultiheadAttention in training: every gradient as torch.nn.MultiheadAttention has it, and dropout."""

import copy
import itertools
import random
import unittest

import test_torch_module as modules
import torch
import torch_truth as truth
from test_torch_module import HEADS, WIDTH, combinations

import multihead
import multihead.torch as ours

# As a part of the largest gradient.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 6e-2, torch.float16: 8e-3}


def setUpModule():
    torch.set_num_threads(1)  # small problems; results do not depend on it


class Gradients(unittest.TestCase):
    def gradients(self, module, tensors, masks, dtype):
        """{name: gradient} of inputs, masks and parameters, of a loss of output and weights."""
        copies = {id(tensor): tensor.to(dtype).detach().requires_grad_() for tensor in tensors}  # one object stays one
        learned = {name: mask.to(dtype).detach().requires_grad_() for name, mask in masks.items()
                   if isinstance(mask, torch.Tensor) and mask.is_floating_point()}
        module.zero_grad()
        out, weights = module(*(copies[id(tensor)] for tensor in tensors), **{**masks, **learned})
        loss = (out * torch.arange(1.0, out.numel() + 1, dtype=dtype).reshape(out.shape).cos()).sum()
        if weights is not None:
            loss = loss + (weights * torch.arange(1.0, weights.numel() + 1, dtype=dtype).reshape(weights.shape).sin()).sum()
        loss.backward()
        inputs = {f"input {place}": tensor.grad for place, tensor in enumerate(copies.values())}
        return {**inputs, **{name: mask.grad for name, mask in learned.items()},
                **{name: parameter.grad for name, parameter in module.named_parameters()}}

    def compare(self, dtype, constructor, call, seed):
        generator = torch.Generator().manual_seed(seed)
        tensors = modules.inputs(call["inputs"], constructor["widths"], constructor["batch_first"], dtype, generator)
        if tensors is None:
            return 0
        unbatched = call["inputs"].startswith("unbatched")
        length = 1 if constructor["batch_first"] and not unbatched else 0
        masks = modules.masks(call["attn_mask"], call["padding"], tensors[0].shape[length], tensors[1].shape[length], unbatched,
                              dtype, generator)
        masks = {**masks, "need_weights": call["weights"] != "none", "average_attn_weights": call["weights"] != "heads"}
        theirs, module = modules.pair(dtype, seed, **constructor)
        wide = {name: mask.double() if isinstance(mask, torch.Tensor) and mask.is_floating_point() else mask
                for name, mask in masks.items()}
        wanted = self.gradients(theirs, tensors, wide, torch.float64)
        before = multihead.tasks_run()
        found = self.gradients(module, tensors, masks, dtype)
        self.assertGreater(multihead.tasks_run(), before)
        self.assertEqual(list(found), list(wanted))
        largest = max(float(gradient.abs().max()) for gradient in wanted.values())
        for name, want in wanted.items():
            self.assertEqual(found[name].dtype, dtype)
            self.assertLessEqual(float((found[name].double() - want).abs().max()), TOLERANCE[dtype] * largest,
                                 (dtype, constructor, call, name))
        return 1

    def test_the_grid(self):
        drawn, calls, count = random.Random(11), combinations(modules.CALL), 0
        for dtype, constructor in itertools.product(TOLERANCE, combinations(modules.CONSTRUCTOR)):
            for call in drawn.sample(calls, 8 if dtype == torch.float64 else 2):
                count += self.compare(dtype, constructor, call, count)
        self.assertGreater(count, 300)

    def test_nested_tensors(self):
        theirs, module = modules.pair(torch.float64, 5, batch_first=True)
        parts = [torch.randn(length, WIDTH, dtype=torch.float64) for length in (3, 5)]
        gradients = []
        for one in (theirs, module):
            copies = [part.clone().requires_grad_() for part in parts]
            if one is module:
                x = torch.nested.as_nested_tensor(copies)
                out = sum(part.square().sum() for part in one(x, x, x, need_weights=False)[0].unbind())
            else:
                out = sum(one(part, part, part, need_weights=False)[0].square().sum() for part in copies)
            gradients.append(torch.autograd.grad(out, [*copies, *one.parameters()]))
        for found, want in zip(*gradients):
            self.assertTrue(torch.allclose(found, want, atol=1e-11))

    def test_an_encoder(self):
        """Steps of AdamW on both, which stay together."""
        torch.manual_seed(1)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, batch_first=True, dtype=torch.float64)
        theirs = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        models = theirs, ours.replace(copy.deepcopy(theirs))
        optimizers = [torch.optim.AdamW(model.parameters(), lr=3e-3) for model in models]
        x, padding = torch.randn(4, 6, WIDTH, dtype=torch.float64), torch.arange(6)[None] >= torch.tensor([[6], [4], [2], [5]])
        losses = []
        for _ in range(20):
            for model, optimizer in zip(models, optimizers):
                optimizer.zero_grad()
                out = model(x, src_key_padding_mask=padding)
                loss = (out - x.roll(1, 0))[~padding].square().mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        for one, other in zip(losses[::2], losses[1::2]):
            self.assertAlmostEqual(one, other, delta=1e-9)
        self.assertLess(losses[-1], 0.9 * losses[0])


class Dropout(unittest.TestCase):
    def test_the_formula_with_the_same_mask(self):
        module = ours.MultiheadAttention(WIDTH, HEADS, dropout=0.4, batch_first=True, dtype=torch.float64)
        x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
        torch.manual_seed(3)
        seed = int(ours._gradient.draw_seed("cpu"))

        def formula(y):
            q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
                       for part in torch.nn.functional.linear(y, module.in_proj_weight, module.in_proj_bias).chunk(3, -1))
            out, _, weights = truth.attention(q, k, v, drop=truth.dropped((2, HEADS, 5, 5), 0.4, seed), dropout=(0.4,))
            return module.out_proj(out.transpose(1, 2).flatten(2)), weights

        gradients = []
        for call in (formula, lambda y: module(y, y, y, average_attn_weights=False)):
            torch.manual_seed(3)
            y = x.clone().requires_grad_()
            out, weights = call(y)
            gradients.append((out, weights, *torch.autograd.grad(out.square().sum() + weights.square().sum(),
                                                                 [y, *module.parameters()])))
        for found, want in zip(*gradients):
            self.assertTrue(torch.allclose(found, want, atol=1e-12))

    def test_weights_are_those_before_it(self):
        module = ours.MultiheadAttention(WIDTH, HEADS, dropout=0.5)
        x = torch.randn(5, 2, WIDTH)
        out, weights = module(x, x, x)
        self.assertFalse(torch.equal(module(x, x, x)[0], out))
        self.assertTrue(torch.equal(module(x, x, x)[1], weights))
        self.assertTrue(torch.equal(module.eval()(x, x, x)[1], weights))

    def test_seeds(self):
        module = ours.MultiheadAttention(WIDTH, HEADS, dropout=0.5)
        x = torch.randn(5, 2, WIDTH)
        for weights in (False, True):
            outs = []
            for seed in (1, 1, 2):
                torch.manual_seed(seed)
                outs.append(module(x, x, x, need_weights=weights)[0])
            self.assertTrue(torch.equal(outs[0], outs[1]))
            self.assertFalse(torch.equal(outs[0], outs[2]))


if __name__ == "__main__":
    unittest.main()
