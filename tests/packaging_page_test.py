# SPDX-License-Identifier: Apache-2.0
"""docs/packaging.md is true: its options, presets and packages are those of the build, no CMake file downloads, no source asks for the day."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent
PAGE = (SOURCE / "docs" / "packaging.md").read_text(encoding="utf-8")
CMAKE = [path for pattern in ("CMakeLists.txt", "*.cmake") for path in SOURCE.rglob(pattern)
         if not any(part.startswith(("build", ".")) for part in path.relative_to(SOURCE).parts[:-1])]


def run(*arguments, **more):
    outcome = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False, **more)
    if outcome.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, arguments))}\n{outcome.stdout}{outcome.stderr}")
    return outcome.stdout


def without_network():
    """What starts a command in a place without a network, or None where that is not allowed."""
    for prefix in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return prefix
    return None


class Page(unittest.TestCase):
    def test_options(self):
        text = (SOURCE / "CMakeLists.txt").read_text(encoding="utf-8")
        options = dict(re.findall(r"^option\((MULTIHEAD_\w+) .* (ON|OFF)\)", text, re.MULTILINE))
        self.assertTrue(options)
        said = dict(re.findall(r"^\| `(MULTIHEAD_\w+)` \| `(ON|OFF)`", PAGE, re.MULTILINE))
        self.assertLessEqual(options.items(), said.items())

    def test_presets(self):
        presets = (SOURCE / "CMakePresets.json").read_text(encoding="utf-8")
        named = set(re.findall(r"--preset (\w+)", PAGE))
        self.assertLessEqual({"deb", "arm64", "mingw"}, named)
        for name in named:
            self.assertIn(f'"name": "{name}"', presets)

    def test_the_line_for_windows(self):
        """It names files that are there once the preset is built; tests/mingw_test.py links them so."""
        line = re.search(r"^x86_64-w64.*$", PAGE, re.MULTILINE).group()
        self.assertIn("examples/attention.cpp", line)
        self.assertTrue((SOURCE / "examples" / "attention.cpp").is_file())

    def test_linked_files_exist(self):
        for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
            self.assertTrue((SOURCE / "docs" / target).exists(), target)


class Offline(unittest.TestCase):
    def test_no_source_asks_when_or_where_it_is_compiled(self):
        sources = [path for room in ("include", "src", "cli", "bindings") for path in (SOURCE / room).rglob("*")
                   if path.suffix in (".cpp", ".hpp", ".h")]
        self.assertGreater(len(sources), 100)
        for path in sources:
            with self.subTest(file=str(path.relative_to(SOURCE))):
                self.assertNotRegex(path.read_text(encoding="utf-8"), r"__(DATE|TIME|TIMESTAMP|FILE)__|source_location")

    def test_no_cmake_file_downloads(self):
        self.assertGreater(len(CMAKE), 5)
        for path in CMAKE:
            with self.subTest(file=str(path.relative_to(SOURCE))):
                self.assertNotRegex(path.read_text(encoding="utf-8"),
                                    r"(?i)fetchcontent|externalproject|file\s*\(\s*download|\b(curl|wget|git clone|pip install)\b")

    def test_the_pages_lines(self):
        """Configured, and a part of it built, as the page says, without a network."""
        prefix = without_network()
        if prefix is None:
            self.skipTest("unshare -n is not permitted here: a network was there while the tests built")
        with self.assertRaises(AssertionError):  # it has none indeed
            run(*prefix, "python3", "-c", "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)")
        configure, *_ = re.findall(r"^cmake -G Ninja .*$", PAGE, re.MULTILINE)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name) / "build"
            words = configure.replace("build/package", str(folder)).split()
            run(*prefix, *words, "-S", SOURCE, cwd=name)
            run(*prefix, "cmake", "--build", folder, "--target", "src/CMakeFiles/multihead.dir/core/error.cpp.o")
            self.assertTrue((folder / "src/CMakeFiles/multihead.dir/core/error.cpp.o").is_file())

    def test_what_cannot_be_fetched_leaves_nothing(self):
        prefix = without_network()
        if prefix is None:
            self.skipTest("unshare -n is not permitted here: what fetches is not seen to fail")
        with tempfile.TemporaryDirectory() as name:
            outcome = subprocess.run([*prefix, "sh", SOURCE / ".ci" / "fetch-arm64", pathlib.Path(name) / "sysroot"],
                                     capture_output=True, text=True, check=False)
            self.assertEqual((outcome.returncode, outcome.stdout), (1, ""))
            self.assertRegex(outcome.stderr, "^utf8proc for arm64 cannot be had: ")
            self.assertEqual(list(pathlib.Path(name).iterdir()), [])


if __name__ == "__main__":
    unittest.main()
