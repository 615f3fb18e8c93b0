# SPDX-License-Identifier: Apache-2.0
"""The Debian packages: what they hold and need, what lintian says, that they are the same twice, and a consumer of them."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import packaging_test

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/deb")).resolve()
CONFIG = BUILD / "CPackConfig.cmake"
PACKAGED = CONFIG.is_file() and 'CMAKE_INSTALL_PREFIX:PATH=/usr\n' in (BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
LIBRARIES = ["multihead", "multihead_models", "multihead_train", "multihead_c"]  # all of one version
run = packaging_test.run


def packages_in(folder):
    """{name: path} of the packages that cpack makes of the build."""
    run("cpack", "--config", CONFIG, "-B", folder, SOURCE_DATE_EPOCH="1700000000")
    return {path.name.split("_")[0]: path for path in folder.glob("*.deb")}


def words_of_page():
    """The tags of lintian that docs/packaging.md explains."""
    text = (SOURCE / "docs" / "packaging.md").read_text(encoding="utf-8")
    return set(re.findall(r"^- `([a-z-]+)`", text.partition("lintian")[2], re.MULTILINE))


@unittest.skipUnless(PACKAGED, "this build is not for packages: cmake --preset deb")
class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="multihead_deb_")
        cls.addClassCleanup(folder.cleanup)
        cls.top = pathlib.Path(folder.name)
        cls.packages = packages_in(cls.top / "first")
        cls.root = cls.top / "root"
        for path in cls.packages.values():
            run("dpkg-deb", "-x", path, cls.root)
        cls.multiarch = run("dpkg-architecture", "-qDEB_HOST_MULTIARCH").strip()
        cls.libraries = cls.root / "usr" / "lib" / cls.multiarch
        version = (SOURCE / "include" / "multihead" / "multihead.hpp").read_text(encoding="utf-8")
        cls.version = ".".join(re.findall(r"#define MULTIHEAD_VERSION_\w+ (\d+)", version))

    def fields(self, package):
        text = run("dpkg-deb", "-f", self.packages[package])
        return dict(re.findall(r"^([A-Z][\w-]*): (.*)$", text, re.MULTILINE))

    def files(self, package):
        listing = run("dpkg-deb", "-c", self.packages[package])
        self.assertNotRegex(listing, r"(?m)^\S+ (?!root/root)")
        return {line.split(" ./")[1].split(" -> ")[0] for line in listing.splitlines() if not line.endswith("/")}

    def test_which_file_is_in_which_package(self):
        at, dot = f"usr/lib/{self.multiarch}/", f".so.{self.version.split('.', maxsplit=1)[0]}"
        self.assertEqual(set(self.packages), {"libmultihead0", "libmultihead-dev", "multihead"})
        common = {package: {f"usr/share/doc/{package}/{name}" for name in ("copyright", "changelog.Debian.gz", "THIRD_PARTY_LICENSES")}
                  for package in self.packages}
        self.assertEqual(self.files("libmultihead0") - common["libmultihead0"],
                         {f"{at}lib{name}{dot}{rest}" for name in LIBRARIES
                          for rest in ("", self.version[self.version.index("."):])})
        self.assertEqual(self.files("multihead") - common["multihead"],
                         {"usr/bin/multihead", "usr/share/man/man1/multihead.1.gz"} |
                         {f"usr/share/multihead/trained/{path.parent.name}/{path.name}"
                          for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json")
                          for path in SOURCE.glob(f"trained/*/{name}")})
        development = self.files("libmultihead-dev") - common["libmultihead-dev"]
        headers = {f"usr/include/multihead/{path.name}" for path in (SOURCE / "include" / "multihead").iterdir()}
        self.assertLessEqual(headers | {f"{at}lib{name}.so" for name in LIBRARIES}, development)
        self.assertEqual({path.rpartition("/")[0] for path in development - headers},
                         {at[:-1], f"{at}pkgconfig", f"{at}cmake/multihead"})

    def test_what_they_need(self):
        for package in self.packages:
            fields = self.fields(package)
            self.assertEqual(fields["Version"], f"{self.version}-1")
            self.assertEqual(fields["Maintainer"], "The tests <tests@multihead.dev>")
            if package != "libmultihead0":
                self.assertIn(f"libmultihead0 (= {self.version}-1)", fields["Depends"])
        self.assertRegex(self.fields("libmultihead0")["Depends"], r"libc6 \(>= .*libstdc\+\+6 \(>= .*libutf8proc")
        self.assertIn("libutf8proc-dev", self.fields("libmultihead-dev")["Depends"])
        control = self.top / "control"
        run("dpkg-deb", "-e", self.packages["libmultihead0"], control)
        self.assertEqual((control / "shlibs").read_text(encoding="utf-8"),
                         "".join(f"lib{name} 0 libmultihead0 (>= {self.version})\n" for name in LIBRARIES))

    def test_lintian(self):
        if not shutil.which("lintian"):
            self.skipTest("lintian is not installed")
        outcome = subprocess.run(["lintian", "--allow-root", "--profile", "debian", *self.packages.values()],
                                 capture_output=True, text=True, check=False)
        known = "2.116" in run("lintian", "--version")  # another version has other warnings
        tags = set(re.findall(rf"^[{'EW' if known else 'E'}]: \S+: (\S+)", outcome.stdout, re.MULTILINE))
        self.assertTrue(outcome.stdout)
        self.assertEqual(sorted(tags - words_of_page()), [], outcome.stdout)

    def test_twice_the_same(self):
        again = packages_in(self.top / "second")
        for name, path in self.packages.items():
            with self.subTest(package=name):
                self.assertEqual(hashlib.sha256(path.read_bytes()).digest(),
                                 hashlib.sha256(again[name].read_bytes()).digest())

    def test_no_path_of_the_build(self):
        """Neither a search path for libraries nor the folder of the source or the build stands in what is installed."""
        places = [str(BUILD).encode(), str(BUILD.with_name("deb source")).encode(), str(SOURCE).encode() + b"/"]
        for path in self.root.rglob("*"):
            if path.is_file():
                with self.subTest(file=str(path.relative_to(self.root))):
                    content = path.read_bytes()
                    self.assertFalse([place for place in places if place in content])
                    if content.startswith(b"\x7fELF"):
                        self.assertNotRegex(run("readelf", "-d", path), "RPATH|RUNPATH")

    def test_the_command(self):
        golden = (SOURCE / "tests" / "golden_cli" / "sample_trace.txt").read_text(encoding="utf-8")
        printed = run(self.root / "usr" / "bin" / "multihead", "sample", "--trace", LD_LIBRARY_PATH=self.libraries)
        self.assertEqual(printed, golden)

    def test_a_consumer(self):
        """Compiled against what is unpacked: find_package with the models, and pkg-config, whose flags name /usr."""
        folder = self.top / "models"
        run("cmake", "-G", "Ninja", "-S", packaging_test.CONSUMERS / "models", "-B", folder,
            f"-DCMAKE_PREFIX_PATH={self.root / 'usr'}")
        run("cmake", "--build", folder)
        self.assertEqual(run(folder / "consumer", LD_LIBRARY_PATH=self.libraries), "1\n3\n4\n2\n")
        run(packaging_test.CONSUMERS / "pkg_config" / "build", "train.cpp", self.top / "consumer_train", "multihead_train",
            PKG_CONFIG_PATH=self.libraries / "pkgconfig", LD_LIBRARY_PATH=self.libraries)
        self.assertEqual(run(self.top / "consumer_train", LD_LIBRARY_PATH=self.libraries), "2 steps, the loss falls\n")
        run(packaging_test.CONSUMERS / "pkg_config" / "build", "main.cpp", self.top / "consumer", "multihead",
            PKG_CONFIG_PATH=self.libraries / "pkgconfig")
        run(packaging_test.CONSUMERS / "c" / "build", self.top / "consumer_c", PKG_CONFIG_PATH=self.libraries / "pkgconfig",
            LD_LIBRARY_PATH=self.libraries)  # where ld finds the libraries that this one needs
        for program in ("consumer", "consumer_c"):
            self.assertEqual(len(run(self.top / program, LD_LIBRARY_PATH=self.libraries).splitlines()), 2)


if __name__ == "__main__":
    unittest.main()
