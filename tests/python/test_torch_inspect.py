# SPDX-License-Identifier: Apache-2.0
"""Statistics of tensors, and the view of what torch.nn.MultiheadAttention gives."""

import unittest

import numpy as np
import page_data
import statistics_truth as truth
import torch

import multihead
from multihead import StatisticsRequest, inspect


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Tensors(unittest.TestCase):
    def test_arrays_are_tensors_of_the_sums_type(self):
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            with self.subTest(dtype=dtype):
                q, k, v = (drawn(2, 3, 20, 16, seed=seed).to(dtype) for seed in range(3))
                request = StatisticsRequest(tokens=torch.arange(40).reshape(2, 20) % 5, classes={"a": torch.arange(20) < 3},
                                            top=2, received=True, bin=16, norms=torch.ones(2, 3, 20).to(
                                                torch.float64 if dtype == torch.float64 else torch.float32),
                                            norm_weighted=True)
                out, weights, found = multihead.attention(q, k, v, causal=True, return_weights=True, return_statistics=request)
                self.assertTrue(torch.equal(out, multihead.attention(q, k, v, causal=True)))
                ids = request.tokens.numpy()
                wanted = truth.statistics(weights.double().numpy(), {"causal": True}, tokens=(ids, ids), top=2, bin=16,
                                          received=True, masks=[np.broadcast_to(np.arange(20) < 3, (2, 20))])
                for part in (found, found.norm_weighted):  # norms of 1 change no weight
                    self.assertEqual({name for name, _ in part.arrays()}, set(wanted))
                    for name, array in part.arrays():
                        self.assertIsInstance(array, torch.Tensor)
                        self.assertEqual(array.dtype, torch.int64 if name == "top_keys" else weights.dtype)
                        np.testing.assert_allclose(array.double().numpy(), wanted[name].astype(np.float64), atol=2e-5)
                self.assertEqual(found.summary(1).rows, 40)

    def test_layer(self):
        w = drawn(16, 16)
        layer = multihead.MultiHeadAttention(4, order="out_in", q=w, k=w, v=w, out=w)
        _, found = layer(drawn(5, 16), return_statistics=True)
        self.assertEqual((type(found.entropy), tuple(found.entropy.shape)), (torch.Tensor, (4, 5)))

    def test_gradients_are_refused_as_ever(self):
        q = drawn(1, 1, 3, 4).requires_grad_()
        with self.assertRaisesRegex(ValueError, "gradient"):
            multihead.attention(q, q, q, return_statistics=True)


class View(unittest.TestCase):
    def test_of_a_module(self):
        torch.manual_seed(2)
        module = torch.nn.MultiheadAttention(16, 4, batch_first=True)
        x = drawn(1, 7, 16, seed=4) * 3
        _, weights = module(x, x, x, average_attn_weights=False)  # with its history
        view = inspect.head_view(weights, list("abcdefg"))
        for head in range(4):
            wanted = weights[0, head].detach().double().numpy()
            self.assertLess(abs(page_data.weights(view.html(), 0, head) - wanted).max(), 1.1 / 65534)
            self.assertAlmostEqual(view.summary(0, head).entropy, truth.entropy(wanted).mean(), places=5)
        self.assertIn("a", view.picture(0, 0))

    def test_norms_are_tensors_too(self):
        weights, norms = drawn(1, 2, 5, 5).softmax(-1), drawn(2, 5, seed=9).abs()
        view = inspect.head_view([weights], list("abcde"), norms=[norms])
        self.assertEqual(page_data.norms(view.html(), 0, 1).tolist(), norms[1].tolist())

    def test_norms_of_another_kind(self):
        weights, norms = drawn(1, 2, 5, 5).softmax(-1), drawn(2, 5, seed=9).abs()
        wanted = inspect.head_view([weights], list("abcde"), norms=[norms]).statistics[0].norm_weighted.entropy.tolist()
        for pair in ((weights, norms.numpy()), (weights.numpy(), norms), (weights, norms.tolist()), (weights.numpy(), norms.double())):
            view = inspect.head_view([pair[0]], list("abcde"), norms=[pair[1]])
            self.assertEqual(view.statistics[0].norm_weighted.entropy.tolist(), wanted)
            self.assertTrue(view.html())

    def test_what_is_no_weights_is_named(self):
        logits = drawn(1, 2, 5, 5)
        with self.assertRaisesRegex(ValueError, "are these scores"):
            inspect.head_view(logits, list("abcde"))
        weights = logits.softmax(-1)
        weights[0, 1, 2] = float("nan")
        self.assertEqual(inspect.head_view(weights.bfloat16(), list("abcde")).summary(0, 1).rows, 4)
        with self.assertRaisesRegex(ValueError, "layer 0, head 1, row 3 sum to 2"):
            weights[0, 1, 3] *= 2
            inspect.head_view(weights, list("abcde"))

    def test_another_device(self):
        with self.assertRaisesRegex((ValueError, NotImplementedError), "meta"):
            inspect.head_view(torch.empty(1, 2, 3, 3, device="meta"), list("abc"))


class Record(unittest.TestCase):
    def test_of_what_is_no_model(self):
        with self.assertRaisesRegex(TypeError, "model of Transformers"), inspect.record(torch.nn.Linear(2, 2)):
            self.fail("it was accepted")


if __name__ == "__main__":
    unittest.main()
