# SPDX-License-Identifier: Apache-2.0
"""Decoding with attn_implementation="multihead": caches, steps of one token, and the tokens that eager chooses."""

import unittest

import torch
import transformers
import transformers_models as models
from transformers_models import DECODERS, TOLERANCE, inputs_of, kernel, padding, pair

NEW = 5


def chosen(model, mask, **options):
    """Greedy tokens, NEW of them whatever they are."""
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, **options}
    return model.generate(models.tokens(), attention_mask=mask, **options)


class Generate(models.WithoutGradients):
    def same_tokens(self, name, side, steps=NEW, **options):
        eager, ours = pair(name)
        with self.subTest(model=name, padding=side, **options):
            wanted = chosen(eager, padding(side), **options)
            with kernel() as ran:
                got = chosen(ours, padding(side), **options)
            self.assertEqual(got.tolist(), wanted.tolist())
            self.assertEqual(len(ran.tasks), 2 * steps)
            self.assertGreater(min(ran.tasks), 0)

    def test_growing_cache(self):
        for name in DECODERS:
            for side in ("none", "left"):
                self.same_tokens(name, side)

    def test_static_cache(self):
        for name in DECODERS:
            for side in ("none", "left"):
                self.same_tokens(name, side, cache_implementation="static")

    def test_without_cache(self):
        self.same_tokens("mistral", "left", use_cache=False)

    def test_beams(self):
        self.same_tokens("llama", "left", num_beams=2)

    def test_encoder_decoder(self):
        eager, ours = pair("t5")
        for side in ("none", "left", "right"):
            with self.subTest(padding=side):
                wanted = chosen(eager, padding(side))
                with kernel() as ran:
                    got = chosen(ours, padding(side))
                self.assertEqual(got.tolist(), wanted.tolist())
                self.assertEqual(len(ran.tasks), 2 + 4 * NEW)
                self.assertGreater(min(ran.tasks), 0)

    def test_attentions_of_each_step(self):
        eager, ours = pair("mistral")
        wanted = chosen(eager, None, return_dict_in_generate=True, output_attentions=True)
        got = chosen(ours, None, return_dict_in_generate=True, output_attentions=True)
        for ours_of, eagers in zip(got.attentions, wanted.attentions, strict=True):
            for layer, weights in enumerate(eagers):
                self.assertLess((ours_of[layer] - weights).abs().max(), TOLERANCE)

    def test_chunks_of_a_prompt(self):
        # 6, then 1, then 4 and 3 tokens on one cache: the logits of the whole prompt.
        for name in DECODERS:
            with self.subTest(model=name):
                eager, ours = pair(name)
                ids = inputs_of(name)["input_ids"]
                cache = transformers.DynamicCache(config=ours.config)
                parts = [ours(part, cache=cache, use_cache=True).logits for part in ids.split([6, 1, 4, 3], 1)]
                self.assertLess((torch.cat(parts, 1) - eager(ids).logits).abs().max(), TOLERANCE)


if __name__ == "__main__":
    unittest.main()
