# SPDX-License-Identifier: Apache-2.0
"""The house keeps its own rules: includes go downward, files and functions stay small, public headers stand alone."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent

# A room and the rooms its files may include; multihead/ is the public headers.
ROOMS = {
    "include/multihead": {"multihead"},
    "src/core": {"core", "multihead"},
    "src/io": {"io", "core", "multihead"},
    "src/kernels": {"kernels", "core", "multihead"},
    "src/layer": {"layer", "kernels", "core", "multihead"},
    "src/inspect": {"inspect", "layer", "kernels", "core", "multihead"},
    "src/models": {"models", "multihead"},
    "src/train": {"train", "inspect", "models", "distributed", "layer", "kernels", "core", "io", "multihead"},
    "src/distributed": {"distributed", "layer", "kernels", "core", "multihead"},
    "bindings/c": {"c", "multihead"},
    "bindings/python": {"python", "c", "multihead"},
    "cli": {"cli", "multihead"},
    "examples": {"multihead"},
    "bench": {"bench", "kernels", "multihead"},
    "tests": None,  # anything
}
# Headers outside the C++ standard library that a room may take with <>, beside the compilers' intrinsics in kernels.
GUESTS = {
    "include/multihead": {"stddef.h", "stdint.h"},  # of the C header
    "cli": {"CLI/", "unistd.h", "sys/", "zlib.h"},
    "bench": {"benchmark/", "sys/", "unistd.h", "immintrin.h", "arm_neon.h"},
    "src/core": {"pthread.h", "sched.h", "unistd.h", "xmmintrin.h", "immintrin.h", "cpuid.h", "sys/"},
    "src/io": {"fcntl.h", "unistd.h", "sys/", "io.h", "windows.h", "nlohmann/"},
    "src/models": {"utf8proc.h"},
    "bindings/python": {"nanobind/"},
    "src/kernels": {"immintrin.h", "emmintrin.h", "cpuid.h", "arm_neon.h", "sys/auxv.h"},
}

FILE_LINES = 400
BODY_LINES = 60
KERNEL_BODY_LINES = 120  # in .inl.hpp files
PARAMETERS = 6

# Limits crossed for a reason, {"file": "why"} and {"file: function": "why"}. A reason no longer needed fails too.
LONG_FILES = {
    "include/multihead/multihead.h": "the whole contract of the C face: one header, as C's users expect",
}
LONG_BODIES = {}
FORMULA = "its arguments are the letters of the formula, in the formula's order"
TILE = "a tile in registers: pointers, strides and counts that change with each call of a loop"
OF_THE_HEADER = "as multihead.h has it: C has no options by name for what must be given"
MANY_PARAMETERS = {
    "bindings/c/attention.cpp: mh_attention": OF_THE_HEADER,
    "bindings/c/attention.cpp: mh_attention_statistics": OF_THE_HEADER,
    "bindings/c/attention_backward.cpp: mh_attention_backward": OF_THE_HEADER,
    "bindings/c/attention.cpp: mh_merge": OF_THE_HEADER,
    "bindings/c/encoder_left_out.cpp: mh_encoder_tokens": OF_THE_HEADER,
    "bindings/c/encoder_texts.cpp: mh_encoder_tokens": OF_THE_HEADER,
    "bindings/c/kv_cache.cpp: mh_kv_cache_append": OF_THE_HEADER,
    "bindings/c/kv_cache.cpp: mh_kv_cache_attention": OF_THE_HEADER,
    "bindings/c/layer_forward.cpp: mh_layer_forward": OF_THE_HEADER,
    "bindings/c/layer_forward.cpp: mh_layer_scratch_bytes": OF_THE_HEADER,
    "bindings/c/multi_head.cpp: mh_multi_head_attention": OF_THE_HEADER,
    "bindings/c/multi_head.cpp: mh_multi_head_attention_scratch_bytes": OF_THE_HEADER,
    "bindings/c/multi_head.cpp: mh_self_attention": OF_THE_HEADER,
    "include/multihead/layer.hpp: multi_head_attention": FORMULA,
    "src/layer/multi_head_attention.cpp: multi_head_attention": FORMULA,
    "src/layer/multi_head_attention.cpp: self_attention": FORMULA,
    "src/layer/multi_head_attention.cpp: multi_head_attention_scratch_bytes": "the extents of the same letters",
    "src/layer/multi_head_attention.cpp: run_heads": "what was asked, what was found out about it, and where to put it",
    "src/layer/rotary.cpp: rotary_embedding": "the contract's: tensor, tables, rows, pairing, result, target",
    "src/kernels/attention.cpp: attention": FORMULA,
    "src/layer/cached_attention.cpp: attention": "the formula's, but that a cache, a layer and sequences stand for keys and values",
    "src/kernels/merge.cpp: merge": FORMULA,
    "src/kernels/reference.cpp: multi_head_attention_reference": FORMULA,
    "tests/c_face.hpp: attention": FORMULA,
    "tests/c_face.hpp: merge": FORMULA,
    "tests/c_face.hpp: multi_head_attention": FORMULA,
    "tests/c_face.hpp: self_attention": FORMULA,
    "src/kernels/panel.inl.hpp: accumulate": TILE,
}


def files(*suffixes, rooms=ROOMS):
    for room in rooms:
        for path in sorted((SOURCE / room).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path


def functions_of_the_house():
    """Each function of C++: (path, name, parameters, first line, lines, limit of lines)."""
    for path in files(".hpp", ".cpp"):
        limit = KERNEL_BODY_LINES if path.name.endswith(".inl.hpp") else BODY_LINES
        for function in functions(blanked(path.read_text(encoding="utf-8"))):
            yield (path, *function, limit)


def relative(path):
    return str(path.relative_to(SOURCE))


def room_of(path):
    return next(room for room in ROOMS if relative(path).startswith(room + "/"))


def blanked(text):
    """The text without comments, literals, and directives: same length, same lines."""
    pattern = r'//[^\n]*|/\*.*?\*/|R"\((?:.*?)\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:\\\n|[^\n])*'
    literals = re.compile(pattern, re.DOTALL | re.MULTILINE)
    digits = re.compile(r"(?<=[0-9a-fA-F])'(?=[0-9a-fA-F])")  # 1'000 is no character
    text = digits.sub("_", text)
    return literals.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)


def matching(text, start):
    """The place of the bracket that closes the one at start."""
    pairs = {"{": "}", "(": ")"}
    depth = 0
    for place in range(start, len(text)):
        if text[place] == text[start]:
            depth += 1
        elif text[place] == pairs[text[start]]:
            depth -= 1
            if depth == 0:
                return place
    raise ValueError(f"bracket without end at {start}")


def parameters_of(header):
    """Name and number of parameters from what stands before a function's body, or None when it is no function."""
    header = re.sub(r"\[\[.*?\]\]|__attribute__\s*\(\(.*?\)\)|\bnoexcept\s*\([^)]*\)", " ", header, flags=re.DOTALL)
    header = re.sub(r"\b(requires|public|private|protected)\b\s*:?", " ", header)
    header = re.sub(r"\b(class|typename) (\w+) = \w+", r"\1 \2", header)  # what a template takes unless told
    if re.search(r"^\s*(template\s*<.*>\s*)?(namespace|extern|enum|union)\b", header, re.DOTALL):
        return None
    found = re.search(r"(operator\s*(?:\(\)|[^\s\w(]+|[\w:<>& ]+)|~?\w+)\s*\(", header)
    if not found or re.search(r"=\s*$", header) or re.search(r"^[^(]*[^=!<>+*/|&^-]=[^=]", header[:found.start()]):
        return None
    inside = header[found.end():matching(header, found.end() - 1)]
    depth, count = 0, 1 if inside.strip() and inside.strip() != "void" else 0
    for before, letter in zip(" " + inside, inside):
        depth += (letter in "(<{[") - (letter in ")>}]" and not (letter == ">" and before == "-"))
        count += letter == "," and depth == 0
    if re.fullmatch(r"(TYPED_)?TEST(_[FP])?|RC_GTEST_\w+", found.group(1)):
        return f"{found.group(1)}({' '.join(inside.split())})", 0
    return found.group(1), count


