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

    def test_names_are_unique_and_words_come_back(self):
        for rows in (self.rows, problems.rows(quick=True)):
            self.assertEqual(len({row.name for row in rows}), len(rows))
        for row in self.rows:
            self.assertEqual(problems.problem_of(list(map(str, row.words()))).words(), row.words())

    def test_work_is_that_of_visible_pairs(self):
        def pairs(row):
            seen = lambda i, j: j <= i and (not row.window or j > i - row.window) if row.causal else True  # noqa: E731
            return sum(seen(i, j) for keys in row.lengths for i in range(row.length) for j in range(keys)) * row.heads

        for row in (problems.Problem("forward", heads=3, length=19, head_dim=8),
                    problems.Problem("forward", heads=3, length=19, head_dim=8, causal=True),
                    problems.Problem("forward", heads=3, length=19, head_dim=8, causal=True, window=5),
                    problems.Problem("forward", batch=4, heads=3, length=16, head_dim=8, padded=True)):
            self.assertEqual(row.work, 4 * pairs(row) * row.head_dim, row.name)
        decode = problems.Problem("decode", "int8", heads=6, kv_heads=2, length=64, head_dim=8)
        self.assertEqual(decode.work, 2 * 2 * 64 * (8 + 4))  # an element a byte, a position a scale
        self.assertEqual(decode.flops, 4 * 6 * 64 * 8)
        backward = problems.Problem("backward", heads=3, length=19, head_dim=8)
        self.assertEqual(backward.work, 10 * pairs(backward) * backward.head_dim)


if __name__ == "__main__":
    unittest.main()
