# SPDX-License-Identifier: Apache-2.0
"""multihead.inspect.record() on small models of Transformers: eager's attentions in numbers, and the same bits as without."""

import copy
import pickle
import unittest

import numpy as np
import page_data
import statistics_truth as truth
import torch
import transformers
import transformers_models as models
from transformers_models import inputs_of, padding, pair

from multihead import StatisticsRequest, inspect

LIMIT = 5e-5  # of numbers of rows; weights of these sharpened models differ from eager's by a little less
SEPARATORS = [5, 6]


def in_order(name, output):
    """Eager's attentions in the order in which a model's modules run."""
    kinds = models.attentions_of(output)
    if name != "t5":
        return list(kinds["attentions"])
    pairs = zip(kinds["decoder_attentions"], kinds["cross_attentions"], strict=True)
    return [*kinds["encoder_attentions"], *(weights for both in pairs for weights in both)]


def counting(layer):
    """(batch, 1, q_len): the rows that count."""
    batch, _, q_len, _ = layer.extents
    return np.ones((batch, 1, q_len), bool) if layer.rows is None else np.array(layer.rows, bool).reshape(batch, 1, q_len)


def wanted_of(layer, weights, mask):
    """What the statistics of a recorded layer should be, from eager's weights; mask: of padding, of a causal model."""
    batch, _, _, kv_len = layer.extents
    ids = None if layer.duplicate_mass is None else (layer.ids.numpy(),) * 2
    masks = [np.isin(layer.ids.numpy(), SEPARATORS)] if layer.classes else []
    wanted = truth.statistics(weights, {"query_offset": layer.query_offset or 0}, tokens=ids, masks=masks, keys=())
    if layer.kind == "cross":
        del wanted["offset_mass"]
    padded = mask is not None and mask.shape[1] == kv_len
    first = mask.numpy().argmax(1) if padded else np.zeros(batch, int)
    wanted["key_mass"] = np.take_along_axis(weights, np.broadcast_to(first[:, None, None, None], (*weights.shape[:3], 1)), -1)
    return wanted


