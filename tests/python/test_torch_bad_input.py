# SPDX-License-Identifier: Apache-2.0
"""Bad input, the table of ../bad_input, through Python: torch's tensors."""

import unittest

import numpy
import torch

from test_bad_input import CannotBeSaid, Table, faces


def tensor(value):
    if not isinstance(value, numpy.ndarray):
        return value
    if not value.flags.writeable or not value.flags.aligned:
        raise CannotBeSaid("torch makes no such tensor")
    return torch.from_numpy(value)


class Torch(Table, unittest.TestCase):
    def test_every_case(self):
        total = sum(len(entry["cases"]) for entry in faces.TABLE.values())
        self.assertGreaterEqual(self.run_table("torch", tensor), total * 2 // 3)


if __name__ == "__main__":
    unittest.main()
