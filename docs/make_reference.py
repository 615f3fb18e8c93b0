#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the reference of all faces as HTML: C++ and C from the headers (doxygen), Python from its docstrings.

  docs/make_reference.py [FOLDER]      build/reference unless given

The headers' comments are plain ones; doxygen reads a copy in which those that stand before or behind a name are marked
as the name's. The Python package is read, not imported: neither a build nor a framework is needed. Ends with status 1
and the warnings where doxygen has any.
"""

import argparse
import ast
import html
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parent.parent
HEADERS = SOURCE / "include" / "multihead"
PACKAGE = SOURCE / "bindings" / "python" / "multihead"
DOXYGEN = """
PROJECT_NAME = multihead
PROJECT_NUMBER = {version}
PROJECT_BRIEF = "multi-head attention for CPUs: C++ and C"
INPUT = {input}
OUTPUT_DIRECTORY = {output}
STRIP_FROM_PATH = {input}
STRIP_FROM_INC_PATH = {input}
FILE_PATTERNS = *.hpp *.h
RECURSIVE = YES
EXTRACT_ALL = YES
EXTRACT_STATIC = YES
JAVADOC_AUTOBRIEF = NO
MARKDOWN_SUPPORT = NO
AUTOLINK_SUPPORT = NO
SORT_MEMBER_DOCS = NO
VERBATIM_HEADERS = NO
GENERATE_LATEX = NO
GENERATE_XML = YES
XML_PROGRAMLISTING = NO
HTML_OUTPUT = cpp
HTML_TIMESTAMP = NO
HAVE_DOT = NO
CLASS_GRAPH = NO
QUIET = YES
WARN_AS_ERROR = FAIL_ON_WARNINGS
MACRO_EXPANSION = YES
EXPAND_ONLY_PREDEF = YES
ENABLE_PREPROCESSING = YES
PREDEFINED = MH_API= __cplusplus
"""


# Headers --------------------------------------------------------------------------------------------------------------

def escaped(text):
    """What doxygen takes for a command, an entity or a tag is text."""
    return re.sub(r'[\\@&$#<>%"]', r"\\\g<0>", text)


def paragraph(lines, mark="///"):
    """A comment's lines as doxygen's; those that are set in by two blanks or more keep their form."""
    out, kept = [], False
    for line in lines:
        set_in = line.startswith("  ")
        if set_in != kept:
            out.append(f"{mark} \\{'verbatim' if set_in else 'endverbatim'}")
        kept = set_in
        out.append(f"{mark} {line if set_in else escaped(line)}")
    return out + ([f"{mark} \\endverbatim"] if kept else [])


class Marker:
    """Goes down a header and marks the comments of names: not those of the file, in bodies, or before a blank line."""

    def __init__(self, text):
        self.lines = text.splitlines()
        self.scopes = []  # of each brace that is open: whether declarations stand inside
        self.statement = ""
        self.out = []
        self.repeated = []  # the last comment, for the functions that follow their fellow without a blank line
        self.fresh = False  # whether it stands on the line above

    def marked(self):
        begin = 1  # the SPDX line
        end = self.end_of_comment(begin)
        self.out = ["/// \\file", *paragraph(self.texts(begin, end))]
        at = end
        while at < len(self.lines):
            at = self.comment(at) if self.is_comment(at) else self.code(at)
        return "\n".join(self.out) + "\n"

    def is_comment(self, at):
        return at < len(self.lines) and self.lines[at].lstrip().startswith("//")

    def end_of_comment(self, at):
        while self.is_comment(at):
            at += 1
        return at

    def texts(self, begin, end):
        return [re.sub(r"^\s*// ?", "", line) for line in self.lines[begin:end]]

    def declares(self):
        return all(self.scopes)

    def comment(self, at):
        end = self.end_of_comment(at)
        following = self.lines[end].strip() if end < len(self.lines) else ""
        if self.declares() and not self.statement.strip() and following and not following.startswith(("#", "}", "{")):
            self.repeated = paragraph(self.texts(at, end))
            self.out += self.repeated
            self.fresh = True
        else:
            self.out += self.lines[at:end]
        return end

    def code(self, at):
        line = self.lines[at]
        code, slashes, trailing = line.partition("//")
        starts = self.declares() and not self.statement.strip() and code.strip() and not code.lstrip().startswith("#")
        if not code.strip():
            self.repeated = []
        elif starts and not self.fresh and self.shares_comment(code):
            self.out += self.repeated
        self.fresh = False
        declared = self.declares()
        self.follow(code)
        if slashes and (declared or self.declares()) and code.strip():
            column, texts = line.index("//"), [trailing.strip()]
            while self.is_comment(at + 1) and self.lines[at + 1].index("//") == column:
                at += 1
                texts.append(re.sub(r"^\s*// ?", "", self.lines[at]))
            if code.strip().startswith("#") or code.strip() in ("}", "};", "{"):
                self.out.append(line)
            else:
                self.out += [code.rstrip(), *paragraph([text.strip() for text in texts], "///<")]
        else:
            self.out.append(line)
        return at + 1

    def shares_comment(self, code):
        """A function that follows its fellow is what their comment is about; a field or a type is not."""
        return "(" in code and not re.match(r"\s*(struct|class|enum|using|typedef|namespace|extern|public|private)\b", code)

    def follow(self, code):
        """Keeps the account of braces and of the statement that a line of code goes on with."""
        if code.lstrip().startswith("#"):
            return
        code = re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])\'', '""', code)
        for letter in code:
            if letter == "{":
                head = re.sub(r"template\s*<.*?>\s*(?=struct|class)", "", self.statement.strip(), flags=re.DOTALL)
                self.scopes.append(bool(re.match(r"(inline )?namespace\b|(typedef )?(struct|class|union|enum)\b|extern ", head)))
                self.statement = "" if self.scopes[-1] else self.statement
            elif letter == "}":
                container = self.scopes.pop() if self.scopes else True
                self.statement = "} " if container or "=" in self.statement else ""
            elif letter == ";" or (letter == ":" and re.fullmatch(r"\s*(public|private|protected)", self.statement)):
                self.statement = ""
            else:
                self.statement += letter
        if re.fullmatch(r"\s*\}?\s*", self.statement) or (self.scopes and re.search(r",\s*$", self.statement)
                                                           and "(" not in self.statement and "<" not in self.statement):
            self.statement = ""  # a brace that closed, or an enumerator


def version():
    text = (HEADERS / "multihead.hpp").read_text(encoding="utf-8")
    return ".".join(re.findall(r"#define MULTIHEAD_VERSION_\w+ (\d+)", text))


def write_headers(folder):
    """doxygen's warnings; the pages are in folder/cpp, the same as XML in folder/xml."""
    with tempfile.TemporaryDirectory() as name:
        copies = pathlib.Path(name) / "multihead"
        copies.mkdir()
        for header in sorted(HEADERS.iterdir()):
            (copies / header.name).write_text(Marker(header.read_text(encoding="utf-8")).marked(), encoding="utf-8")
        settings = DOXYGEN.format(version=version(), input=name, output=folder)
        outcome = subprocess.run(["doxygen", "-"], input=settings, capture_output=True, text=True, check=False)
        return outcome.stderr.replace(name + "/", "") or ("" if outcome.returncode == 0 else "doxygen failed")


