# SPDX-License-Identifier: Apache-2.0
"""Learns tokenizer.json of task language from the stories on standard input, a line each: make_tokenizer.py TO.

    build/release/tests/language_runner stories 20000 | python3 src/train/tasks/make_tokenizer.py src/train/tasks/tokenizer.json

Byte-level BPE as GPT-2 has it (PyPI: tokenizers 0.19): all 256 bytes are tokens, <|endoftext|> is number 0.
"""

import sys

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

TOKENS = 512
END = "<|endoftext|>"


def main(path):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=TOKENS, special_tokens=[END], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator((line.rstrip("\n") for line in sys.stdin), trainer)
    assert tokenizer.get_vocab_size() == TOKENS
    tokenizer.save(path)


main(sys.argv[1])
