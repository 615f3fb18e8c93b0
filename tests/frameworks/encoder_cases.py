# SPDX-License-Identifier: Apache-2.0
"""Random encoders of transformers, saved as folders, against encoder_runner: hidden states and attentions of all layers.

  encoder_cases.py RUNNER
"""

import json
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy
import safetensors.torch
import torch
import transformers

BOUND = 2e-5

# Each family: its configuration, its encoder alone, the same under the head of another task.
FAMILIES = {
    "bert": (transformers.BertConfig, transformers.BertModel, transformers.BertForMaskedLM),
    "roberta": (transformers.RobertaConfig, transformers.RobertaModel, transformers.RobertaForSequenceClassification),
    "xlm-roberta": (transformers.XLMRobertaConfig, transformers.XLMRobertaModel, transformers.XLMRobertaForMaskedLM),
    "distilbert": (transformers.DistilBertConfig, transformers.DistilBertModel,
                   transformers.DistilBertForSequenceClassification),
}
ACTIVATIONS = ["gelu", "gelu_new", "relu", "silu"]


def configuration(family, pick, activation):
    heads, width = pick.choice([(1, 8), (2, 16), (3, 27), (4, 64)])
    layers, inner, words = pick.choice([1, 2, 3]), pick.choice([5, 32, 100]), pick.choice([30, 97])
    if family == "distilbert":
        return transformers.DistilBertConfig(vocab_size=words, dim=width, n_layers=layers, n_heads=heads,
                                             hidden_dim=inner, max_position_embeddings=24, activation=activation)
    more = {"layer_norm_eps": pick.choice([1e-12, 1e-5])}
    if family == "bert":
        more |= {"max_position_embeddings": 24, "type_vocab_size": 2}
    else:
        more |= {"max_position_embeddings": 26, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0,
                 "eos_token_id": 2}
    return FAMILIES[family][0](vocab_size=words, hidden_size=width, num_hidden_layers=layers,
                               num_attention_heads=heads, intermediate_size=inner, hidden_act=activation, **more)


def randomised(model):
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.normal_(0, 1 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.3)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            with torch.no_grad():
                module.weight += 1
    return model.eval()


def old_names(folder):
    """LayerNorm's weight and bias as gamma and beta, and position_ids stored, as files of 2019 have them."""
    path = folder / "model.safetensors"
    tensors = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
               for name, tensor in safetensors.torch.load_file(str(path)).items()}
    first = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[first.replace("word_embeddings.weight", "position_ids")] = torch.arange(24).reshape(1, 24)
    safetensors.torch.save_file(tensors, str(path), metadata={"format": "pt"})


def wanted(model, family, sequences):
    """Hidden states and attentions of packed sequences, each computed by itself."""
    tokens, start = sum(len(ids) for ids, _ in sequences), 0
    states = weights = None
    for ids, types in sequences:
        end = start + len(ids)
        more = {} if family == "distilbert" else {"token_type_ids": torch.tensor([types])}
        with torch.no_grad():
            out = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                        output_hidden_states=True, output_attentions=True, **more)
        own = torch.stack(out.hidden_states)[:, 0].float().numpy()
        attentions = torch.stack(out.attentions)[:, 0].float().numpy()
        if states is None:
            states = numpy.zeros((own.shape[0], tokens, own.shape[2]), numpy.float32)
            weights = numpy.zeros((*attentions.shape[:2], tokens, tokens), numpy.float32)
        states[:, start:end], weights[:, :, start:end, start:end] = own, attentions
        start = end
    return states, weights


def spread(found, right):
    return float(numpy.sqrt(numpy.mean(numpy.square(found - right, dtype=numpy.float64))))


def judge_products(name, folder, model, family, sequences, exact):
    """Products of bfloat16 beside the model in bfloat16, which rounds where they do and in more places: states, their sums
    and norms, scores, weights. So they are nearer to float32 in the mean; and from each other they are at most half as far
    as all roundings together reach, 12 a layer and 6 before, each 2^-8 of the largest state."""
    rounded = wanted(model.to(torch.bfloat16), family, sequences)
    states, weights = (numpy.load(folder / file) for file in ("states.npy", "weights.npy"))
    away, farthest = (float(numpy.abs(states - other).max()) for other in (rounded[0], exact[0]))
    bound = (6 + 12 * model.config.num_hidden_layers) * 2**-8 / 2 * float(numpy.abs(exact[0]).max())
    shares = [spread(ours, right) / spread(theirs, right)
              for ours, theirs, right in zip((states, weights), rounded, exact) if spread(theirs, right) > 0]
    sound = away <= bound and max(shares) <= 1 and farthest > BOUND
    print(f"{'passed' if sound else 'FAILED'} {name} {away / bound:.3g} {max(shares):.3g}")


def compare(runner, name, folder, model, family, pick):
    words = model.config.vocab_size
    sequences = [([pick.randrange(words) for _ in range(length)],
                  [pick.randrange(getattr(model.config, "type_vocab_size", 1)) for _ in range(length)])
                 for length in pick.choice([[1], [24], [7, 1, 24, 3], [5, 5]])]
    numpy.save(folder / "ids.npy", numpy.array([i for ids, _ in sequences for i in ids], numpy.int64))
    numpy.save(folder / "types.npy", numpy.array([i for _, types in sequences for i in types], numpy.int64))
    numpy.save(folder / "starts.npy", numpy.cumsum([0, *(len(ids) for ids, _ in sequences)], dtype=numpy.int64))
    products = ["bfloat16"] if name.endswith("_products") else []
    ran = subprocess.run([runner, str(folder), str(folder), *products], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        print(f"FAILED {name}: {ran.stderr.strip()}")
        return
    states, weights = wanted(model, family, sequences)
    if products:
        judge_products(name, folder, model, family, sequences, (states, weights))
        return
    away = [float(numpy.abs(numpy.load(folder / file) - right).max())
            for file, right in (("states.npy", states), ("weights.npy", weights))]
    print(f"{'passed' if all(a <= BOUND for a in away) else 'FAILED'} {name} {away[0]:.3g} {away[1]:.3g}")


def main(runner):
    transformers.logging.set_verbosity_error()
    pick = random.Random(5)
    torch.manual_seed(5)
    for family, (_, alone, headed) in FAMILIES.items():
        for index, activation in enumerate(ACTIVATIONS):
            for variant in ("plain", "headed", "sharded", "float16", "bfloat16", "old", "products"):
                config = configuration(family, pick, activation)
                kind = headed if variant == "headed" or (variant == "old" and index % 2) else alone
                model = randomised(kind(config))
                with tempfile.TemporaryDirectory() as place:
                    folder = pathlib.Path(place)
                    if variant in ("float16", "bfloat16"):
                        model = model.to(getattr(torch, variant))
                    more = {"max_shard_size": "3KB"} if variant == "sharded" else {}
                    model.save_pretrained(folder, safe_serialization=True, **more)
                    model = model.to(torch.float32)
                    if variant == "old":
                        old_names(folder)
                    assert (variant != "sharded") == (folder / "model.safetensors").exists()
                    assert json.loads((folder / "config.json").read_text())["model_type"] == family
                    encoder = getattr(model, model.base_model_prefix) if kind is headed else model
                    compare(runner, f"{family}_{activation}_{variant}", folder, encoder, family, pick)


if __name__ == "__main__":
    main(sys.argv[1])
