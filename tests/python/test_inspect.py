# SPDX-License-Identifier: Apache-2.0
"""multihead.inspect with NumPy alone: statistics of weights, and the view of weights that are already there."""

import copy
import html
import pathlib
import pickle
import re
import sys
import tempfile
import unittest

import numpy as np
import page_data
import reference
import statistics_truth as truth

from multihead import StatisticsRequest, inspect

LAYERS, HEADS, LENGTH = 2, 3, 11
HOSTILE = ["</script><script>alert(1)</script>", "<!--", "\u2028", "&amp;", "\x00", '"', "'", "\\", "\ud7ff", "Ġword", "##ing"]


def attentions(dtype=np.float32, batch=(1,), q_len=LENGTH, kv_len=LENGTH):
    made = []
    for layer in range(LAYERS):
        scores = 2 * reference.draw(*batch, HEADS, q_len, kv_len, dtype=np.float64, seed=layer)
        weights = np.exp(scores)
        made.append((weights / weights.sum(-1, keepdims=True)).astype(dtype))
    return made


class StatisticsOfWeights(unittest.TestCase):
    def test_against_the_definitions(self):
        weights = np.stack([layer[0] for layer in attentions(np.float64)])
        ids = np.random.default_rng(3).integers(0, 4, (LAYERS, LENGTH))
        request = StatisticsRequest(tokens=ids, top=4, received=True, bin=16, classes={"odd": ids % 2 == 1})
        for offset in (0, 2):
            found = inspect.statistics_of_weights(weights, request, query_offset=offset)
            wanted = truth.statistics(weights, {"query_offset": offset}, tokens=(ids, ids), top=4, received=True, bin=16,
                                      masks=[ids % 2 == 1])
            self.assertEqual({name for name, _ in found.arrays()}, set(wanted))
            for name, array in found.arrays():
                with self.subTest(offset=offset, statistic=name):
                    np.testing.assert_allclose(array, wanted[name], rtol=1e-12, atol=1e-13)

    def test_a_head_that_looks_nowhere(self):
        found = inspect.statistics_of_weights(np.zeros((1, 2, 3)))
        self.assertTrue(np.isnan(found.entropy).all())
        self.assertEqual(found.top_keys.ravel().tolist(), [-1, -1])
        self.assertEqual(found.summary(0).rows, 0)

    def test_refusals(self):
        for weights, request, error, words in ((np.zeros((2, 3)), True, ValueError, "rank 2"),
                                               (np.zeros((1, 2, 3), np.int64), True, TypeError, "int64"),
                                               ([1], True, TypeError, "list"),
                                               (np.zeros((1, 2, 3)), None, ValueError, "asks for nothing")):
            with self.subTest(words=words), self.assertRaisesRegex(error, words):
                inspect.statistics_of_weights(weights, request)