class Recorded(models.WithoutGradients):
    def same_numbers(self, layer, eagers, mask):
        weights = eagers.double().numpy()
        rows = np.broadcast_to(counting(layer), weights.shape[:3])
        wanted = wanted_of(layer, weights, mask)
        self.assertEqual({name for name, _ in layer.arrays()}, set(wanted))
        for statistic, array in layer.arrays():
            with self.subTest(statistic=statistic):
                got, want = array.double().numpy()[rows], wanted[statistic].astype(np.float64)[rows]
                if statistic == "top_keys":  # another key only where two weigh nearly the same
                    other = (got != want).ravel()
                    two = np.sort(weights[rows], -1)[:, -2:]
                    self.assertLess(np.diff(two)[other].max(initial=0), LIMIT)
                elif statistic == "visible":  # eager's smallest weights may round to 0
                    self.assertTrue((got >= want).all())
                else:
                    self.assertLess(abs(got - want).max(), LIMIT * (10 if statistic == "distance" else 1))

    def test_equals_eager_and_changes_nothing(self):
        for name in models.MODELS:
            for side in ("none", "left", "right"):
                with self.subTest(model=name, padding=side):
                    eager, ours = pair(name)
                    mask = padding(side)
                    inputs = inputs_of(name, mask)
                    plain = ours(**inputs)
                    with inspect.record(ours, token_classes={"separator": SEPARATORS}) as seen:
                        beside = ours(**inputs)
                    for key, value in plain.items():
                        if isinstance(value, torch.Tensor):
                            self.assertTrue(torch.equal(value, beside[key]), key)
                    attentions = in_order(name, eager(**inputs, output_attentions=True))
                    self.assertEqual(len(seen.layers), models.layers_of(name))
                    self.assertEqual([layer.layer for layer in seen.layers], list(range(len(attentions))))
                    for layer, weights in zip(seen.layers, attentions, strict=True):
                        self.same_numbers(layer, weights, mask)

    def test_padding_counts_in_no_summary(self):
        _, ours = pair("bert")
        with inspect.record(ours) as padded:
            ours(**inputs_of("bert", padding("right")))
        ids = inputs_of("bert")["input_ids"]
        with inspect.record(ours) as alone:
            ours(ids[:1, :-4])
        with inspect.record(ours) as whole:
            ours(ids[1:])
        for layer, (short, long) in enumerate(zip(alone.layers, whole.layers, strict=True)):
            for head in range(4):
                parts = short.summary(head), long.summary(head)
                mean = (parts[0].entropy * 10 + parts[1].entropy * 14) / 24
                self.assertEqual(padded.layers[layer].summary(head).rows, 24)
                self.assertAlmostEqual(padded.layers[layer].summary(head).entropy, mean, places=5)

    def test_sums_over_rows_are_over_those_that_count(self):
        for name in ("bert", "llama"):
            for side in ("none", "left", "right"):
                with self.subTest(model=name, padding=side):
                    eager, ours = pair(name)
                    inputs = inputs_of(name, padding(side))
                    attentions = eager(**inputs, output_attentions=True).attentions
                    plain = ours(**inputs).logits
                    with inspect.record(ours, request=StatisticsRequest(received=True, bin=16)) as seen:
                        self.assertTrue(torch.equal(ours(**inputs).logits, plain))
                    for layer, weights in zip(seen.layers, attentions, strict=True):
                        counted = weights.double().numpy() * counting(layer)[..., None]
                        self.assertLess(abs(layer.received.numpy() - counted.sum(2)).max(), 10 * LIMIT)
                        self.assertLess(abs(layer.map.numpy()[..., 0, 0] - counted.sum((2, 3)) / 14).max(), LIMIT)
                        self.assertEqual((layer.bin, layer.top_keys.shape[-1]), (16, 1))

    def test_sums_over_rows_of_generate(self):
        _, ours = pair("llama")
        request = StatisticsRequest(received=True, bin=16)
        with inspect.record(ours, request=request, weights=True) as seen:
            ours.generate(models.tokens(), attention_mask=padding("left"), max_new_tokens=3, do_sample=False, pad_token_id=0,
                          eos_token_id=None)
        for layer in seen.layers:
            counted = layer.weights.numpy() * counting(layer)[..., None]
            self.assertLess(abs(layer.received.numpy() - counted.sum(2)).max(), LIMIT)

    def test_the_first_key_is_of_the_sequence(self):
        _, ours = pair("bert")
        request = StatisticsRequest(keys=(0, 2), classes={"even": range(0, 14, 2)})
        with inspect.record(ours, request=request) as seen:
            ours(**inputs_of("bert", padding("left")))
        with inspect.record(ours, request=request, weights=True) as alone:
            ours(inputs_of("bert")["input_ids"], attention_mask=padding("left").bool()[:, None, None])
        layer, weights = seen.layers[0], alone.layers[0].weights
        self.assertEqual((layer.keys, layer.classes), ((0, 2), ("even",)))
        for entry, first in enumerate((4, 0)):
            self.assertLess((layer.key_mass[entry] - weights[entry][..., [first, first + 2]]).abs().max(), LIMIT)
        self.assertLess((layer.class_mass[..., 0] - weights[..., ::2].sum(-1)).abs().max(), LIMIT)
        self.assertTrue(layer.labels(0))

    def test_cross_attention_has_no_offsets(self):
        _, ours = pair("t5")
        with inspect.record(ours) as seen:
            ours(**inputs_of("t5"))
        for layer in seen.select(kind="cross"):
            self.assertIsNone(layer.offset_mass)
            self.assertEqual((layer.summary(0).offset_mass, layer.summary(0).top_offset), ({}, None))
            for head in range(4):
                names = {label.name for label in layer.labels(head)}
                self.assertFalse(names & {"previous", "next", "self", "local", "positional"})

    def test_kinds_and_names(self):
        _, ours = pair("t5")
        with inspect.record(ours, token_classes={"separator": SEPARATORS}) as seen:
            ours(**inputs_of("t5"))
        self.assertEqual([layer.kind for layer in seen.layers], ["self"] * 2 + ["self", "cross"] * 2)
        self.assertEqual(len(seen.select(modules="EncDecAttention")), 2)
        # the ids are those that each part reads; there are none for other tokens' keys
        self.assertEqual([layer.ids.shape[1] for layer in seen.layers], [14, 14, 9, 9, 9, 9])
        self.assertEqual([layer.induction_mass is None for layer in seen.layers], [False] * 3 + [True, False, True])
        self.assertIn("EncDecAttention", repr(seen.layers[3]))

    def test_layers_that_share_a_module(self):
        configuration = transformers.AlbertConfig(hidden_size=64, embedding_size=32, num_hidden_layers=3, intermediate_size=96,
                                                  num_attention_heads=4, vocab_size=models.VOCABULARY)
        model = transformers.AlbertModel._from_config(configuration, attn_implementation="multihead").eval()
        with inspect.record(model) as seen:
            model(models.tokens())
            model(models.tokens())
        self.assertEqual([(layer.step, layer.layer) for layer in seen.layers],
                         [(step, layer) for step in range(2) for layer in range(3)])

    def test_output_attentions_beside(self):
        _, ours = pair("llama")
        plain = ours(**inputs_of("llama"), output_attentions=True)
        for keeps in (False, True):
            with inspect.record(ours, weights=keeps) as seen:
                beside = ours(**inputs_of("llama"), output_attentions=True)
            for one, other, layer in zip(plain.attentions, beside.attentions, seen.layers, strict=True):
                self.assertTrue(torch.equal(one, other))
                self.assertEqual(layer.weights is not None and torch.equal(layer.weights, one), keeps)

    def test_lower_precisions(self):
        for dtype in (torch.bfloat16, torch.float16):
            with self.subTest(dtype=dtype):
                single, (_, ours) = pair("llama")[1], pair("llama", dtype)
                plain = ours(**inputs_of("llama")).logits
                with inspect.record(ours) as low:
                    self.assertTrue(torch.equal(ours(**inputs_of("llama")).logits, plain))
                with inspect.record(single) as high:
                    single(**inputs_of("llama"))
                self.assertEqual(low.layers[0].entropy.dtype, torch.float32)
                found = high.compare(low)
                self.assertEqual({(row.layer, row.head) for row in found}, {(a, b) for a in range(2) for b in range(4)})
                entropies = [row for row in found if row.statistic == "entropy"]
                self.assertTrue(all(0 < row.mean <= row.largest < 1 for row in entropies))
                first = high.layers[0].entropy.double()[:, 1], low.layers[0].entropy.double()[:, 1]
                self.assertAlmostEqual(entropies[1].mean, (first[0] - first[1]).abs().mean().item(), places=12)
                self.assertAlmostEqual(entropies[1].first, first[0].mean().item(), places=12)
                self.assertTrue(all(row.largest == 0 for row in high.compare(high)))


