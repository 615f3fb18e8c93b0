# SPDX-License-Identifier: Apache-2.0
"""Texts for wordpiece_cases.py: random ones of many kinds, sentences of many scripts, and each code point in company."""

import pathlib
import random
import unicodedata

SENTENCES = pathlib.Path(__file__).resolve().parent / "sentences.txt"
LITERALS = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "[ SEP ]", "[cls]", "[CLS", "##a", "##", "<left>", "<right>",
            "<both>", "<word>", "ÉCOLE", "école", "E\u0301cole", "Yes", "yes", "YES", "ab", "abc", "bcd", "abcd", " gap", "gap",
            "don't", "\ufffd!", "中文"]
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u202f\u3000"
EMOJI = "😀👩🏽👨👧❤🏳🌈🇫🇷🧑🚀✊🏿1⃣#\ufe0f\u200d\u200d\U000e0067\U000e007f"
SCRIPTS = [(0x41, 0x250), (0x250, 0x300), (0x370, 0x400), (0x400, 0x530), (0x530, 0x600), (0x600, 0x780), (0x900, 0xE00),
           (0xE00, 0x1000), (0x1000, 0x1200), (0x1200, 0x1400), (0x1700, 0x1900), (0x1E00, 0x2000), (0x2000, 0x2C00),
           (0x3000, 0x3200), (0xA000, 0xAC00), (0xF900, 0x10000), (0x10000, 0x12000), (0x1D100, 0x1D200), (0x1E000, 0x1F000)]


def letter(draw, low, high):
    code = draw.randrange(low, high)
    return chr(code if not 0xD800 <= code < 0xE000 else code - 0x800)


def letters(draw, low, high, most=12):
    return "".join(letter(draw, low, high) for _ in range(draw.randint(1, most)))


def marks(draw):
    """A base and what is put on it, of many combining classes."""
    places = [(0x300, 0x370), (0x591, 0x5C8), (0x610, 0x660), (0x93C, 0x93E), (0xF71, 0xF85), (0x1AB0, 0x1AC0),
              (0x1DC0, 0x1E00), (0x20D0, 0x20F1), (0x302A, 0x3030), (0x1D165, 0x1D18C), (0x1E000, 0x1E02B)]
    base = draw.choice(["a", "E", "\u05d0", "\u0f40", "\u1100", "é", "Ǆ", "ΐ", "\u0344", "\u0f73", "𝅗𝅥"])
    return base + "".join(letter(draw, *draw.choice(places)) for _ in range(draw.randint(1, 5)))


def jamo(draw):
    return "".join(draw.choice([chr(draw.randrange(0xAC00, 0xD7A4)), chr(draw.randrange(0x1100, 0x1200)),
                                unicodedata.normalize("NFD", chr(draw.randrange(0xAC00, 0xD7A4)))])
                   for _ in range(draw.randint(1, 5)))


def piece(draw, words):
    kind = draw.randrange(14)
    if kind == 0:
        return letters(draw, 0, 0x110000, 4)
    if kind in (1, 2):
        return letters(draw, *draw.choice(SCRIPTS))
    if kind == 3:
        return letters(draw, 0x20, 0x7F)
    if kind == 4:
        return marks(draw)
    if kind == 5:
        return letters(draw, 0, 0xA1, 3) if draw.random() < 0.5 else draw.choice("\0\x01\x7f\xad\u061c\u200b\ufeff\ufffd")
    if kind == 6:
        return "".join(draw.choice(EMOJI) for _ in range(draw.randint(1, 6)))
    if kind == 7:
        return letters(draw, *draw.choice([(0x4E00, 0xA000), (0x3400, 0x4E00), (0x20000, 0x31350), (0x2F800, 0x2FA20)]), 4)
    if kind == 8:
        return jamo(draw)
    if kind == 9:
        word = unicodedata.normalize(draw.choice(["NFC", "NFD"]), draw.choice(words))
        return draw.choice([word, word.upper(), word.title()])
    if kind == 10:
        return draw.choice(LITERALS)
    if kind == 11:
        return draw.choice("İıßẞſKÅΩςΣǅﬀΐᾼ") * draw.randint(1, 2)
    if kind == 12:
        return draw.choice(words)
    return draw.choice(SPACES) * draw.randint(1, 3)


def sentences():
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def random_texts(count, seed):
    """Bytes: what bytes there are that are not UTF-8, decode("utf-8", "replace") turns into U+FFFD."""
    draw = random.Random(seed)
    words = [word for _, sentence in sentences() for word in sentence.split()]
    texts = []
    for _ in range(count):
        text = ""
        for _ in range(draw.randint(0, 7)):
            text += piece(draw, words) + draw.choice(["", "", " ", draw.choice(SPACES)])
        data = text.encode()
        if draw.random() < 0.15:
            for _ in range(draw.randint(1, 4)):
                at = draw.randint(0, len(data))
                data = data[:at] + bytes(draw.choice([draw.randrange(256), draw.randrange(0x80, 0x100)])
                                         for _ in range(draw.randint(0, 3))) + data[at + draw.randint(0, 2):]
        texts.append(data)
    return texts


def recombined_sentences(count, seed):
    """Sentences whose words come from one script, now and then from all."""
    draw = random.Random(seed)
    by_script = {}
    for script, sentence in sentences():
        by_script.setdefault(script, []).extend(sentence.split())
    scripts, texts = sorted(by_script), []
    for index in range(count):
        words = by_script[scripts[index % len(scripts)]]
        if draw.random() < 0.1:
            words = [word for script in scripts for word in by_script[script]]
        texts.append(" ".join(draw.choice(words) for _ in range(draw.randint(3, 15))).encode())
    return texts


def long_texts():
    words = ["a", "Ab", "é", "e\u0301", "\u0301", "漢", ".", "\u0345\u0301\u0334", "İ", "한", "😀", "\u200b", "[CLS]", " "]
    return [(word * (10000 // len(word))).encode() for word in words] + [b"\xff" * 10000, b"a" * 100, b"a" * 101,
                                                                       "é".encode() * 100, "é".encode() * 101]


def code_points(step):
    """Each code point of the planes in use, and of the others one in step, between, before and after others."""
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or (code % step and not (code < 0x33400 or 0xE0000 <= code < 0xE0200)):
            continue
        c = chr(code)
        yield f"a{c}b {c} A{c}B a {c}\u0334 \u0345{c}\u0301".encode()
