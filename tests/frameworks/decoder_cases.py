# SPDX-License-Identifier: Apache-2.0
"""Random decoders of transformers, saved as folders, against decoder_runner: logits after each token, and greedy texts.

  decoder_cases.py RUNNER
"""

import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy
import safetensors.torch
import torch
import transformers

WORDS, NEW = 300, 12
# Of a logit, as a share of the largest. Sums of at most 100 products in float32 on both sides, each within 100 * 2^-24 of
# its terms' size, through at most three layers: random roundings reach about a tenth of what all together could.
BOUND = 1e-5


def gpt2(pick, **more):
    heads, width = pick.choice([(1, 8), (2, 16), (3, 27), (4, 64)])
    options = {"n_inner": pick.choice([None, 5, 100]), "n_layer": pick.choice([1, 2, 3]), "n_positions": 64, **more}
    return transformers.GPT2Config(vocab_size=WORDS, n_embd=width, n_head=heads, bos_token_id=None, eos_token_id=None,
                                   **options)


def llama(pick, **more):
    heads, kv_heads, width = pick.choice([(1, 1, 8), (4, 2, 32), (4, 1, 64), (6, 2, 48)])
    options = {"intermediate_size": pick.choice([5, 100]), "num_hidden_layers": pick.choice([1, 2, 3]), **more}
    return transformers.LlamaConfig(vocab_size=WORDS, hidden_size=width, num_attention_heads=heads,
                                    num_key_value_heads=kv_heads, max_position_embeddings=64, bos_token_id=None,
                                    eos_token_id=None, pad_token_id=None, **options)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}

