# SPDX-License-Identifier: Apache-2.0
"""Decoder of Python: logits over a cache, the same bits in chunks and in any company; what is refused."""

import copy
import json
import pathlib
import pickle
import sys
import tempfile
import threading
import unittest

import numpy as np

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))
import tiny_decoder  # noqa: E402

from multihead import Decoder, KvCache  # noqa: E402

SHIPPED = TESTS.parent / "trained" / "language"
WORDS = len(tiny_decoder.words())


class Tiny(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        tiny_decoder.write(cls.folder)
        cls.decoder = Decoder(cls.folder)

    def logits(self, ids, **options):
        cache = self.decoder.cache(128)
        return self.decoder.forward(ids, cache, cache.add(), **options)

    def test_extents(self):
        extents = self.decoder.extents
        self.assertEqual((extents.layers, extents.heads, extents.kv_heads, extents.head_dim, extents.model_dim), (2, 2, 2, 4, 8))
        self.assertEqual((extents.intermediate_dim, extents.vocab_size, extents.max_tokens), (32, WORDS, 96))
        self.assertEqual((self.decoder.end_ids, self.decoder.begin_id, self.decoder.unused_tensors), ((WORDS - 1,), WORDS - 1, ()))
        self.assertIn("layers=2", repr(self.decoder))
        self.assertIs(self.decoder.tokenizer, self.decoder.tokenizer)
        self.assertEqual(self.decoder.tokenizer.vocab_size, WORDS)

    def test_chunks_have_the_bits_of_the_whole(self):
        for decoder in (self.decoder, Decoder(SHIPPED)):
            draw = np.random.default_rng(5)
            ids = draw.integers(0, decoder.extents.vocab_size, 70)
            for storage in ("float32", "bfloat16", "float16", "int8"):
                cache = decoder.cache(512, storage=storage)
                every, states = decoder.forward(ids, cache, cache.add(), all_tokens=True, return_hidden_states=True)
                self.assertEqual((every.shape, every.dtype), ((70, decoder.extents.vocab_size), np.float32))
                self.assertEqual(states.shape, (decoder.extents.layers + 1, 70, decoder.extents.model_dim))
                self.assertTrue(np.isfinite(every).all())
                sequence, at = cache.add(), 0
                for count in (1, 7, 1, 1, 40, 3, 17):
                    last, own = decoder.forward(ids[at:at + count], cache, sequence, return_hidden_states=True)
                    at += count
                    self.assertEqual(last.tobytes(), every[at - 1:at].tobytes(), storage)
                    self.assertEqual(own.tobytes(), states[:, at - count:at].tobytes())
                self.assertEqual((at, cache.length(sequence), cache.length(sequence, decoder.extents.layers - 1)), (70, 70, 70))

    def test_sequences_beside_each_other(self):
        draw = np.random.default_rng(6)
        prompts = [draw.integers(0, WORDS, count) for count in (1, 30, 5, 64)]
        alone = np.concatenate([self.logits(prompt) for prompt in prompts])
        starts = np.cumsum([0, *(len(prompt) for prompt in prompts)])
        cache = self.decoder.cache(512)
        sequences = [cache.add() for _ in prompts]
        for threads in (None, 1, 3):
            together = self.decoder.forward(np.concatenate(prompts), cache, sequences, starts, threads=threads)
            self.assertEqual(together.tobytes(), alone.tobytes())
            for sequence in sequences:
                cache.truncate(sequence, 0)
        self.decoder.forward(prompts[1][:20], cache, sequences[1])
        mixed = self.decoder.forward([*prompts[1][20:], *prompts[2]], cache, [sequences[1], sequences[2]], [0, 10, 15])
        self.assertEqual(mixed.tobytes(), alone[1:3].tobytes())

    def test_forks(self):
        ids = list(range(40))
        cache = self.decoder.cache(512)
        prompt = cache.add()
        self.decoder.forward(ids, cache, prompt)
        fork = cache.fork(prompt)
        both = self.decoder.forward([7, 9], cache, [prompt, fork], [0, 1, 2])
        for row, id in zip(both, (7, 9)):
            self.assertEqual(row.tobytes(), self.logits([*ids, id]).tobytes())
        cache.truncate(fork, 10)
        self.assertEqual(self.decoder.forward(ids[10:20], cache, fork).tobytes(), self.logits(ids[:20]).tobytes())

    def test_ids_of_any_kind(self):
        whole = self.logits([1, 2, 3])
        for given in ((1, 2, 3), np.array([1, 2, 3], np.int32), np.array([1, 9, 2, 9, 3])[::2]):
            self.assertEqual(self.logits(given).tobytes(), whole.tobytes())
        self.assertEqual(self.logits([1, 2, 3], target="baseline").shape, whole.shape)

    def test_a_story_that_was_learned(self):
        decoder = Decoder(SHIPPED)
        cache = decoder.cache(128)
        story, ids = cache.add(), decoder.tokenizer.encode("The old farmer")
        new = ids
        while ids[-1] not in decoder.end_ids:
            new = [int(decoder.forward(new, cache, story)[0].argmax())]
            ids += new
        self.assertEqual(decoder.tokenizer.decode(ids, special=False),
                         "The old farmer Rosa has a blue mirror. The mirror is near the stable.")

    def test_types(self):
        exact = self.logits([1, 2, 3])
        for options in ({"precision": "bfloat16"}, {"precision": "float16"}, {"products": "bfloat16"}):
            decoder = Decoder(self.folder, **options)
            cache = decoder.cache(128)
            rounded = decoder.forward([1, 2, 3], cache, cache.add())
            self.assertNotEqual(rounded.tobytes(), exact.tobytes())
            self.assertLess(np.abs(rounded - exact).max(), 0.2 * np.abs(exact).max())

    def test_threads_of_python(self):
        """Many at once on one cache, each on a sequence of its own."""
        cache, found = self.decoder.cache(2048), {}

        def speak(number):
            sequence = cache.add()
            for id in range(20):
                found[number] = self.decoder.forward([id + number], cache, sequence)

        threads = [threading.Thread(target=speak, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(8):
            self.assertEqual(found[number].tobytes(), self.logits(range(number, number + 20)).tobytes())

    def test_copies(self):
        self.assertIs(copy.copy(self.decoder), self.decoder)
        self.assertIs(copy.deepcopy([self.decoder])[0], self.decoder)
        with self.assertRaises(TypeError):
            pickle.dumps(self.decoder)

    def test_what_is_refused_of_a_call(self):
        cache, other = self.decoder.cache(128), KvCache(1, 4, pages=2)
        sequence, sliding = cache.add(), KvCache(2, 4, layers=2, pages=2, window=8)
        self.decoder.forward([1, 2], cache, sequence)

        def forward(ids=(1,), its_cache=cache, sequences=sequence, *starts, **options):
            return lambda: self.decoder.forward(ids, its_cache, sequences, *starts, **options)

        for error, sentence, call in (
                (ValueError, str(WORDS), forward([WORDS])), (ValueError, "-1", forward([-1])),
                (TypeError, "ids has type str", forward("ab")), (ValueError, "ids", forward(None)),
                (ValueError, "integers", forward([0.5])), (ValueError, "ids", forward([[1, 2]])),
                (ValueError, "a sequence has no token", forward([])), (ValueError, "at most 96", forward([1] * 95)),
                (TypeError, "cache has type dict", forward(its_cache={})), (TypeError, "cache has type NoneType", forward(its_cache=None)),
                (ValueError, "kv_heads", forward(its_cache=KvCache(1, 4, layers=2, pages=2))),
                (ValueError, "layers", forward(its_cache=other)), (ValueError, "window", forward(its_cache=sliding)),
                (ValueError, "sequence", forward(sequences=12345)), (TypeError, "sequences is None", forward(sequences=None)),
                (ValueError, "sequence", forward([1, 2], cache, [sequence, sequence], [0, 1, 2])),
                (ValueError, "cu_seqlens", forward([1, 2], cache, [sequence, cache.add()])),
                (ValueError, "cu_seqlens", forward([1, 2], cache, sequence, [0, 1])),
                (ValueError, "cu_seqlens", forward([1, 2], cache, sequence, [])),
                (ValueError, "64 bits", forward([2**63])), (TypeError, "all_tokens has type int", forward(all_tokens=1)),
                (TypeError, "return_hidden_states", forward(return_hidden_states=None)),
                (ValueError, "threads is 0", forward(threads=0)), (ValueError, "nowhere", forward(target="nowhere"))):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                call()
            self.assertIn(sentence, str(caught.exception))
            self.assertEqual(cache.length(sequence), 2)
        small, many = self.decoder.cache(1), [1] * 60
        held = [small.add(), small.add()]
        with self.assertRaises(MemoryError):
            self.decoder.forward(many, small, held, [0, 30, 60])
        self.assertEqual([small.length(one) for one in held], [0, 0])

    def test_what_is_refused_of_a_folder(self):
        for error, sentence, call in (
                (OSError, "nowhere", lambda: Decoder("/nowhere")), (TypeError, "folder has type NoneType", lambda: Decoder(None)),
                (ValueError, "character 0", lambda: Decoder("a\0b")), (ValueError, "no file", lambda: Decoder("\ud800")),
                (ValueError, "precision is 'int8'", lambda: Decoder(self.folder, precision="int8")),
                (ValueError, "products is 'float16'", lambda: Decoder(self.folder, products="float16")),
                (TypeError, "positions has type str", lambda: self.decoder.cache("a")),
                (ValueError, "positions is 0", lambda: self.decoder.cache(0)),
                (ValueError, "storage is 'int4'", lambda: self.decoder.cache(9, storage="int4"))):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                call()
            self.assertIn(sentence, str(caught.exception))
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            tiny_decoder.write(folder, model_type="gptx")
            with self.assertRaisesRegex(ValueError, "gptx"):
                Decoder(folder)
            tiny_decoder.write(folder, n_embd=16)
            with self.assertRaisesRegex(OSError, "wte"):
                Decoder(folder)
            tiny_decoder.write(folder)
            (folder / "tokenizer.json").unlink()
            with self.assertRaisesRegex(OSError, "tokenizer.json"):
                Decoder(folder).tokenizer
            tiny_decoder.write(folder, eos_token_id=[1, 2], bos_token_id=None)
            (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3]}), encoding="utf-8")
            self.assertEqual((Decoder(folder).end_ids, Decoder(folder).begin_id), ((3,), None))


if __name__ == "__main__":
    unittest.main()
