# SPDX-License-Identifier: Apache-2.0
"""A model is refused with attn_implementation="multihead", or warned of, where its modules do not ask the interface."""

import importlib
import unittest
import warnings

import torch
import transformers
import transformers_models as models
from transformers.models.bigbird_pegasus.modeling_bigbird_pegasus import BigBirdPegasusEncoder

import multihead
import multihead.transformers

TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "mlp_dim": 16,
          "image_size": 32, "patch_size": 16, "output_channels": 8}
AUDIO = {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "num_hidden_layers": 2}
TWO = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
       "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 50}


def bloom():
    return transformers.BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=9)


class SelfAttn(torch.nn.Module):
    """Attention that somebody wrote by hand."""

    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(16, 16)

    def forward(self, x):
        return torch.softmax(self.project(x) @ x.mT, -1) @ x


class Asking(SelfAttn):
    """The same that goes through the interface, by a function of its file."""

    def forward(self, x):
        return chosen(self, x[:, None], x[:, None], x[:, None], None, is_causal=False)[0].squeeze(2)


def chosen(*arguments, **named):
    return transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS["multihead"](*arguments, **named)


class Mine(transformers.PreTrainedModel):
    """A caller's model of the parts that are named."""

    config_class = transformers.BertConfig

    def __init__(self, config, *parts):
        super().__init__(config)
        self.parts = torch.nn.ModuleList(part() for part in parts)
        self.post_init()

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


def mine(*parts, implementation="multihead"):
    configuration = transformers.BertConfig(**TEXT)
    configuration._attn_implementation = implementation
    return Mine(configuration, *parts)


