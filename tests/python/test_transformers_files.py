# SPDX-License-Identifier: Apache-2.0
"""Files of recordings: one model's layers in arrays, those of several shapes in groups, a batch in lines of its sequences."""

import csv
import json
import pathlib
import tempfile
import unittest

import numpy as np
import transformers_models as models
from transformers_models import inputs_of, pair

from multihead import inspect


class Files(models.WithoutGradients):
    def saved(self, seen, ending):
        with tempfile.TemporaryDirectory() as name:
            path = pathlib.Path(name) / f"heads.{ending}"
            seen.save(path)
            if ending == "npz":
                with np.load(path) as arrays:
                    return dict(arrays)
            with path.open(encoding="utf-8", newline="") as file:
                return json.load(file) if ending == "json" else list(csv.DictReader(file))

    def test_of_one_sequence(self):
        _, ours = pair("llama")
        ids = models.tokens(batch=1)
        texts = [f"<{number}>" for number in ids[0].tolist()]
        with inspect.record(ours, texts, token_classes={"separator": [5, 6]}, weights=True) as seen:
            ours(ids)
        arrays = self.saved(seen, "npz")
        self.assertEqual(bytes(arrays["module"]).decode().split("\n"), [layer.module for layer in seen.layers])
        self.assertEqual((arrays["ids"].tolist(), arrays["step"].tolist(), arrays["layer"].tolist()), (ids[0].tolist(), [0, 0], [0, 1]))
        for name in ("entropy", "class_mass", "top_keys", "weights"):
            np.testing.assert_array_equal(arrays[name], np.stack([getattr(layer, name)[0].numpy() for layer in seen.layers]))
        found, lines = self.saved(seen, "json"), self.saved(seen, "csv")
        self.assertEqual((found["tokens"], found["ids"], len(found["heads"])), (texts, ids[0].tolist(), 8))
        means = [line for line in lines if line["row"] == ""]
        for place, (head, mean) in enumerate(zip(found["heads"], means, strict=True)):
            layer = seen.layers[place // 4]
            self.assertEqual((head["module"], head["kind"], head["step"], mean["module"]), (layer.module, "self", 0, layer.module))
            self.assertEqual(head["summary"]["entropy"], layer.summary(place % 4).entropy)
            self.assertEqual(float(mean["offset_mass_-1"]), layer.summary(place % 4).offset_mass[-1])
            self.assertEqual(mean["labels"].split(), [label["name"] for label in head["labels"]])
        self.assertEqual(lines[3]["token"], texts[3])
        with self.assertRaisesRegex(ValueError, r"\.json, \.csv or \.npz"):
            self.saved(seen, "html")

    def test_of_several_shapes(self):
        _, ours = pair("t5")
        with inspect.record(ours) as seen:
            ours(**inputs_of("t5"))
        arrays = self.saved(seen, "npz")
        self.assertEqual([arrays[f"{group}.entropy"].shape for group in range(3)], [(2, 2, 4, 14), (2, 2, 4, 9), (2, 2, 4, 9)])
        self.assertEqual([bytes(arrays[f"{group}.kind"]).decode().split("\n")[0] for group in range(3)], ["self", "self", "cross"])
        self.assertNotIn("tokens", arrays)
        lines = self.saved(seen, "csv")
        self.assertEqual({line["sequence"] for line in lines}, {"0", "1", ""})
        self.assertEqual(len([line for line in lines if line["sequence"] == "1"]), (2 * 14 + 4 * 9) * 4)
        heads = self.saved(seen, "json")["heads"]
        np.testing.assert_array_equal(np.float32(heads[-1]["rows"]["entropy"]), seen.layers[-1].entropy[:, 3].numpy())


if __name__ == "__main__":
    unittest.main()
