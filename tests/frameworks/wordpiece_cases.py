# SPDX-License-Identifier: Apache-2.0
"""Compares tokens_runner with Hugging Face tokenizers, ids, places and types, and prints what was compared.

usage: wordpiece_cases.py RUNNER SHARE [MODEL]

Without a model, tokenizers are made whose vocabulary has almost every letter, so that ids tell what became of it. SHARE
is full or quick.
"""
import array
import codecs
import itertools
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import tokenizers
import wordpiece_texts as texts_of
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ADDED = [AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
         AddedToken("<both>", lstrip=True, rstrip=True, normalized=True), AddedToken("École", normalized=True),
         AddedToken("<word>", single_word=True, normalized=False), AddedToken("abc", normalized=False),
         AddedToken("YES", single_word=True, normalized=True), AddedToken("bcd", normalized=False),
         AddedToken("abcd", normalized=False),
         AddedToken(" gap", normalized=False), AddedToken("don't", normalized=True), AddedToken("中文", normalized=True),
         AddedToken("\ufffd!", normalized=False), AddedToken("yo", single_word=True, lstrip=True, normalized=False)]
BAD = []  # (first character, byte length) of what could not be decoded, noted by note_replaced


def note_replaced(error):
    BAD.append((error.start, error.end))
    return "\ufffd", error.end


codecs.register_error("noted", note_replaced)


def decoded(data):
    """The text, and for each of its characters and its end the byte where it begins."""
    BAD.clear()
    text = data.decode("utf-8", "noted")
    replaced, starts, at = iter(list(BAD)), [], 0
    bad = next(replaced, None)
    for c in text:
        starts.append(at)
        if bad and bad[0] == at:
            at, bad = bad[1], next(replaced, None)
        else:
            at += len(c.encode())
    return text, [*starts, at]


def vocabulary(codes):
    words = [word for _, sentence in texts_of.sentences() for word in sentence.split()]
    grams = {word[:2] for word in words} | {"##" + word[-2:] for word in words} | {"the", "##ing", "a", "##a", "##aaa"}
    listed = [*SPECIAL, *(mark + chr(code) for code in codes for mark in ("", "##")), *sorted(grams)]
    return {token: index for index, token in enumerate(dict.fromkeys(listed))}


def tokenizer(vocab, added=(), **options):
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(**options)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")])
    made.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    if added:
        made.add_tokens(list(added))
    return made


def expected(encoding, bytes_of, sizes):
    """What the runner is to write: tokens that the template adds stand at the begin and at the ends."""
    numbers, added = array.array("i", [len(encoding.ids)]), 0
    for index, offsets, kind, sequence in zip(encoding.ids, encoding.offsets, encoding.type_ids, encoding.sequence_ids):
        if sequence is None:
            place = (0, 0) if added == 0 else (sizes[added - 1],) * 2
            added += 1
        else:
            place = (bytes_of[sequence][offsets[0]], bytes_of[sequence][offsets[1]])
        numbers.extend((index, *place, kind))
    return numbers


