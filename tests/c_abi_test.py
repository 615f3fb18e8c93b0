# SPDX-License-Identifier: Apache-2.0
"""The C ABI: what libmultihead_c.so exports and asks for, and that a release keeps what the last one promised.

tests/abi/ has the header as of the last release (before the first one: of today), and a program that is compiled from it.
A struct may only grow at its end, a number never changes its meaning, no function goes or changes; abidiff judges functions
and what they reach, from a library of empty functions that is compiled from each header with its debug information. At a release, `python3 tests/c_abi_test.py renew` writes the file anew.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import tiny_encoder

TESTS = pathlib.Path(__file__).resolve().parent
SOURCE = TESTS.parent
HEADER = SOURCE / "include" / "multihead" / "multihead.h"
RELEASED = TESTS / "abi" / "multihead.h.txt"
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release")).resolve()
LIBRARY = BUILD / "libmultihead_c.so"
# Of libm: functions with one right answer, whose bits are everywhere the same, and the rounding mode.
EXACT = {"sqrt", "sqrtf", "ceil", "fegetenv", "fesetenv"}


def output(*arguments, **more):
    outcome = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False, **more)
    if outcome.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, arguments))}\n{outcome.stdout}{outcome.stderr}")
    return outcome.stdout


def plain(header):
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", header, flags=re.DOTALL)


def functions(header):
    """Each function as (result, name, parameters)."""
    return re.findall(r"^MH_API\s+([^;(]*?)\s*\b(mh_\w+)\s*\(([^;]*?)\)\s*;", plain(header), re.MULTILINE)


def fields(body):
    """The fields of a struct as ["int32_t causal", ..], one each."""
    found = []
    for declaration in filter(str.strip, body.split(";")):
        first, *others = " ".join(declaration.split()).split(",")
        kind, name = re.fullmatch(r"(.*?[\w*])\s+(\**\w+(?:\[\d+\])?)", first.strip()).groups()
        found += [f"{kind} {one.strip()}" for one in (name, *others)]
    return found


def structs(header):
    return {name: fields(body) for body, name in re.findall(r"typedef struct mh_\w+ \{(.*?)\} (mh_\w+);", plain(header),
                                                            re.DOTALL)}


def numbers(header):
    """Each enumerator and macro with its number, and each integer type's name with what it is."""
    text = plain(header)
    found = dict(re.findall(r"\b(MH_\w+) = (-?\d+)", text))
    return {**found, **{name: kind for kind, name in re.findall(r"typedef (\w+) (mh_\w+);", text)}}


def version(header):
    return tuple(int(re.search(rf"#define MH_VERSION_{part} (\d+)", header).group(1)) for part in ("MAJOR", "MINOR", "PATCH"))


def grown(before, now):
    """Structs that have more fields at their ends than before, as those with a struct_size may."""
    return {name for name, had in before.items() if had[0] == "uint32_t struct_size" and name in now
            and now[name][:len(had)] == had and len(now[name]) > len(had)}


def broken(before, now):
    """What of one header's structs and numbers another does not keep."""
    found = [f"{name} was {number}, is {numbers(now).get(name)}" for name, number in numbers(before).items()
             if numbers(now).get(name) != number]
    old, new = structs(before), structs(now)
    for name, had in old.items():
        kept = new.get(name, [])
        if had != kept[:len(had)]:
            found.append(f"{name} had {next(a for a, b in zip(had, [*kept, *had]) if a != b)}")
        elif len(kept) > len(had) and had[0] != "uint32_t struct_size":
            found.append(f"{name} has no struct_size and may not grow")
    return found


def compiled(header, folder):
    """A library of empty functions as the header declares them, with debug information."""
    source, library = folder / "functions.c", folder / "libfunctions.so"
    bodies = [f"{result} {name}({parameters}) {{ __builtin_trap(); }}" for result, name, parameters in functions(header)]
    source.write_text(header + "\n" + "\n".join(bodies) + "\n", encoding="utf-8")
    output("gcc", "-std=c99", "-Wall", "-Wno-unused-parameter", "-Werror", "-g", "-shared", "-fPIC", source, "-o", library)
    return library


