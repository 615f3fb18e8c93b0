# SPDX-License-Identifier: Apache-2.0
"""Models of Transformers with attn_implementation="multihead" against the same models with "eager"."""

import unittest

import torch
import transformers_models as models
from transformers.utils.output_capturing import _active_collector
from transformers_models import MODELS, TOLERANCE, inputs_of, kernel, padding, pair, without

import multihead
from multihead.transformers import attention_forward


def real_rows(kind, mask, shape):
    """(batch, q_len): the rows that are no padding."""
    if mask is None or kind in ("decoder_attentions", "cross_attentions"):
        return torch.ones(shape[0], shape[2], dtype=torch.bool)
    return mask.bool()


class Models(models.WithoutGradients):
    def logits_differ(self, name, mask, ours, eager):
        difference = (ours.logits - eager.logits).abs().amax(-1)
        # Rows of padding: eager gives them the mean over all values, ours 0 or what lengths let them see.
        return difference[mask.bool()].max() if mask is not None and name != "t5" else difference.max()

    def test_logits_and_attentions(self):
        for name in MODELS:
            eager, ours = pair(name)
            for side in ("none", "left", "right"):
                with self.subTest(model=name, padding=side):
                    mask = padding(side)
                    inputs = inputs_of(name, mask)
                    wanted = eager(**inputs, output_attentions=True)
                    with kernel() as ran:
                        got = ours(**inputs, output_attentions=True)
                    self.assertEqual(len(ran.tasks), models.layers_of(name))
                    self.assertGreater(min(ran.tasks), 0)
                    self.assertLess(self.logits_differ(name, mask, got, wanted), TOLERANCE)
                    kinds = models.attentions_of(wanted)
                    self.assertEqual(models.attentions_of(got).keys(), kinds.keys())
                    for kind, layers in kinds.items():
                        for layer, weights in enumerate(layers):
                            difference = (got[kind][layer] - weights).abs().amax((1, 3))
                            rows = real_rows(kind, mask, weights.shape)
                            self.assertLess(difference[rows].max(), TOLERANCE, (kind, layer))

    def test_weights_only_when_asked_and_without_effect(self):
        for name in MODELS:
            with self.subTest(model=name):
                _, ours = pair(name)
                inputs = inputs_of(name, padding("left"))
                with kernel() as ran:
                    plain = ours(**inputs)
                self.assertEqual([options["return_weights"] for options in ran.options], [None] * models.layers_of(name))
                self.assertEqual(models.attentions_of(plain), {})
                asked = ours(**inputs, output_attentions=True)
                self.assertTrue(torch.equal(plain.logits, asked.logits))

    def test_output_attentions_false_wins(self):
        q = torch.randn(1, 2, 3, 4)
        collected = _active_collector.set({"attentions": []})
        self.addCleanup(_active_collector.reset, collected)
        for asked, there in (({}, True), ({"output_attentions": None}, True), ({"output_attentions": False}, False)):
            _, weights = attention_forward(torch.nn.Identity(), q, q, q, None, is_causal=True, **asked)
            self.assertEqual(weights is not None, there)

    def test_attention_is_far_from_uniform(self):
        for name in MODELS:
            with self.subTest(model=name):
                eager, _ = pair(name)
                self.assertLess(models.entropy_share(eager(**inputs_of(name), output_attentions=True)), 0.5)

    def test_each_option_moves_the_logits_a_hundred_tolerances(self):
        for name, (_, _, options) in MODELS.items():
            eager, ours = pair(name)
            inputs = inputs_of(name)
            wanted = eager(**inputs).logits
            for option in options:
                with self.subTest(model=name, option=option), kernel(**without(name, option)):
                    moved = (ours(**inputs).logits - wanted).abs().max()
                    self.assertGreater(moved, 100 * TOLERANCE)

    def test_padding_moves_the_logits_a_hundred_tolerances(self):
        for name in ("bert", "llama", "t5"):
            eager, ours = pair(name)
            for side in ("left", "right"):
                if (name, side) == ("llama", "right"):
                    continue  # causal hides the padding on the right from every real row
                with self.subTest(model=name, padding=side):
                    mask = padding(side)
                    unmasked = ours(**inputs_of(name, torch.ones_like(mask)))
                    wanted = eager(**inputs_of(name, mask))
                    self.assertGreater(self.logits_differ(name, mask, unmasked, wanted), 100 * TOLERANCE)

    def test_encoder_decoder_of_bert(self):
        # Cross-attention of a decoder on padded encoder states.
        eager, ours = decoders_with_cross_attention()
        states = torch.randn(2, 11, 64, generator=torch.Generator().manual_seed(5))
        mask = torch.ones(2, 11, dtype=torch.long)
        mask[0, 7:] = 0
        inputs = {"input_ids": models.tokens(length=6), "encoder_hidden_states": states, "encoder_attention_mask": mask}
        wanted = eager(**inputs, output_attentions=True)
        with kernel() as ran:
            got = ours(**inputs, output_attentions=True)
        self.assertEqual(len(ran.tasks), 4)
        self.assertGreater(min(ran.tasks), 0)
        self.assertLess((got.logits - wanted.logits).abs().max(), TOLERANCE)
        for kind in ("attentions", "cross_attentions"):
            for ours_of, eagers in zip(got[kind], wanted[kind], strict=True):
                self.assertLess((ours_of - eagers).abs().max(), TOLERANCE)
        inputs["encoder_attention_mask"] = None
        self.assertGreater((ours(**inputs).logits - wanted.logits).abs().max(), 100 * TOLERANCE)

    def test_set_attn_implementation(self):
        eager, _ = pair("llama")
        wanted = eager(**inputs_of("llama")).logits
        before = multihead.tasks_run()
        eager.set_attn_implementation("multihead")
        try:
            self.assertLess((eager(**inputs_of("llama")).logits - wanted).abs().max(), TOLERANCE)
        finally:
            eager.set_attn_implementation("eager")
        self.assertGreater(multihead.tasks_run(), before)


def decoders_with_cross_attention():
    """(eager, ours): BERT as a decoder with cross-attention."""
    import transformers

    made = []
    for implementation in ("eager", "multihead"):
        torch.manual_seed(11)
        configuration = transformers.BertConfig(**{**models.SMALL, "initializer_range": 0.1}, is_decoder=True,
                                                add_cross_attention=True)
        model = transformers.BertLMHeadModel._from_config(configuration, attn_implementation=implementation).eval()
        for name, weight in model.named_parameters():
            if name.endswith(models.SCORES):
                weight.data *= 4
        made.append(model)
    return made


if __name__ == "__main__":
    unittest.main()
