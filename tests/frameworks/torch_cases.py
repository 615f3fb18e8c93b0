# SPDX-License-Identifier: Apache-2.0
"""Random modules of torch and transformers with their outputs, for layer_runner.

  torch_cases.py FOLDER
"""

import random
import sys

import numpy
import torch
import transformers
from case_writer import CaseWriter

EXACT = {torch.float64: 2e-14, torch.float32: 2e-6}
# Rotary families and T5 compute angles, tables or softmax in float32, whatever the type of the module.
FLOAT32_INSIDE = 2e-6


def state(module, prefix):
    tensors = {prefix + name: value.detach().numpy() for name, value in module.state_dict().items()
               if value.dtype.is_floating_point}
    tensors["another.layer.weight"] = numpy.ones((2, 2))  # beside the prefix: not read
    return tensors


def randomise(module):
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.4)
    return module.eval()


def drop_mask(pick, rows, columns):
    """True hides; every row keeps one key."""
    mask = torch.rand(rows, columns) < 0.4
    mask[torch.arange(rows), torch.tensor([pick.randrange(columns) for _ in range(rows)])] = False
    return mask


def multihead_attention(writer, pick, index):
    kind = torch.float64 if index % 4 else torch.float32
    heads, width = pick.choice([1, 2, 3, 4]), pick.choice([2, 5, 8, 16, 21])
    embed = heads * width
    other = pick.random() < 0.4
    module = torch.nn.MultiheadAttention(
        embed, heads, bias=pick.random() < 0.6, add_bias_kv=pick.random() < 0.4, add_zero_attn=pick.random() < 0.4,
        kdim=pick.randrange(1, 40) if other else None, vdim=pick.randrange(1, 40) if other else None,
        batch_first=True, dtype=kind)
    randomise(module)
    batch, q_len = pick.choice([1, 2, 3]), pick.choice([1, 4, 9, 50])
    itself = not other and pick.random() < 0.5
    kv_len = q_len if itself else pick.choice([1, 3, 17, 130])
    query = torch.randn(batch, q_len, embed, dtype=kind)
    key = query if itself else torch.randn(batch, kv_len, module.kdim, dtype=kind)
    value = query if itself else torch.randn(batch, kv_len, module.vdim, dtype=kind)
    prefix = "encoder.layers.2.self_attn."
    facts = {"prefix": prefix, "heads": heads, "threads": pick.choice([1, 2])}
    if module.add_zero_attn:
        facts["zero_attn"] = 1
    arrays, call = {"query": query.numpy()}, {}
    if not itself:
        arrays.update(key=key.numpy(), value=value.numpy())
    mask = pick.choice(["none", "bool", "bool_heads", "float", "padding", "causal"])
    if mask == "bool":
        call["attn_mask"] = drop_mask(pick, q_len, kv_len)
        arrays["drop_mask"] = call["attn_mask"].numpy()
    elif mask == "bool_heads":
        call["attn_mask"] = torch.stack([drop_mask(pick, q_len, kv_len) for _ in range(batch * heads)])
        arrays["drop_mask"] = call["attn_mask"].view(batch, heads, q_len, kv_len).numpy()
    elif mask == "float":
        call["attn_mask"] = torch.randn(q_len, kv_len, dtype=kind)
        arrays["bias"] = call["attn_mask"].numpy()
    elif mask == "padding":
        lengths = [pick.randint(1, kv_len) for _ in range(batch)]
        call["key_padding_mask"] = torch.arange(kv_len)[None] >= torch.tensor(lengths)[:, None]
        facts["lengths"] = lengths
    elif mask == "causal":
        call["attn_mask"] = torch.triu(torch.ones(q_len, kv_len, dtype=torch.bool), 1)
        facts["causal"] = 1
    average = pick.random() < 0.5
    # In evaluation torch has a fast path of its own, which 1.13 enters without biases and fails; both paths are held.
    module.train(module.in_proj_bias is None or pick.random() < 0.5)
    output, weights = module(query, key, value, average_attn_weights=average, need_weights=True, **call)
    arrays.update(output=output.detach().numpy(), weights=weights.detach().numpy())
    writer.case(f"torch_{index}_{mask}", "torch", state(module, prefix), facts, arrays, EXACT[kind])


