# SPDX-License-Identifier: Apache-2.0
"""The inner loops of the tiles keep their accumulators in registers: one to the stack costs a third of the rate."""

import os
import pathlib
import platform
import re
import subprocess
import unittest

BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release"))

def decode(element, scores, output):
    """The full tiles of decode over a cache of an element: rows and registers of each."""
    products = f"INS1_14DecodeProductsILNS_10CachedRows7ElementE{element}EEE"
    return {f"decode_{name}{products}Li{rows}ELi{vecs}E": rows * vecs
            for name, (rows, vecs) in {"scores": scores, "output": output}.items()}


# Target: (mangled template arguments of its full tile, multiply-adds of one step of its inner loop)
TILES = {
    "avx512": {"product_tilesIfLi8ELi3E": 24, "matmul_tileIfLi8ELi3E": 24, "output_tilesIfLi8E": 24,
               "product_tilesIdLi8ELi3E": 24, "matmul_tileIdLi8ELi3E": 24, "output_tilesIdLi8E": 24,
               "gradient_tilesIfLb1ELi6ELi4E": 24, "gradient_tilesIfLb0ELi6ELi4E": 24,
               "gradient_tilesIdLb1ELi6ELi4E": 24, "gradient_tilesIdLb0ELi6ELi4E": 24} | decode(0, (6, 2), (6, 4)),
    "avx512bf16": {"product_tilesIfLi8ELi3E": 24, "output_tilesIfLi8E": 24,
                   "pair_matmul_tileILi8ELi3E": 24,
                   "gradient_tilesIfLb1ELi6ELi4E": 24, "gradient_tilesIfLb0ELi6ELi4E": 24} | decode(1, (6, 2), (6, 4)),
    "avx2": {"product_tilesIfLi4ELi3E": 12, "matmul_tileIfLi4ELi3E": 12, "output_tilesIfLi4E": 12,
             "product_tilesIdLi4ELi3E": 12, "matmul_tileIdLi4ELi3E": 12, "output_tilesIdLi4E": 12,
             "gradient_tilesIfLb1ELi6ELi2E": 12, "gradient_tilesIfLb0ELi6ELi2E": 12,
             "gradient_tilesIdLb1ELi6ELi2E": 12, "gradient_tilesIdLb0ELi6ELi2E": 12} | decode(0, (3, 4), (4, 3)),
}


PRODUCT = re.compile("fmadd|vdpbf16ps")


def functions():
    """Symbol to its [(address, text)] in the library."""
    library = next(path for path in (BUILD / "libmultihead.a", BUILD / "libmultihead.so") if path.exists())
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", str(library)], capture_output=True, text=True,
                             check=True).stdout
    found = {}
    for line in listing.splitlines():
        if line.endswith(">:"):
            body = found.setdefault(line[line.index("<") + 1:-2], [])
        elif match := re.match(r"\s*([0-9a-f]+):\t(.*)", line):
            body.append((int(match.group(1), 16), match.group(2)))
    return found


def inner_loops(body):
    """The instructions between each backward jump and its target that hold no other such jump."""
    position = {address: index for index, (address, _) in enumerate(body)}
    spans = []
    for index, (address, text) in enumerate(body):
        match = re.match(r"j\w+\s+([0-9a-f]+)", text)
        if match and int(match.group(1), 16) <= address and int(match.group(1), 16) in position:
            spans.append((position[int(match.group(1), 16)], index))
    innermost = [span for span in spans
                 if not any(other != span and span[0] <= other[0] and other[1] <= span[1] for other in spans)]
    return [[text for _, text in body[first:last + 1]] for first, last in innermost]


@unittest.skipUnless(platform.machine() == "x86_64", "reads x86-64 assembly")
class Spills(unittest.TestCase):
    def test_full_tiles_stay_in_registers(self):
        bodies = functions()
        for target, tiles in TILES.items():
            for name, multiply_adds in tiles.items():
                with self.subTest(target=target, tile=name):
                    symbols = [symbol for symbol in bodies if f"9multihead{len(target)}{target}" in symbol and name in symbol]
                    self.assertTrue(symbols, "the tile is not a function of its own")
                    hot = [loop for symbol in symbols for loop in inner_loops(bodies[symbol])
                           if (count := sum(bool(PRODUCT.search(text)) for text in loop)) and count % multiply_adds == 0]
                    self.assertTrue(hot, "no loop with that many multiply-adds")
                    for loop in hot:
                        stack = [text for text in loop if re.search(r"\(%r[sb]p", text) and re.search(r"%[xyz]mm", text)]
                        self.assertEqual(stack, [])


if __name__ == "__main__":
    unittest.main()