# Each: its family, what its configuration adds, and how it is stored.
CASES = {
    "gpt2": (gpt2, {}, {}),
    "gpt2_relu": (gpt2, {"activation_function": "relu"}, {}),
    "gpt2_gelu": (gpt2, {"activation_function": "gelu"}, {}),
    "gpt2_unscaled": (gpt2, {"scale_attn_weights": False}, {}),
    "gpt2_by_layer": (gpt2, {"scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-3}, {}),
    "gpt2_untied": (gpt2, {"tie_word_embeddings": False}, {}),
    "gpt2_sharded": (gpt2, {"n_layer": 3}, {"shards": True}),
    "gpt2_old": (gpt2, {}, {"old": True}),
    "gpt2_float16": (gpt2, {}, {"dtype": torch.float16}),
    "llama": (llama, {}, {}),
    "llama_tied": (llama, {"tie_word_embeddings": True}, {}),
    "llama_theta": (llama, {"rope_theta": 500000.0, "rms_norm_eps": 1e-5}, {}),
    "llama_linear": (llama, {"rope_scaling": {"type": "linear", "factor": 2.5}}, {}),
    "llama_llama3": (llama, {}, {"rope_scaling": LLAMA3}),
    "llama_biased": (llama, {"attention_bias": True}, {}),
    "llama_gelu": (llama, {"hidden_act": "gelu"}, {}),
    "llama_sharded": (llama, {"num_hidden_layers": 3}, {"shards": True}),
    "llama_bfloat16": (llama, {}, {"dtype": torch.bfloat16}),
    "gpt2_products": (gpt2, {}, {}),
    "llama_products": (llama, {"attention_bias": True}, {}),
}


def randomised(model):
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.normal_(0, 1.5 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.3)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm) or type(module).__name__ == "LlamaRMSNorm":
            with torch.no_grad():
                module.weight += 1
    return model.eval()


def llama3_frequencies(frequencies, scaling):
    """Those of Llama 3.1, by wavelength: long ones slowed down, short ones kept, a blend between."""
    found = []
    for frequency in frequencies.tolist():
        turns = scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        blend = min(max((turns - low) / (high - low), 0), 1)
        found.append((1 - blend) * frequency / scaling["factor"] + blend * frequency)
    return torch.tensor(found, dtype=frequencies.dtype)


def scaled(model, folder, scaling):
    """transformers 4.41 does not know this scaling: its frequencies are put in place, its field into the file."""
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            module.inv_freq = llama3_frequencies(module.inv_freq, scaling)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_scaling"] = scaling
    path.write_text(json.dumps(config))


def old_names(folder):
    """Without the prefix, and with the masks that files of 2019 stored."""
    path = folder / "model.safetensors"
    tensors = {name.replace("transformer.", ""): tensor for name, tensor in safetensors.torch.load_file(str(path)).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    safetensors.torch.save_file(tensors, str(path), metadata={"format": "pt"})


def judge_products(name, model, sequences, got):
    """Products of bfloat16 beside the model in bfloat16, which rounds where they do, and states, their sums, norms, scores
    and logits too: they are nearer to float32 in the mean."""
    def logits(model):
        with torch.no_grad():
            return numpy.concatenate([model(input_ids=torch.tensor([ids])).logits[0].float().numpy() for ids in sequences])

    def spread(found):
        return float(numpy.sqrt(numpy.mean(numpy.square(found - exact, dtype=numpy.float64))))
    exact = logits(model)
    share = spread(got) / spread(logits(model.to(torch.bfloat16)))
    rounded = numpy.abs(got - exact).max() > BOUND * numpy.abs(exact).max()
    print(f"{'passed' if share <= 1 and rounded else 'FAILED'} {name} {share:.3g}")


def compare(runner, name, folder, model, pick):
    lengths = pick.choice([[1], [40], [7, 1, 24, 3], [33, 33]])
    sequences = [[pick.randrange(WORDS) for _ in range(length)] for length in lengths]
    numpy.save(folder / "ids.npy", numpy.array([i for ids in sequences for i in ids], numpy.int64))
    numpy.save(folder / "starts.npy", numpy.cumsum([0, *map(len, sequences)], dtype=numpy.int64))
    products = ["bfloat16"] if "_products_" in name else []
    ran = subprocess.run([runner, str(folder), str(folder), str(NEW), *products], capture_output=True, text=True, check=False)
    if ran.returncode != 0 or ran.stdout:
        print(f"FAILED {name}: {ran.stdout}{ran.stderr.strip()}")
        return
    got, new = numpy.load(folder / "logits.npy"), numpy.load(folder / "new.npy")
    if products:
        judge_products(name, model, sequences, got)
        return
    away, largest, at = 0.0, 0.0, 0
    for index, ids in enumerate(sequences):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].numpy()
            text = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                                  max_new_tokens=NEW, do_sample=False, pad_token_id=0)[0, len(ids):]
        away = max(away, float(numpy.abs(got[at:at + len(ids)] - logits).max()))
        largest = max(largest, float(numpy.abs(logits).max()))
        at += len(ids)
        if text.tolist() != new[index].tolist():
            print(f"FAILED {name}: greedy {new[index].tolist()}, wanted {text.tolist()}")
            return
    print(f"{'passed' if away <= BOUND * max(largest, 1) else 'FAILED'} {name} {away / max(largest, 1):.3g}")


def main(runner):
    transformers.logging.set_verbosity_error()
    pick = random.Random(5)
    torch.manual_seed(5)
    for name, (family, more, stored) in CASES.items():
        for turn in range(3):
            config = family(pick, **more)
            kind = transformers.GPT2LMHeadModel if family is gpt2 else transformers.LlamaForCausalLM
            model = randomised(kind(config))
            with tempfile.TemporaryDirectory() as place:
                folder = pathlib.Path(place)
                shards = {"max_shard_size": "8KB"} if "shards" in stored else {}
                model.to(stored.get("dtype", torch.float32)).save_pretrained(folder, safe_serialization=True, **shards)
                if "dtype" in stored:
                    # Read again: buffers that no file has, such as the frequencies, were rounded with the weights.
                    model = type(model).from_pretrained(folder, torch_dtype=torch.float32).eval()
                if "old" in stored:
                    old_names(folder)
                if "rope_scaling" in stored:
                    scaled(model, folder, stored["rope_scaling"])
                assert ("shards" not in stored) == (folder / "model.safetensors").exists()
                compare(runner, f"{name}_{turn}", folder, model, pick)


if __name__ == "__main__":
    main(sys.argv[1])
