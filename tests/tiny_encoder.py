# SPDX-License-Identifier: Apache-2.0
"""A BERT of two layers of two heads with drawn weights, in a folder as Hugging Face writes one. Standard library only."""

import json
import random
import struct

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "on", "mat", "because", "it", "was",
         "warm", ".", ",", "!", "a", "##s", "##ing", "play", "\u732b", "caf\u00e9", "cafe"]
MODEL_DIM, INNER, LAYERS, HEADS, POSITIONS = 8, 12, 2, 2, 40


def tensors():
    yield "embeddings.word_embeddings.weight", (len(WORDS), MODEL_DIM)
    yield "embeddings.position_embeddings.weight", (POSITIONS, MODEL_DIM)
    yield "embeddings.token_type_embeddings.weight", (2, MODEL_DIM)
    yield from norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            yield from linear(at + name, MODEL_DIM, MODEL_DIM)
        yield from norm(at + "attention.output.LayerNorm")
        yield from linear(at + "intermediate.dense", MODEL_DIM, INNER)
        yield from linear(at + "output.dense", INNER, MODEL_DIM)
        yield from norm(at + "output.LayerNorm")


def linear(name, inputs, outputs):
    yield name + ".weight", (outputs, inputs)
    yield name + ".bias", (outputs,)


def norm(name):
    yield name + ".weight", (MODEL_DIM,)
    yield name + ".bias", (MODEL_DIM,)


def write(folder, values_of=None):
    """Fills the folder, which is there; the numbers are drawn, or those of values_of(name, shape)."""
    draw = random.Random(1)
    header, data = {}, b""
    for name, shape in tensors():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        numbers = values_of(name, shape) if values_of else [draw.gauss(0, 0.7) for _ in range(count)]
        values = struct.pack(f"<{count}f", *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in WORDS), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "bert", "hidden_size": MODEL_DIM, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": INNER, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": POSITIONS,
        "vocab_size": len(WORDS), "type_vocab_size": 2, "pad_token_id": 0}), encoding="utf-8")
