# SPDX-License-Identifier: Apache-2.0
"""The shipped language model in transformers and here: language_cases.py RUNNER FOLDER MAKE_TOKENIZER."""

import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
import transformers

STORIES = 20
BOUND = 1e-4  # of logits that reach about 20
TOKENIZER_STORIES = 20000


def stories(runner, count):
    return subprocess.run([runner, "stories", str(count)], capture_output=True, text=True, check=True).stdout


def compare_logits(runner, folder):
    transformers.logging.set_verbosity_error()
    model, loading = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    end = model.config.eos_token_id
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == end == model.generation_config.eos_token_id
    texts = stories(runner, STORIES).splitlines()
    told = [[end, *tokenizer(text).input_ids, end] for text in texts]
    assert [tokenizer.decode(ids[1:-1]) for ids in told] == texts
    with tempfile.TemporaryDirectory() as place:
        case = pathlib.Path(place)
        numpy.save(case / "ids.npy", numpy.array([i for ids in told for i in ids], numpy.int64))
        numpy.save(case / "starts.npy", numpy.cumsum([0, *map(len, told)], dtype=numpy.int64))
        subprocess.run([runner, "logits", str(folder), place], check=True)
        ours = numpy.load(case / "logits.npy")
    with torch.no_grad():
        theirs = numpy.concatenate([model(torch.tensor([ids])).logits[0].numpy() for ids in told])
    away = float(numpy.abs(ours - theirs).max())
    print(f"{'passed' if away <= BOUND else 'FAILED'} logits {away:.3g} of {float(numpy.abs(theirs).max()):.3g}")

    prompt = torch.tensor([tokenizer("The old farmer").input_ids])
    with torch.no_grad():
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=100,
                             pad_token_id=end)
    print("generated " + tokenizer.decode(out[0], skip_special_tokens=True))


def compare_tokenizer(runner, folder, script):
    with tempfile.TemporaryDirectory() as place:
        made = pathlib.Path(place) / "tokenizer.json"
        subprocess.run([sys.executable, script, str(made)], input=stories(runner, TOKENIZER_STORIES), text=True, check=True)
        same = made.read_bytes() == (pathlib.Path(folder) / "tokenizer.json").read_bytes()
    print(f"{'passed' if same else 'FAILED'} tokenizer")


def main(runner, folder, script):
    compare_logits(runner, folder)
    compare_tokenizer(runner, folder, script)


main(*sys.argv[1:])
