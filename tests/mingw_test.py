# SPDX-License-Identifier: Apache-2.0
"""The library for 64-bit Windows, cross-built: what was compiled, what it exports, and programs that link it."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import reference_test
from relinked import objects, relinked, run

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/mingw")).resolve()
COMPILER = "x86_64-w64-mingw32-g++-posix"
OBJDUMP, NM = "x86_64-w64-mingw32-objdump", "x86_64-w64-mingw32-nm"
CACHE = BUILD / "CMakeCache.txt"
CROSS = CACHE.is_file() and COMPILER in CACHE.read_text(encoding="utf-8")
# DLLs of Windows and of the compiler: nothing else is needed beside multihead's own.
SYSTEM = {"KERNEL32.dll", "msvcrt.dll"}
RUNTIME = {"libstdc++-6.dll", "libgcc_s_seh-1.dll", "libwinpthread-1.dll"}
# A move of a vector to or from memory that faults where the address is not a multiple of its width.
ALIGNED = re.compile(r"\tvmov(?:aps|apd|dqa|dqa32|dqa64|ntps|ntpd|ntdqa?)[ \t][^\n]*\(%[^\n]*")


def imports(program):
    return set(re.findall(r"DLL Name: (\S+)", run(OBJDUMP, "-p", program)))


def exports(library):
    table = run(OBJDUMP, "-p", library).partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
    return set(re.findall(r"^\s*\[ *\d+\] (\S+)", table, re.MULTILINE))


@unittest.skipUnless(CROSS, "this build is not for Windows: cmake --preset mingw")
class Windows(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="multihead_mingw_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    def test_every_source_is_compiled_for_it(self):
        compiled = {pathlib.Path(name).name for name in objects(BUILD)}
        sources = [path for room in ("core", "io", "kernels", "layer") for path in (SOURCE / "src" / room).glob("*.cpp")]
        self.assertEqual([path.name for path in sources if f"{path.name}.obj" not in compiled], [])
        self.assertRegex(run(OBJDUMP, "-f", BUILD / "libmultihead.a"), r"file format pe-x86-64")
        self.assertNotRegex(run(OBJDUMP, "-f", BUILD / "libmultihead.a"), r"file format (?!pe-x86-64)")

    def test_no_vector_wants_an_aligned_address(self):
        """Windows aligns the stack to 16 bytes, GCC saves wider registers there as if it were aligned to them."""
        listing = subprocess.run([OBJDUMP, "-d", "--no-show-raw-insn", BUILD / "libmultihead.a"], capture_output=True,
                                 text=True, check=True).stdout
        for register in ("ymm", "zmm"):
            self.assertGreater(listing.count(f"%{register}"), 10000)
        self.assertGreater(len(re.findall(r"\tvmovup[sd] .*\(%r[sb]p", listing)), 100)
        self.assertEqual(ALIGNED.findall(listing), [])

    def test_the_reading(self):
        self.assertTrue(ALIGNED.search("  10:\tvmovaps %ymm6,0x20(%rsp)\n"))
        self.assertTrue(ALIGNED.search("  10:\tvmovdqa64 (%rax),%zmm6\n"))
        self.assertFalse(ALIGNED.search("  10:\tvmovaps %ymm6,%ymm1\n  14:\tvmovups %ymm6,0x20(%rsp)\n"))

    def test_the_example_with_the_static_library(self):
        program = self.folder / "example.exe"
        run(COMPILER, "-std=c++20", f"-I{SOURCE / 'include'}", SOURCE / "examples" / "attention.cpp",
            BUILD / "libmultihead.a", "-static", "-o", program)
        self.assertLessEqual(imports(program), SYSTEM)

    def test_dlls(self):
        """Linked as BUILD_SHARED_LIBS does, of the same objects: code for Windows knows no other kind of position."""
        build, prefix = self.folder / "shared", self.folder / "prefix"
        relinked("mingw", SOURCE, BUILD, build, "-DBUILD_SHARED_LIBS=ON")
        run("cmake", "--install", build, "--prefix", prefix)
        library = prefix / "bin" / "libmultihead.dll"
        self.assertLessEqual(imports(library), SYSTEM | RUNTIME)
        exported = run("x86_64-w64-mingw32-c++filt", *sorted(exports(library)))
        names = set(re.findall(r"\bmultihead::(\w+)(?:\[abi:cxx11\])?[<(]", exported))
        for header in ("attention.hpp", "layer.hpp", "rotary.hpp", "target.hpp", "io.hpp", "layouts.hpp"):
            text = (SOURCE / "include" / "multihead" / header).read_text(encoding="utf-8")
            for _, name in reference_test.declared(text):
                if name[0].islower() and not re.search(rf"(?m)^(inline|constexpr) .*\b{name}\(", text):
                    with self.subTest(header=header, function=name):
                        self.assertIn(name, names)
        program = self.folder / "with_dll.exe"
        run(COMPILER, "-std=c++20", f"-I{prefix / 'include'}", SOURCE / "examples" / "attention.cpp",
            prefix / "lib" / "libmultihead.dll.a", "-o", program)
        self.assertLessEqual({"libmultihead.dll"}, imports(program))
        self.assertLessEqual(imports(program), SYSTEM | RUNTIME | {"libmultihead.dll"})

    def test_the_c_dll_exports_what_its_header_declares(self):
        text = (SOURCE / "include" / "multihead" / "multihead.h").read_text(encoding="utf-8")
        declared = set(re.findall(r"\b(mh_\w+)\(", re.sub(r"//.*|typedef[^;]*;", "", text)))
        self.assertEqual(exports(BUILD / "libmultihead_c.dll"), declared)
        program = self.folder / "example_c.exe"
        run(COMPILER.replace("g++", "gcc"), "-std=c99", f"-I{SOURCE / 'include'}", SOURCE / "examples" / "attention.c",
            BUILD / "libmultihead_c.dll.a", "-o", program)
        self.assertEqual(imports(program), SYSTEM | {"libmultihead_c.dll"})


if __name__ == "__main__":
    unittest.main()
