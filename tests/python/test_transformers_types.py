# SPDX-License-Identifier: Apache-2.0
"""Models in half precision and in float64 against eager."""

import unittest

import torch
import transformers_models as models
from transformers_models import inputs_of, kernel, padding, pair


class Types(models.WithoutGradients):
    # Both round weights and activations of every layer; ours sums in float32 and rounds once.
    TOLERANCES = {torch.float64: 1e-9, torch.float16: 2e-2, torch.bfloat16: 2e-1}
    # In float64 those whose eager attention takes its softmax in the type of the model.
    MODELS = {torch.float64: ["bert", "gpt2", "t5"], torch.float16: ["bert", "llama", "gpt_oss"],
              torch.bfloat16: ["bert", "llama", "gpt_oss"]}

    def test_against_eager(self):
        for dtype, tolerance in self.TOLERANCES.items():
            for name in self.MODELS[dtype]:
                with self.subTest(dtype=dtype, model=name):
                    eager, ours = pair(name, dtype)
                    inputs = inputs_of(name, padding("none"))
                    wanted = eager(**inputs, output_attentions=True)
                    with kernel() as ran:
                        got = ours(**inputs, output_attentions=True)
                    self.assertGreater(min(ran.tasks), 0)
                    self.assertEqual(got.logits.dtype, dtype)
                    self.assertLess((got.logits - wanted.logits).abs().max(), tolerance)
                    for kind, layers in models.attentions_of(got).items():
                        self.assertEqual({weights.dtype for weights in layers}, {dtype})

    def test_autocast(self):
        """Queries, keys and values of different types come to the lower one, as in PyTorch's operator."""
        for name in ("llama", "bert"):
            for dtype in (torch.bfloat16, torch.float16):
                with self.subTest(dtype=dtype, model=name):
                    eager, ours = pair(name)
                    wanted = eager(**inputs_of(name)).logits
                    with torch.autocast("cpu", dtype=dtype), kernel() as ran:
                        got = ours(**inputs_of(name)).logits
                    self.assertGreater(min(ran.tasks), 0)
                    self.assertLess((got - wanted).abs().max(), self.TOLERANCES[dtype])

    def test_ours_is_nearer_to_float32(self):
        for dtype in (torch.float16, torch.bfloat16):
            with self.subTest(dtype=dtype):
                wanted = pair("llama")[0](**inputs_of("llama")).logits
                eager, ours = [(model(**inputs_of("llama")).logits.float() - wanted).square().mean()
                               for model in pair("llama", dtype)]
                self.assertLess(ours, 1.5 * eager)


if __name__ == "__main__":
    unittest.main()