class Passes(models.WithoutGradients):
    NEW = 4

    def generated(self, model, name, side="none", **options):
        return model.generate(models.tokens(), attention_mask=padding(side), max_new_tokens=self.NEW, do_sample=False,
                              pad_token_id=0, eos_token_id=None, **options)

    def test_steps_of_generate(self):
        for name in ("gpt2", "llama", "mistral"):
            for side in ("none", "left"):
                with self.subTest(model=name, padding=side):
                    eager, ours = pair(name)
                    wanted = self.generated(eager, name, side, return_dict_in_generate=True, output_attentions=True)
                    with inspect.record(ours) as seen:
                        got = self.generated(ours, name, side)
                    self.assertEqual(got.tolist(), wanted.sequences.tolist())
                    self.assertEqual(len(seen.steps), self.NEW)
                    for step, attentions in zip(seen.steps, wanted.attentions, strict=True):
                        for layer, weights in zip(step, attentions, strict=True):
                            weights = weights.double().numpy()
                            rows = np.broadcast_to(counting(layer), weights.shape[:3])
                            self.assertLess(abs(layer.entropy.double().numpy() - truth.entropy(weights))[rows].max(), LIMIT)
                            own = weights[..., np.arange(weights.shape[2]), np.arange(weights.shape[2]) + layer.query_offset]
                            self.assertLess(abs(layer.offset_mass[..., 1].double().numpy() - own)[rows].max(), LIMIT)
                    # what follows the first pass reads one token, without the ids of those before it
                    self.assertTrue(all(layer.induction_mass is None for step in seen.steps[1:] for layer in step))

    def test_other_ways_to_generate(self):
        for name, options in (("llama", {"cache_implementation": "static"}), ("gpt_oss", {"cache_implementation": "static"}),
                              ("llama", {"num_beams": 2}), ("mistral", {"use_cache": False}), ("t5", {})):
            with self.subTest(model=name, **options):
                _, ours = pair(name)
                plain = self.generated(ours, name, "left", **options)
                with inspect.record(ours) as seen:
                    beside = self.generated(ours, name, "left", **options)
                    self.generated(ours, name, "left", **options)
                self.assertEqual(plain.tolist(), beside.tolist())
                self.assertEqual(len(seen.steps), 2 * self.NEW)
                self.assertEqual(len({len(step) for step in seen.steps[1:self.NEW]}), 1)
                self.assertEqual(len(seen.steps[0]), len(seen.steps[self.NEW]))
                self.assertTrue(all(layer.summary(0).rows > 0 for layer in seen.layers))