def hidden(batch, length, width, kind=torch.float64):
    return torch.randn(batch, length, width, dtype=kind)


def causal_bias(length, kind=torch.float64):
    return torch.triu(torch.full((length, length), torch.finfo(kind).min, dtype=kind), 1)[None, None]


def bert_like(writer, pick, name):
    models = {"bert": (transformers.BertConfig, transformers.models.bert.modeling_bert.BertAttention),
              "roberta": (transformers.RobertaConfig, transformers.models.roberta.modeling_roberta.RobertaAttention)}
    make_config, make = models[name]
    module = randomise(make(make_config(hidden_size=48, num_attention_heads=4)).double())
    x = hidden(2, 11, 48)
    lengths = [11, 6]
    bias = torch.zeros(2, 1, 1, 11, dtype=torch.float64)
    bias[1, ..., 6:] = torch.finfo(torch.float64).min
    output = module.output.dense(module.self(x, bias)[0])
    writer.case(name, name, state(module, "layer.attention."), {"prefix": "layer.attention.", "heads": 4,
                "lengths": lengths}, {"query": x.numpy(), "output": output.detach().numpy()}, EXACT[torch.float64])


def distilbert(writer, pick):
    config = transformers.DistilBertConfig(dim=36, n_heads=3)
    module = randomise(transformers.models.distilbert.modeling_distilbert.MultiHeadSelfAttention(config).double())
    x, mask = hidden(2, 9, 36), torch.ones(2, 9)
    mask[0, 5:] = 0
    output, weights = module(x, x, x, mask, output_attentions=True)
    writer.case("distilbert", "distilbert", state(module, "a."), {"prefix": "a.", "heads": 3, "lengths": [5, 9]},
                {"query": x.numpy(), "output": output.detach().numpy(), "weights": weights.detach().numpy()}, EXACT[torch.float64])


def gpt2(writer, pick):
    config = transformers.GPT2Config(n_embd=40, n_head=5)
    module = randomise(transformers.models.gpt2.modeling_gpt2.GPT2Attention(config).double())
    x = hidden(2, 60, 40)
    output, _, weights = module(x, output_attentions=True)
    writer.case("gpt2", "gpt2", state(module, "h.0.attn."), {"prefix": "h.0.attn.", "heads": 5, "causal": 1},
                {"query": x.numpy(), "output": output.detach().numpy(), "weights": weights.detach().numpy()}, EXACT[torch.float64])
    # As old files have them: the mask's own buffers among the tensors.
    tensors = state(module, "h.0.attn.")
    tensors["h.0.attn.bias"] = numpy.tril(numpy.ones((1, 1, 8, 8)))
    tensors["h.0.attn.masked_bias"] = numpy.array(-1e4)
    writer.case("gpt2_with_buffers", "gpt2", tensors, {"prefix": "h.0.attn.", "heads": 5, "causal": 1},
                {"query": x.numpy(), "output": output.detach().numpy()}, EXACT[torch.float64])


def rotary_family(writer, pick, name):
    """llama, mistral, qwen2, phi3: one signature."""
    tools = transformers.models
    families = {
        "llama": (transformers.LlamaConfig, tools.llama.modeling_llama.LlamaAttention),
        "mistral": (transformers.MistralConfig, tools.mistral.modeling_mistral.MistralAttention),
        "qwen2": (transformers.Qwen2Config, tools.qwen2.modeling_qwen2.Qwen2Attention),
        "phi3": (transformers.Phi3Config, tools.phi3.modeling_phi3.Phi3Attention)}
    make_config, make = families[name]
    for bias in ([False, True] if name == "llama" else [False]):
        for linear in ([None, 4.0] if name == "llama" else [None]):
            more = {"attention_bias": bias} if name == "llama" else {}
            if linear:
                more["rope_scaling"] = {"type": "linear", "factor": linear}
            config = make_config(hidden_size=48, num_attention_heads=6, num_key_value_heads=2, rope_theta=5000.0,
                                 max_position_embeddings=64, pad_token_id=0, **more)
            module = randomise(make(config, layer_idx=0).double())
            x, positions = hidden(2, 14, 48), torch.stack([torch.arange(14), torch.randperm(14)])
            output, weights, _ = module(x, causal_bias(14).expand(2, 1, 14, 14), positions, output_attentions=True)
            prefix = "model.layers.0.self_attn."
            facts = {"prefix": prefix, "heads": 6, "kv_heads": 2, "theta": 5000.0, "causal": 1}
            if linear:
                facts["linear"] = linear
            tensors = state(module, prefix)
            tensors[prefix + "rotary_emb.inv_freq"] = numpy.ones(4)  # old files carry it
            writer.case(f"{name}_{'bias' if bias else 'plain'}_{linear}", name, tensors, facts,
                        {"query": x.numpy(), "output": output.detach().numpy(), "weights": weights.detach().numpy(),
                         "q_positions": positions.numpy(), "k_positions": positions.numpy()}, FLOAT32_INSIDE)


