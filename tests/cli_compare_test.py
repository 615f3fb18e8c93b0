# SPDX-License-Identifier: Apache-2.0
"""compare: two runs of a model whose heads look at fixed offsets, by formula."""

import json
import math
import os
import unittest

import cli_relations_test
import tiny_encoder
from cli_relations_test import OFFSETS, positional, weights


class Compare(cli_relations_test.Positional):
    TEXT = "The cat sat on the mat."

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.swapped = cls.folder / "swapped"
        cls.swapped.mkdir()
        swap = {(layer, head): OFFSETS[layer, 1 - head] for layer, head in OFFSETS}
        tiny_encoder.write(cls.swapped, lambda name, shape: positional(name, shape, swap))

    def compare(self, *arguments):
        found = json.loads(self.succeed("compare", self.TEXT, *arguments, "--json", "-"))
        self.assertEqual(len(found["heads"]), 4)
        variations = [head["variation_mean"] for head in found["heads"]]
        self.assertEqual(variations, sorted(variations, reverse=True))
        return found, {(head["layer"], head["head"]): head for head in found["heads"]}

    def test_two_models_by_formula(self):
        _, by = self.compare("--other", self.swapped)
        for (layer, head), offset in OFFSETS.items():
            a, b = weights(9, offset), weights(9, OFFSETS[layer, 1 - head])
            entropy = [abs(sum(p * math.log(p) for p in x) - sum(p * math.log(p) for p in y)) for x, y in zip(a, b)]
            largest = [abs(max(x) - max(y)) for x, y in zip(a, b)]
            variation = [sum(abs(p - q) for p, q in zip(x, y)) / 2 for x, y in zip(a, b)]
            for name, values in (("entropy", entropy), ("largest", largest), ("variation", variation)):
                self.assertAlmostEqual(by[layer, head][name + "_mean"], math.fsum(values) / 9, delta=2e-5)
                self.assertAlmostEqual(by[layer, head][name + "_most"], max(values), delta=5e-5)
            self.assertGreater(max(variation), 0.2)
            self.assertEqual(by[layer, head]["same_top"],
                             sum(x.index(max(x)) == y.index(max(y)) for x, y in zip(a, b)) / 9)

    def test_texts_and_targets_of_the_same_weights(self):
        other = "A dog sat on a mat!"
        for arguments in (["--other-text", other], ["--other", self.model], ["--target", "baseline", "--other-target", "baseline"]):
            found, by = self.compare(*arguments)
            self.assertEqual((found["vector"], found["hidden"]), (0, 0))
            for head in by.values():
                self.assertEqual({value for key, value in head.items() if key not in ("layer", "head", "same_top")}, {0})
                self.assertEqual(head["same_top"], 1)

    def test_precisions(self):
        tiny_encoder.write(self.folder / "model", positional)
        far, _ = self.compare("--precision", "bfloat16")
        near, _ = self.compare("--precision", "float16")
        self.assertIn(", bfloat16, ", far["b"])
        for of, low, high in ((far, 1e-4, 0.2), (near, 1e-6, 0.02)):
            self.assertTrue(low < of["heads"][0]["variation_mean"] < high, of["heads"][0])
        self.assertLess(near["hidden"], far["hidden"])
        products, _ = self.compare("--products", "bfloat16")
        both, _ = self.compare("--products", "bfloat16", "--precision", "bfloat16")
        self.assertIn(", float32, products bfloat16, ", products["b"])
        self.assertNotIn("products", products["a"])
        self.assertTrue(1e-4 < products["heads"][0]["variation_mean"] < 0.2, products["heads"][0])
        self.assertNotEqual(both["hidden"], products["hidden"])

    def test_what_is_no_number_is_not_0(self):
        (broken := self.folder / "broken").mkdir()
        tiny_encoder.write(broken, lambda name, shape: [math.nan if name == "encoder.layer.1.output.LayerNorm.bias" else value
                                                        for value in positional(name, shape)])
        self.assertIn("sentence vectors: 1 - cosine NaN; last hidden states: change NaN of their length",
                      self.succeed("compare", self.TEXT, "--other", broken))
        found, _ = self.compare("--other", broken)
        self.assertEqual((found["vector"], found["hidden"]), (None, None))
        self.refused("ablate: the model's output is not finite; there is nothing to compare", "ablate", "a", "--model", broken)

    def test_table(self):
        printed = self.succeed("compare", self.TEXT, "--other", self.swapped, "--top", "3")
        found, _ = self.compare("--other", self.swapped)
        rows = [line.split() for line in printed[printed.index("\nhead "):].splitlines()[2:]]
        keys = ("entropy_mean", "entropy_most", "largest_mean", "largest_most", "variation_mean", "variation_most")
        self.assertEqual(rows, [[f"{head['layer']}.{head['head']}", *(f"{head[key]:.2e}" for key in keys),
                                 f"{100 * head['same_top']:.1f}", "%"] for head in found["heads"][:3]])
        self.assertTrue(printed.startswith("a  model, float32, "))

    def test_refused(self):
        self.refused("nothing tells the second run apart", "compare", self.TEXT)
        self.refused("multihead: --other: /nowhere is not a folder", "compare", self.TEXT, "--other", "/nowhere")
        self.refused("the first run has 9 tokens, the second 4; they must be equal", "compare", self.TEXT, "--other-text", "A cat")
        elsewhere = "neon" if os.uname().machine == "x86_64" else "avx512"
        self.refused(f"{elsewhere} cannot run on this machine", "compare", "a", "--other-target", elsewhere)
        for arguments in ([], ["a", "b"], ["a", "--precision", "float64"], ["a", "--products", "float32"], ["a", "--other-target", "x"]):
            self.assertEqual(self.run_command("compare", *arguments).returncode, 2, arguments)


if __name__ == "__main__":
    unittest.main()