def made(kind, configuration):
    """The model, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = kind._from_config(configuration, attn_implementation="multihead")
    return model, [str(each.message) for each in caught if "AttentionInterface" in str(each.message)]


class Interface(models.WithoutGradients):
    def refused(self, sentence, kind, configuration):
        with self.subTest(model=kind.__name__), self.assertRaisesRegex(ValueError, sentence):
            kind._from_config(configuration, attn_implementation="multihead")

    def test_no_module_asks(self):
        for kind, configuration, attention in (
                (transformers.BloomForCausalLM, bloom(), r"transformer.h.0.self_attention \(BloomAttention\)"),
                (transformers.ClapAudioModel, transformers.ClapAudioConfig(**AUDIO), "ClapAudioSelfAttention"),
                (transformers.DebertaModel, transformers.DebertaConfig(**TEXT), "DisentangledSelfAttention"),
                (BigBirdPegasusEncoder, transformers.BigBirdPegasusConfig(**TWO), "BigBirdPegasusBlockSparseAttention")):
            self.refused(f'^{kind.__name__}: attn_implementation is "multihead", but no module .*{attention}', kind,
                         configuration)

    def test_attention_chosen_from_a_table(self):
        vision = {name: value for name, value in VISION.items() if name != "output_channels"}
        for kind, configuration in (
                (transformers.GitForCausalLM, transformers.GitConfig(**TEXT, vision_config=vision)),
                (transformers.SamVisionModel, transformers.SamVisionConfig(**VISION))):
            self.refused('attn_implementation is "multihead", but .*ATTENTION_CLASSES, not through', kind, configuration)

    def test_some_modules_ask(self):
        for kind, configuration, attention in (
                (transformers.BigBirdPegasusModel, transformers.BigBirdPegasusConfig(**TWO),
                 "encoder.layers.0.self_attn.self (BigBirdPegasusBlockSparseAttention) and 1 more"),
                (transformers.PegasusXModel, transformers.PegasusXConfig(**TWO), "(PegasusXGlobalLocalAttention)"),
                (transformers.ClapModel, transformers.ClapConfig(text_config=TEXT, audio_config=AUDIO),
                 "(ClapAudioSelfAttention)"),
                (transformers.LongT5Model, transformers.LongT5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
                                                                     vocab_size=50), "(LongT5LocalAttention)")):
            with self.subTest(model=kind.__name__):
                _, (sentence,) = made(kind, configuration)
                self.assertIn(kind.__name__, sentence)
                self.assertIn(attention, sentence)

    def test_all_modules_ask(self):
        for kind, configuration, _ in models.MODELS.values():
            with self.subTest(model=kind.__name__):
                self.assertEqual(made(kind, configuration())[1], [])
        vision = {name: value for name, value in VISION.items() if name != "output_channels"}
        self.assertEqual(made(transformers.CLIPModel, transformers.CLIPConfig(text_config=TEXT, vision_config=vision))[1], [])

    def test_classes_of_callers(self):
        kind = type("Mine", (transformers.LlamaForCausalLM,), {"__module__": "nowhere"})
        model, said = made(kind, transformers.LlamaConfig(**models.GROUPED))
        self.assertEqual(said, [])
        before = multihead.tasks_run()
        model(models.tokens())
        self.assertGreater(multihead.tasks_run(), before)
        self.refused("Theirs: .*BloomAttention", type("Theirs", (transformers.BloomModel,), {"__module__": "nowhere"}), bloom())

    def test_modules_of_callers(self):
        for parts, name in (((SelfAttn,), r"parts.0 \(SelfAttn\)"),
                            ((lambda: torch.nn.TransformerEncoderLayer(16, 2),), r"parts.0.self_attn \(MultiheadAttention\)")):
            with self.assertRaisesRegex(ValueError, f"Mine: .* no module of it goes through .*{name}"):
                mine(*parts)
        with self.assertRaisesRegex(ValueError, "Mine: .* no module of it"):
            mine(lambda: torch.nn.Linear(16, 16))
        with self.assertWarnsRegex(UserWarning, r"as they are written: parts.1 \(SelfAttn\)$"):
            mine(Asking, SelfAttn)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = mine(Asking)
            mine(SelfAttn, implementation="eager")
        before = multihead.tasks_run()
        model(torch.randn(2, 3, 16))
        self.assertGreater(multihead.tasks_run(), before)

    def test_an_overridden_forward_asks_no_more(self):
        attention = transformers.models.llama.modeling_llama.LlamaAttention
        overridden = type("OwnAttention", (attention,), {"forward": lambda self, x: x})
        passing = type("PassingAttention", (attention,), {"forward": PassingOn.forward})
        configuration = transformers.LlamaConfig(**models.GROUPED)
        with self.assertRaisesRegex(ValueError, "OwnAttention"):
            mine(lambda: overridden(configuration, 0))
        mine(lambda: passing(configuration, 0))

    def test_set_attn_implementation(self):
        nested = {"text_config": {"": "multihead"}}
        for asked in ("multihead", {"": "multihead"}, nested):
            for model in (transformers.BloomForCausalLM(bloom()), mine(SelfAttn, implementation="eager")):
                before = model.config._attn_implementation
                with self.subTest(asked=asked), self.assertRaisesRegex(ValueError, type(model).__name__):
                    model.set_attn_implementation(asked)
                self.assertEqual(model.config._attn_implementation, before)
        model = mine(Asking, SelfAttn, implementation="eager")
        with self.assertWarnsRegex(UserWarning, "SelfAttn"):
            model.set_attn_implementation({"": "multihead"})
        self.assertEqual(model.config._attn_implementation, "multihead")

    def test_importing_twice_wraps_once(self):
        wrapped = [getattr(transformers.PreTrainedModel, name) for name in
                   ("get_correct_attn_implementation", "post_init", "set_attn_implementation")]
        importlib.reload(multihead.transformers)
        for function in wrapped:
            self.assertIs(getattr(transformers.PreTrainedModel, function.__name__), function)


class PassingOn:
    def forward(self, *arguments, **named):
        return super().forward(*arguments, **named)


if __name__ == "__main__":
    unittest.main()
