# SPDX-License-Identifier: Apache-2.0
"""Writes cases for layer_runner: a line a fact in cases.txt, an .npy file an array."""

import pathlib

import numpy


class CaseWriter:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lines = []
        self.arrays = 0
        self.count = 0

    def array(self, values):
        """The file of an array: float32 and float64 as they are, anything else as float64."""
        values = numpy.asarray(values)
        if values.dtype not in (numpy.float32, numpy.float64):
            values = values.astype(numpy.float64)
        self.arrays += 1
        name = f"{self.arrays}.npy"
        numpy.save(self.folder / name, numpy.ascontiguousarray(values))
        return name

    def case(self, name, layout, tensors, facts, arrays, relative_error):
        """tensors: {name: array}; facts: {word: value or list}; arrays: {word: array}, query and output among them.

        The tolerance is relative_error times the largest magnitude of the output."""
        output = numpy.asarray(arrays["output"])
        assert numpy.isfinite(output).all(), name
        tolerance = relative_error * max(float(numpy.abs(output).max()), 1.0)
        self.lines += [f"case {name}", f"layout {layout}", f"type {output.dtype}", f"tolerance {tolerance!r}"]
        for word, value in facts.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            if word == "aside":
                self.lines += [f"aside {value}" for value in values]
            else:
                self.lines.append(" ".join([word, *map(str, values)]))
        self.lines += [f"tensor {key} {self.array(value)}" for key, value in tensors.items()]
        self.lines += [f"{word} {self.array(values)}" for word, values in arrays.items()]
        self.count += 1

    def finish(self):
        (self.folder / "cases.txt").write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        print(f"{self.count} cases written")
