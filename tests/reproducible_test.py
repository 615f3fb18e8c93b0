# SPDX-License-Identifier: Apache-2.0
"""Two builds in two folders are one: the same objects, and the same installed files, whose hashes are compared.

The builds `release` and `deb` compile the same sources, which lie in two places, in two folders: their objects are
compared. What they are linked to is compared with what a third folder, of a third copy of the source, links of these
objects, and so is all that is installed.
"""

import os
import pathlib
import shutil
import tempfile
import unittest

from relinked import objects, relinked, run

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/deb")).resolve()
COPY = BUILD.with_name("deb source")
OTHER = BUILD.with_name("release")
CACHE = BUILD / "CMakeCache.txt"
TWO = CACHE.is_file() and f"={COPY}\n" in CACHE.read_text(encoding="utf-8") and (OTHER / "build.ninja").is_file()
MISSING = "there are no two builds of two copies of the source: python3 tests/run_all.py reproducible_test makes them"


def members(archive):
    """(name, the header's time, owner, group and mode, bytes) of each member of an ar archive."""
    content, at = archive.read_bytes(), 8
    while at < len(content):
        header = content[at:at + 60].decode("ascii")
        size = int(header[48:58])
        yield header[:16].strip(), header[16:48].split(), content[at + 60:at + 60 + size]
        at += 60 + size + size % 2


@unittest.skipUnless(TWO, MISSING)
class Reproducible(unittest.TestCase):
    def test_the_same_objects(self):
        ours, theirs = objects(BUILD), objects(OTHER)
        self.assertGreater(len(ours), 40)
        self.assertEqual(set(ours), set(theirs))
        for name, path in ours.items():
            with self.subTest(object=name):
                self.assertEqual(path.read_bytes(), theirs[name].read_bytes())

    def test_debugging_information(self):
        """One source file of each of two places, one below its source's folder and one apart, with -g."""
        with tempfile.TemporaryDirectory() as name:
            found = []
            for source, build in ((pathlib.Path(name) / "one", "one/build"), (pathlib.Path(name) / "at" / "two", "built")):
                shutil.copytree(COPY, source, ignore=shutil.ignore_patterns("tests"))
                build = pathlib.Path(name) / build
                run("cmake", "--preset", "deb", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
                run("cmake", "--build", build, "--target", "src/CMakeFiles/multihead.dir/core/error.cpp.o")
                found.append((build / "src/CMakeFiles/multihead.dir/core/error.cpp.o").read_bytes())
            self.assertIn(b".debug_info", found[0])
            self.assertEqual(found[0], found[1])

    def test_an_archive_knows_no_time_and_no_user(self):
        found = list(members(OTHER / "libmultihead.a"))
        contents = [content for _, _, content in found]
        for path in sorted((OTHER / "src" / "CMakeFiles" / "multihead.dir").rglob("*.o")):
            self.assertIn(path.read_bytes(), contents)
        self.assertGreater(len(found), 40)
        for name, (time, owner, group, _), _ in (member for member in found if member[0] not in ("/", "//")):
            self.assertEqual((time, owner, group), ("0", "0", "0"), name)

    def test_the_same_installed_files(self):
        with tempfile.TemporaryDirectory() as name:
            top = pathlib.Path(name)
            source, build = top / "at" / "another depth" / "source", top / "build"
            shutil.copytree(COPY, source, ignore=shutil.ignore_patterns("tests"))
            self.assertGreaterEqual(len(relinked("deb", source, BUILD, build, SOURCE_DATE_EPOCH="1700000000")), 3)
            trees = []
            for number, folder in enumerate((BUILD, build)):
                root = top / f"root {number}"
                run("cmake", "--install", folder, DESTDIR=str(root))
                trees.append({str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()})
            first, second = trees
            self.assertEqual(set(first), set(second))
            self.assertTrue({"usr/bin/multihead", "usr/include/multihead/multihead.hpp"} <= set(first))
            self.assertTrue(any(name.endswith("libmultihead.so.0") for name in first))
            for name, content in first.items():
                with self.subTest(file=name):
                    self.assertEqual(content, second[name])


if __name__ == "__main__":
    unittest.main()
