# SPDX-License-Identifier: Apache-2.0
"""Decoder beside PyTorch: tensors of ids go in, tensors come out."""

import pathlib
import unittest

import torch

from multihead import Decoder, generate

SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "trained" / "language"


class Tensors(unittest.TestCase):
    def test_logits(self):
        decoder = Decoder(SHIPPED)
        cache, ids = decoder.cache(512), decoder.tokenizer.encode("The old farmer")
        want = decoder.forward(ids, cache, cache.add())
        for dtype in (torch.int64, torch.int32):
            logits, states = decoder.forward(torch.tensor(ids, dtype=dtype), cache, cache.add(), return_hidden_states=True)
            self.assertIsInstance(states, torch.Tensor)
            self.assertEqual((logits.dtype, logits.numpy().tobytes()), (torch.float32, want.tobytes()))

    def test_prompts(self):
        ids = Decoder(SHIPPED).tokenizer.encode("The old farmer")
        text = generate(SHIPPED, "The old farmer", max_tokens=5)
        self.assertEqual(generate(SHIPPED, torch.tensor(ids), max_tokens=5), text)
        self.assertEqual(generate(SHIPPED, [torch.tensor(ids), torch.tensor(ids)], max_tokens=5), [text] * 2)


if __name__ == "__main__":
    unittest.main()
