# SPDX-License-Identifier: Apache-2.0
"""docs/pytorch.md and docs/flash_attention.md: the Python blocks of a page are one program that prints what it shows."""

import contextlib
import io
import pathlib
import re
import unittest
import warnings

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


class Pages(unittest.TestCase):
    def check(self, page, least):
        text = (DOCS / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        names, count = {}, 0
        for (language, source), (following, shown) in zip(blocks, [*blocks[1:], ("", "")]):
            if language != "python":
                continue
            count += 1
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(source, page, "exec"), names)
            self.assertEqual(printed.getvalue(), shown if following == "text" else "", source)
        self.assertGreaterEqual(count, least)

    def test_pytorch(self):
        self.check("pytorch.md", 5)

    def test_flash_attention(self):
        self.check("flash_attention.md", 3)


if __name__ == "__main__":
    unittest.main()
