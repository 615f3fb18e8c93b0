# SPDX-License-Identifier: Apache-2.0
"""Encoder of Python: a tiny model and, where it is at hand, MiniLM on the real sentence; what is refused."""

import os
import pathlib
import sys
import tempfile
import unittest

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import tiny_encoder  # noqa: E402

from multihead import Encoder, WeightsRequest  # noqa: E402

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "multihead" / "all-MiniLM-L6-v2"
MODEL = pathlib.Path(os.environ.get("MULTIHEAD_MODEL") or CACHE)


class Tiny(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        tiny_encoder.write(pathlib.Path(cls.folder.name))
        cls.encoder = Encoder(pathlib.Path(cls.folder.name))

    def test_extents(self):
        extents = self.encoder.extents
        self.assertEqual((extents.layers, extents.heads, extents.model_dim), (2, 2, 8))
        self.assertTrue(extents.texts)
        self.assertIn("layers=2", repr(self.encoder))

    def test_tokens_count_characters(self):
        text = "the café sat playing \u732b, it was"
        tokens = self.encoder.tokens(text)
        self.assertEqual([token.text for token in tokens[:3]], ["[CLS]", "the", "cafe"])
        self.assertEqual([text[token.begin:token.end] for token in tokens],
                         ["", "the", "café", "sat", "play", "ing", "\u732b", ",", "it", "was", ""])
        self.assertEqual(self.encoder.tokens(""), [(2, "[CLS]", 0, 0), (3, "[SEP]", 0, 0)])

    def test_states_and_weights(self):
        ids = [token.id for text in ("the cat sat", "dog") for token in self.encoder.tokens(text)]
        starts = [0, 5, 8]
        out, states, weights = self.encoder(ids, starts, return_hidden_states=True, return_weights=True)
        self.assertEqual((out.shape, out.dtype, states.shape), ((8, 8), np.float32, (3, 8, 8)))
        np.testing.assert_array_equal(states[-1], out)
        self.assertEqual([w.shape for w in weights], [(2, 8, 8)] * 2)
        np.testing.assert_allclose(weights[0].sum(-1), 1, atol=1e-6)
        self.assertFalse(weights[0][:, :5, 5:].any())
        for given in (np.array(ids, np.int32), np.array(ids)):
            self.assertEqual(self.encoder(given, np.array(starts)).tobytes(), out.tobytes())
        self.assertEqual(self.encoder(ids[:5]).tobytes(), out[:5].tobytes())
        self.assertEqual(self.encoder(ids, starts, [0] * 8, threads=2).tobytes(), out.tobytes())
        self.assertNotEqual(self.encoder(ids, starts, [1] * 8).tobytes(), out.tobytes())
        asked = [None, WeightsRequest(heads=[1], rows=[3], mean=True)]
        some = self.encoder(ids, starts, return_weights=asked)[1]
        self.assertIsNone(some[0])
        np.testing.assert_array_equal(some[1], weights[1][1, 3:4])

    def test_types(self):
        ids = [token.id for token in self.encoder.tokens("the cat sat")]
        exact = self.encoder(ids)
        found = {exact.tobytes()}
        for options in ({"products": "bfloat16"}, {"precision": "bfloat16"}, {"precision": "float16"},
                        {"precision": "bfloat16", "products": "bfloat16"}):
            encoder = Encoder(self.folder.name, **options)
            states, weights = encoder(ids, return_weights=True)
            self.assertEqual((states.dtype, weights[0].dtype), (np.float32, np.float32))
            np.testing.assert_allclose(states, exact, atol=0.1)
            found.add(states.tobytes())
            np.testing.assert_allclose(encoder.encode("the cat sat"), self.encoder.encode("the cat sat"), atol=0.05)
        self.assertEqual(len(found), 5)
        self.assertEqual(Encoder(self.folder.name, products="float32")(ids).tobytes(), exact.tobytes())
        with self.assertRaisesRegex(ValueError, "Encoder: products is 'float16'; one of \"float32\", \"bfloat16\" is wanted"):
            Encoder(self.folder.name, products="float16")
        with self.assertRaisesRegex(ValueError, "Encoder: precision is 'int8'"):
            Encoder(self.folder.name, precision="int8")

    def test_sentences(self):
        vectors = self.encoder.encode(["the cat sat", "dog", "", "the cat sat"])
        self.assertEqual((vectors.shape, vectors.dtype), ((4, 8), np.float32))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        self.assertEqual(vectors[0].tobytes(), vectors[3].tobytes())
        self.assertEqual(self.encoder.encode("dog").tobytes(), vectors[1].tobytes())
        self.assertEqual(self.encoder.encode([]).shape, (0, 8))
        states = self.encoder([token.id for token in self.encoder.tokens("dog")])
        np.testing.assert_allclose(vectors[1], states.mean(0) / np.linalg.norm(states.mean(0)), atol=1e-6)

    def test_what_is_refused(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            tiny_encoder.write(folder)
            config = folder / "config.json"
            good = config.read_text(encoding="utf-8")
            for error, sentence, text in ((ValueError, "gptx", good.replace('"bert"', '"gptx"')), (OSError, "config.json", good[:-1])):
                config.write_text(text, encoding="utf-8")
                with self.assertRaises(error) as caught:
                    Encoder(folder)
                self.assertIn(sentence, str(caught.exception))
            config.write_text(good, encoding="utf-8")
            (folder / "vocab.txt").unlink()
            encoder = Encoder(folder)
            self.assertFalse(encoder.extents.texts)
            self.assertEqual(encoder([2, 3]).shape, (2, 8))
            for call in (lambda: encoder.encode("dog"), lambda: encoder.tokens("dog")):
                with self.assertRaises((OSError, ValueError)):
                    call()
        for error, sentence, call in (
                (OSError, "nowhere", lambda: Encoder("/nowhere")), (TypeError, "NoneType", lambda: Encoder(None)),
                (ValueError, "25", lambda: self.encoder([25])), (ValueError, "cu_seqlens", lambda: self.encoder([2, 3], [0, 3])),
                (ValueError, "41", lambda: self.encoder([2] * 41)), (TypeError, "ids", lambda: self.encoder(["a"])),
                (ValueError, "2 layers", lambda: self.encoder([2], return_weights=[True])),
                (TypeError, "texts has type int", lambda: self.encoder.encode([1])),
                (TypeError, "text has type bytes", lambda: self.encoder.tokens(b"dog")),
                (ValueError, "character 0", lambda: self.encoder.encode("a\0b")),
                (ValueError, "UTF-8", lambda: self.encoder.tokens("\ud800"))):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                call()
            self.assertIn(sentence, str(caught.exception))


@unittest.skipUnless((MODEL / "model.safetensors").exists(), "all-MiniLM-L6-v2 is not at hand (.ci/fetch-model fetches it)")
class MiniLM(unittest.TestCase):
    def test_the_sentence(self):
        encoder = Encoder(MODEL)
        text = "The animal didn't cross the street because it was too tired."
        tokens = encoder.tokens(text)
        words = [text[token.begin:token.end] for token in tokens]
        weights = encoder([token.id for token in tokens], return_weights=True)[1]
        self.assertEqual(len(weights), 6)
        self.assertAlmostEqual(float(weights[5][11][words.index("it"), words.index("animal")]), 0.67, delta=0.005)
        vectors = encoder.encode([text, "The animal was too tired to cross the street.", "Stocks fell."])
        likeness = vectors @ vectors.T
        self.assertGreater(likeness[0, 1], 0.7)
        self.assertLess(likeness[0, 2], 0.3)


if __name__ == "__main__":
    unittest.main()