def differences(before, now):
    """What abidiff says when one header follows the other; "" when all is kept."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        libraries = []
        for part, header in (("before", before), ("now", now)):
            (folder / part).mkdir()
            libraries.append(compiled(header, folder / part))
        # Of a struct that grew, broken() has compared every field.
        suppressed = folder / "suppressed"
        suppressed.write_text("".join(f"[suppress_type]\n  name = {struct}\n  has_data_member_inserted_at = end\n"
                                      for struct in grown(structs(before), structs(now))), encoding="utf-8")
        outcome = subprocess.run(["abidiff", "--no-added-syms", "--suppressions", suppressed, *libraries],
                                 capture_output=True, text=True, check=False)
        return "" if outcome.returncode == 0 else outcome.stdout + outcome.stderr


class Exports(unittest.TestCase):
    header = HEADER.read_text(encoding="utf-8")

    def names(self, path, *arguments):
        listing = output("nm", "-D", *arguments, path)
        return {line.split()[-1] for line in listing.splitlines() if line.split()[-2:-1] not in (["A"], ["w"])}

    def test_the_functions_of_the_header_and_nothing_else(self):
        declared = {name for _, name, _ in functions(self.header)}
        self.assertGreater(len(declared), 40)
        self.assertEqual(len(declared), len(re.findall(r"^MH_API ", self.header, re.MULTILINE)))
        self.assertEqual(self.names(LIBRARY, "--defined-only"), {f"{name}@@MH_0" for name in declared})

    def test_names_of_the_library(self):
        dynamic = output("readelf", "-d", LIBRARY)
        self.assertEqual(re.findall(r"SONAME.*\[(.*)\]", dynamic), ["libmultihead_c.so.0"])
        needed = set(re.findall(r"NEEDED.*\[([^\]]+?)\.so", dynamic))
        self.assertLessEqual(needed, {"libc", "libm", "libstdc++", "libgcc_s", "libpthread", "ld-linux-x86-64",
                                      "ld-linux-aarch64", "libutf8proc", "libmultihead", "libmultihead_models"})

    def test_asks_for_nothing_unexpected(self):
        """libc, the C++ runtime, utf8proc, and multihead where it is shared; no number comes from libm."""
        offered = {name.split("@")[0] for name in self.names(output("gcc", "-print-file-name=libm.so.6").strip(),
                                                             "--defined-only")}
        self.assertIn("expf", offered)
        shared = set()
        for library in BUILD.glob("libmultihead*.so"):
            if library != LIBRARY:
                shared |= self.names(library, "--defined-only")
        for symbol in self.names(LIBRARY, "--undefined-only"):
            with self.subTest(symbol=symbol):
                name, _, origin = symbol.partition("@")
                if name in offered:
                    self.assertIn(name, EXACT)
                elif not origin:
                    self.assertTrue(name.startswith("utf8proc_") or name in shared, "whose is it?")
                else:
                    self.assertRegex(origin, r"^(GLIBC|GLIBCXX|CXXABI|GCC)_")

    def test_versions(self):
        text = (SOURCE / "include" / "multihead" / "multihead.hpp").read_text(encoding="utf-8")
        self.assertEqual(version(self.header), tuple(map(int, re.findall(r"#define MULTIHEAD_VERSION_\w+ (\d+)", text))))


class Promise(unittest.TestCase):
    header = HEADER.read_text(encoding="utf-8")

    def setUp(self):
        if not shutil.which("abidiff"):
            self.skipTest("abidiff is not installed")

    def expect_kept(self, before):
        self.assertLessEqual(version(before), version(self.header))
        self.assertEqual(broken(before, self.header), [])
        self.assertEqual(differences(before, self.header), "")

    def test_keeps_what_the_last_release_has(self):
        self.expect_kept(RELEASED.read_text(encoding="utf-8"))

    def test_keeps_what_the_last_tag_has(self):
        if not (SOURCE / ".git").exists() or not shutil.which("git"):
            self.skipTest("this is no clone of the repository: it has no tags")
        tags = output("git", "-C", SOURCE, "tag", "--list", "v*", "--sort=-v:refname").split()
        if not tags:
            return  # nothing is released yet
        self.expect_kept(output("git", "-C", SOURCE, "show", f"{tags[0]}:include/multihead/multihead.h"))

    def changed(self, *changes):
        text = self.header
        for before, after in changes:
            self.assertEqual(len(re.findall(before, text)), 1, before)
            text = re.sub(before, after, text)
        return text

    def test_growth_is_seen_as_such(self):
        field = (r"(\} mh_attention_options;)", r"  double later;\n\1")
        function = (r"(MH_API const char\* mh_version\(void\);)", r"\1\nMH_API mh_status mh_new(int32_t number);")
        number = (r"(MH_TARGET_AMX = 6)", r"\1, MH_SVE = 7")
        now = self.changed(field, function, number)
        self.assertEqual(broken(self.header, now), [])
        self.assertEqual(differences(self.header, now), "")

    def test_what_breaks_is_seen(self):
        """Each change to a copy of the header is found by the comparison of fields and numbers, or by abidiff."""
        for name, change, by_fields, by_abidiff in (
                ("a field removed", (r"  double softcap;[^\n]*\n", ""), True, True),
                ("a field inserted", (r"(  double softcap;)", r"  double later;\n\1"), True, True),
                ("a field of another type", (r"int32_t causal;", "int64_t causal;"), True, True),
                ("a type of the same size", (r"double softcap;", "int64_t softcap;"), True, True),
                ("two fields exchanged", (r"double (scale);(\s+)double (softcap);", r"double \3;\2double \1;"), True, True),
                ("a struct without size grown", (r"(int64_t strides\[4\];)", r"\1 int64_t more;"), True, True),
                ("a number changed", (r"MH_BAD_TYPE = 7", "MH_BAD_TYPE = 10"), True, False),
                ("a number removed", (r" MH_TARGET_NEON = 4,", ""), True, False),
                ("a function removed", (r"MH_API mh_status mh_tasks_run\([^;]*;", ""), False, True),
                ("a parameter added", (r"(mh_tasks_run\(mh_target target, )", r"\1int32_t more, "), False, True),
                ("a parameter of another type", (r"int32_t weights, size_t\* bytes\);(?=\s+// The same of)",
                                                 "int64_t weights, size_t* bytes);"), False, True)):
            with self.subTest(change=name):
                now = self.changed(change)
                self.assertEqual(bool(broken(self.header, now)), by_fields)
                self.assertEqual(bool(differences(self.header, now)), by_abidiff)


class Callers(unittest.TestCase):
    """A program compiled from the last release's header runs with today's library: of a struct that grew its size is kept."""

    released = RELEASED.read_text(encoding="utf-8")
    program = (TESTS / "abi" / "older_caller.c").read_text(encoding="utf-8")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "multihead.h").write_text(self.released, encoding="utf-8")
        tiny_encoder.write(self.folder)
        self.encoder = [self.folder] if any(BUILD.glob("libmultihead_models*")) else []
        output("gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{self.folder}", TESTS / "abi" / "older_caller.c",
               "-o", self.folder / "caller", f"-L{BUILD}", "-lmultihead_c", f"-Wl,-rpath,{BUILD}")
        self.sized = {name for name, had in structs(self.released).items() if had[0] == "uint32_t struct_size"}

    def run_with(self, spoiled):
        return subprocess.run([self.folder / "caller", spoiled, *self.encoder], capture_output=True, text=True, check=False)

    def test_makes_every_struct(self):
        self.assertEqual(set(re.findall(r"MADE\((mh_\w+), \w+\);", self.program)), self.sized)

    def test_is_answered(self):
        outcome = self.run_with("-")
        self.assertEqual((outcome.returncode, outcome.stdout), (0, ""))

    def test_a_size_that_is_not_kept_is_seen(self):
        for struct in self.sized:
            if struct.startswith("mh_encoder") and not self.encoder:
                continue
            with self.subTest(struct=struct):
                outcome = self.run_with(struct)
                self.assertEqual(outcome.returncode, 1)
                self.assertRegex(outcome.stdout, rf"^bad_argument: \w+: {struct} has struct_size \d+; it must be ")


if __name__ == "__main__":
    if sys.argv[1:] == ["renew"]:
        shutil.copyfile(HEADER, RELEASED)
    else:
        unittest.main()
