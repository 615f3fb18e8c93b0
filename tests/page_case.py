# SPDX-License-Identifier: Apache-2.0
"""What the tests of pages share: made-up weights, the program that writes pages of them, a browser that reads them."""

import array
import math
import os
import pathlib
import random
import re
import struct
import subprocess
import tempfile
import unittest

import browser

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", SOURCE / "build" / "release")).resolve()
RUNNER = BUILD / "tests" / "page_runner"
ERROR = 1.6e-5 + 0.6e-5  # of sixteen bits, and of a number with five places


def write_npy(path, kind, shape, values):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() +
                     array.array({"<f4": "f", "<i8": "q"}[kind], values).tobytes())


def softmax_rows(random_numbers, rows, keys):
    values = []
    for _ in range(rows):
        row = [math.exp(2 * random_numbers.gauss(0, 1)) for _ in range(keys)]
        values += [value / sum(row) for value in row]
    return list(array.array("f", values))


class Case:
    """What page_runner reads: weights (layers, heads, q_len, kv_len) and tokens as bytes."""

    def __init__(self, shape, weights, q_tokens, kv_tokens=(), norms=(), title="Made up", special=""):
        self.shape, self.weights, self.tokens, self.norms = shape, weights, (q_tokens, kv_tokens), norms
        self.title, self.special = title, special

    def at(self, *place):
        index = 0
        for size, step in zip(self.shape, place):
            index = index * size + step
        return self.weights[index]

    def page(self, folder, name, *more):
        case = folder / name
        case.mkdir()
        write_npy(case / "weights.npy", "<f4", self.shape, self.weights)
        if self.norms:
            write_npy(case / "norms.npy", "<f4", (*self.shape[:2], self.shape[3]), self.norms)
        for side, tokens in zip(("q_tokens.txt", "kv_tokens.txt"), self.tokens):
            (case / side).write_text("".join(token.hex() + "\n" for token in tokens), encoding="ascii")
        (case / "title.txt").write_text(self.title, encoding="utf-8")
        (case / "special.txt").write_text(self.special, encoding="ascii")
        return made(case, folder / f"{name}.html", *more)


def made(*arguments):
    subprocess.run([RUNNER, *map(str, arguments)], check=True)
    return arguments[1]


def small(kv_tokens=(), norms=False, seed=1):
    numbers = random.Random(seed)
    q_tokens = [b"[CLS]", *(b"w%d" % i for i in range(8)), b"[SEP]"]
    shape = (3, 4, len(q_tokens), len(kv_tokens or q_tokens))
    return Case(shape, softmax_rows(numbers, shape[0] * shape[1] * shape[2], shape[3]), q_tokens, kv_tokens,
                [numbers.uniform(0.1, 3) for _ in range(shape[0] * shape[1] * shape[3])] if norms else ())


@unittest.skipUnless(browser.PROGRAM or os.environ.get("CI") == "true", "Chromium is not installed")
@unittest.skipUnless(RUNNER.exists(), "page_runner is not built")
class PageCase(unittest.TestCase):
    """A page in a browser; plain is one of three layers of four heads and ten tokens, with norms."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.scratch.name)
        cls.browser = browser.Browser()
        cls.case = small(norms=True)
        cls.plain = cls.case.page(cls.folder, "plain")

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.scratch.cleanup()

    def open(self, path, state="", **how):
        self.url = path.as_uri() + state
        self.browser.open(self.url, **how)
        self.browser.wait("maps[0].head !== null && !waiting")
        self.browser.settled()

    def tearDown(self):
        """Nothing was asked of the network, nothing went wrong, nothing hostile ran."""
        self.assertEqual([url for url in self.browser.requests.values() if not url.startswith("data:")],
                         [self.url.partition("#")[0]])
        self.assertEqual(self.browser.troubles, [])
        self.assertEqual(self.browser.dialogs, [])

    def point_at(self, query, key, canvas="plain"):
        """Moves the mouse to a cell; where that is."""
        left, top, _, _ = self.browser.box(f"#{canvas}")
        area = self.browser.run(f"(({{left, top}}) => [left, top, maps[{int(canvas == 'norm')}].scale(), view.x, view.y])"
                                f"(maps[{int(canvas == 'norm')}].area())")
        x, y = left + area[0] + (key + 0.5 - area[3]) * area[2], top + area[1] + (query + 0.5 - area[4]) * area[2]
        self.browser.hover(x, y)
        return x - left, y - top

    def read(self, what="weight"):
        return float(re.search(rf"\b{what} ([\d.]+)", self.browser.text("#readout")).group(1))

    def pixel(self, x, y, canvas="plain"):
        return self.browser.run(f"""(() => {{
          const copy = document.createElement("canvas").getContext("2d", {{willReadFrequently: true}});
          copy.drawImage(element("{canvas}"), -{x}, -{y});
          return [...copy.getImageData(0, 0, 1, 1).data];
        }})()""")

    def middle(self, selector):
        left, top, width, height = self.browser.box(selector)
        return left + width / 2, top + height / 2
