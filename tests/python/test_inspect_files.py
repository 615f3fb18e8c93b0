# SPDX-License-Identifier: Apache-2.0
"""Files of multihead.inspect with NumPy alone: the names that the command gives numbers, and files that failure leaves as they were."""

import csv
import json
import os
import pathlib
import re
import tempfile
import unittest

import numpy as np
import reference

from multihead import StatisticsRequest, inspect

LAYERS, HEADS, LENGTH = 2, 3, 6
TOKENS = ["[CLS]", "a,b", '"', "\u00e9", "##x", "[SEP]"]
CLASSES = {"special": [0, LENGTH - 1], "separator": [LENGTH - 1]}
FORMATS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "formats.md"


def weights(seed):
    made = np.exp(2 * reference.draw(HEADS, LENGTH, LENGTH, dtype=np.float64, seed=seed))
    made[1, 0] = 0  # a row that sees no key
    return (made / np.maximum(made.sum(-1, keepdims=True), 1e-300)).astype(np.float32)


def view():
    request = StatisticsRequest(top=2, received=True, classes=CLASSES, tokens=[[0, 1, 2, 1, 2, 3]])
    norms = [abs(reference.draw(HEADS, LENGTH, seed=9)) for _ in range(LAYERS)]
    return inspect.head_view([weights(layer) for layer in range(LAYERS)], TOKENS, request=request, norms=norms)


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.view = view()

    def saved(self, ending):
        self.view.save(self.folder / f"heads{ending}")
        return self.folder / f"heads{ending}"

    def test_json(self):
        found = json.loads(self.saved(".json").read_text(encoding="utf-8"))
        self.assertEqual((found["tokens"], found["offsets"], found["keys"], found["classes"]),
                         (TOKENS, [-1, 0, 1], [0], ["special", "separator"]))
        self.assertEqual([(head["layer"], head["head"]) for head in found["heads"]], [(a, b) for a in range(2) for b in range(3)])
        head, statistics = found["heads"][4], self.view.statistics[1]
        self.assertEqual(list(head), ["layer", "head", "summary", "labels", "rows", "norm_weighted"])
        np.testing.assert_array_equal(np.float32(head["rows"]["offset_mass"]), statistics.offset_mass[1])
        np.testing.assert_array_equal(np.float32(head["norm_weighted"]["rows"]["entropy"])[1:], statistics.norm_weighted.entropy[1, 1:])
        self.assertEqual((head["rows"]["entropy"][0], head["rows"]["top_keys"][0]), (None, [-1, -1]))
        self.assertEqual(head["summary"]["offset_mass"], list(statistics.summary(1).offset_mass.values()))
        self.assertEqual([label["name"] for label in head["labels"]], [label.name for label in statistics.labels(1)])

    def test_csv(self):
        with self.saved(".csv").open(encoding="utf-8", newline="") as file:
            self.assertTrue(file.readline().endswith("\r\n"))
            file.seek(0)
            lines = list(csv.DictReader(file))
        plain = ["visible", "entropy", "sum_squares", "distance", "offset_mass_-1", "offset_mass_0", "offset_mass_1", "key_mass_0",
                 "class_mass_special", "class_mass_separator", "duplicate_mass", "induction_mass", "top_weights_0",
                 "top_weights_1", "top_keys_0", "top_keys_1", "received"]
        self.assertEqual(list(lines[0]), ["layer", "head", "row", "token", "labels", *plain,
                                          *("norm_weighted_" + name for name in plain)])
        self.assertEqual(len(lines), LAYERS * HEADS * (LENGTH + 1))
        row, mean = lines[LENGTH + 1 + 2], lines[2 * (LENGTH + 1) - 1]
        self.assertEqual((row["head"], row["row"], row["token"], row["labels"], mean["row"]), ("1", "2", TOKENS[2], "", ""))
        self.assertEqual(np.float32(row["offset_mass_-1"]), self.view.statistics[0].offset_mass[1, 2, 0])
        self.assertEqual(lines[LENGTH + 1]["entropy"], "")
        self.assertEqual(float(mean["top_weights_0"]), self.view.summary(0, 1).largest)
        self.assertEqual((mean["top_weights_1"], mean["visible"], mean["received"]), ("", "", ""))
        self.assertEqual(mean["labels"].split(), [label.name for label in self.view.labels(0, 1)])

    def test_npz(self):
        with np.load(self.saved(".npz")) as arrays:
            self.assertEqual(bytes(arrays["tokens"]).decode().split("\n"), TOKENS)
            self.assertEqual((arrays["entropy"].shape, arrays["entropy"].dtype), ((LAYERS, HEADS, LENGTH), np.float32))
            self.assertEqual((arrays["top_keys"].shape, arrays["top_keys"].dtype), ((LAYERS, HEADS, LENGTH, 2), np.int64))
            np.testing.assert_array_equal(arrays["norm_weighted_offset_mass"][1], self.view.statistics[1].norm_weighted.offset_mass)
            self.assertEqual(arrays["mean_entropy"][1, 2], self.view.summary(1, 2).entropy)
            self.assertEqual(arrays["mean_offset_mass"].shape, (LAYERS, HEADS, 3))
            self.assertEqual(arrays["top_offset"][1, 2], self.view.summary(1, 2).top_offset)
            names = bytes(arrays["label_names"]).decode().split("\n")
            given = [name for name, has in zip(names, arrays["labels"][1, 2], strict=True) if has]
            self.assertEqual(given, [label.name for label in self.view.labels(1, 2)])

    def test_names_are_those_of_the_command(self):
        text = FORMATS.read_text(encoding="utf-8").partition("## The files of heads")[2].partition("\n## ")[0]
        tables = [re.findall(r"^\| (`.*?`) \|", part, re.MULTILINE) for part in text.split("| of a head | |")]
        rows, means = [re.findall(r"`(\w+)`", " ".join(table)) for table in tables]
        head = json.loads(self.saved(".json").read_text(encoding="utf-8"))["heads"][0]
        self.assertEqual((set(head["rows"]), set(head["summary"])), (set(rows), set(means)))

    def test_other_endings(self):
        for ending in (".txt", "", ".json.gz"):
            with self.subTest(ending=ending), self.assertRaisesRegex(ValueError, r"\.html, \.htm, \.json, \.csv or \.npz"):
                self.view.save(self.folder / f"heads{ending}")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_failure_leaves_the_old_file(self):
        long = np.full((1, 600, 600), 1 / 600, np.float32)
        views = {"x.html": inspect.head_view(long, ["x"] * 600, request=StatisticsRequest()),
                 "x.json": inspect.head_view(weights(0), TOKENS, request=StatisticsRequest(top=0))}
        for name, broken in views.items():
            path = self.folder / name
            path.write_text("old")
            with self.assertRaises(ValueError):
                broken.save(path)
            self.assertEqual(path.read_text(), "old")
            path.chmod(0o640)
            self.view.save(path)
            self.assertNotEqual(path.read_text(encoding="utf-8"), "old")
            self.assertEqual(path.stat().st_mode & 0o777, 0o640)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), sorted(views))

    def test_a_link_and_a_pipe(self):
        (self.folder / "link.json").symlink_to("target.json")
        self.view.save(self.folder / "link.json")
        self.assertTrue((self.folder / "link.json").is_symlink())
        self.assertTrue(json.loads((self.folder / "target.json").read_text(encoding="utf-8")))
        os.mkfifo(self.folder / "pipe.csv")
        reading = os.open(self.folder / "pipe.csv", os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reading)
        small = inspect.head_view(weights(0)[:1, 1:2, :1], ["a"])
        small.save(self.folder / "pipe.csv")
        self.assertTrue(os.read(reading, 100).startswith(b"layer,head,row"))
        with self.assertRaises(FileNotFoundError) as raised:
            self.view.save(self.folder / "none" / "x.npz")
        self.assertEqual(raised.exception.filename, str(self.folder / "none" / "x.npz"))


if __name__ == "__main__":
    unittest.main()
