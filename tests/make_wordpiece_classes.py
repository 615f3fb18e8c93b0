#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes src/models/wordpiece_classes.hpp: what Hugging Face tokenizers holds of each code point, asked one by one.

To be run by Python 3.11, whose Unicode version is 14.0: its unicodedata tells which characters came later.

usage: python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3 && \
       venv/bin/python make_wordpiece_classes.py && clang-format -i ../src/models/wordpiece_classes.hpp
"""
import pathlib
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
HIGH, LOW = chr(0x345), chr(0x334)  # classes 240 and 1: one of them changes places with whatever has a class

HEAD = """// SPDX-License-Identifier: Apache-2.0
// Ranges of code points as Hugging Face tokenizers 0.23 has them; written by tests/make_wordpiece_classes.py.
#pragma once

namespace multihead {

struct CodeRange {
  char32_t first, last;
};
"""


def bert(**on):
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**off, **on}).normalize_str


def ranges(codes):
    found = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def new_word_characters():
    """What \\w matches, seen by a token that has to be a whole word, of the characters that came after Unicode 14.0."""
    assert unicodedata.unidata_version == "14.0.0"
    new = [code for code in CODES if unicodedata.category(chr(code)) == "Cn"]
    whole = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    whole.add_tokens([AddedToken("a", single_word=True, normalized=False)])
    return [code for code in new if len(whole.encode("a" + chr(code)).ids) == 1]


def new_members(category):
    """Those of a category, such as L, as the regular expressions of pre-tokenizers have it, that came after 14.0."""
    others = pre_tokenizers.Split(Regex(rf"\p{{{category}}}"), "removed")
    text = "".join(map(chr, CODES))
    outside = {ord(letter) for part, _ in others.pre_tokenize_str(text) for letter in part}
    return [code for code in CODES if code not in outside and unicodedata.category(chr(code)) == "Cn"]


def main():
    clean, strip, nfd = bert(clean_text=True), bert(strip_accents=True), normalizers.NFD().normalize_str
    pieces = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    marks = {code for code in CODES if strip(chr(code)) == ""}
    reordered = [code for code in CODES if code not in marks and nfd(chr(code)) == chr(code) and (
        nfd("a" + chr(code) + LOW)[1] == LOW or nfd("a" + HIGH + chr(code))[2] == HIGH)]
    tables = [
        ("kRemoved", "What clean_text removes: Cc, Cf and Co of Unicode 8.0, without white space, and U+FFFD.",
         [code for code in CODES if clean(chr(code)) == ""]),
        ("kPunctuation", "ASCII's punctuation and the categories P of Unicode 8.0.",
         [code for code in CODES if len(pieces("a" + chr(code) + "b")) == 3]),
        ("kNonspacing", "What strip_accents removes: the category Mn of Unicode 8.0.", sorted(marks)),
        ("kReordered", "Other characters with a canonical combining class in Unicode 9.0.", reordered),
        ("kDecomposed", "Those beyond the BMP with a canonical decomposition in Unicode 9.0.",
         [code for code in CODES if code > 0xFFFF and nfd(chr(code)) != chr(code)]),
        ("kNewWord", "What \\w matches in Unicode 16.0 of the characters that came after 14.0.", new_word_characters()),
        ("kNewLetters", "Letters (L) of Unicode 16.0 that came after 14.0.", new_members("L")),
        ("kNewNumbers", "Numbers (N) of Unicode 16.0 that came after 14.0.", new_members("N")),
    ]
    text = HEAD
    for name, meaning, codes in tables:
        entries = ", ".join(f"{{0x{first:X}, 0x{last:X}}}" for first, last in ranges(codes))
        text += f"\n// {meaning}\ninline constexpr CodeRange {name}[] = {{{entries}}};\n"
    text += "\n}  // namespace multihead\n"
    target = pathlib.Path(__file__).resolve().parent.parent / "src" / "models" / "wordpiece_classes.hpp"
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
