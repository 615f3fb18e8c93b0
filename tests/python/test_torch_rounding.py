# SPDX-License-Identifier: Apache-2.0
"""Gradients of bfloat16 beside PyTorch's own: how far each is from float64."""

import itertools
import unittest

import torch

import multihead.torch as ours

THEIRS = torch.nn.functional.scaled_dot_product_attention


def setUpModule():
    torch.set_num_threads(1)  # small problems; results do not depend on it


def draw(*shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).bfloat16()


class Gradients(unittest.TestCase):
    def test_are_as_accurate_as_theirs(self):
        """Root of the mean square as a share of the gradient's: PyTorch adds dK and dV up in bfloat16, we in float."""
        for width, causal in itertools.product((64, 128), (False, True)):
            low = [draw(1, 2, 300, width, seed=seed) for seed in range(4)]

            def gradients(function, dtype):
                tensors = [tensor.to(dtype).requires_grad_() for tensor in low[:3]]
                found = torch.autograd.grad(function(*tensors, is_causal=causal), tensors, low[3].to(dtype))
                return [gradient.double() for gradient in found]

            true = gradients(THEIRS, torch.float64)
            errors = [[float((one - other).square().mean().sqrt() / other.square().mean().sqrt())
                       for one, other in zip(gradients(function, torch.bfloat16), true)]
                      for function in (ours.scaled_dot_product_attention, THEIRS)]
            for found, wanted in zip(*errors):
                self.assertLessEqual(found, 1.1 * wanted, (width, causal))
                self.assertLessEqual(found, 3e-3, (width, causal))


if __name__ == "__main__":
    unittest.main()
