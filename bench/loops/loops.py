#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What processors that are not at hand would make of the inner loops, as LLVM's models of them reckon.

  loops.py [--only REGEX] [--cpu NAME ...] LIBRARY ...

LIBRARY: a compiled libmultihead.a or .so, of x86-64 or arm64. Of each kernel family (scores, output, product, ..) and
type in each target, the instance with the most multiply-adds in one innermost loop is cut out of the disassembly, and
llvm-mca reckons how many cycles a round takes where all loads come from L1. Beside it stands the same model's rate of a loop
of nothing but such multiply-adds, in registers: the share is of that. Prints a table in Markdown.

Reckoned, not measured: the models know pipes, latencies and the queues before them, not caches, clocks, or neighbours.
Needs llvm-objdump and llvm-mca 14 or newer (Debian: llvm, or llvm-19 for newer models); --tools SUFFIX names one: -19.
"""

import argparse
import collections
import re
import shutil
import subprocess
import sys

FAMILIES = r"\b(product_tiles|output_tiles|gradient_tiles|matmul_tile|multiply_tiles|decode_scores|decode_output)\b"
MULTIPLIES = re.compile(r"^(vfn?m(add|sub)\d+p[sd]|vdpbf16ps|tdp\w+|fml[as])$")
CPUS = {"x86_64": {"avx2": ["znver1", "znver4", "skylake-avx512"], "avx512": ["znver4", "skylake-avx512", "sapphirerapids"],
                   "avx512bf16": ["znver4", "sapphirerapids"], "amx": ["sapphirerapids"],
                   "amx_f32": ["sapphirerapids"]},
        "aarch64": {"neon": ["neoverse-v1", "neoverse-n1"]}}
ROUNDS = 400
Loop = collections.namedtuple("Loop", "target family name lines multiplies")


def output_of(*command, given=None):
    ran = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {ran.stderr.strip()[-500:]}")
    return ran.stdout


def functions(disassembly):
    """(demangled name, [(address, mnemonic, operands)])."""
    name, lines = None, []
    for line in disassembly.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            if name:
                yield name, lines
            name, lines = head.group(1), []
        elif body := re.match(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)$", line):
            operands = re.sub(r"\s*(# |//|;).*$", "", body.group(3))
            lines.append((int(body.group(1), 16), body.group(2), operands))
    if name:
        yield name, lines


def inner_loops(lines):
    """Runs of instructions that a jump back repeats and in which no other jump back ends, without calls."""
    place = {address: index for index, (address, _, _) in enumerate(lines)}
    begin = -1
    for index, (address, word, operands) in enumerate(lines):
        to = re.match(r"(?:\S+, )?0x([0-9a-f]+)", operands) if re.match(r"j|b\.|cbn?z|tbn?z", word) else None
        if not to or int(to.group(1), 16) > address or int(to.group(1), 16) not in place:
            continue
        start = place[int(to.group(1), 16)]
        if start > begin and not any(w.startswith(("call", "bl")) and w != "blsr" for _, w, _ in lines[start:index]):
            yield lines[start:index + 1]
        begin = index


def loops_of(disassembly):
    for name, lines in functions(disassembly):
        target = re.search(r"multihead::(\w+)::\(anonymous namespace\)::", name)
        family = re.search(FAMILIES, name)
        if not target or not family:
            continue
        kind = re.search(r"<(float|double)", name)
        called = name[family.start():].replace(f"multihead::{target.group(1)}::(anonymous namespace)::", "")
        called = called.split("(")[0] if called.split("(")[0].count("<") == called.split("(")[0].count(">") else family.group(1)
        for body in inner_loops(lines):
            count = sum(bool(MULTIPLIES.match(word)) for _, word, _ in body)
            if count:
                short = family.group(1) + (f", {kind.group(1)}" if kind else "")
                yield Loop(target.group(1), short, called, body, count)


def widest(loops):
    best = {}
    for loop in loops:
        key = loop.target, loop.family
        if key not in best or loop.multiplies > best[key].multiplies:
            best[key] = loop
    return [best[key] for key in sorted(best)]


def assembly(loop):
    """With the jump back to its first line; other jumps leave it."""
    text = ["again:"]
    for address, word, operands in loop.lines:
        operands = re.sub(r"0x[0-9a-f]+ <.*>$", "again", operands) if re.match(r"j|b\.|cbn?z|tbn?z", word) else operands
        text.append(f"\t{word}\t{re.sub(r'<.*>', '', operands)}")
    return "\n".join(text) + "\n"


def only_multiplies(loop):
    """As many of the same kind, each on a sum of its own and operands in registers."""
    word, operands = next((word, operands) for _, word, operands in loop.lines if MULTIPLIES.match(word))
    if word.startswith("tdp"):
        return "\n".join(f"\t{word}\t%tmm7, %tmm6, %tmm{i}" for i in range(4)) + "\n", 4
    if word.startswith("fml"):
        shape = re.search(r"v\d+(\.\d+[sd])", operands).group(1)
        return "\n".join(f"\t{word}\tv{i}{shape}, v30{shape}, v31{shape}" for i in range(24)) + "\n", 24
    register = re.findall(r"%([xyz]mm)\d+", operands)[-1]
    return "\n".join(f"\t{word}\t%{register}14, %{register}15, %{register}{i}" for i in range(12)) + "\n", 12


def cycles(text, machine, cpu, tools):
    said = output_of(f"llvm-mca{tools}", f"-mtriple={machine}-linux-gnu", f"-mcpu={cpu}", f"-iterations={ROUNDS}",
                     "-instruction-info=0", "-resource-pressure=0", given=text)
    return int(re.search(r"Total Cycles:\s+(\d+)", said).group(1)) / ROUNDS


def row(loop, machine, cpu, tools):
    took = cycles(assembly(loop), machine, cpu, tools)
    alone, count = only_multiplies(loop)
    peak = count / cycles(alone, machine, cpu, tools)
    rate = loop.multiplies / took
    return (f"| {loop.target} | `{loop.name}` | {loop.multiplies} of {len(loop.lines)} | {cpu} | {took:.1f} | {rate:.2f} | {peak:.2f} | "
            f"{rate / peak:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="+", metavar="LIBRARY")
    parser.add_argument("--only", default="", metavar="REGEX", help="of 'target family'")
    parser.add_argument("--cpu", nargs="+", help="llvm-mca's names; those that have the target unless given")
    parser.add_argument("--tools", default="", metavar="SUFFIX", help="of llvm-objdump and llvm-mca")
    arguments = parser.parse_args()
    for tool in ("llvm-objdump", "llvm-mca"):
        if not shutil.which(tool + arguments.tools):
            sys.exit(f"{tool}{arguments.tools} is missing: apt-get install llvm")
    print("| target | loop | multiply-adds of instructions | processor | cycles | a cycle | at most | share |\n|---|---|---|---|---|---|---|---|")
    for library in arguments.libraries:
        tool = f"llvm-objdump{arguments.tools}"
        machine = "aarch64" if "aarch64" in output_of(tool, "-f", library) else "x86_64"
        for loop in widest(loops_of(output_of(tool, "-d", "-C", "--no-show-raw-insn", library))):
            if re.search(arguments.only, f"{loop.target} {loop.family}"):
                for cpu in arguments.cpu or CPUS[machine].get(loop.target, []):
                    print(row(loop, machine, cpu, arguments.tools), flush=True)


if __name__ == "__main__":
    main()