def functions(text):
    """Each function body of a blanked text: (name, parameters, first line, lines)."""
    start = place = 0
    while place < len(text):
        letter = text[place]
        if letter == "(":
            place = matching(text, place)
        elif letter in ";}":
            start = place + 1
        elif letter == "{":
            header = text[start:place]
            end = matching(text, place)
            function = parameters_of(header)
            initializes = re.search(r"\)\s*(noexcept)?\s*:[^;]*[\w>]\s*$", header, re.DOTALL)
            if function and initializes and re.match(r"\s*[,{]", text[end + 1:end + 40]):
                place = end  # a member's braces in a constructor's list
            elif function:
                line = text.count("\n", 0, place) + 1
                yield (*function, line, text.count("\n", place, end) + 1)
                place = end
                start = end + 1
            elif re.search(r"\b(namespace|class|struct|union|extern)\b", header) and not header.rstrip().endswith("="):
                start = place + 1
            else:
                place = end  # an initializer or an enumeration
        place += 1


class Includes(unittest.TestCase):
    def test_go_downward(self):
        for path in files(".hpp", ".cpp", ".h"):
            room = room_of(path)
            for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE):
                target = name.split("/")[0] if "/" in name else room.split("/")[-1]
                with self.subTest(file=relative(path), include=name):
                    self.assertTrue(ROOMS[room] is None or target in ROOMS[room] or
                                    (room == "bench" and name == "problem.hpp"), f"{room} may not include {name}")

    def test_stand_alone(self):
        """With <> come the standard library and the few guests of a room."""
        for path in files(".hpp", ".cpp", ".h"):
            room = room_of(path)
            if ROOMS[room] is None:
                continue
            for name in re.findall(r"^\s*#\s*include\s+<([^>]+)>", path.read_text(encoding="utf-8"), re.MULTILINE):
                with self.subTest(file=relative(path), include=name):
                    standard = re.fullmatch(r"[a-z_]+", name)
                    self.assertTrue(standard or any(name.startswith(guest) for guest in GUESTS.get(room, ())))

    def test_none_inside_a_region(self):
        """What is compiled once per target includes nothing, so no header's code gets a target's instructions."""
        for path in files(".hpp", rooms=["src"]):
            if path.name.endswith(".inl.hpp"):
                with self.subTest(file=relative(path)):
                    self.assertNotRegex(path.read_text(encoding="utf-8"), r"(?m)^\s*#\s*include")
        for path in files(".cpp", rooms=["src/kernels"]):
            _, _, region = path.read_text(encoding="utf-8").partition("MULTIHEAD_REGION_BEGIN")
            with self.subTest(file=relative(path)):
                self.assertFalse([name for name in re.findall(r'(?m)^\s*#\s*include\s+[<"]([^>"]+)', region)
                                  if not name.endswith(".inl.hpp")])