def compare(runner, name, peer, folder, calls):
    """Calls are (first, second or None, max_tokens or None), texts as bytes. The number of differing ones."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch)
        with open(path / "texts", "wb") as file:
            for first, second, most in calls:
                array.array("i", [-1 if most is None else most, len(first), -1 if second is None else len(second)]).tofile(file)
                file.write(first + (second or b""))
        subprocess.run([runner, folder, path / "texts", path / "tokens"], check=True)
        got = array.array("i", (path / "tokens").read_bytes())
    at, tokens, differing = 0, 0, 0
    for start in range(0, len(calls), 4096):
        part = calls[start:start + 4096]
        both = [(decoded(first), None if second is None else decoded(second)) for first, second, _ in part]
        for most, group in itertools.groupby(range(len(part)), lambda index: part[index][2]):
            group = list(group)
            peer.no_truncation()
            if most is not None:
                peer.enable_truncation(most)
            inputs = [both[i][0][0] if both[i][1] is None else (both[i][0][0], both[i][1][0]) for i in group]
            for i, encoding in zip(group, peer.encode_batch(inputs)):
                pairs = [each for each in both[i] if each]
                wanted = expected(encoding, [each[1] for each in pairs], [each[1][-1] for each in pairs])
                end = at + 1 + 4 * got[at]
                tokens += got[at]
                if got[at:end] != wanted:
                    differing += 1
                    if differing <= 5:
                        print(f"DIFFERS {name} {part[i]!r}\n  wanted {wanted.tolist()}\n  got    {got[at:end].tolist()}")
                at = end
    assert at == len(got), "tokens are left over"
    print(f"compared {name}: {len(calls)} texts, {tokens} tokens, {differing} differ, {time.monotonic() - began:.1f} s")
    return differing


def pairs(texts, count, seed):
    """Pairs and single texts with every small limit, and limits that a long text reaches."""
    draw = random.Random(seed)
    calls = []
    for index in range(count):
        most = draw.choice([None, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 31, 32])
        second = draw.choice(texts) if index % 4 else None
        calls.append((b" ".join(draw.choice(texts) for _ in range(draw.randint(1, 3))), second, most))
    return sorted(calls, key=lambda call: call[2] or 0)


def alone(texts):
    return [(text, None, None) for text in texts]


def word_neighbours():
    """A token that has to be a whole word beside every character of the planes in use."""
    codes = itertools.chain(range(0xD800), range(0xE000, 0x33400), range(0xE0000, 0xE0200))
    return [f"<word>{chr(code)} {chr(code)}<word>".encode() for code in codes]


def made_here(runner, quick, folder):
    every = [code for code in range(0x110000) if code < 0x20000 or 0x2F800 <= code < 0x2FA20 or 0xE0000 <= code < 0xE0200]
    wide = vocabulary([code for code in every if not 0xD800 <= code < 0xE000])
    narrow = vocabulary([code for code in range(0x21, 0x3200)])
    texts = texts_of.random_texts(5000 if quick else 100000, seed=1)
    more = texts_of.recombined_sentences(1000, seed=2) + texts_of.long_texts()
    points = list(texts_of.code_points(step=997 if quick else 37))[::11 if quick else 1]
    bad = 0

    def run(name, peer, calls):
        where = folder / name
        where.mkdir()
        peer.save(str(where / "tokenizer.json"))
        return compare(runner, name, peer, where, calls)

    bert = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    bad += run("uncased", tokenizer(wide, **bert), alone(texts + more + points))
    bad += run("cased", tokenizer(wide, **{**bert, "lowercase": False}), alone(texts + more + points))
    few = texts[:len(texts) // 20] + more
    for number, (clean, chinese, strip, lower) in enumerate(
            itertools.product([True, False], [True, False], [True, False, None], [True, False])):
        options = {"clean_text": clean, "handle_chinese_chars": chinese, "strip_accents": strip, "lowercase": lower}
        bad += run(f"options{number}", tokenizer(narrow, **options), alone(few))
        if number % 5 == 0:
            neighbours = word_neighbours()[::1 if number == 0 and not quick else 41]
            bad += run(f"added{number}", tokenizer(narrow, ADDED, **options), alone(few + neighbours))
    bad += run("pairs", tokenizer(narrow, ADDED, **bert), pairs(texts, 2000 if quick else 20000, seed=3))
    return bad


def main():
    runner, share, *model = sys.argv[1:]
    quick = share == "quick"
    print(f"tokenizers {tokenizers.__version__}")
    if not model:
        with tempfile.TemporaryDirectory() as folder:
            return 1 if made_here(runner, quick, pathlib.Path(folder)) else 0
    peer = Tokenizer.from_file(str(pathlib.Path(model[0]) / "tokenizer.json"))
    peer.no_padding()
    texts = texts_of.random_texts(5000 if quick else 100000, seed=4) + texts_of.long_texts()
    sentences = texts_of.recombined_sentences(1000, seed=5)
    bad = compare(runner, "model", peer, model[0], alone(texts + sentences))
    bad += compare(runner, "model_pairs", peer, model[0], pairs(texts + sentences, 2000 if quick else 20000, seed=6))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
