# SPDX-License-Identifier: Apache-2.0
"""Small random models of Transformers, each with eager attention and with ours, whose attention is far from uniform."""

import contextlib
import copy
import types
import unittest
import unittest.mock

import torch
import transformers

import multihead
import multihead.transformers  # noqa: F401  registers the name

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)  # models this small gain nothing from more

VOCABULARY = 99
LENGTH = 14
TOLERANCE = 1e-4
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
         "vocab_size": VOCABULARY, "max_position_embeddings": 128,
         "initializer_range": 0.08}
GROUPED = {**SMALL, "num_key_value_heads": 2}

# Name: class, configuration, and the options of multihead.attention that its answer needs.
MODELS = {
    "bert": (transformers.BertForMaskedLM, lambda: transformers.BertConfig(**SMALL), ["scale"]),
    "gpt2": (transformers.GPT2LMHeadModel,
             lambda: transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=VOCABULARY, n_positions=128,
                                             initializer_range=0.08,
                                             scale_attn_by_inverse_layer_idx=True),
             ["causal", "scale"]),
    "llama": (transformers.LlamaForCausalLM, lambda: transformers.LlamaConfig(**GROUPED), ["causal", "scale", "grouped"]),
    "mistral": (transformers.MistralForCausalLM, lambda: transformers.MistralConfig(**GROUPED, sliding_window=5),
                ["causal", "scale", "grouped", "window"]),
    "gemma2": (transformers.Gemma2ForCausalLM,
               lambda: transformers.Gemma2Config(**GROUPED, head_dim=16, sliding_window=5, attn_logit_softcapping=6.0,
                                                 query_pre_attn_scalar=32),
               ["causal", "scale", "grouped", "window", "softcap"]),
    "gpt_oss": (transformers.GptOssForCausalLM,
                lambda: transformers.GptOssConfig(**GROUPED, head_dim=16, sliding_window=5, num_local_experts=2,
                                                  num_experts_per_tok=1),
                ["causal", "scale", "grouped", "window", "sinks"]),
    "t5": (transformers.T5ForConditionalGeneration,
           lambda: transformers.T5Config(d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, vocab_size=VOCABULARY,
                                         relative_attention_num_buckets=8, relative_attention_max_distance=16,
                                         decoder_start_token_id=0),
           ["causal", "scale", "bias"]),
}
DECODERS = ["gpt2", "llama", "mistral", "gemma2", "gpt_oss"]
# What the weights of queries and keys are called.
SCORES = ("query.weight", "key.weight", "q_proj.weight", "k_proj.weight", ".q.weight", ".k.weight")


class WithoutGradients(unittest.TestCase):
    def setUp(self):
        torch.set_grad_enabled(False)
        self.addCleanup(torch.set_grad_enabled, True)


def _sharpen(model, factor):
    """Multiplies what makes queries and keys."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(SCORES):
                weight *= factor
            elif name.endswith("c_attn.weight"):  # GPT-2's (in, 3 out)
                weight[:, :2 * weight.shape[0]] *= factor
            elif name.endswith(("relative_attention_bias.weight", "sinks")):
                weight.normal_(0, 2)


def attentions_of(output):
    """{kind: list over layers of (batch, heads, q_len, kv_len)}."""
    return {kind: output[kind] for kind in ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")
            if output.get(kind)}


def entropy_share(output):
    """The median over rows of entropy / ln(visible keys), of the rows with four keys or more."""
    shares = []
    for layers in attentions_of(output).values():
        for weights in layers:
            visible = (weights > 0).sum(-1)
            entropy = torch.special.entr(weights.double()).sum(-1)
            shares.append((entropy / torch.log(visible.double()))[visible >= 4])
    return torch.cat(shares).median().item()


def tokens(batch=2, length=LENGTH, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def inputs_of(name, mask=None):
    """Arguments of a model's call for two sequences; mask (batch, LENGTH): the padding mask or None."""
    inputs = {"input_ids": tokens(), "attention_mask": mask}
    if name == "t5":
        inputs["decoder_input_ids"] = tokens(length=9, seed=4)
    return inputs


def padding(side, count=4):
    """(2, LENGTH): the first sequence is count shorter, its padding on that side; None without one."""
    if side == "none":
        return None
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, :count] = 0
    return mask if side == "left" else mask.flip(-1)


_pairs = {}


def pair(name, dtype=torch.float32):
    """(eager, ours): a model of that name with the same weights, twice; made once for a type."""
    if (name, dtype) in _pairs:
        return _pairs[name, dtype]
    if dtype != torch.float32:
        _pairs[name, dtype] = tuple(copy.deepcopy(model).to(dtype) for model in pair(name))
        return _pairs[name, dtype]
    kind, configuration, _ = MODELS[name]
    torch.manual_seed(7)
    eager = kind._from_config(configuration(), attn_implementation="eager").eval()
    _sharpen(eager, 4)
    for _ in range(12):
        with torch.no_grad():
            if entropy_share(eager(**inputs_of(name), output_attentions=True)) < 0.5:
                break
        _sharpen(eager, 1.5)
    ours = kind._from_config(configuration(), attn_implementation="multihead").eval()
    ours.load_state_dict(eager.state_dict())
    _pairs[name, dtype] = eager, ours
    return eager, ours


def layers_of(name):
    """Attentions that one call of a model runs."""
    return 6 if name == "t5" else 2  # encoder, decoder and cross-attention of two layers each


@contextlib.contextmanager
def kernel(change=lambda options: options, swap=None):
    """Notes each call of multihead.attention: .tasks its tasks, .options its options; change(options) changes them.

    swap(key) changes keys and values.
    """
    notes = types.SimpleNamespace(tasks=[], options=[])
    attention = multihead.attention

    def noted(q, k, v, **options):
        if swap:
            k, v = swap(k), swap(v)
        before = multihead.tasks_run()
        result = attention(q, k, v, **change(dict(options)))
        notes.tasks.append(multihead.tasks_run() - before)
        notes.options.append(options)
        return result

    with unittest.mock.patch.object(multihead, "attention", noted):
        yield notes


def without(name, option):
    """kernel() arguments that turn an option off; scale off is T5's reading elsewhere, and the usual one in T5."""
    if option == "grouped":  # query head h on key head h % kv_heads
        return {"swap": lambda heads: heads.repeat(1, 2, 1, 1)}

    def change(options):
        if option == "scale":
            options["scale"] = None if name == "t5" else 1.0
        elif option == "causal":
            options["causal"] = False
            if "segments" in options:
                options["query_offset"] = None
        elif option == "softcap":
            options["softcap"] = 0.0
        else:
            options.pop(option, None)
        return options

    return {"change": change}

