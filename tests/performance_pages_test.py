# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/performance are what their numbers say, and the rows of the comparison what they claim to be.

bench/compare/report.py docs/performance/*.json writes the pages anew.
"""

import json
import pathlib
import sys
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SOURCE / "bench" / "compare"), str(SOURCE / "bench")]
import limits  # noqa: E402
import problems  # noqa: E402
import report  # noqa: E402


class Pages(unittest.TestCase):
    def test_pages_and_plots_are_those_of_the_numbers(self):
        found = sorted((SOURCE / "docs" / "performance").glob("*.json"))
        if not found:
            self.skipTest("docs/performance holds no page: bench/compare/compare.py writes one")
        for path in found:
            with self.subTest(page=path.stem):
                numbers = json.loads(path.read_text(encoding="utf-8"))
                self.assertEqual(path.with_suffix(".md").read_text(encoding="utf-8"), report.page(numbers, path.stem))
                for kind, picture in report.plots(numbers).items():
                    drawn = path.with_name(f"{path.stem}-{kind}.svg").read_text(encoding="utf-8")
                    self.assertEqual(drawn, picture, kind)
                self.assertIn(f"performance/{path.stem}.md", (SOURCE / "docs" / "performance.md").read_text(encoding="utf-8"))

    def test_no_row_counts_whose_answers_differ(self):
        for path in (SOURCE / "docs" / "performance").glob("*.json"):
            for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
                with self.subTest(page=path.stem, row=row["name"], threads=row["threads"]):
                    self.assertNotIn(row.get("fastest_peer"), row["differing"])
                    for name, answer in row["contestants"].items():
                        if name not in row["differing"] and answer["difference"] is not None:
                            self.assertLessEqual(answer["difference"], row["tolerance"])


class Rows(unittest.TestCase):
    rows = problems.rows(quick=False)

    def test_names_are_unique_and_problems_come_back(self):
        for rows in (self.rows, problems.rows(quick=True)):
            self.assertEqual(len({row.name for row in rows}), len(rows))
        for row in self.rows:
            self.assertEqual(problems.named(row.name), row)
            self.assertEqual(len(row.words()), 16, "main.cpp reads as many")

    def test_recorded_rows_are_still_what_they_were(self):
        for path in (SOURCE / "docs" / "performance").glob("*.json"):
            for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
                problem = problems.named(row["name"])
                self.assertEqual((problem.name, problem.title, problem.work), (row["name"], row["title"], row["work"]))

    def test_work_is_that_of_visible_pairs(self):
        def sees(row, i, j):
            if row.mask == "packed" and sum(i >= bound for bound in row.bounds) != sum(j >= bound for bound in row.bounds):
                return False
            if row.window and row.causal:
                return i - row.window < j <= i
            return -(row.window // 2) <= j - i < (row.window + 1) // 2 if row.window else j <= i or not row.causal

        def pairs(row):
            return sum(sees(row, i, j) for keys in row.lengths for i in range(row.length) for j in range(keys))

        small = {"heads": 3, "head_dim": 8}
        for more in ({}, {"causal": True}, {"causal": True, "window": 5}, {"window": 6}, {"window": 7}, {"mask": "packed"},
                     {"mask": "padded", "batch": 4}):
            row = problems.Problem("forward", length=48, **small, **more)
            self.assertEqual(row.pairs, pairs(row), row.name)
            self.assertEqual(row.work, 4 * row.pairs * row.heads * row.head_dim)
        decode = problems.Problem("decode", "int8", heads=6, kv_heads=2, length=64, head_dim=8)
        self.assertEqual(decode.work, 2 * 2 * 64 * (8 + 4))  # an element a byte, a position a scale
        self.assertEqual(decode.flops, 4 * 6 * 64 * 8)
        backward = problems.Problem("backward", length=19, **small)
        self.assertEqual(backward.work, 10 * backward.pairs * 3 * 8)
        layer = problems.Problem("layer", length=19, **small)
        self.assertEqual(layer.work, 8 * 19 * 24 * 24 + 4 * 19 * 19 * 24)


class Limits(unittest.TestCase):
    """The most that a core can do, on paper."""

    def found(self, target="avx2", after=None, **more):
        ceilings = {"fma_f32": {"GFLOPS": 40.0}, "fma_f64": {"GFLOPS": 20.0}, "read_L2": {"GBps": 80.0, "bytes": 1 << 18},
                    "read_memory": {"GBps": 10.0, "bytes": 1 << 26}, **more}
        return {"ceilings": ceilings, "ceilings_after": after or {}, "machine": {"target": target}, "rows": []}

    def limit(self, problem, found=None, threads=1, **own):
        bounds = limits.limits({"name": problem.name, "threads": threads, **own}, found or self.found())
        return bounds[0] if bounds else None

    def test_attention_is_the_better_of_one_after_the_other_and_mixed(self):
        plain, double = problems.Problem("forward", length=1024), problems.Problem("forward", "float64", length=1024)
        one = {"fma_f32": [40.0, 50.0], "softmax_f32": [4.0, 5.0]}
        apart = 256 / (256 / 40 + 1 / 4)  # a score's operations over the times of its products and its softmax
        self.assertAlmostEqual(self.limit(plain, ceilings=one), apart)
        self.assertAlmostEqual(self.limit(plain, threads=2, ceilings=one), apart, msg="rates are of all threads")
        self.assertAlmostEqual(self.limit(plain, ceilings={**one, "fma_f32_softmax_128": [39.0]}), 39.0)
        self.assertAlmostEqual(self.limit(plain, ceilings={**one, "fma_f32_softmax_128": [30.0]}), apart)
        self.assertAlmostEqual(self.limit(double, ceilings={"fma_f64": [20.0], "softmax_f64": [1.0]}), 256 / (256 / 20 + 1))
        back = problems.Problem("backward", length=1024)
        self.assertAlmostEqual(self.limit(back, ceilings=one), 640 / (640 / 40 + 1 / 4))
        self.assertEqual(len(limits.limits({"name": plain.name, "threads": 1, "ceilings": one}, self.found())), 2)

    def test_rows_ask_for_the_ceilings_that_bound_them(self):
        measured = dict.fromkeys(("fma_f32", "softmax_f32", "fma_f32_softmax_128", "fma_f32_softmax_320", "fma_f64"), {})
        measured |= {name: row for name, row in self.found()["ceilings"].items() if name.startswith("read")}
        names = lambda problem, threads=1: limits.names(problem, "avx2", measured, threads)  # noqa: E731
        self.assertEqual(names(problems.Problem("forward", length=64)), ["fma_f32", "softmax_f32", "fma_f32_softmax_128"])
        self.assertEqual(names(problems.Problem("backward", length=64)), ["fma_f32", "softmax_f32", "fma_f32_softmax_320"])
        few = problems.Problem("product", rows=1, inner=768, columns=3072)
        self.assertEqual((names(few), names(few, 2)), (["fma_f32", "read_memory"], ["fma_f32"]))
        self.assertEqual(names(problems.Problem("decode", "int8", heads=4, kv_heads=4, length=64)), ["fma_f32", "read_L2"])
        self.assertEqual(names(problems.Problem("sample", "float64")), [])

    def test_without_the_softmax_measured_it_counts_on_paper(self):
        plain = problems.Problem("forward", length=1024)
        self.assertAlmostEqual(self.limit(plain), 40 * 128 / 136)
        self.assertAlmostEqual(self.limit(plain, threads=2), 80 * 128 / 136)
        self.assertAlmostEqual(self.limit(problems.Problem("forward", length=1024, head_dim=128)), 40 * 256 / 264)
        self.assertAlmostEqual(self.limit(problems.Problem("forward", "float64", length=1024)), 20 * 128 / 142)
        self.assertAlmostEqual(self.limit(problems.Problem("backward", length=1024)), 40 * 320 / 328)
        self.assertAlmostEqual(self.limit(plain, self.found(after={"fma_f32": {"GFLOPS": 50.0}})), 50 * 128 / 136)

    def test_edges_cost_half_a_register(self):
        causal = problems.Problem("forward", length=1024, causal=True)
        self.assertAlmostEqual(self.limit(causal), 40 * 128 / 136 * 512.5 / (512.5 + 3.5))
        self.assertAlmostEqual(self.limit(causal, self.found("avx512")), 40 * 128 / 136 * 512.5 / (512.5 + 7.5))
        window = problems.Problem("forward", length=4096, window=128)
        width = window.pairs / 4096
        self.assertAlmostEqual(self.limit(window), 40 * 128 / 136 * width / (width + 7))

    def test_pairs_and_tiles_have_peaks_of_their_own(self):
        problem = problems.Problem("forward", "bfloat16", length=1024)
        self.assertAlmostEqual(self.limit(problem, self.found("avx512bf16", bf16_dot={"GFLOPS": 80.0})), 80 * 64 / 72)
        self.assertAlmostEqual(self.limit(problem), 40 * 128 / 136)
        amx = self.found("amx", bf16_tile={"GFLOPS": 480.0})
        self.assertAlmostEqual(self.limit(problem, amx), 480 * min(1, (256 / 480) / (16 / 40)))
        self.assertAlmostEqual(self.limit(problems.Problem("forward", length=1024), amx), 80)
        self.assertAlmostEqual(self.limit(problems.Problem("backward", length=1024), amx), 40 * 320 / 328, msg="no parts there")

    def test_what_reads_is_bound_by_reading(self):
        few, many = (problems.Problem("product", rows=rows, inner=768, columns=3072) for rows in (1, 512))
        self.assertAlmostEqual(self.limit(few), few.work / (768 * 3072 * 4) * 10)
        self.assertAlmostEqual(self.limit(many), 40)
        decode = problems.Problem("decode", heads=4, kv_heads=4, length=131072, head_dim=128)
        self.assertAlmostEqual(self.limit(decode), 10)
        group = problems.Problem("decode", heads=128, kv_heads=4, length=131072, head_dim=128)
        self.assertAlmostEqual(self.limit(group), 40 * group.cache_bytes / group.flops)
        self.assertIsNone(self.limit(decode, threads=2))
        self.assertIsNone(self.limit(problems.Problem("sample", "float64")))
        encoder = problems.Problem("encoder", batch=1, length=128)
        self.assertAlmostEqual(self.limit(encoder), 1 / (2.8689e9 / 40e9), 1)
        inside = problems.Problem("layer", heads=12, length=512)
        self.assertLess(self.limit(inside), 40)
        self.assertGreater(self.limit(inside), 40 * 128 / 136)

    def test_words_of_the_goal(self):
        problem, found = problems.Problem("forward", length=1024), self.found()
        row = {"name": problem.name, "kind": "forward", "unit": "GFLOP/s", "threads": 1, "fastest_peer": "PyTorch", "contestants": {"PyTorch": {}, "multihead": {}}}
        for ratio, rate, word in ((1.2, 30.0, "yes"), (1.1, 30.0, "no"), (1.1, 32.0, "beyond the ceiling"), (1.3, 32.0, "yes")):
            row["ratio"], row["contestants"]["PyTorch"]["rate"] = ratio, rate
            self.assertEqual(report.goal(row, found), word)
        self.assertIn("| 1.18 | yes", report.verdict(row, found))

    def test_shares_are_of_the_ceilings_of_the_same_turn(self):
        problem = problems.Problem("forward", length=1024)
        seconds = [problem.work * 1e-9 / rate for rate in (30.0, 20.0, 10.0)]
        row = {"name": problem.name, "kind": "forward", "type": "float32", "unit": "GFLOP/s", "threads": 1, "ratio": 1.0,
               "work": problem.work, "fastest_peer": "PyTorch", "contestants": {"PyTorch": {"rate": 20.0, "seconds": seconds}},
               "ceilings": {"fma_f32": [60.0, 25.0, 50.0], "softmax_f32": [1e9, 1e9, 1e9]}}
        self.assertAlmostEqual(report.share(row, "PyTorch", self.found()), 0.5)  # of 0.5, 0.8, 0.2
        self.assertAlmostEqual(report.room(row, self.found()), 2, 5)


if __name__ == "__main__":
    unittest.main()