class Limits(unittest.TestCase):
    def test_file_lines(self):
        for path in files(".hpp", ".cpp", ".h", ".py"):
            with self.subTest(file=relative(path)):
                if relative(path) not in LONG_FILES:
                    self.assertLessEqual(len(path.read_text(encoding="utf-8").splitlines()), FILE_LINES)

    def test_functions(self):
        count = 0
        for path, name, parameters, line, lines, limit in functions_of_the_house():
            count += 1
            key = f"{relative(path)}: {name}"
            with self.subTest(function=key, line=line):
                self.assertTrue(lines <= limit or key in LONG_BODIES, f"{lines} lines, limit {limit}")
                self.assertTrue(parameters <= PARAMETERS or key in MANY_PARAMETERS, f"{parameters} parameters")
        self.assertGreater(count, 50)

    def test_the_counting_of_functions(self):
        """This file's own reading of C++, tried on a few lines."""
        sample = """
namespace a { struct B { int x = 0; B(int y) : x{y}, z_(f({1, 2})) { use(); } bool operator==(const B&) const; };
constexpr int table[] = {1, 2};
template <class T, int N, class S = int> requires(N > 0)
inline T f(View<T, 2> a, int (*g)(int, int), T b = {}) noexcept {
  auto h = [&](int q) { return q; };
  if (a) { return 1'000; }  // }
}
void operator()(int a) const { }
}
"""
        found = [(name, parameters, lines) for name, parameters, _, lines in functions(blanked(sample))]
        self.assertEqual(found, [("B", 1, 1), ("f", 3, 4), ("operator()", 1, 1)])

    def test_cmake(self):
        lists = [path for path in SOURCE.rglob("CMakeLists.txt") if "build" not in path.relative_to(SOURCE).parts]
        for path in lists:
            with self.subTest(file=relative(path)):
                self.assertLessEqual(len(path.read_text(encoding="utf-8").splitlines()), 200)
        text = (SOURCE / "CMakeLists.txt").read_text(encoding="utf-8")
        options = re.findall(r"(?:option\(|set\()(MULTIHEAD_\w+)(?= \"[^\"]*\" (?:ON|OFF|CACHE))", text)
        self.assertLessEqual(len(options), 6)

    def test_nothing_is_left_open(self):
        word = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
        for path in files(".hpp", ".cpp", ".h", ".py", ".txt"):
            with self.subTest(file=relative(path)):
                self.assertNotRegex(path.read_text(encoding="utf-8"), word)

    def test_first_lines_say_what_a_file_is_for(self):
        for path in files(".hpp", ".cpp", ".h", ".c"):
            lines = path.read_text(encoding="utf-8").splitlines()
            with self.subTest(file=relative(path)):
                self.assertEqual(lines[0], "// SPDX-License-Identifier: Apache-2.0")
                self.assertRegex(lines[1], r"^// \S")

    def test_exceptions_are_still_needed(self):
        bodies, many = set(), set()
        for path, name, parameters, _, lines, limit in functions_of_the_house():
            bodies |= {f"{relative(path)}: {name}"} if lines > limit else set()
            many |= {f"{relative(path)}: {name}"} if parameters > PARAMETERS else set()
        long = {relative(path) for path in files(".hpp", ".cpp", ".h", ".py")
                if len(path.read_text(encoding="utf-8").splitlines()) > FILE_LINES}
        self.assertLessEqual(set(LONG_BODIES), bodies)
        self.assertLessEqual(set(MANY_PARAMETERS), many)
        self.assertLessEqual(set(LONG_FILES), long)


