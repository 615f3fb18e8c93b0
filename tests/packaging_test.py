# SPDX-License-Identifier: Apache-2.0
"""Being a library: installed, moved elsewhere, found by find_package and pkg-config, added as a subfolder, and used."""

import math
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

TESTS = pathlib.Path(__file__).resolve().parent
SOURCE = TESTS.parent
CONSUMERS = TESTS / "consumer"
TRAINED = "2 steps, the loss falls\n"  # what train.cpp prints
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()


def run(*arguments, **environment):
    outcome = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False,
                             env={**os.environ, **{key: str(value) for key, value in environment.items()}})
    if outcome.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, arguments))}\n{outcome.stdout}{outcome.stderr}")
    return outcome.stdout


def product(a, b):
    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


def head(X, Wq, Wk, Wv):
    Q, K, V = product(X, Wq), product(X, Wk), product(X, Wv)
    weights = []
    for q in Q:
        powers = [math.exp(sum(x * y for x, y in zip(q, k)) / math.sqrt(len(q))) for k in K]
        weights.append([power / sum(powers) for power in powers])
    return product(weights, V)


def expected():
    """What the consumer computes, from the definition."""
    text = (CONSUMERS / "main.cpp").read_text(encoding="utf-8")
    X, Wq, Wk, Wv, Wo = (
        [[float(value) for value in row.split(",")] for row in re.findall(r"\{([^{}]*)\}", found)]
        for found in re.findall(r"const Matrix \w+\{(.*)\};", text))
    heads = [head(X, *([row[3 * h:3 * h + 3] for row in W] for W in (Wq, Wk, Wv))) for h in range(2)]
    return product([left + right for left, right in zip(*heads)], Wo)


