# SPDX-License-Identifier: Apache-2.0
"""The Python package as a user gets it: its wheel, installed in a fresh environment, its tests, pages, types and examples."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "frameworks"))
import compared  # noqa: E402
import readme_test  # noqa: E402
import tiny_encoder  # noqa: E402

REQUIREMENTS = ["numpy==2.4.6", "ml_dtypes==0.6.0", "mypy==2.4.1"]
PAGES = [compared.SOURCE / "README.md", *(compared.SOURCE / "docs" / name for name in ("python.md", "cache.md", "models.md"))]
GOES_ON = {"cache.md"}  # its examples follow each other, as in one session
END = "what was shown before ends here"
PLATFORM = "manylinux_2_34_x86_64"


def run(*words, **more):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **more)


class PythonFace(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.python, why = compared.installed("python", REQUIREMENTS)
        if why and not compared.CI:
            raise unittest.SkipTest(why)
        assert not why, why
        cls.wheel = compared.wheel()[0]

    def test_the_modules_of_tests(self):
        for module in sorted((compared.HERE.parent / "python").glob("test_*.py")):
            if not re.match(r"test_(torch|transformers|flash|coming)", module.name):
                with self.subTest(module=module.name):
                    self.assertGreater(compared.face_tests(self, self.python, module.name), 0)

    def test_the_wheel_holds_the_package_and_nothing_else(self):
        names = zipfile.ZipFile(self.wheel).namelist()
        for name in names:
            self.assertRegex(name, r"^(multihead/[\w/]+\.(py|pyi|typed)|multihead/_core\.[\w.-]+\.so|multihead/py\.typed"
                                   r"|multihead-[\d.]+\.dist-info/(METADATA|WHEEL|RECORD|licenses/(LICENSE|THIRD_PARTY_LICENSES)))$")
        self.assertEqual(len([name for name in names if name.endswith(".so")]), 1)
        notices = [name for name in names if name.endswith("/THIRD_PARTY_LICENSES")]
        text = zipfile.ZipFile(self.wheel).read(notices[0]).decode()
        for name in ("nanobind", "nlohmann_json", "utf8proc", "robin-map", "Unicode, Inc."):
            self.assertIn(name, text)

    def test_the_module_alone_links_the_archive_of_utf8proc(self):
        """The C library of the same build goes on naming the system's."""
        text = (compared.BUILD / "wheel" / "build" / "build.ninja").read_text(encoding="utf-8")
        linked = dict(re.findall(r"^build \S*?(\w+)\.[^\s:]+: .*\n(?: .*\n)*?  LINK_LIBRARIES = (.*)$", text, re.MULTILINE))
        self.assertIn("libutf8proc.a", linked["_core"])
        self.assertNotIn("libutf8proc.so", linked["_core"])
        self.assertIn("libutf8proc.so", linked["libmultihead_c"])
        self.assertNotIn("libutf8proc.a", linked["libmultihead_c"])

    def test_the_wheel_runs_on_older_systems(self):
        builder = compared.BUILD / "frameworks" / "wheel" / "bin"
        path = f"{builder}{os.pathsep}{os.environ['PATH']}"
        with tempfile.TemporaryDirectory() as folder:
            repaired = run(builder / "auditwheel", "repair", "--plat", PLATFORM, "-w", folder, self.wheel,
                           env={**os.environ, "PATH": path})
            self.assertEqual(repaired.returncode, 0, repaired.stderr)
            made = next(pathlib.Path(folder).glob("*.whl"))
            self.assertRegex(made.name, r"manylinux_2_\d+_x86_64\.whl$")
            self.assertFalse([name for name in zipfile.ZipFile(made).namelist() if ".libs/" in name],
                             "a library of this system was copied in")

    def test_a_bare_environment(self):
        """Without NumPy: rows of numbers want it and say so; buffers go in, memoryviews come back."""
        with tempfile.TemporaryDirectory() as folder:
            ran = run(sys.executable, "-m", "venv", "--without-pip", folder)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            ran = run(self.python, "-m", "pip", "--python", pathlib.Path(folder) / "bin" / "python", "install", "--quiet",
                      "--no-deps", "--no-index", self.wheel)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            program = """
import array, sys, multihead
q = memoryview(array.array("f", [1, 0, 0, 1])).cast("B").cast("f", (1, 2, 2))
out = multihead.attention(q, q, q)
assert type(out) is memoryview and out.shape == (1, 2, 2) and abs(sum(out.tolist()[0][0]) - 1) < 1e-6, out
try:
    multihead.self_attention([[1]], [[1]], [[1]], [[1]])
except TypeError as error:
    assert "NumPy" in str(error), error
assert "numpy" not in sys.modules
"""
            ran = run(pathlib.Path(folder) / "bin" / "python", "-c", program)
            self.assertEqual(ran.returncode, 0, ran.stderr)

    def test_a_sdist_holds_what_a_wheel_needs(self):
        program = ("import sys, tarfile; from scikit_build_core import build; "
                   "print(*tarfile.open(sys.argv[1] + '/' + build.build_sdist(sys.argv[1])).getnames(), sep='\\n')")
        with tempfile.TemporaryDirectory() as folder:
            ran = run(compared.BUILD / "frameworks" / "wheel" / "bin" / "python", "-c", program, folder, cwd=compared.SOURCE)
            self.assertEqual(ran.returncode, 0, ran.stderr)
        names = {name.partition("/")[2] for name in ran.stdout.split()}
        for room in ("include", "src", "bindings", "cli"):
            for path in (compared.SOURCE / room).rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    self.assertIn(str(path.relative_to(compared.SOURCE)), names)
        self.assertLessEqual({"pyproject.toml", "CMakeLists.txt", "LICENSE", "THIRD_PARTY_LICENSES", "README.md", "PKG-INFO"}, names)
        self.assertFalse([name for name in names if re.match(r"(tests|bench|shared|draft|build)/", name)])

    def test_clang_tidy(self):
        """The module's sources, as tidy_test.py has the library's: this build alone knows how they are compiled."""
        if not shutil.which("clang-tidy"):
            self.skipTest("clang-tidy is not installed")
        sources = sorted((compared.SOURCE / "bindings" / "python").glob("*.cpp"))
        self.assertTrue(sources)

        def tidied(path):
            return run("clang-tidy", "--quiet", "--extra-arg=-Wno-unknown-warning-option", "-p", compared.BUILD / "wheel" / "build",
                       path)

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for path, outcome in zip(sources, pool.map(tidied, sources)):
                with self.subTest(file=path.name):
                    self.assertEqual(outcome.returncode, 0, outcome.stdout)

    def test_types(self):
        program = """
from typing import Any

import numpy as np
from typing_extensions import assert_type

from multihead import (BytePair, Decoder, Encoder, Generator, KvCache, MultiHeadAttention, Statistics, StatisticsRequest,
                       WeightsRequest, attention, explain, generate, info, multi_head_attention)

q = np.zeros((1, 2, 3, 4), np.float32)
out: Any = attention(q, q, q, causal="bottom_right", window=(2, None), lengths=[3], return_weights=WeightsRequest(rows=[0]))
layer = MultiHeadAttention(2, order="in_out", qkv=q, out=q, rotary="half_split")
layer(q, causal=True, threads=1)
count: int = explain(q_len=3, head_dim=4, window=2).tasks
names: tuple[str, ...] = info().targets
ids: list[int] = [token.id for token in Encoder("folder").tokens("text")]
decoder = Decoder("folder", precision="bfloat16")
cache: KvCache = decoder.cache(9, storage="int8")
logits: Any = decoder.forward(BytePair("folder").encode("text"), cache, [cache.add()], all_tokens=True)
assert_type(generate(decoder, "text", stop=["."], seed=1), str)
assert_type(generate("folder", ["one", "other"], on_token=print), list[str])
assert_type(generate("folder", [[1, 2], [3]]), list[str])
ends: list[str] = [token.text for token in Generator(decoder) if token.finish == "end"]
Y = multi_head_attention([[1.0]], [[1.0]], [[1.0]], [[1.0]], [[1.0]], 1)
assert_type(attention(q, q, q, return_statistics=True, causal=True), tuple[Any, Statistics])
assert_type(attention(q, q, q, return_lse=True, return_statistics=StatisticsRequest(top=2)), tuple[Any, Any, Statistics])
assert_type(attention(q, q, q, return_weights=True, return_statistics=True), tuple[Any, Any, Statistics])
assert_type(attention(q, q, q, return_weights="mean", return_lse=True, return_statistics=True), tuple[Any, Any, Any, Statistics])
assert_type(attention(q, q, q, return_lse=bool(count), return_statistics=bool(count)), Any)
"""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "program.py"
            for text, passes in ((program, True), (program.replace("bottom_right", "right"), False),
                                 (program.replace("window=2", "windows=2"), False)):
                path.write_text(text, encoding="utf-8")
                checked = run(self.python, "-m", "mypy", "--strict", "--cache-dir", folder, path, cwd=folder)
                self.assertEqual(checked.returncode == 0, passes, checked.stdout + checked.stderr)
            package = run(self.python, "-m", "mypy", "--strict", "--cache-dir", folder, "-p", "multihead", cwd=folder)
            own = [line for line in package.stdout.splitlines() if not re.search(r"multihead/(torch|transformers|flash)", line)]
            self.assertFalse([line for line in own if "error:" in line], package.stdout)

    def test_the_pages_and_the_example(self):
        count, earlier = 0, {}
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "all-MiniLM-L6-v2"  # a small one in its place
            model.mkdir()
            tiny_encoder.write(model)
            (pathlib.Path(folder) / "trained").symlink_to(compared.SOURCE / "trained")
            for page, (line, language, source, output) in ((page, block) for page in PAGES for block in readme_test.examples(page)):
                if language == "python":
                    count += 1
                    before = earlier.get(page.name, "")
                    if page.name in GOES_ON:
                        earlier[page.name] = before + source
                    with self.subTest(page=page.name, line=line):
                        ran = run(self.python, "-c", f"{before}\nprint({END!r})\n{source}", cwd=folder)
                        self.assertEqual(ran.returncode, 0, ran.stderr)
                        shown = ran.stdout.partition(f"{END}\n")[2]
                        self.assertEqual(readme_test.lines(shown), readme_test.lines(output or ""))
            ran = run(self.python, compared.SOURCE / "examples" / "attention.py", cwd=folder)
            self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertGreater(count, 3)


if __name__ == "__main__":
    unittest.main()
