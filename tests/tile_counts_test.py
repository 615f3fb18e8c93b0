# SPDX-License-Identifier: Apache-2.0
"""What a block of 48 rows by 128 keys costs on target amx: instructions counted in the compiled code, cycles by the
costs that were measured for each alone on a Xeon with AMX. Run by itself it prints the tables of
docs/kernels_two_bytes.md and, of gradients, docs/kernels_passes.md."""

import functools
import platform
import re
import unittest

import spill_test

SCORES = 48 * 128
PRODUCT = 21  # cycles of a TDPBF16PS, with the loads beside it
GHZ = 3.3
# Cycles of an operation of 512 bits; loads, stores and moves without a mask go through other ports.
COSTS = {"vpsrld": 1, "vpslld": 1, "vpermw": 1, "vpermi2w": 1, "vpermt2w": 1, "vcvtne2ps2bf16": 2, "vdpbf16ps": 2}
FREE = re.compile("vmov|vbroadcast|vpbroadcast|vzeroupper|vpxor|vxor|vmovd")


@functools.cache
def bodies():
    return spill_test.functions()


def body(target, name):
    found = [lines for symbol, lines in bodies().items()
             if f"9multihead{len(target)}{target}12" in symbol and re.search(rf"\d{name}", symbol)]
    return [text for _, text in max(found, key=len)]


def count(lines, mnemonic):
    return sum(bool(re.match(rf"{mnemonic}\b", text)) for text in lines)


def cycles(lines):
    """Of the operations on whole registers."""
    found = [text.split()[0] for text in lines if "%zmm" in text and ("{%k" in text or not FREE.match(text))]
    return sum(COSTS.get(name, 0.5) for name in found)


def table(target, parts, head_dim):
    """Row to cycles, of a block whose rows see all keys."""
    tiles = 2 * head_dim // 16 * 4 * 3 + (12 if parts == 1 else 0)
    chunks = SCORES // 256
    merged = head_dim * 3
    return {"products": tiles * (6 if parts == 3 else 1) * PRODUCT,
            "the largest of a row's products": chunks * (16 + 3) * 0.5,
            "products to weights, rounded or split": chunks * cycles(body(target, "weigh_tile")),
            "merge": merged * 1.0, "sums and factors": 100}


def backward_table(head_dim):
    """The same of a step of the backward pass in bfloat16; a permutation takes a cycle."""
    channels = head_dim // 16
    tiles = {"S and dP": 2 * 8 * 3 * head_dim // 32, "dV and dK": 2 * 8 * 2 * channels, "dQ": 3 * 4 * channels}
    return {name: count * PRODUCT for name, count in tiles.items()} | {
        "P and dS": SCORES // 16 * 7, "rounding": SCORES // 32 * 5, "turning dx round": 3 * 4 * 64,
        "panels of Q and dO": 2 * 3 * head_dim // 32 * 64, "pairs of rows of Q and dO": 2 * 24 * channels * 7}


@unittest.skipUnless(platform.machine() == "x86_64", "reads x86-64 assembly")
class Counts(unittest.TestCase):
    TARGETS = {"amx": 1, "amx_f32": 3}

    def test_a_load_serves_three_products_and_more(self):
        for target, (loads, products) in {"amx": (1 + 3, 3), "amx_f32": (3 + 9, 18)}.items():
            lines = body(target, "add_steps")
            self.assertEqual((count(lines, "tileloadd"), count(lines, "tdpbf16ps")), (loads, products), target)

    def test_a_gradient_is_loaded_grows_and_is_stored(self):
        lines = body("amx", "add_gradient_tiles")  # two tiles of rows by two of columns
        found = [count(lines, name) for name in ("tileloadd", "tdpbf16ps", "tilestored", "tilezero")]
        self.assertEqual(found, [4 + 4, 4, 4, 0])
        self.assertEqual([text for text in lines if re.search("[xyz]mm", text)], [])

    def test_rounding_costs_what_the_table_says(self):
        both = [body("amx", f"round_linesILb{turned}") for turned in (0, 1)]  # 48 rows of two keys
        stores = sum(count(lines, "vextracti64x4") for lines in both) * 0.5  # of half a register, by no pipe of these
        self.assertLessEqual(sum(cycles(lines) for lines in both) - stores, 3 * 5)

    def test_the_softmax_stays_in_registers(self):
        for target in self.TARGETS:
            for name in ("weigh_tile", "find_tile_maxima"):
                lines = body(target, name)
                self.assertEqual([text for text in lines if "%zmm" in text and re.search(r"\(%r[sb]p", text)], [], name)

    def test_a_weight_costs_what_the_table_says(self):
        self.assertLessEqual(cycles(body("amx", "weigh_tile")), 116)
        self.assertLessEqual(cycles(body("amx_f32", "weigh_tile")), 200)


if __name__ == "__main__":
    for head_dim in (64, 128):
        rows = backward_table(head_dim)
        tiles = sum(list(rows.values())[:3])
        vectors = sum(rows.values()) - tiles
        ends = sum(list(rows.values())[-2:])  # what stands beside no product
        alone = (12 + 32) * head_dim // 64 * PRODUCT + rows["dQ"]  # of the first 16 keys, the last 32, and dQ
        least = ends + alone + max(tiles - alone, vectors - ends)
        rates = [10 * head_dim * SCORES * GHZ / cost / 1000 for cost in (tiles + vectors, least, max(tiles, vectors))]
        print("amx backward", head_dim, rows, f"vectors {vectors}", "apart {:.2f} laid {:.2f} together {:.2f} TFLOP/s"
              .format(*rates))
        for target, parts in Counts.TARGETS.items():
            rows = table(target, parts, head_dim)
            flops = 4 * head_dim * SCORES
            vectors = sum(rows.values()) - rows["products"]
            print(target, head_dim, rows, f"vectors {vectors:.0f}",
                  f"apart {flops * GHZ / (rows['products'] + vectors) / 1000:.2f}",
                  f"together {flops * GHZ / max(rows['products'], vectors) / 1000:.2f} TFLOP/s")
