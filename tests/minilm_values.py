# SPDX-License-Identifier: Apache-2.0
"""What PyTorch computes with all-MiniLM-L6-v2 for ten sentences, as tests/minilm/values.safetensors.

  minilm_values.py MODEL_FOLDER      needs torch, transformers 4.41 or later, safetensors

Float32, eager attention, one sentence at a time. For sentence i: metadata "i" is its text; tensors "i.ids" (tokens),
"i.hidden" (tokens, 384), "i.weights" (6, 12, tokens, tokens), "i.vector" (384), the normalised mean; for the first two
"i.states" (7, tokens, 384), the embeddings and what each layer gives.
"""

import pathlib
import sys

import numpy
import safetensors.numpy
import torch
import transformers

SENTENCES = [
    "Rain fell all night.",
    "Who left the gate open?",
    "The café on the corner sells éclairs.",
    "A heron stood still in the shallow water.",
    "Prices rose by 3.5% in March, again.",
    "The palaeontologist dusted off a jawbone.",
    "My brother can't swim, but he loves boats!",
    "Turn left at the old mill (the red one).",
    "Floccinaucinihilipilification is rarely useful.",
    "Snow in Málaga? Nobody had seen it before.",
]
WITH_STATES = 2


def main(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").float().eval()
    tensors = {}
    for index, sentence in enumerate(SENTENCES):
        ids = tokenizer(sentence)["input_ids"]
        with torch.no_grad():
            out = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                        output_hidden_states=True, output_attentions=True)
        vector = torch.nn.functional.normalize(out.last_hidden_state[0].mean(0), dim=0)
        tensors[f"{index}.ids"] = numpy.array(ids, numpy.int64)
        tensors[f"{index}.hidden"] = out.last_hidden_state[0].numpy()
        tensors[f"{index}.weights"] = torch.stack(out.attentions)[:, 0].numpy()
        tensors[f"{index}.vector"] = vector.numpy()
        if index < WITH_STATES:
            tensors[f"{index}.states"] = torch.stack(out.hidden_states)[:, 0].numpy()
    path = pathlib.Path(__file__).resolve().parent / "minilm" / "values.safetensors"
    path.parent.mkdir(exist_ok=True)
    tensors = {name: numpy.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    safetensors.numpy.save_file(tensors, path, metadata={str(i): text for i, text in enumerate(SENTENCES)})
    print(f"{path.stat().st_size} bytes, tokens {[len(tensors[f'{i}.ids']) for i in range(len(SENTENCES))]}")


if __name__ == "__main__":
    main(sys.argv[1])
