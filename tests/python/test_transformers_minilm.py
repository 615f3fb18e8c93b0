# SPDX-License-Identifier: Apache-2.0
"""all-MiniLM-L6-v2 with its weights against eager, and docs/transformers.md, whose program runs on it.

MULTIHEAD_MODEL names its folder; otherwise it is where .ci/fetch-model leaves it.
"""

import contextlib
import io
import os
import pathlib
import re
import tempfile
import unittest

import torch
import transformers
import transformers_models as models
from transformers_models import kernel

from multihead.transformers import _attention

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODEL = pathlib.Path(os.environ.get("MULTIHEAD_MODEL") or CACHE / "multihead" / "all-MiniLM-L6-v2")
PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "transformers.md").read_text(encoding="utf-8")
SENTENCES = ["A man is eating food.", "Someone eats a meal.", "The weather in the mountains turns cold early.",
             "Ein kurzer Satz."]


class MiniLM(models.WithoutGradients):
    def setUp(self):
        super().setUp()
        self.eager, self.ours = [transformers.AutoModel.from_pretrained(MODEL, attn_implementation=name).eval()
                                 for name in ("eager", "multihead")]
        tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
        self.inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")

    def test_hidden_states_and_attentions(self):
        wanted = self.eager(**self.inputs, output_attentions=True, output_hidden_states=True)
        with kernel() as ran:
            got = self.ours(**self.inputs, output_attentions=True, output_hidden_states=True)
        self.assertEqual(len(ran.tasks), 6)
        self.assertGreater(min(ran.tasks), 0)
        self.assertTrue(all("lengths" in options for options in ran.options))
        real = self.inputs["attention_mask"].bool()
        for states, eagers in zip(got.hidden_states, wanted.hidden_states, strict=True):
            self.assertLess((states - eagers)[real].abs().max(), 2e-5)
        for weights, eagers in zip(got.attentions, wanted.attentions, strict=True):
            self.assertLess((weights - eagers).abs().amax((1, 3))[real].max(), 2e-5)

    def test_sentences(self):
        def vectors(model):
            mask = self.inputs["attention_mask"][:, :, None]
            mean = (model(**self.inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(mean)

        ours, eager = vectors(self.ours), vectors(self.eager)
        self.assertLess((ours - eager).abs().max(), 1e-5)
        alike = ours @ ours.T
        self.assertGreater(alike[0, 1], alike[0, 2] + 0.3)


class Page(unittest.TestCase):
    def test_program(self):
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
        here, names, count = os.getcwd(), {}, 0
        self.addCleanup(os.chdir, here)
        with tempfile.TemporaryDirectory() as place:
            (pathlib.Path(place) / "sentence-transformers").mkdir()
            (pathlib.Path(place) / "sentence-transformers" / "all-MiniLM-L6-v2").symlink_to(MODEL)
            os.chdir(place)
            for (language, source), (next_language, shown) in zip(blocks, [*blocks[1:], ("", "")]):
                if language != "python":
                    continue
                count += 1
                printed = io.StringIO()
                with self.subTest(block=count), contextlib.redirect_stdout(printed):
                    exec(compile(source, f"block {count}", "exec"), names)  # noqa: S102
                self.assertEqual(printed.getvalue(), shown if next_language == "text" else "", source)
            os.chdir(here)
        self.assertGreater(count, 4)

    def test_arguments_without_effect_are_all_named(self):
        for name in _attention.HARMLESS | _attention.PACKING:
            self.assertIn(f"`{name}`", PAGE)


if __name__ == "__main__":
    unittest.main()
