# SPDX-License-Identifier: Apache-2.0
"""multihead.transformers.KvCache: the tokens and logits of a growing cache, the bits of a prefill, and what it refuses."""

import unittest
import unittest.mock

import torch
import transformers
import transformers_models as models
from transformers_models import DECODERS, TOLERANCE, inputs_of, padding, pair

import multihead
from multihead.transformers import CachedStates, KvCache, attention_forward, attention_mask

NEW = 6


def chosen(model, mask=None, **options):
    """Greedy tokens, NEW of them whatever they are."""
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, **options}
    return model.generate(models.tokens(), attention_mask=mask, **options)


def cache_of(model, **options):
    return KvCache(model.config, 64, **options)


class KvCacheOfModels(models.WithoutGradients):
    def test_tokens(self):
        for name in DECODERS:
            for side in ("none", "left"):
                with self.subTest(model=name, padding=side):
                    eager, ours = pair(name)
                    cache = cache_of(ours)
                    with unittest.mock.patch.object(multihead, "attention", side_effect=AssertionError("keys were copied")):
                        got = chosen(ours, padding(side), cache=cache)
                    self.assertEqual(got.tolist(), chosen(eager, padding(side)).tolist())
                    self.assertEqual(cache.get_seq_length(), models.LENGTH + NEW - 1)

    def test_logits_of_chunks(self):
        for name in DECODERS:
            with self.subTest(model=name):
                eager, ours = pair(name)
                ids = inputs_of(name)["input_ids"]
                cache = cache_of(ours)
                parts = [ours(part, cache=cache, use_cache=True).logits for part in ids.split([6, 1, 4, 3], 1)]
                self.assertLess((torch.cat(parts, 1) - eager(ids).logits).abs().max(), TOLERANCE)

    def test_beams_share_pages(self):
        for name in ("gpt2", "llama"):
            eager, ours = pair(name)
            wanted = chosen(eager, padding("left"), num_beams=3)
            cache = cache_of(ours, page_len=32)
            self.assertEqual(chosen(ours, padding("left"), num_beams=3, cache=cache).tolist(), wanted.tolist())
            self.assertEqual(cache.store.sequences, 6)

    def test_crop_leaves_no_trace(self):
        _, ours = pair("llama")
        ids = models.tokens()
        cache = cache_of(ours)
        ours(ids[:, :8], cache=cache, use_cache=True)
        wanted = ours(ids[:, 8:9], cache=cache, use_cache=True).logits
        ours(ids[:, 9:], cache=cache, use_cache=True)
        cache.crop(-(ids.shape[1] - 8))
        self.assertEqual(cache.get_seq_length(), 8)
        self.assertTrue(torch.equal(ours(ids[:, 8:9], cache=cache, use_cache=True).logits, wanted))

    def test_a_batch_that_changes(self):
        _, ours = pair("gpt2")
        ids = models.tokens()
        cache = cache_of(ours, sequences=6)
        ours(ids, cache=cache, use_cache=True)
        cache.batch_repeat_interleave(3)
        cache.batch_select_indices(torch.tensor([0, 4]))
        again = cache_of(ours)
        ours(ids, cache=again, use_cache=True)
        next_ids = torch.tensor([[5], [6]])
        self.assertTrue(torch.equal(ours(next_ids, cache=cache, use_cache=True).logits,
                                    ours(next_ids, cache=again, use_cache=True).logits))
        cache.reset()
        self.assertEqual(cache.get_seq_length(), 0)
        self.assertTrue(torch.equal(ours(ids, cache=cache, use_cache=True).logits, ours(ids).logits))

    def test_weights_that_are_asked_for(self):
        eager, ours = pair("llama")
        wanted = chosen(eager, return_dict_in_generate=True, output_attentions=True)
        got = chosen(ours, return_dict_in_generate=True, output_attentions=True, cache=cache_of(ours))
        for ours_of, eagers in zip(got.attentions, wanted.attentions, strict=True):
            for layer, weights in enumerate(eagers):
                self.assertLess((ours_of[layer] - weights).abs().max(), TOLERANCE)

    def test_other_implementations_read_it_too(self):
        eager, _ = pair("llama")
        self.assertEqual(chosen(eager, cache=cache_of(eager)).tolist(), chosen(eager).tolist())

    def test_int8(self):
        eager, ours = pair("llama")
        ids = models.tokens()
        logits = ours(ids, cache=cache_of(ours, storage="int8"), use_cache=True).logits
        wanted = eager(ids).logits
        self.assertLess((logits - wanted).abs().max(), 0.05 * wanted.abs().max())

    def test_types(self):
        for dtype in (torch.bfloat16, torch.float16):
            _, ours = pair("llama", dtype)
            ids = models.tokens()
            cache = cache_of(ours)
            parts = [ours(part, cache=cache, use_cache=True).logits for part in ids.split([9, 5], 1)]
            wanted = ours(ids).logits
            self.assertLess((torch.cat(parts, 1) - wanted).abs().max(), 0.1 * wanted.abs().max())


class Bits(models.WithoutGradients):
    def test_a_step_has_the_bits_of_the_prefill(self):
        config = transformers.LlamaConfig(num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, hidden_size=64)
        module = torch.nn.Identity()
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            q = torch.randn(2, 4, 150, 16).to(dtype)
            k, v = torch.randn(2, 2, 2, 150, 16).to(dtype)
            whole = attention_forward(module, q, k, v, None, is_causal=True)[0]
            cache, parts, at = KvCache(config, 150, page_len=32), [], 0
            for count in (60, 1, 40, 1, 1, 47):
                own = slice(at, at + count)
                mask = attention_mask(2, count, at + count, q_offset=at)
                keys, values = cache.update(k[:, :, own], v[:, :, own], 0)
                self.assertIsInstance(keys, CachedStates)
                parts.append(attention_forward(module, q[:, :, own], keys, values, mask)[0])
                at += count
            self.assertTrue(torch.equal(torch.cat(parts, 1), whole))
            self.assertTrue(torch.equal(keys + 0, k))
            self.assertTrue(torch.equal(values.elements(), v))


class Refused(models.WithoutGradients):
    def setUp(self):
        super().setUp()
        self.config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8)
        self.states = torch.ones(2, 2, 3, 4)

    def test_what_is_refused(self):
        with self.assertRaisesRegex(ValueError, "storage is 'int4'"):
            KvCache(self.config, 8, storage="int4")
        cache = KvCache(self.config, 4)
        cache.update(self.states, self.states, 0)
        with self.assertRaisesRegex(ValueError, "3 positions after 3 are more than max_length 4"):
            cache.update(self.states, self.states, 0)
        with self.assertRaisesRegex(ValueError, "batch 1, the cache has 2"):
            cache.update(self.states[:1], self.states[:1], 1)
        with self.assertRaisesRegex(TypeError, "float64"):
            KvCache(self.config, 4).update(self.states.double(), self.states.double(), 0)
        with self.assertRaisesRegex(ValueError, "positive"):
            cache.crop(1)
        self.assertEqual(cache.get_seq_length(), 3)

    def test_gradients(self):
        with torch.enable_grad(), self.assertRaisesRegex(NotImplementedError, "gradients"):
            KvCache(self.config, 4).update(self.states.requires_grad_(), self.states, 0)


if __name__ == "__main__":
    unittest.main()
