# SPDX-License-Identifier: Apache-2.0
"""Compares pairs_runner with Hugging Face tokenizers: ids, and the text that they decode to; prints what was compared.

usage: byte_pair_cases.py RUNNER SHARE

Tokenizers are trained on sentences of many languages, in the forms that GPT-2 and Llama 3 have. SHARE is full or quick.
"""
import array
import pathlib
import random
import subprocess
import sys
import tempfile

import wordpiece_texts as texts_of
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
          r"|\s+")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPECIAL = ["<|begin|>", "<|end|>"]
ADDED = [AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
         AddedToken("<word>", single_word=True, normalized=False), AddedToken("abc", normalized=False),
         AddedToken("abcd", normalized=True), AddedToken("École", normalized=True), AddedToken("é", normalized=False)]


def trained(pre_tokenizer, ignore_merges=False, template=False, added=()):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False, special_tokens=SPECIAL)
    sentences = [sentence for _, sentence in texts_of.sentences()]
    english = pathlib.Path(__file__).read_text(encoding="utf-8").split("\n")
    tokenizer.train_from_iterator(sentences + english, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if template:
        around = processors.TemplateProcessing(single="<|begin|> $A <|end|>", special_tokens=[
            (token, tokenizer.token_to_id(token)) for token in SPECIAL])
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), around])
    if added:
        tokenizer.add_tokens(list(added))
    return tokenizer


def llama3(pattern=LLAMA3):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", False),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def tokenizers_of():
    level = pre_tokenizers.ByteLevel
    yield "gpt2", trained(level(add_prefix_space=False))
    yield "gpt2_prefix", trained(level(add_prefix_space=True), added=ADDED)
    yield "gpt2_split", trained(llama3(GPT2), template=True)
    yield "uncut", trained(level(add_prefix_space=False, use_regex=False), added=ADDED)
    yield "llama3", trained(llama3(), ignore_merges=True, template=True, added=ADDED)
    yield "llama3_merges", trained(llama3())


def texts(share):
    draw = random.Random(7)
    words = [word for _, sentence in texts_of.sentences() for word in sentence.split()]
    yield from (sentence for _, sentence in texts_of.sentences())
    literals = ["'s", "'LL", "'\u017f", "'Ve", "'d", "don't", "'", "''", "\r\n", "\n\n", "  ", "   \n ", "1234567", "½", "Ⅷ",
                "<|begin|>", "<|end|>", "<left>", " <left> ", "<right>  ", "<word>", "abc", "abcd", "École", "é", "\t", "\u3000"]
    for _ in range(10000 if share == "full" else 1500):
        yield "".join(draw.choice([texts_of.piece(draw, words), draw.choice(literals), draw.choice(literals), " ",
                                   draw.choice(words)]) for _ in range(draw.randint(1, 12)))
    # Each code point beside a letter, a digit, a sign and white space; a sign takes from what follows its apostrophe.
    for first in range(0, 0x110000, 64 if share == "full" else 640):
        yield "".join(f"a{c}1{c}!{c} {c}{c}a '{c}'d" for c in map(chr, range(first, first + 64)) if not "\ud800" <= c <= "\udfff")
    for length in (1, 1000, 20000):
        yield "a" * length
        yield " " * length + "\n"


def compare(runner, name, peer, cases):
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch)
        peer.save(str(path / "tokenizer.json"))
        with open(path / "texts", "wb") as file:
            for text in cases:
                data = text.encode()
                array.array("i", [len(data)]).tofile(file)
                file.write(data)
        subprocess.run([runner, path, path / "texts", path / "tokens"], check=True)
        got = (path / "tokens").read_bytes()
    at, differing = 0, 0

    def numbers(count):
        nonlocal at
        at += 4 * count
        return list(array.array("i", got[at - 4 * count:at]))
    for text, encoding in zip(cases, peer.encode_batch(cases)):
        ids = numbers(numbers(1)[0])
        size = numbers(1)[0]
        decoded = got[at:at + size].decode()
        at += size
        wanted = peer.decode(encoding.ids)
        if ids != encoding.ids or decoded != wanted:
            differing += 1
            if differing <= 5:
                print(f"DIFFERS {name} {text!r}\n  wanted {encoding.ids} {wanted!r}\n  got    {ids} {decoded!r}")
    assert at == len(got)
    print(f"compared {name}: {len(cases)} texts, {differing} differ", flush=True)
    return differing


# The forms that meet every text; the others differ from one of them in what stands around the patterns.
WHOLE = ("gpt2", "llama3")


def main(runner, share):
    quick, cases = list(texts("quick")), list(texts(share))
    differing = sum(compare(runner, name, peer, cases if name in WHOLE else quick) for name, peer in tokenizers_of())
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
