# SPDX-License-Identifier: Apache-2.0
"""A GPT-2 of two layers of two heads with drawn weights, in a folder as Hugging Face writes one. Standard library only."""

import json
import random
import struct

MODEL_DIM, LAYERS, HEADS, POSITIONS = 8, 2, 2, 96
MERGES = ["t h", "th e", "Ġ the", "i n", "a n"]
END = "<|endoftext|>"


def byte_letters():
    """Each byte as byte-level tokenizers write it: itself where it can be seen, else the next letter from U+0100 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in shown else next(others)) for byte in range(0x100)]


def words():
    return [*byte_letters(), *(merge.replace(" ", "") for merge in MERGES), END]


def tensors():
    yield "wte.weight", (len(words()), MODEL_DIM)
    yield "wpe.weight", (POSITIONS, MODEL_DIM)
    for layer in range(LAYERS):
        for name, inputs, outputs in (("attn.c_attn", MODEL_DIM, 3 * MODEL_DIM), ("attn.c_proj", MODEL_DIM, MODEL_DIM),
                                      ("mlp.c_fc", MODEL_DIM, 4 * MODEL_DIM), ("mlp.c_proj", 4 * MODEL_DIM, MODEL_DIM)):
            yield f"h.{layer}.{name}.weight", (inputs, outputs)
            yield f"h.{layer}.{name}.bias", (outputs,)
        yield from norm(f"h.{layer}.ln_1")
        yield from norm(f"h.{layer}.ln_2")
    yield from norm("ln_f")


def norm(name):
    yield name + ".weight", (MODEL_DIM,)
    yield name + ".bias", (MODEL_DIM,)


def tokenizer():
    vocabulary = {word: index for index, word in enumerate(words())}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": level,
        "post_processor": level, "decoder": level,
        "added_tokens": [{"id": vocabulary[END], "content": END, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary,
                  "merges": MERGES}}


def write(folder, **config):
    """Fills the folder, which is there."""
    draw = random.Random(1)
    header, data = {}, b""
    for name, shape in tensors():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = struct.pack(f"<{count}f", *(draw.gauss(0, 0.9) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()), encoding="utf-8")
    end = len(words()) - 1
    (folder / "config.json").write_text(json.dumps({
        "model_type": "gpt2", "n_embd": MODEL_DIM, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS,
        "vocab_size": len(words()), "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "bos_token_id": end,
        "eos_token_id": end, **config}), encoding="utf-8")