class Headers(unittest.TestCase):
    def compile_each(self, compiler):
        if not shutil.which(compiler):
            self.skipTest(f"{compiler} is not installed")
        headers = sorted((SOURCE / "include" / "multihead").glob("*.hpp"))
        self.assertTrue(headers)

        def compiled(header):
            return subprocess.run(
                [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-pedantic",
                 f"-I{SOURCE / 'include'}", "-x", "c++", "-"],
                input=f'#include "multihead/{header.name}"\n', capture_output=True, text=True, check=False)

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for header, outcome in zip(headers, pool.map(compiled, headers)):
                with self.subTest(header=header.name):
                    self.assertEqual(outcome.returncode, 0, outcome.stderr)
                    self.assertEqual(outcome.stderr, "")

    def compile_the_c_header(self, compiler, standards):
        """In C and in C++, from their first standards on; neither warns."""
        if not shutil.which(compiler):
            self.skipTest(f"{compiler} is not installed")
        for standard in standards:
            language = "c++" if "++" in standard else "c"
            outcome = subprocess.run(
                [compiler, f"-std={standard}", "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-pedantic",
                 "-Wstrict-prototypes" if language == "c" else "-Wnon-virtual-dtor", f"-I{SOURCE / 'include'}", "-x",
                 language, "-"],
                input='#include "multihead/multihead.h"\nint used(void) { return MH_OK; }\n', capture_output=True, text=True,
                check=False)
            with self.subTest(standard=standard):
                self.assertEqual(outcome.returncode, 0, outcome.stderr)
                self.assertEqual(outcome.stderr, "")

    def test_compile_alone_with_gcc(self):
        self.compile_each("g++")
        self.compile_the_c_header("gcc", ["c99", "c11", "c17"])
        self.compile_the_c_header("g++", ["c++11", "c++17", "c++20"])

    def test_compile_alone_with_clang(self):
        self.compile_each("clang++")
        self.compile_the_c_header("clang", ["c99", "c11", "c17"])
        self.compile_the_c_header("clang++", ["c++11", "c++17", "c++20"])


class Format(unittest.TestCase):
    def test_clang_format(self):
        wanted = "14"
        if not shutil.which("clang-format"):
            self.skipTest("clang-format is not installed")
        version = subprocess.run(["clang-format", "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"version (\d+)", version).group(1)
        if found != wanted:
            self.skipTest(f"clang-format {found} lays out differently; this check wants {wanted}")
        sources = [str(path) for path in files(".hpp", ".cpp", ".h", ".c")]
        outcome = subprocess.run(["clang-format", "--dry-run", "--Werror", "--style=file", *sources], cwd=SOURCE,
                                 capture_output=True, text=True, check=False)
        unformatted = sorted(set(re.findall(r"^([^\s:]+):\d+", outcome.stderr, re.MULTILINE)))
        self.assertEqual(outcome.returncode, 0, f"clang-format -i {' '.join(unformatted)}")


if __name__ == "__main__":
    unittest.main()
