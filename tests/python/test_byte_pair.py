# SPDX-License-Identifier: Apache-2.0
"""BytePair of Python: texts and bytes to ids and back; what is refused."""

import copy
import json
import pathlib
import pickle
import sys
import tempfile
import unittest

import numpy as np

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))
import tiny_decoder  # noqa: E402

from multihead import BytePair  # noqa: E402

SHIPPED = TESTS.parent / "trained" / "language"


class Pairs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.file = cls.folder / "tokenizer.json"
        cls.file.write_text(json.dumps(tiny_decoder.tokenizer()), encoding="utf-8")
        cls.tokenizer = BytePair(cls.folder)

    def test_the_merges(self):
        words = tiny_decoder.words()
        ids = self.tokenizer.encode("in the hut")
        self.assertEqual([self.tokenizer.token(id) for id in ids], [b"in", b" the", b" ", b"h", b"u", b"t"])
        self.assertEqual(ids[:2], [words.index("in"), words.index("Ġthe")])
        self.assertEqual((self.tokenizer.vocab_size, len(self.tokenizer)), (len(words), len(words)))
        self.assertIn(str(len(words)), repr(self.tokenizer))

    def test_every_text_comes_back(self):
        for tokenizer in (self.tokenizer, BytePair(SHIPPED)):
            for text in ("", "the thin éclair", "\0\n\t", "\U0001F600 猫", "a" * 999):
                self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)
            anything = bytes(range(256)) * 2
            self.assertEqual(tokenizer.decode_bytes(tokenizer.encode(anything)), anything)
        cut = self.tokenizer.encode("é")[:1]
        self.assertEqual(self.tokenizer.decode_bytes(cut), b"\xc3")
        self.assertEqual(self.tokenizer.decode(cut), "\ufffd")

    def test_ids_of_any_kind(self):
        ids = self.tokenizer.encode("the cat")
        for given in (tuple(ids), np.array(ids), np.array(ids, np.int32)):
            self.assertEqual(self.tokenizer.decode(given), "the cat")
        self.assertEqual(self.tokenizer.decode([]), "")

    def test_tokens(self):
        end = self.tokenizer.find(tiny_decoder.END)
        self.assertEqual(end, len(tiny_decoder.words()) - 1)
        self.assertEqual(self.tokenizer.encode("a" + tiny_decoder.END)[1:], [end])
        self.assertEqual((self.tokenizer.is_special(end), self.tokenizer.is_special(0)), (True, False))
        self.assertEqual((self.tokenizer.is_token(end), self.tokenizer.is_token(end + 1), self.tokenizer.is_token(-1)),
                         (True, False, False))
        self.assertEqual(self.tokenizer.find(b" the"), tiny_decoder.words().index("Ġthe"))
        self.assertIsNone(self.tokenizer.find("cat"))
        ids = self.tokenizer.encode("a" + tiny_decoder.END + "b")
        self.assertEqual(self.tokenizer.decode(ids, special=False), "ab")
        self.assertEqual(self.tokenizer.decode(ids), "a" + tiny_decoder.END + "b")

    def test_a_file_is_its_folder(self):
        for name in (self.file, str(self.file), str(self.file).encode(), str(self.folder), str(self.folder).encode()):
            self.assertEqual(BytePair(name).encode("the cat"), self.tokenizer.encode("the cat"))

    def test_what_is_put_around_a_text(self):
        made = tiny_decoder.tokenizer()
        end = made["added_tokens"][0]["id"]
        made["post_processor"] = {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": tiny_decoder.END, "type_id": 0}},
                                                     {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {tiny_decoder.END: {"id": tiny_decoder.END, "ids": [end], "tokens": [tiny_decoder.END]}}}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "other.json"
            path.write_text(json.dumps(made), encoding="utf-8")
            tokenizer = BytePair(path)
        self.assertEqual(tokenizer.encode("the"), [end, *tokenizer.encode("the", added=False)])
        self.assertEqual(tokenizer.encode("the", added=False), self.tokenizer.encode("the"))

    def test_copies(self):
        self.assertIs(copy.copy(self.tokenizer), self.tokenizer)
        self.assertIs(copy.deepcopy([self.tokenizer])[0], self.tokenizer)
        with self.assertRaises(TypeError):
            pickle.dumps(self.tokenizer)

    def test_what_is_refused(self):
        bad = self.folder / "bad.json"
        bad.write_bytes(b"{")
        other = self.folder / "other.json"
        other.write_text(json.dumps({**tiny_decoder.tokenizer(), "normalizer": {"type": "NFC"}}), encoding="utf-8")
        t, size = self.tokenizer, self.tokenizer.vocab_size
        for error, sentence, call in (
                (OSError, "nowhere", lambda: BytePair("/nowhere")), (OSError, "bad.json", lambda: BytePair(bad)),
                (ValueError, "NFC", lambda: BytePair(other)), (TypeError, "path has type NoneType", lambda: BytePair(None)),
                (TypeError, "path has type int", lambda: BytePair(3)), (ValueError, "character 0", lambda: BytePair("a\0b")),
                (ValueError, "the name of no file", lambda: BytePair("\ud800")),
                (TypeError, "text has type int", lambda: t.encode(3)), (TypeError, "text has type NoneType", lambda: t.encode(None)),
                (ValueError, "text cannot be written as UTF-8", lambda: t.encode("\ud800")),
                (TypeError, "added has type int", lambda: t.encode("a", added=1)),
                (ValueError, str(size), lambda: t.decode([size])), (ValueError, "-1", lambda: t.decode([-1])),
                (TypeError, "ids is None", lambda: t.decode(None)), (TypeError, "ids has type str", lambda: t.decode("ab")),
                (ValueError, "ids", lambda: t.decode([[1, 2]])), (ValueError, "integers", lambda: t.decode([1.5])),
                (TypeError, "special has type str", lambda: t.decode([1], special="no")),
                (ValueError, str(size), lambda: t.token(size)), (TypeError, "id has type str", lambda: t.token("a")),
                (TypeError, "token has type int", lambda: t.find(3)), (TypeError, "id has type bool", lambda: t.is_token(True))):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                call()
            self.assertIn(sentence, str(caught.exception))


if __name__ == "__main__":
    unittest.main()
