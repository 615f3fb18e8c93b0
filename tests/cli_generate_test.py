# SPDX-License-Identifier: Apache-2.0
"""multihead generate on a tiny decoder that the test writes: what it draws, where it ends, what it refuses."""

import json
import os
import pathlib
import pty
import re
import subprocess
import tempfile
import unittest

import cli_test
import tiny_decoder

COMMAND = cli_test.COMMAND


@unittest.skipIf(COMMAND is None, "the command was not built: CLI11 or utf8proc is not installed")
class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        (cls.folder / "gpt2").mkdir()
        tiny_decoder.write(cls.folder / "gpt2")

    def run_command(self, *arguments):
        settings = {key: value for key, value in os.environ.items() if not key.startswith("MULTIHEAD_")}
        return subprocess.run([COMMAND, "generate", *map(str, arguments)], cwd=self.folder, env=settings,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False)

    def text(self, *arguments):
        outcome = self.run_command(*arguments)
        self.assertEqual((outcome.returncode, outcome.stderr), (0, b""))
        return outcome.stdout.decode("utf-8")

    def refused(self, sentence, *arguments, status=1):
        outcome = self.run_command(*arguments)
        self.assertEqual((outcome.returncode, outcome.stdout), (status, b""), outcome.stderr)
        self.assertRegex(outcome.stderr.decode(), sentence)

    def test_the_same_request_gives_the_same_text(self):
        greedy = self.text("gpt2", "the cat", "--max-tokens", 20)
        self.assertGreater(len(greedy), 5)
        for more in (["--threads", 1], ["--threads", 3], ["--temperature", 0], ["--top-k", 1, "--temperature", 9],
                     ["--seed", 4]):
            self.assertEqual(self.text("gpt2", "the cat", "--max-tokens", 20, *more), greedy, more)
        drawing = ["--max-tokens", 20, "--temperature", 2, "--top-k", 40, "--top-p", 0.9]
        texts = [self.text("gpt2", "the cat", *drawing, "--seed", seed) for seed in range(4)]
        self.assertEqual(texts, [self.text("gpt2", "the cat", *drawing, "--seed", seed, "--threads", 1) for seed in range(4)])
        self.assertGreater(len({*texts}), 2)
        self.assertEqual(self.text("gpt2", "the cat", *drawing), texts[0])

    def test_prompts_beside_each_other(self):
        prompts = ["the cat", "", "in an éclair " * 6, "a"]
        drawing = ["--max-tokens", 15, "--temperature", 1.5, "--seed", 8]
        alone = [self.text("gpt2", prompt, *drawing) for prompt in prompts]
        self.assertEqual(self.text("gpt2", *prompts, *drawing), "\n".join(alone))

    def test_the_type_of_the_cache(self):
        texts = {kind: self.text("gpt2", "the cat", "--max-tokens", 4, "--cache-type", kind)
                 for kind in ("float32", "bfloat16", "float16", "int8")}
        self.assertEqual(texts["float32"], self.text("gpt2", "the cat", "--max-tokens", 4))
        self.refused("--cache-type", "gpt2", "a", "--cache-type", "int4", status=2)

    def test_products(self):
        drawing = ["gpt2", "the cat", "--max-tokens", 40, "--temperature", 2, "--seed"]
        self.assertEqual(self.text(*drawing, 1), self.text(*drawing, 1, "--products", "float32"))
        # A draw falls on another token in about one of a thousand.
        self.assertTrue(any(self.text(*drawing, seed) != self.text(*drawing, seed, "--products", "bfloat16")
                            for seed in range(200)))
        self.refused("--products", "gpt2", "a", "--products", "float16", status=2)

    def test_stop(self):
        whole = self.text("gpt2", "the cat", "--max-tokens", 40, "--temperature", 2, "--seed", 1)[:-1]
        for size in (1, 2, 5):
            stop = whole[10:10 + size]
            printed = self.text("gpt2", "the cat", "--max-tokens", 40, "--temperature", 2, "--seed", 1, "--stop", stop,
                                "--stop", "never there")
            self.assertEqual(printed[:-1], whole[:whole.index(stop)])
        self.refused("--stop", "gpt2", "a", "--stop", "", status=2)

    def test_the_end(self):
        """A token that ends texts does, by config.json or by generation_config.json, and is not shown."""
        whole = self.text("gpt2", "the cat", "--max-tokens", 8)[:-1]
        folder = self.folder / "ending"
        folder.mkdir()
        tiny_decoder.write(folder, eos_token_id=[*range(256 + len(tiny_decoder.MERGES))])
        self.assertEqual(self.text("ending", "the cat"), "\n")
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 261}))
        self.assertEqual(self.text("ending", "the cat", "--max-tokens", 8)[:-1], whole)

    def test_positions_end(self):
        self.assertTrue(self.text("gpt2", "a" * 90, "--max-tokens", 1000))
        self.refused("96 positions one must be left", "gpt2", "a" * 96)

    def test_a_terminal(self):
        """Bytes that steer a terminal do not reach it; the rate goes to standard error."""
        leader, follower = pty.openpty()
        ran = subprocess.run([COMMAND, "generate", "gpt2", "the", "--temperature", "9", "--max-tokens", "90"], cwd=self.folder,
                             stdout=follower, stderr=follower, stdin=subprocess.DEVNULL, timeout=300, check=False)
        os.close(follower)
        printed = b""
        while not printed.endswith(b"a second\r\n"):
            printed += os.read(leader, 65536)
        os.close(leader)
        self.assertEqual(ran.returncode, 0)
        self.assertNotRegex(printed, rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
        self.assertRegex(printed.decode(), r"\d+ tokens, the first after \d+\.\d\d s, then \d+\.\d tokens a second\r\n$")

    def test_refusals(self):
        self.refused("nowhere is not a folder", "nowhere", "a")
        self.refused(r"config\.json|model\.safetensors", self.folder, "a")
        self.refused("prompts", "gpt2", status=2)
        for option, value in (("--max-tokens", 0), ("--temperature", -1), ("--temperature", "hot"), ("--top-k", 0),
                              ("--top-p", 0), ("--top-p", 1.5), ("--seed", -1)):
            self.refused(re.escape(option), "gpt2", "a", option, value, status=2)
        other = self.folder / "other"
        other.mkdir()
        tiny_decoder.write(other, model_type="bert")
        self.refused("model_type is 'bert'; it must be one of gpt2, llama", "other", "a")
        tokenizer = tiny_decoder.tokenizer()
        tokenizer["normalizer"] = {"type": "NFC"}
        tiny_decoder.write(other)
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.refused("its normalizer is NFC; there must be none", "other", "a")
        (other / "tokenizer.json").unlink()
        self.refused(r"tokenizer\.json: cannot be opened", "other", "a")

    def test_examples_of_the_help(self):
        helped = cli_test.run("generate", "--help").stdout
        examples = re.findall(r"^  multihead generate (.*)$", helped, re.MULTILINE)
        self.assertEqual(len(examples), 3)
        for example in examples:
            ran = subprocess.run(f'"{COMMAND}" generate {example}', shell=True, cwd=self.folder, stdin=subprocess.DEVNULL,
                                 capture_output=True, timeout=300, check=False)
            self.assertEqual((ran.returncode, ran.stderr), (0, b""), example)


if __name__ == "__main__":
    unittest.main()
