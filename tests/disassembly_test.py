# SPDX-License-Identifier: Apache-2.0
"""What the compiler made of the library: no instruction beyond the baseline outside the targets' own symbols, no libm."""

import functools
import os
import pathlib
import platform
import re
import subprocess
import unittest

BUILD = pathlib.Path(os.environ.get("MULTIHEAD_BUILD", "build/release"))

PREFIXES = set("26 2e 36 3e 64 65 66 67 f0 f2 f3".split())
# Later than SSE2 in the old encoding. tzcnt is not here: compilers write it for bsf, where both agree.
LATER_MNEMONICS = re.compile(
    r"(movddup|movsldup|movshdup|haddp[sd]|hsubp[sd]|addsubp[sd]|lddqu|fisttp|popcnt|lzcnt|crc32|movbe|ad[co]x|rdrand"
    r"|rdseed|monitor|mwait|xsave)")


# The library may ask libm for these alone: there is one right answer, so its bits are everywhere the same. The compiler
# computes a square root by itself and calls libm only to set errno for a negative argument; with ceil the standard's hash
# tables count their buckets.
EXACT = {"sqrt", "sqrtf", "ceil"}


def library():
    for name in ("libmultihead.a", "libmultihead.so"):
        if (BUILD / name).exists():
            return BUILD / name
    raise FileNotFoundError(f"no library in {BUILD}")


@functools.cache
def instructions():
    """Every (symbol, bytes, mnemonic and operands) of the library."""
    listing = subprocess.run(["objdump", "-d", "--insn-width=16", str(library())], capture_output=True, text=True,
                             check=True).stdout
    found = []
    symbol = ""
    for line in listing.splitlines():
        if line.endswith(">:"):
            symbol = line[line.index("<") + 1:-2]
        else:
            fields = line.split("\t")
            if len(fields) == 3:
                found.append((symbol, fields[1].split(), fields[2]))
    return found


def encoding(code, text):
    """'vex', 'evex', 'later' (than SSE2, in the old encoding) or '' for what every x86-64 machine runs."""
    rest = [byte for byte in code]
    while rest and rest[0] in PREFIXES:
        rest = rest[1:]
    if not rest:
        return ""
    if rest[0] == "62" or re.search(r"%zmm|%k[0-7]\b", text):
        return "evex"
    if rest[0] in ("c4", "c5") or (rest[0] == "8f" and int(rest[1], 16) & 0x38) or re.match(r"v(?!err|erw|m)", text):
        return "vex"
    if 0x40 <= int(rest[0], 16) <= 0x4F:
        rest = rest[1:]
    if rest[:1] == ["0f"] and rest[1:2] in (["38"], ["3a"]) or LATER_MNEMONICS.match(text):
        return "later"
    return ""


TARGETS = ("avx2", "avx512", "avx512bf16", "amx", "amx_f32")


def home(symbol):
    """The target whose namespace a symbol lives in, or ''."""
    found = re.match(r"_ZT?[A-Z]?[A-Z]*N?K?9multihead\d+(avx512bf16|avx512|avx2|amx_f32|amx)(?=\d|[A-Z])", symbol)
    return found.group(1) if found else ""


@unittest.skipUnless(platform.machine() == "x86_64", "the encodings are those of x86-64")
class Instructions(unittest.TestCase):
    def strays(self, kind, homes):
        return sorted({(symbol, text.split()[0]) for symbol, code, text in instructions()
                       if encoding(code, text) == kind and home(symbol) not in homes})

    def test_the_reading(self):
        self.assertEqual(encoding("c5 fc 28 c1".split(), "vmovaps %ymm1,%ymm0"), "vex")
        self.assertEqual(encoding("62 f1 7c 48 28 c1".split(), "vmovaps %zmm1,%zmm0"), "evex")
        self.assertEqual(encoding("66 0f 3a 0a c1 09".split(), "roundss $0x9,%xmm1,%xmm0"), "later")
        self.assertEqual(encoding("66 44 0f 38 40 c1".split(), "pmulld %xmm1,%xmm8"), "later")
        self.assertEqual(encoding("f3 0f b8 c7".split(), "popcnt %edi,%eax"), "later")
        self.assertEqual(encoding("0f 28 c1".split(), "movaps %xmm1,%xmm0"), "")
        self.assertEqual(encoding("f3 0f bc c7".split(), "tzcnt %edi,%eax"), "")
        self.assertEqual(encoding("0f 00 e0".split(), "verr %ax"), "")
        self.assertEqual(home("_ZN9multihead6avx51212_GLOBAL__N_14tileEv"), "avx512")
        self.assertEqual(home("_ZN9multihead4avx212_GLOBAL__N_1L4tileEPKf.constprop.0"), "avx2")
        self.assertEqual(home("_ZZN9multihead4avx23runEvENKUlvE_clEv"), "avx2")
        self.assertEqual(home("_ZNSt6vectorIN9multihead4avx24TaskEE9push_backEv"), "")
        self.assertEqual(home("_ZN9multihead10avx512bf1612_GLOBAL__N_14tileEv"), "avx512bf16")
        self.assertEqual(home("_ZN9multihead7amx_f3212_GLOBAL__N_14tileEv"), "amx_f32")
        self.assertEqual(home("_ZN9multihead3amx12_GLOBAL__N_14tileEv"), "amx")
        self.assertEqual(home("_ZN9multihead9amx_tableE"), "")
        self.assertEqual(home("_ZN9multihead8baseline4tileEv"), "")

    def test_the_targets_are_there(self):
        homes = {home(symbol) for symbol, code, text in instructions() if encoding(code, text)}
        self.assertEqual(set(TARGETS), homes - {""})

    def test_vex_only_in_its_targets(self):
        self.assertEqual(self.strays("vex", set(TARGETS)), [])

    def test_evex_only_in_avx512(self):
        self.assertEqual(self.strays("evex", set(TARGETS) - {"avx2"}), [])

    def test_pairs_are_multiplied_where_they_may_be(self):
        homes = {home(symbol) for symbol, _, text in instructions() if re.match(r"vdpbf16ps|vcvtne2?ps2bf16", text)}
        self.assertEqual(homes, {"avx512bf16", "amx"})

    def test_tiles_are_those_of_amx(self):
        homes = {home(symbol) for symbol, _, text in instructions() if re.match(r"tdpbf16ps|tile|ldtilecfg", text)}
        self.assertEqual(homes, {"amx", "amx_f32"})

    def test_baseline_is_sse2(self):
        self.assertEqual(self.strays("later", set(TARGETS)), [])


class Symbols(unittest.TestCase):
    def names(self, *arguments):
        listing = subprocess.run(["nm", *arguments], capture_output=True, text=True, check=True).stdout
        return {line.split()[-1].split("@")[0] for line in listing.splitlines() if len(line.split()) >= 2}

    def test_no_libm(self):
        """No number comes from libm, whose bits differ by version."""
        libm = subprocess.run(["g++", "-print-file-name=libm.so.6"], capture_output=True, text=True, check=True)
        offered = self.names("-D", "--defined-only", libm.stdout.strip())
        self.assertIn("expf", offered)
        dynamic = ["-D"] if library().suffix == ".so" else []
        asked = self.names(*dynamic, "-u", str(library()))
        self.assertTrue(asked)
        self.assertEqual(sorted(asked & offered - EXACT), [])


if __name__ == "__main__":
    unittest.main()
