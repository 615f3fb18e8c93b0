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

import numpy as np
import page_data
import statistics_truth as truth
import torch
import transformers
import transformers_models as models
from transformers_models import kernel

from multihead import Encoder, StatisticsRequest, inspect
from multihead.transformers import _attention

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODEL = pathlib.Path(os.environ.get("MULTIHEAD_MODEL") or CACHE / "multihead" / "all-MiniLM-L6-v2")
PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "transformers.md").read_text(encoding="utf-8")
SENTENCES = ["A man is eating food.", "Someone eats a meal.", "The weather in the mountains turns cold early.",
             "Ein kurzer Satz."]
MORE = ["The keys that the man lost were found by his neighbour.", "Nobody said that it would be easy, and it was not.",
        "She gave her sister the book that her brother had written.", "He saw the saw and sawed the saw with it.",
        "Rain, rain, go away; come again another day.", "Why?"]


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


class Heads(models.WithoutGradients):
    """All 72 heads on ten sentences against PyTorch's eager attention."""

    @classmethod
    def setUpClass(cls):
        cls.tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
        cls.eager = transformers.AutoModel.from_pretrained(MODEL, attn_implementation="eager").eval()
        cls.inputs = cls.tokenizer(SENTENCES + MORE, padding=True, return_tensors="pt")
        cls.lengths = cls.inputs["attention_mask"].sum(1).tolist()
        cls.ids = [ids[:length].tolist() for ids, length in zip(cls.inputs["input_ids"], cls.lengths, strict=True)]
        with torch.no_grad():
            output = cls.eager(**cls.inputs, output_attentions=True, output_hidden_states=True)
        cls.attentions = [weights.double().numpy() for weights in output.attentions]
        cls.hidden = [states.double().numpy() for states in output.hidden_states]

    def same(self, found, wanted, rows):
        """Numbers of rows, (.., q_len) and more; rows: which count. 1e-5: float32's, of weights that differ by 2e-6."""
        for name, array in found.items():
            with self.subTest(statistic=name):
                array, want = np.asarray(array)[rows].astype(np.float64), wanted[name][rows]
                if name == "top_keys":
                    self.assertGreater((array[..., 0] == want[..., 0]).mean(), 0.999)
                elif name != "visible":
                    self.assertLess(abs(array - want).max(), 1e-5 * (10 if name == "distance" else 1))

    def test_recorded(self):
        ids = self.inputs["input_ids"].numpy()
        separators = [self.tokenizer.cls_token_id, self.tokenizer.sep_token_id]
        with inspect.record(self.eager, request=StatisticsRequest(offsets=(-2, -1, 0, 1, 2), tokens=True, top=3),
                            token_classes={"separator": separators}) as seen:
            self.eager(**self.inputs)
        self.assertEqual((len(seen.layers), seen.layers[0].heads), (6, 12))
        for layer, weights in zip(seen.layers, self.attentions, strict=True):
            wanted = truth.statistics(weights, {}, offsets=(-2, -1, 0, 1, 2), tokens=(ids, ids), top=3,
                                      masks=[np.isin(ids, separators)])
            rows = np.broadcast_to(self.inputs["attention_mask"].numpy()[:, None] != 0, weights.shape[:3])
            self.same(dict(layer.arrays()), wanted, rows)
            for head in range(12):
                summary, counted = layer.summary(head), rows[:, head]
                self.assertEqual(summary.rows, sum(self.lengths))
                self.assertAlmostEqual(summary.entropy, wanted["entropy"][:, head][counted].mean(), delta=1e-5)
                self.assertAlmostEqual(summary.largest, wanted["top_weights"][:, head][counted][:, 0].mean(), delta=1e-5)
                for place, offset in enumerate((-2, -1, 0, 1, 2)):
                    self.assertAlmostEqual(summary.offset_mass[offset],
                                           wanted["offset_mass"][:, head][counted][:, place].mean(), delta=1e-5)
                self.assertAlmostEqual(summary.class_mass["separator"], wanted["class_mass"][:, head][counted].mean(),
                                       delta=1e-5)
                self.assertTrue(layer.labels(head))

    def test_the_encoder(self):
        """The same from ids, packed; and times the norms of value vectors after the output weight (Kobayashi et al. 2020)."""
        starts = np.cumsum([0, *self.lengths])
        request = StatisticsRequest(tokens=True, top=3, norm_weighted=True)
        _, layers = Encoder(MODEL)(sum(self.ids, []), starts, return_statistics=request)
        for place, (layer, weights) in enumerate(zip(layers, self.attentions, strict=True)):
            attention = self.eager.encoder.layer[place].attention
            value = attention.self.value
            x = self.hidden[place] @ value.weight.double().numpy().T + value.bias.double().numpy()
            out = attention.output.dense.weight.double().numpy().T.reshape(12, 32, 384)
            norms = np.linalg.norm(np.einsum("bjhd,hdm->bhjm", x.reshape(*x.shape[:2], 12, 32), out), axis=-1)
            for sentence, (begin, end) in enumerate(zip(starts, starts[1:])):
                length = end - begin
                ids = np.array([self.ids[sentence]])
                dense = weights[sentence:sentence + 1, :, :length, :length]
                weighted = dense * norms[sentence, :, None, :length]
                for found, one in ((layer, dense), (layer.norm_weighted, weighted / weighted.sum(-1, keepdims=True))):
                    wanted = truth.statistics(one, {}, tokens=(ids, ids), top=3)
                    mine = {name: np.asarray(array)[None, :, begin:end] for name, array in found.arrays()}
                    mine["top_keys"] = mine["top_keys"] - begin
                    self.same(mine, wanted, np.ones(dense.shape[:3], bool))

    def test_the_page(self):
        inputs = self.tokenizer(MORE[0], return_tensors="pt")
        tokens = self.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
        attentions = self.eager(**inputs, output_attentions=True).attentions
        page = inspect.head_view(attentions, tokens).html()
        self.assertEqual(page_data.meta(page)["q_tokens"], tokens)
        for layer in range(6):
            for head in range(12):
                difference = page_data.weights(page, layer, head) - attentions[layer][0, head].double().numpy()
                self.assertLess(abs(difference).max(), 1.1 / 65534)


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