# Python ---------------------------------------------------------------------------------------------------------------

class Module:
    """A module's public names with what defines them, followed through the package's own imports."""

    def __init__(self, path):
        self.path = path
        self.tree = ast.parse(path.read_text(encoding="utf-8"))

    def names(self):
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
                return [name for name in ast.literal_eval(node.value) if not name.startswith("__")]
        return [node.name for node in self.tree.body
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")]

    def definition(self, name):
        """The node, or None for what is no function or class; overloads give the last, which has the docstring."""
        found = None
        for node in self.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
                found = node
            elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("multihead")):
                for alias in node.names:
                    if (alias.asname or alias.name) == name and self.source(node):
                        found = Module(self.source(node)).definition(alias.name) or found
        return found

    def source(self, node):
        folder = self.path.parent
        for _ in range(node.level - 1):
            folder = folder.parent
        if not node.level:
            folder = PACKAGE.parent
        at = folder.joinpath(*(node.module or "").split("."))
        forms = (at.with_suffix(".pyi"), at.with_suffix(".py"), at / "__init__.py")
        return next((path for path in forms if path.is_file()), None)


def signature(node):
    if isinstance(node, ast.ClassDef):
        bases = [ast.unparse(base) for base in node.bases]
        return f"class {node.name}" + (f"({', '.join(bases)})" if bases else "")
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){result}"


def entry(node, level=2):
    kind = f"h{level}"
    text = [f'<{kind} id="{html.escape(node.name)}"><code>{html.escape(signature(node))}</code></{kind}>',
            f"<pre>{html.escape(ast.get_docstring(node) or '')}</pre>"]
    if isinstance(node, ast.ClassDef):
        for inside in node.body:
            public = isinstance(inside, ast.FunctionDef) and (
                not inside.name.startswith("_") or inside.name in ("__init__", "__call__"))
            if public and ast.get_docstring(inside):
                text.append(entry(inside, level + 1))
            elif isinstance(inside, ast.AnnAssign):
                text.append(f"<p><code>{html.escape(ast.unparse(inside))}</code></p>")
    return "\n".join(text)


def page(title, body):
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>\n'
            f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n")


def python_modules():
    """{"multihead": path, "multihead.torch": path, ...}: all whose names begin with no underscore."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["multihead", *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        if not any(part.startswith("_") for part in parts):
            found[".".join(parts)] = path
    return found


def write_python(folder):
    """One page a module; returns {module: its names}."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = {}
    for name, path in python_modules().items():
        module = Module(path)
        nodes = [node for node in map(module.definition, module.names()) if node]
        about = f"<pre>{html.escape(ast.get_docstring(module.tree) or '')}</pre>\n"
        (folder / f"{name}.html").write_text(page(name, about + "\n".join(map(entry, nodes))), encoding="utf-8")
        written[name] = [node.name for node in nodes]
    return written


def main():
    parser = argparse.ArgumentParser(description="Writes the reference of all faces as HTML.")
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=SOURCE / "build" / "reference")
    folder = parser.parse_args().folder.resolve()
    if not shutil.which("doxygen"):
        sys.exit("doxygen is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    warnings = write_headers(folder)
    modules = write_python(folder / "python")
    links = ['<li><a href="cpp/files.html">C++ and C</a></li>'] + [
        f'<li><a href="python/{name}.html">Python: {name}</a></li>' for name in modules]
    (folder / "index.html").write_text(page(f"multihead {version()}", f"<ul>{''.join(links)}</ul>"), encoding="utf-8")
    if warnings:
        sys.exit(warnings.rstrip())
    print(folder / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