class HeadView(unittest.TestCase):
    tokens = [f"t{i}" for i in range(LENGTH)]

    def test_the_page_holds_the_weights(self):
        for batch in ((1,), ()):
            for dtype in (np.float16, np.float32, np.float64):
                layers = attentions(dtype, batch)
                page = inspect.head_view(tuple(layers), self.tokens, title="A <title>").html()
                said = page_data.meta(page)
                self.assertEqual((said["layers"], said["heads"], said["q_tokens"]), (LAYERS, HEADS, self.tokens))
                for layer in range(LAYERS):
                    for head in range(HEADS):
                        wanted = layers[layer].reshape(HEADS, LENGTH, LENGTH)[head].astype(np.float64)
                        # half a step of 1/65534 of the root, and the root is at most 1
                        self.assertLess(abs(page_data.weights(page, layer, head) - wanted).max(), 1.1 / 65534)

    def test_one_array_is_one_layer(self):
        view = inspect.head_view(attentions()[0], self.tokens)
        self.assertEqual(len(view.statistics), 1)
        self.assertEqual(view.statistics[0].extents, (1, HEADS, LENGTH, LENGTH))
        self.assertIn("layers=1", repr(view))

    def test_numbers_and_pictures(self):
        layers = attentions()
        view = inspect.head_view(layers, self.tokens)
        entropy = truth.entropy(layers[1][0, 2].astype(np.float64)).mean()
        self.assertAlmostEqual(view.summary(1, 2).entropy, entropy, places=5)
        self.assertTrue(view.labels(1, 2))
        for color in (None, "256", "24bit"):
            picture = view.picture(1, 2, columns=40, color=color)
            plain = re.sub(r"\x1b\[[0-9;]*m", "", picture)
            self.assertLessEqual(max(map(len, plain.splitlines())), 40)
            self.assertEqual(plain == picture, color is None)
        with self.assertRaisesRegex(ValueError, '"256" or "24bit"'):
            view.picture(0, 0, color="red")

    def test_hostile_tokens(self):
        view = inspect.head_view(attentions(), HOSTILE, title=HOSTILE[0])
        page = view.html()
        self.assertNotIn("<script>alert", page)
        self.assertEqual(page_data.meta(page)["q_tokens"], HOSTILE)
        self.assertIn("default-src 'none'", page)
        self.assertEqual(page_data.meta(inspect.head_view(attentions(), ["\ud800x"] * LENGTH).html())["q_tokens"][0],
                         "\ufffdx")
        frame = view._repr_html_()
        source = re.fullmatch(r'<iframe title="[^"]*" sandbox="allow-scripts" style="[^"]*" srcdoc="([^"]*)"></iframe>', frame)
        self.assertEqual(html.unescape(source.group(1)), page)

    def test_hostile_tokens_in_a_terminal(self):
        harm = ["\x1b]0;title\x07", "a\nb", "\u202e", "\u2066", "\x9b2J", "\u200f", "\u2028", "\x7f", "\r", "\t", "\ud800"]
        shown = inspect.head_view(attentions(), harm).picture(0, 0)
        self.assertEqual(len(shown.split("\n")), len(inspect.head_view(attentions(), ["?" * 12] * LENGTH).picture(0, 0).split("\n")))
        for character in shown:
            self.assertTrue(character == "\n" or character.isprintable(), repr(character))

    def test_saved(self):
        view = inspect.head_view(attentions(), HOSTILE)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "heads.html"
            view.save(path)
            self.assertEqual(path.read_text(encoding="utf-8"), view.html())
        with self.assertRaises(FileNotFoundError):
            view.save(path)

    def test_keys_of_other_tokens(self):
        layers = attentions(kv_len=5)
        keys = list("abcde")
        page = inspect.head_view(layers, self.tokens, kv_tokens=keys).html()
        self.assertEqual(page_data.meta(page)["kv_tokens"], keys)
        with self.assertRaisesRegex(ValueError, "kv_tokens is missing"):
            inspect.head_view(layers, self.tokens)

    def test_norms(self):
        layers = attentions()
        norms = [abs(reference.draw(HEADS, LENGTH, seed=7)) for _ in range(LAYERS)]
        view = inspect.head_view(layers, self.tokens, norms=norms)
        weighted = layers[0][0, 1].astype(np.float64) * norms[0][1]
        weighted /= weighted.sum(-1, keepdims=True)
        for layer in range(LAYERS):
            for head in range(HEADS):
                np.testing.assert_array_equal(page_data.norms(view.html(), layer, head), norms[layer][head].astype(np.float32))
        np.testing.assert_allclose(view.statistics[0].norm_weighted.entropy[1], truth.entropy(weighted), atol=1e-5)
        with self.assertRaisesRegex(ValueError, "norms has 1 layers, attentions 2"):
            inspect.head_view(layers, self.tokens, norms=norms[:1])
        with self.assertRaisesRegex(ValueError, r"norms has \(3, 10\)"):
            inspect.head_view(layers, self.tokens, norms=[norm[:, 1:] for norm in norms])

    def test_special_tokens(self):
        special = [place in (0, LENGTH - 1) for place in range(LENGTH)]
        said = page_data.meta(inspect.head_view(attentions(), self.tokens, special=special).html())
        self.assertEqual((said["q_special"], said["kv_special"]), ([int(one) for one in special], None))
        said = page_data.meta(inspect.head_view(attentions(kv_len=5), self.tokens, kv_tokens=list("abcde"),
                                                special=(special, [1, 0, 0, 0, 0])).html())
        self.assertEqual((said["q_special"], said["kv_special"]), ([int(one) for one in special], [1, 0, 0, 0, 0]))
        self.assertIsNone(page_data.meta(inspect.head_view(attentions(), self.tokens).html())["q_special"])
        with self.assertRaisesRegex(ValueError, f"special has 1 tokens, the weights have {LENGTH}"):
            inspect.head_view(attentions(), self.tokens, special=[True])
        with self.assertRaisesRegex(ValueError, "with kv_tokens one of the queries and one of the keys"):
            inspect.head_view(attentions(kv_len=5), self.tokens, kv_tokens=list("abcde"), special=special)

    def test_long_sequences_show_maps(self):
        length = 600
        weights = np.full((1, 1, length, length), 1 / length, np.float32)
        view = inspect.head_view(weights, ["x"] * length)
        said = page_data.meta(view.html())
        self.assertEqual((said["full"], said["bin"], said["map"]), (False, 16, [38, 38]))
        self.assertTrue(view.picture(0, 0))
        short = inspect.head_view(weights, ["x"] * length, request=StatisticsRequest())
        with self.assertRaisesRegex(ValueError, "bin=16"):
            short.html()

    def test_refusals(self):
        one = attentions()[0]
        for given, tokens, error, words in (
                ([], self.tokens, ValueError, "no layers"),
                ([one, one[:, 1:]], self.tokens, ValueError, "layer 1 has"),
                (np.concatenate([one, one]), self.tokens, ValueError, r"shape \(2, 3, 11, 11\)"),
                ([None], self.tokens, TypeError, "NoneType"),
                ([memoryview(b"a")], self.tokens, TypeError, "memoryview"),
                (one, self.tokens[1:], ValueError, "tokens has 10 tokens"),
                (one, "a" * LENGTH, TypeError, "a list of str"),
                (one, None, TypeError, "tokens has type NoneType"),
                (one, [1] * LENGTH, TypeError, r"tokens has int in it.*convert_ids_to_tokens"),
                (None, self.tokens, TypeError, "output_attentions=True"),
                ((None, None), self.tokens, TypeError, "output_attentions=True"),
                (((one, one), (one, one)), self.tokens, TypeError, r"tuple as layer 0.*attentions\[0\]"),
                (one.astype(np.int64), self.tokens, TypeError, "int64"),
                (one * 2, self.tokens, ValueError, "at most 1")):
            with self.subTest(words=words), self.assertRaisesRegex(error, words):
                inspect.head_view(given, tokens).html()


