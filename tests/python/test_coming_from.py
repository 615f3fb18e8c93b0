# SPDX-License-Identifier: Apache-2.0
"""docs/coming_from.md: its Python blocks are one program and print what the page shows. Needs PyTorch and NumPy."""

import contextlib
import io
import pathlib
import re
import unittest

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "coming_from.md").read_text(encoding="utf-8")


class Page(unittest.TestCase):
    def test_python(self):
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
        names, count = {}, 0
        for (language, source), (following, shown) in zip(blocks, [*blocks[1:], ("", "")]):
            if language != "python":
                continue
            count += "multihead.attention(" in source
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(source, "coming_from.md", "exec"), names)
            self.assertEqual(printed.getvalue(), shown if following == "text" else "", source)
        self.assertEqual(count, 3)


if __name__ == "__main__":
    unittest.main()