class Results(models.WithoutGradients):
    def setUp(self):
        super().setUp()
        self.eager, self.ours = pair("llama")
        self.ids = models.tokens(batch=1)
        self.texts = [f"<{number}>" for number in self.ids[0].tolist()]

    def recorded(self, **named):
        with inspect.record(self.ours, self.texts, **named) as seen:
            self.ours(self.ids)
        return seen

    def test_a_page_of_weights(self):
        page = self.recorded(weights=True).view(title="small").html()
        attentions = self.eager(self.ids, output_attentions=True).attentions
        for layer in range(2):
            for head in range(4):
                wanted = attentions[layer][0, head].double().numpy()
                self.assertLess(abs(page_data.weights(page, layer, head) - wanted).max(), LIMIT + 2 / 65534)

    def test_tensors_of_any_type(self):
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            with torch.enable_grad():
                attentions = tuple(weights.to(dtype).requires_grad_()
                                   for weights in self.eager(self.ids, output_attentions=True).attentions)
                view = inspect.head_view(attentions, self.texts)
            got = page_data.weights(view.html(), 1, 2)
            self.assertLess(abs(got - attentions[1][0, 2].detach().double().numpy()).max(), 1.1 / 65534)
            self.assertEqual(view.statistics[0].entropy.shape, (4, 14))

    def test_without_weights_or_maps(self):
        seen = self.recorded()
        with self.assertRaisesRegex(ValueError, r"record\(model, weights=True\)"):
            seen.view()
        seen.tokens = None
        with self.assertRaisesRegex(ValueError, "tokens is missing"):
            seen.view()

    def test_one_of_a_batch(self):
        with inspect.record(self.ours, weights=True) as seen:
            self.ours(models.tokens())
        with self.assertRaisesRegex(ValueError, "sequence is missing, the batch has 2"):
            seen.view(self.texts)
        with self.assertRaisesRegex(ValueError, "0 to 1"):
            seen.view(self.texts, sequence=2)
        view = seen.view(self.texts, sequence=1)
        for head in range(4):
            self.assertLess(abs(page_data.weights(view.html(), 1, head) - seen.layers[1].weights[1, head].numpy()).max(), 2 / 65534)
            self.assertAlmostEqual(view.summary(1, head).entropy, seen.layers[1].entropy[1, head].double().mean().item(), places=6)

    def test_kinds_of_layers(self):
        _, ours = pair("t5")
        with inspect.record(ours, weights=True) as seen:
            ours(**inputs_of("t5"))
        texts, keys = ["x"] * 9, ["y"] * 14
        with self.assertRaisesRegex(ValueError, "layer 1 has"):
            seen.view(texts, modules="decoder", sequence=0)
        cross = seen.view(texts, kv_tokens=keys, kind="cross", sequence=0)
        self.assertEqual(len(cross.statistics), 2)
        self.assertIn("y", cross.html())

    def test_a_page_of_maps(self):
        request = StatisticsRequest(tokens=True, bin=16, top=4, received=True)
        view = self.recorded(request=request).view()
        self.assertEqual(page_data.meta(view.html())["full"], False)
        self.assertTrue(view.picture(1, 3, columns=30))

    def test_recordings_travel(self):
        seen = self.recorded()
        summary = seen.layers[1].summary(2)
        self.assertEqual(pickle.loads(pickle.dumps(copy.deepcopy(seen))).layers[1].summary(2), summary)
        with self.assertRaisesRegex(TypeError, "other has type str"):
            seen.compare("x")

    def test_recordings_of_other_models(self):
        with inspect.record(pair("gpt2")[1]) as other:
            pair("gpt2")[1](self.ids)
        with self.assertRaisesRegex(ValueError, "of one model"):
            self.recorded().compare(other)


if __name__ == "__main__":
    unittest.main()