class Weights(unittest.TestCase):
    tokens = [f"t{i}" for i in range(LENGTH)]

    def test_what_is_no_weights_is_named(self):
        layers = attentions()
        layers[1][0, 2, 4, 7] = -0.25
        with self.assertRaisesRegex(ValueError, "-0.25 in layer 1, head 2, row 4, key 7; weights are at least 0"):
            inspect.head_view(layers, self.tokens)
        layers = attentions()
        layers[1][0, 1, 3] *= 1.5
        with self.assertRaisesRegex(ValueError, "layer 1, head 1, row 3 sum to 1.5"):
            inspect.head_view(layers, self.tokens)
        layers = attentions()
        layers[0][0, 1, 3, 2] = np.nan
        with self.assertRaisesRegex(ValueError, "nan in layer 0, head 1, row 3, key 2; a row is NaN as a whole"):
            inspect.head_view(layers, self.tokens)
        with self.assertRaisesRegex(ValueError, "layer 1 is NaN everywhere"):
            inspect.head_view([attentions()[0], np.full((1, HEADS, LENGTH, LENGTH), np.nan)], self.tokens)

    def test_rows_of_nan_see_no_key(self):
        layers = attentions()
        layers[0][0, :, 2] = np.nan
        given = layers[0].copy()
        view = inspect.head_view(layers, self.tokens)
        np.testing.assert_array_equal(layers[0], given)
        self.assertEqual((view.summary(0, 1).rows, view.statistics[0].visible[1, 2]), (LENGTH - 1, 0))
        self.assertEqual(page_data.weights(view.html(), 0, 1)[2].tolist(), [0] * LENGTH)

    def test_rounding_is_allowed(self):
        for dtype, over in ((np.float32, 5e-4), (np.float16, 5e-3)):
            inspect.head_view([(layer * (1 + over)).astype(dtype) for layer in attentions()], self.tokens)
            with self.assertRaises(ValueError):
                inspect.head_view([(layer * (1 + 4 * over)).astype(dtype) for layer in attentions()], self.tokens)

    def test_norms_are_lengths(self):
        for value in (-1.0, np.nan, np.inf):
            norms = [np.ones((HEADS, LENGTH)) for _ in range(LAYERS)]
            norms[1][2, 5] = value
            with self.assertRaisesRegex(ValueError, f"norms has {value:g} in layer 1, head 2, key 5"):
                inspect.head_view(attentions(), self.tokens, norms=norms)

    def test_heads_that_are_none(self):
        view = inspect.head_view(attentions(), self.tokens)
        for call, words in ((lambda: view.picture(0, 9), "picture: head is 9; 0 to 2"), (lambda: view.summary(2, 0), "summary: layer is 2"),
                            (lambda: view.labels(-1, 0), "labels: layer is -1; 0 to 1")):
            with self.assertRaisesRegex(ValueError, words):
                call()

    def test_statistics_travel(self):
        found = inspect.statistics_of_weights(attentions()[0])
        summary = repr(found.summary(1))  # which has NaN
        for other in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
            self.assertEqual((repr(other.summary(1)), other.labels(1)), (summary, found.labels(1)))


class Imports(unittest.TestCase):
    def test_no_framework(self):
        import subprocess

        code = "import sys, multihead.inspect; assert not {'numpy', 'torch', 'transformers'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    unittest.main()
