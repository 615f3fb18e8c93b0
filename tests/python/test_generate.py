# SPDX-License-Identifier: Apache-2.0
"""generate and Generator of Python: the texts that the command prints, the same in any company, streams; what is refused."""

import copy
import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import unittest

import numpy as np

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))
import tiny_decoder  # noqa: E402

from multihead import BytePair, Decoder, Generated, Generator, generate  # noqa: E402

SHIPPED = TESTS.parent / "trained" / "language"
PAGE = TESTS.parent / "docs" / "learning.md"
COMMAND = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve() / "multihead"
DRAWING = {"max_tokens": 15, "temperature": 1.5, "seed": 8}


class Shipped(unittest.TestCase):
    def test_what_the_page_shows(self):
        """The command prints it: cli_language_test.py."""
        shown = re.findall(r"^\$ multihead generate (.*)\n(.*)\n", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        self.assertGreaterEqual(len(shown), 2)
        for command, text in shown:
            _, prompt, *rest = shlex.split(command)
            options = {name.removeprefix("--").replace("-", "_"): float(value) if "." in value else int(value)
                       for name, value in zip(rest[::2], rest[1::2])}
            with self.subTest(command=command):
                self.assertEqual(generate(SHIPPED, prompt, **options), text)


class Tiny(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        tiny_decoder.write(cls.folder)
        cls.decoder = Decoder(cls.folder)

    def test_what_the_command_prints(self):
        if not COMMAND.is_file():  # the wheel's tests know it; a module that is built alone has none beside it
            return
        prompts = ["the cat", "", "in an éclair " * 6]
        for storage, more in itertools.product(("float32", "int8"), ({}, {"top_k": 9}, {"top_p": 0.8, "top_k": 40})):
            options = {**DRAWING, **more}
            words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
            ran = subprocess.run([COMMAND, "generate", self.folder, *prompts, *words, "--cache-type", storage],
                                 capture_output=True, check=True)
            texts = generate(self.decoder, prompts, storage=storage, **options)
            self.assertEqual("\n\n".join(texts) + "\n", ran.stdout.decode())

    def test_the_same_text_in_any_company(self):
        prompts = ["the cat", "", "in an éclair " * 6, "a", "the the thin"] * 4
        alone = [generate(self.folder, prompt, **DRAWING) for prompt in prompts[:5]] * 4
        self.assertEqual(generate(self.decoder, prompts, **DRAWING), alone)
        self.assertGreater(len({*alone}), 3)
        for more in ({"threads": 1}, {"threads": 3}, {"positions": 128}, {"positions": 4096}, {"tokenizer": BytePair(self.folder)}):
            self.assertEqual(generate(self.decoder, tuple(prompts), **DRAWING, **more), alone, more)
        generator = Generator(self.decoder, positions=512, prompt_tokens=2)
        texts, waiting = {}, list(prompts)
        while waiting or not generator.done:
            if waiting:
                texts[generator.add(waiting.pop(0), **DRAWING)] = ""
            for token in generator.step():
                texts[token.request] += token.text
        self.assertEqual(texts, dict(enumerate(alone)))

    def test_prompts_of_ids(self):
        ids = self.decoder.tokenizer.encode("the cat")
        text = generate(self.decoder, "the cat", **DRAWING)
        for prompt in (ids, tuple(ids), np.array(ids)):
            self.assertEqual(generate(self.decoder, prompt, **DRAWING), text)
        self.assertEqual(generate(self.decoder, [ids, np.array(ids), "the cat"], **DRAWING), [text] * 3)
        self.assertEqual(generate(self.decoder, [""], **DRAWING), [generate(self.decoder, "", **DRAWING)])
        self.assertEqual(generate(self.decoder, []), [])

    def test_tokens_as_they_come(self):
        prompts, seen = ["the cat", "a"], []
        texts = generate(self.decoder, prompts, on_token=seen.append, **DRAWING)
        self.assertIsInstance(seen[0], Generated)
        for request, text in enumerate(texts):
            own = [token for token in seen if token.request == request]
            self.assertEqual("".join(token.text for token in own), text)
            self.assertEqual([token.finish for token in own[:-1]], [None] * (len(own) - 1))
            self.assertEqual(own[-1].finish, "end" if own[-1].id in self.decoder.end_ids else "length")
            ids = [token.id for token in own]
            self.assertEqual(self.decoder.tokenizer.decode(ids, special=False), text)
        generator = Generator(self.decoder)
        for prompt in prompts:
            generator.add(prompt, **DRAWING)
        self.assertEqual(list(generator), seen)
        self.assertTrue(generator.done)
        self.assertEqual((generator.step(), list(generator)), ([], []))

    def test_the_likeliest_are_those_of_the_logits(self):
        ids, cache = self.decoder.tokenizer.encode("the cat"), self.decoder.cache(128)
        sequence, new, found = cache.add(), ids, []
        while len(found) < 12 and not {*found} & {*self.decoder.end_ids}:
            new = [int(self.decoder.forward(new, cache, sequence)[0].argmax())]
            found += new
        seen = []
        generate(self.decoder, "the cat", max_tokens=12, on_token=lambda token: seen.append(token.id))
        self.assertEqual(seen, found)

    def test_stop(self):
        whole, seen = generate(self.decoder, "the cat", max_tokens=40, temperature=2, seed=1), []
        for stop in (whole[10:11], [whole[10:13], "never there"], (whole[10:15],)):
            text = generate(self.decoder, "the cat", max_tokens=40, temperature=2, seed=1, stop=stop, on_token=seen.append)
            self.assertEqual(text, whole[:whole.index(stop if isinstance(stop, str) else stop[0])])
            self.assertEqual(seen[-1].finish, "stop")

    def test_the_end_of_positions(self):
        prompt, seen = [5] * 90, []
        generate(self.decoder, prompt, max_tokens=10**12, temperature=3, on_token=seen.append)
        self.assertLessEqual(len(seen), 6)

    def test_cancel(self):
        generator = Generator(self.decoder)
        first, second = generator.add("the cat", **DRAWING), generator.add("a", **DRAWING)
        generator.step()
        generator.cancel(first)
        generator.cancel(99)
        self.assertEqual({token.request for token in generator}, {second})

    def test_an_exception_of_the_receiver(self):
        def receive(token):
            raise KeyError(token.id)

        with self.assertRaises(KeyError):
            generate(self.decoder, "the cat", on_token=receive)

    def test_threads_of_python(self):
        """Texts made at once, and one generator that three go through."""
        alone, texts = generate(self.decoder, "the cat", **DRAWING), [None] * 6

        def speak(i):
            texts[i] = generate(self.decoder, "the cat", **DRAWING)

        threads = [threading.Thread(target=speak, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(texts, [alone] * 6)
        shared = Generator(self.decoder)
        requests = {shared.add("the cat", **DRAWING) for _ in range(4)}
        found, threads = [], [threading.Thread(target=lambda: found.extend(shared)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({token.request for token in found if token.finish}, requests)

    def test_what_is_refused(self):
        generator = Generator(self.decoder, positions=128)

        def text(prompt="a", **options):
            return lambda: generate(self.decoder, prompt, **options)

        for error, sentence, call in (
                (ValueError, "max_tokens is 0", text(max_tokens=0)), (ValueError, "max_tokens is -5", text(max_tokens=-5)),
                (TypeError, "max_tokens has type str", text(max_tokens="9")), (TypeError, "max_tokens has type float", text(max_tokens=1.5)),
                (ValueError, "temperature is -1", text(temperature=-1)), (ValueError, "temperature", text(temperature=float("nan"))),
                (TypeError, "temperature has type str", text(temperature="hot")), (ValueError, "top_k is 0", text(top_k=0)),
                (TypeError, "top_k has type float", text(top_k=2.0)), (ValueError, "top_p is 0", text(top_p=0)),
                (ValueError, "top_p is 1.5", text(top_p=1.5)), (ValueError, "seed", text(seed=-1)), (TypeError, "seed", text(seed=None)),
                (ValueError, "a stop text is empty", text(stop="")), (TypeError, "stop has type int", text(stop=3)),
                (TypeError, "stop has type int", text(stop=[3])), (ValueError, "storage is 'int4'", text(storage="int4")),
                (ValueError, "threads is 0", text(threads=0)), (ValueError, "nowhere", text(target="nowhere")),
                (TypeError, "prompts has type int", text(3)), (TypeError, "prompts has type NoneType", text(None)),
                (TypeError, "prompts has type bytes", text(b"the")), (TypeError, "prompt has type bytes", text([b"the"])),
                (TypeError, "prompt", text([None])), (TypeError, "prompt", text([1.5])), (ValueError, "UTF-8", text("\ud800")),
                (ValueError, "an id of the prompt", text([10**6])), (ValueError, "one must be left", text([1] * 96)),
                (ValueError, "positions is 0", text(positions=0)),
                (TypeError, "tokenizer has type str", text(tokenizer="a")),
                (OSError, "nowhere", lambda: generate("/nowhere", "a")), (TypeError, "folder has type int", lambda: generate(3, "a")),
                (TypeError, "decoder has type str", lambda: Generator("folder")),
                (TypeError, "positions has type str", lambda: Generator(self.decoder, positions="a")),
                (ValueError, "prompt_tokens is 0", lambda: Generator(self.decoder, prompt_tokens=0)),
                (OSError, "the tokenizer has", lambda: Generator(self.decoder, tokenizer=BytePair(SHIPPED))),
                (TypeError, "request has type str", lambda: generator.cancel("a")),
                (TypeError, "cannot be copied", lambda: copy.copy(generator))):
            with self.subTest(sentence=sentence), self.assertRaises(error) as caught:
                call()
            self.assertIn(sentence, str(caught.exception))
        self.assertTrue(generator.done)


if __name__ == "__main__":
    unittest.main()