class Packaging(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="multihead packaging ")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.top = pathlib.Path(cls.folder.name)
        run("cmake", "--install", BUILD, "--prefix", cls.top / "first")
        cls.prefix = cls.top / "moved"  # what is installed may be moved
        (cls.top / "first").rename(cls.prefix)
        library = next(cls.prefix.rglob("libmultihead.*"))
        cls.models = any(cls.prefix.rglob("libmultihead_models.*"))
        cls.libraries = library.parent
        cls.shared = any(cls.prefix.rglob("libmultihead.so"))

    def check_output(self, program, **environment):
        printed = [[float(value) for value in line.split()] for line in run(program, **environment).splitlines()]
        self.assertEqual(len(printed), 2)
        for row, wanted in zip(printed, expected()):
            self.assertEqual(len(row), 3)
            for value, want in zip(row, wanted):
                self.assertAlmostEqual(value, want, places=5)

    def build_project(self, name, *settings):
        folder = self.top / name
        run("cmake", "-G", "Ninja", "-S", CONSUMERS / name, "-B", folder, *settings)
        run("cmake", "--build", folder)
        return folder / "consumer"

    def test_installed_files(self):
        headers = {path.name for path in (SOURCE / "include" / "multihead").glob("*.h*")}
        self.assertIn("multihead.h", headers)
        self.assertEqual({path.name for path in (self.prefix / "include" / "multihead").iterdir()}, headers)
        text = (SOURCE / "include" / "multihead" / "multihead.hpp").read_text(encoding="utf-8")
        version = ".".join(re.findall(r"#define MULTIHEAD_VERSION_\w+ (\d+)", text))
        for name in ("multihead.pc", "multihead_c.pc", "multihead_train.pc", "multihead_models.pc")[:3 + self.models]:
            self.assertIn(f"Version: {version}\n", (self.libraries / "pkgconfig" / name).read_text(encoding="utf-8"))
        for path in self.prefix.rglob("*"):
            if path.suffix in (".cmake", ".pc"):
                self.assertNotRegex(path.read_text(encoding="utf-8"), f"{SOURCE}/|{BUILD}|/first\\b")

    def test_find_package(self):
        self.check_output(self.build_project("find_package", f"-DCMAKE_PREFIX_PATH={self.prefix}"))

    def test_find_package_refuses_another_version(self):
        folder = self.top / "future"
        folder.mkdir()
        (folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(future LANGUAGES CXX)\n"
            "find_package(multihead 1000.0 CONFIG REQUIRED)\n", encoding="utf-8")
        with self.assertRaisesRegex(AssertionError, "compatible"):
            run("cmake", "-G", "Ninja", "-S", folder, "-B", folder / "out", f"-DCMAKE_PREFIX_PATH={self.prefix}")

    def test_pkg_config(self):
        if not shutil.which("pkg-config"):
            self.skipTest("pkg-config is not installed")
        folder = pathlib.Path(tempfile.mkdtemp(prefix="multihead_pkg_"))  # without a space: the shell splits its flags
        self.addClassCleanup(shutil.rmtree, folder)
        prefix = folder / "prefix"
        prefix.symlink_to(self.prefix)
        libraries = prefix / self.libraries.relative_to(self.prefix)
        build, paths = CONSUMERS / "pkg_config" / "build", {"PKG_CONFIG_PATH": libraries / "pkgconfig"}
        run(build, "main.cpp", folder / "consumer", "multihead", **paths)
        self.check_output(folder / "consumer", LD_LIBRARY_PATH=libraries)
        run(build, "train.cpp", folder / "train", "multihead_train", **paths)
        self.assertEqual(run(folder / "train", LD_LIBRARY_PATH=libraries), TRAINED)
        if self.models:
            run(build, "models.cpp", folder / "models", "multihead_models", **paths)
            self.assertEqual(run(folder / "models", LD_LIBRARY_PATH=libraries), "1\n3\n4\n2\n")

    def test_the_component_c(self):
        """For a project in C alone; it need not know that there is C++, or utf8proc."""
        program = self.build_project("c", f"-DCMAKE_PREFIX_PATH={self.prefix}", "-DCMAKE_CXX_COMPILER=false")
        self.check_output(program)
        needed = re.findall(r"NEEDED.*\[([^\]]+?)\.so", run("readelf", "-d", program))
        self.assertIn("libmultihead_c", needed)
        self.assertLessEqual(set(needed), {"libmultihead_c", "libc", "ld-linux-x86-64"})

    def test_pkg_config_of_c(self):
        if not shutil.which("pkg-config"):
            self.skipTest("pkg-config is not installed")
        folder = pathlib.Path(tempfile.mkdtemp(prefix="multihead_pkg_"))  # without a space: the shell splits its flags
        self.addClassCleanup(shutil.rmtree, folder)
        (folder / "prefix").symlink_to(self.prefix)
        libraries = folder / "prefix" / self.libraries.relative_to(self.prefix)
        for compiler, standard in (("gcc", "c99"), ("gcc", "c17"), ("clang", "c99")):
            if not shutil.which(compiler):
                continue
            run(CONSUMERS / "c" / "build", folder / "consumer", PKG_CONFIG_PATH=libraries / "pkgconfig", CC=compiler,
                STANDARD=standard)
            self.check_output(folder / "consumer", LD_LIBRARY_PATH=libraries)

    def test_the_component_train(self):
        program = self.build_project("train", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        self.assertEqual(run(program), TRAINED)

    def test_trained_models(self):
        """They lie where the installed command looks for them, wherever it was moved."""
        command = self.prefix / "bin" / "multihead"
        shipped = sorted(path.parent.name for path in SOURCE.glob("trained/*/model.safetensors"))
        if not command.exists():
            self.skipTest("the command was not built: CLI11 or utf8proc is missing")
        self.assertEqual(sorted(path.parent.name for path in self.prefix.rglob("model.safetensors")), shipped)
        self.assertIn("four-relations", shipped)
        for name in shipped:
            self.assertTrue(run(command, "learned", name).startswith(f"{name}: "))

    def test_the_component_models(self):
        if not self.models:
            self.skipTest("multihead_models was not built: utf8proc is missing")
        program = self.build_project("models", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        self.assertEqual(run(program), "1\n3\n4\n2\n")

    def test_the_component_models_without_utf8proc(self):
        if not self.models:
            self.skipTest("multihead_models was not built: utf8proc is missing")
        nothing = {"PKG_CONFIG_LIBDIR": self.top, "PKG_CONFIG_PATH": ""}
        for word, refused in (("OPTIONAL_COMPONENTS", False), ("REQUIRED COMPONENTS", True)):
            folder = self.top / word
            folder.mkdir()
            (folder / "CMakeLists.txt").write_text(
                "cmake_minimum_required(VERSION 3.25)\nproject(without LANGUAGES CXX)\n"
                f"find_package(multihead CONFIG {word} models)\n"
                "message(STATUS \"found: ${multihead_FOUND} ${multihead_models_FOUND}\")\n", encoding="utf-8")
            configure = ("cmake", "-G", "Ninja", "-S", folder, "-B", folder / "out", f"-DCMAKE_PREFIX_PATH={self.prefix}")
            if refused:
                with self.assertRaisesRegex(AssertionError, "does not find libutf8proc"):
                    run(*configure, **nothing)
            else:
                self.assertRegex(run(*configure, **nothing), "found: (1|TRUE) FALSE")

    def test_an_unknown_component_is_refused(self):
        folder = self.top / "unknown"
        folder.mkdir()
        (folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(unknown LANGUAGES CXX)\n"
            "find_package(multihead CONFIG REQUIRED COMPONENTS gpu)\n", encoding="utf-8")
        with self.assertRaisesRegex(AssertionError, "without the component gpu"):
            run("cmake", "-G", "Ninja", "-S", folder, "-B", folder / "out", f"-DCMAKE_PREFIX_PATH={self.prefix}")

    def test_add_subdirectory(self):
        if self.shared:
            return  # the subfolder is built from source: once is enough, with the static library
        settings = ["-DCMAKE_BUILD_TYPE=Release"]  # as the release build is compiled, whose objects ccache may have kept
        cache = (BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
        if "CMAKE_CXX_COMPILER_LAUNCHER:" in cache:
            werror = re.search(r"^MULTIHEAD_WERROR:BOOL=(\w+)$", cache, re.MULTILINE).group(1)
            settings += [f"-DMULTIHEAD_WERROR={werror}", "-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"]
        self.check_output(self.build_project("add_subdirectory", *settings))
        folder = self.top / "add_subdirectory"
        self.assertEqual([path for path in folder.rglob("*") if "multihead_c." in path.name and path.is_file()], [])
        run("cmake", "--install", folder, "--prefix", self.top / "guest")  # nothing of C is built, nothing is wanted
        of_c = re.compile(r"multihead_c\b|multiheadCTargets|multihead\.h$")
        self.assertEqual([path for path in (self.top / "guest").rglob("*") if of_c.search(str(path))], [])
        self.assertTrue([path for path in self.prefix.rglob("*") if of_c.search(str(path))])
        run("cmake", "--build", folder, "--target", "multihead_c")
        self.assertTrue(list(folder.rglob("libmultihead_c.*")))

    def test_command(self):
        command = self.prefix / "bin" / "multihead"
        if not command.exists():
            self.skipTest("the command was not built: CLI11 or utf8proc is missing")
        self.assertTrue(run(command, "--help"))

    def test_shared_library_names(self):
        if not self.shared:
            return
        listing = run("readelf", "-d", self.libraries / "libmultihead_c.so")
        self.assertRegex(listing, r"SONAME.*\[libmultihead_c\.so\.\d+\]")
        listing = run("readelf", "-d", self.libraries / "libmultihead.so")
        self.assertRegex(listing, r"SONAME.*\[libmultihead\.so\.\d+\]")
        needed = re.findall(r"NEEDED.*\[([^\]]+?)\.so", listing)
        self.assertLessEqual(set(needed), {"libc", "libm", "libstdc++", "libgcc_s", "libpthread", "ld-linux-x86-64"})


if __name__ == "__main__":
    unittest.main()