def gpt_neox(writer, pick):
    for share in (0.25, 1.0):
        config = transformers.GPTNeoXConfig(hidden_size=64, num_attention_heads=4, rotary_pct=share,
                                            max_position_embeddings=32, rotary_emb_base=10000)
        module = randomise(transformers.models.gpt_neox.modeling_gpt_neox.GPTNeoXAttention(config).double())
        x, positions = hidden(2, 13, 64), torch.arange(13)[None]
        output, _, weights = module(x, None, positions, output_attentions=True)
        prefix = "layers.1.attention."
        writer.case(f"gpt_neox_{share}", "gpt_neox", state(module, prefix),
                    {"prefix": prefix, "heads": 4, "theta": 10000.0, "rotary_dim": int(16 * share), "causal": 1},
                    {"query": x.numpy(), "output": output.detach().numpy(), "weights": weights.detach().numpy()},
                    FLOAT32_INSIDE)


def t5(writer, pick):
    attention = transformers.models.t5.modeling_t5.T5Attention
    for decoder in (False, True):
        config = transformers.T5Config(d_model=40, d_kv=7, num_heads=3, is_decoder=decoder)
        module = randomise(attention(config, has_relative_attention_bias=True).double())
        x = hidden(2, 70, 40)
        output, _, _, weights = module(x, mask=causal_bias(70) if decoder else None, output_attentions=True)
        facts = {"prefix": "s.", "heads": 3, "relative_both": int(not decoder), "relative_distance": 128,
                 "aside": ["relative_attention_bias.weight"]}
        if decoder:
            facts["causal"] = 1
        writer.case(f"t5_{'decoder' if decoder else 'encoder'}", "t5", state(module, "s."), facts,
                    {"query": x.numpy(), "output": output.detach().numpy(), "weights": weights.detach().numpy(),
                     "relative": module.relative_attention_bias.weight.detach().numpy()}, FLOAT32_INSIDE)
    # Cross-attention has no table.
    config = transformers.T5Config(d_model=40, d_kv=7, num_heads=3, is_decoder=True)
    module = randomise(attention(config).double())
    x, memory = hidden(2, 5, 40), hidden(2, 9, 40)
    output = module(x, key_value_states=memory)[0]
    writer.case("t5_cross", "t5", state(module, "s."), {"prefix": "s.", "heads": 3},
                {"query": x.numpy(), "key": memory.numpy(), "value": memory.numpy(),
                 "output": output.detach().numpy()}, FLOAT32_INSIDE)


def main():
    torch.manual_seed(2026)
    torch.set_num_threads(1)
    pick = random.Random(2026)
    writer = CaseWriter(sys.argv[1])
    with torch.no_grad():
        for index in range(120):
            multihead_attention(writer, pick, index)
        for name in ("bert", "roberta"):
            bert_like(writer, pick, name)
        distilbert(writer, pick)
        gpt2(writer, pick)
        for name in ("llama", "mistral", "qwen2", "phi3"):
            rotary_family(writer, pick, name)
        gpt_neox(writer, pick)
        t5(writer, pick)
    writer.finish()
    print("torch", torch.__version__, "transformers", transformers.__version__)


if __name__ == "__main__":
    main()
