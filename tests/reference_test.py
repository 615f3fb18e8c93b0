# SPDX-License-Identifier: Apache-2.0
"""docs/make_reference.py: no warning, every public name of the headers with its comment, every docstring of the package."""

import ast
import html
import importlib.util
import pathlib
import re
import shutil
import tempfile
import unittest
import xml.etree.ElementTree

SOURCE = pathlib.Path(__file__).resolve().parent.parent
HEADERS = sorted((SOURCE / "include" / "multihead").iterdir())


def load():
    spec = importlib.util.spec_from_file_location("make_reference", SOURCE / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_reference = load()


def words(text):
    return " ".join(re.findall(r"\w+", text))


def declared(text):
    """(comment or "", name) of each type and function that begins in the first column, where namespaces do not indent."""
    comment, before = [], ""
    for line in text.splitlines():
        if line.startswith("//"):
            comment = comment + [line[3:]] if before.startswith("//") else [line[3:]]
        elif re.match(r"(template|requires)\b", line) and not line.endswith(";"):
            pass  # the name is on the next line, the comment above stays its own
        elif re.match(r"[A-Za-z\[]", line):
            about = " ".join(comment) if before.startswith(("//", "template", "requires")) else ""
            found = re.match(r"(?:typedef )?(?:struct|class|enum class|enum|concept) (\w+)[^;]*\{?$", line) or re.match(
                r"(?:[\w:<>,*&\[\] ]+?)[ *&](\w+)\(", line)
            if found and not line.startswith(("namespace", "extern", "using", "typedef int32_t")):
                yield about, found.group(1)
            comment = []
        before = line


class Headers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("doxygen"):
            raise unittest.SkipTest("doxygen is not installed")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.warnings = make_reference.write_headers(cls.folder)
        cls.said = {}  # name: all that is said about it, overloads and its own members' comments apart
        for path in (cls.folder / "xml").glob("*.xml"):
            for node in xml.etree.ElementTree.parse(path).iter():
                if node.tag in ("compounddef", "memberdef", "enumvalue"):
                    name = node.find("compoundname" if node.tag == "compounddef" else "name").text or ""
                    parts = [part for tag in ("briefdescription", "detaileddescription") for part in node.findall(tag)]
                    text = "".join(letter for part in parts for letter in part.itertext())
                    cls.said.setdefault(name.split("::")[-1], []).append(words(text))

    def test_no_warning(self):
        self.assertEqual(self.warnings, "")

    def test_every_name_with_its_comment(self):
        names = comments = 0
        for header in HEADERS:
            for comment, name in declared(header.read_text(encoding="utf-8")):
                with self.subTest(header=header.name, name=name):
                    names += 1
                    self.assertIn(name, self.said)
                    if comment:
                        comments += 1
                        self.assertTrue(any(words(comment) in said for said in self.said[name]), words(comment))
        self.assertGreater(names, 150)
        self.assertGreater(comments, 100)

    def test_every_function_of_c(self):
        text = (SOURCE / "include" / "multihead" / "multihead.h").read_text(encoding="utf-8")
        names = set(re.findall(r"^MH_API .*?\b(mh_\w+)\(", text, re.MULTILINE))
        self.assertGreater(len(names), 30)
        page = "".join(path.read_text(encoding="utf-8") for path in (self.folder / "cpp").glob("multihead_8h*.html"))
        for name in sorted(names):
            with self.subTest(name=name):
                self.assertRegex(page, rf"\b{name}\b")

    def test_members_have_theirs(self):
        self.assertIn(words("the kernel's name: \"attention_f32_avx512\", or \"decode_f32_avx512\" for few queries"), self.said["kernel"])
        self.assertIn("extents strides or sizes do not fit together", self.said["MH_SHAPE_MISMATCH"])


class Marks(unittest.TestCase):
    def test_what_is_marked(self):
        text = """// SPDX-License-Identifier: Apache-2.0
// What the file is.
#pragma once

// A heading.

// A type <T>:
//   a = b
struct A {
  int x;  // first
          // more
  // Both of them.
  void f() { g(); }  // behind
  void f(int y) {
    // inside
  }

  int z;
};  // not this
"""
        self.assertEqual(make_reference.Marker(text).marked(), """/// \\file
/// What the file is.
#pragma once

// A heading.

/// A type \\<T\\>:
/// \\verbatim
///   a = b
/// \\endverbatim
struct A {
  int x;
///< first
///< more
/// Both of them.
  void f() { g(); }
///< behind
/// Both of them.
  void f(int y) {
    // inside
  }

  int z;
};  // not this
""")


class Python(unittest.TestCase):
    def test_modules(self):
        if not make_reference.PACKAGE.is_dir():
            self.skipTest("there is no Python package")
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            written = make_reference.write_python(folder)
            self.assertIn("multihead", written)
            for module, names in written.items():
                text = (folder / f"{module}.html").read_text(encoding="utf-8")
                source = make_reference.Module(make_reference.python_modules()[module])
                self.assertTrue(ast.get_docstring(source.tree), module)
                for name in names:
                    with self.subTest(module=module, name=name):
                        about = ast.get_docstring(source.definition(name))
                        self.assertTrue(about, "it has no docstring")
                        self.assertIn(html.escape(about), text)


if __name__ == "__main__":
    unittest.main()
