# SPDX-License-Identifier: Apache-2.0
"""multihead explain: the plan of a shape, each of its options, and what it refuses."""

import re
import unittest

from cli_test import SOURCE, Command

SHAPE = ["explain", "--q-len", "3", "--head-dim", "8"]
LONGER = ["explain", "--q-len", "13", "--head-dim", "8"]


class Explain(Command):
    def test_plan(self):
        shape = "--batch 2 --heads 6 --kv-heads 3 --q-len 5 --kv-len 7 --head-dim 8 --value-dim 4 --causal bottom_right"
        text = self.succeed("explain", *shape.split(), "--target", "baseline")
        pairs = 2 * 6 * (3 + 4 + 5 + 6 + 7)
        self.assertRegex(text, r"(?m)^kernel +decode_f32_baseline$")
        self.assertRegex(text, rf"(?m)^visible pairs +{pairs}$")
        self.assertRegex(text, rf"(?m)^flops +{pairs * 2 * (8 + 4)}$")
        shifted = self.succeed("explain", "--q-len", "5", "--head-dim", "8", "--causal", "-2", "--type", "float64")
        self.assertRegex(shifted, r"(?m)^visible pairs +6$")
        self.assertRegex(shifted, r"(?m)^kernel +attention_f64_")

    def test_ranges(self):
        def pairs(*arguments):
            return int(re.search(r"(?m)^visible pairs +(\d+)$", self.succeed("explain", "--head-dim", "8", *arguments))[1])

        for window in (["2,1"], ["2", "1"]):
            self.assertEqual(pairs("--q-len", "6", "--align", "1", "--window", *window), 3 + 4 + 4 + 4 + 3 + 2)
        self.assertEqual(pairs("--q-len", "6", "--causal", "1", "--window", "2,-1"), 2 + 3 + 3 + 3 + 3 + 2)
        self.assertEqual(pairs("--q-len", "4", "--causal", "square", "--prefix", "3"), 3 + 3 + 3 + 4)
        self.assertEqual(pairs("--q-len", "6", "--causal", "square", "--window", "1", "-1", "--window-first", "2"),
                         1 + 2 + 3 + 4 + 4 + 4)
        self.assertEqual(pairs("--batch", "2", "--q-len", "4", "--lengths", "1,3"), 4 * (1 + 3))
        self.assertEqual(pairs("--q-len", "7", "--cu-seqlens", "0,3,7", "--causal", "square"), 6 + 10)
        self.assertEqual(pairs("--q-len", "7", "--cu-seqlens", "0,3,7", "--lengths", "1", "4", "--causal", "square",
                               "--prefix", "1"), 3 + 10)

    def test_terms_and_types(self):
        self.assertRegex(self.succeed(*SHAPE), r"(?m)^terms +none$")
        flags = {"--softcap=5": "softcap", "--alibi": "alibi_slopes", "--relative-bias": "relative_bias",
                 "--bias": "bias", "--keep-mask": "keep_mask", "--sinks": "sinks"}
        for flag, term in flags.items():
            self.assertRegex(self.succeed(*SHAPE, flag), rf"(?m)^terms +{term}$")
        self.assertRegex(self.succeed(*SHAPE, *flags), rf"(?m)^terms +{', '.join(flags.values())}$")
        for kind, short in {"float32": "f32", "float64": "f64", "bfloat16": "bf16", "float16": "f16"}.items():
            self.assertRegex(self.succeed(*LONGER, "--type", kind), rf"(?m)^kernel +attention_{short}_")

    def test_few_queries(self):
        few = ["explain", "--target", "baseline", "--heads", "8", "--kv-heads", "2", "--kv-len", "300", "--head-dim", "8"]
        text = self.succeed(*few, "--q-len", "3")
        self.assertRegex(text, r"(?m)^kernel +decode_f32_baseline$")
        self.assertRegex(text, r"(?m)^task +12 query rows of a kv head's heads$")
        self.assertRegex(text, r"(?m)^tasks +2$")
        self.assertRegex(self.succeed(*few, "--q-len", "3", "--threads", "4"), r"(?m)^tasks +4$")
        for more in (["--q-len", "13"], ["--q-len", "3", "--bias"], ["--q-len", "3", "--type", "float64"]):
            self.assertRegex(self.succeed(*few, *more), r"(?m)^kernel +attention_f\d\d_baseline$")

    def test_the_page_shows_what_it_prints(self):
        """docs/command.md, but for the lines that name the machine's target."""
        page = (SOURCE / "docs" / "command.md").read_text(encoding="utf-8")
        command, shown = re.search(r"^\$ multihead (explain --heads .*)\n((?:.+\n)+?)```$", page, re.MULTILINE).groups()

        def plan(text):
            return [line for line in text.splitlines() if not re.match("kernel|why|score tile", line)]

        self.assertEqual(plan(self.succeed(*command.split(), "--target", "baseline", "--threads", "2")), plan(shown))

    def test_usage(self):
        for arguments, sentence in (
            (["--align", "none"], "--align: 'none' is not one of square, top_left"),
            (["--align", "square", "--causal", "square"], "--causal excludes --align"),
            (["--window", "1,b"], "--window: '1,b' is not whole numbers"),
            (["--window", "1"], "--window: '1' is not two numbers"),
            (["--window", "1,2,3"], "--window: '1,2,3' is not two numbers"),
            (["--prefix", "few"], "--prefix: 'few' is not a whole number"),
            (["--window-first", "few"], "--window-first: 'few' is not a whole number"),
            (["--lengths", "1,,2"], "--lengths: '1,,2' is not whole numbers"),
            (["--cu-seqlens", "0,x"], "--cu-seqlens: '0,x' is not whole numbers"),
            (["--softcap", "5x"], "--softcap: '5x' is not a number"),
            (["--type", "float8"], "--type: 'float8' is not one of float32, float64, bfloat16, float16"),
            *(([f"{flag}=maybe"], f".*{flag}")
              for flag in ("--alibi", "--relative-bias", "--sinks", "--keep-mask", "--bias")),
        ):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.refuse(2, sentence, *SHAPE, *arguments).stdout, "")

    def test_bad_input(self):
        for arguments, sentence in (
            (["--kv-len", "4", "--window", "1,0"], "explain: a window .* must name its alignment"),
            (["--kv-len", "4", "--alibi"], "explain: alibi_slopes .* must name its alignment"),
            (["--kv-len", "4", "--relative-bias"], "explain: relative_bias .* must name its alignment"),
            (["--window", "1,0", "--window-first", "-1"], "explain: window.first is -1"),
            (["--prefix", "1"], "explain: prefixes are given without causal"),
            (["--lengths", "4"], "explain: a length is 4"),
            (["--cu-seqlens", "0,2"], "explain: cu_seqlens_q ends at 2, q_len is 3"),
            (["--softcap", "-1"], "explain: softcap is -1"),
            (["--softcap", "nan"], "explain: softcap is nan"),
            (["--align", "999999999999999"], "explain: query offset is 999999999999999"),
            (["--heads", "9999999999", "--sinks"], "explain: heads is 9999999999; .* with --sinks"),
            (["--batch", "9999999", "--causal", "square", "--prefix", "1"], "explain: batch is 9999999; .* --prefix"),
        ):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.refuse(1, sentence, *SHAPE, *arguments).stdout, "")


if __name__ == "__main__":
    unittest.main()
