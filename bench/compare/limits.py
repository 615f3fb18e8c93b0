# SPDX-License-Identifier: Apache-2.0
"""The rate that no program can pass on a core, row by row: ceilings of the same run, and what is on paper beside them.

Everything that is reckoned and not measured stands here, once. docs/kernels.md derives it ("What limits it").

A register of scores takes head_dim + value_dim multiply-adds for its products. Of the softmax's about twelve instructions
these have no other pipe than a multiply-add's, on any processor: the scaling, the polynomial's steps, the comparison at its
end, the maximum. So a head_dim of 64 leaves 128 / 136 = 0.94 of the peak, one of 128 leaves 0.97; pairs of bfloat16, which
halve the products alone, 0.89 and 0.94. Tiles multiply beside the vector's pipes: the slower of both binds. A backward pass
has five products, and for a register of pairs of rows and keys a scaling, the steps, a comparison and the product of dS.

At a mask's edge a register of L rows computes what any of them sees, (L - 1) / 2 keys a row more for each edge that moves
with the row; with w visible keys in the mean that leaves w / (w + (L - 1) / 2) with one such edge.

A product takes its multiply-adds, or the reading of its weights once, whichever is longer; an encoder likewise; one token
over a cache its multiply-adds or the reading of the cache. Caches, packing, outputs and the merge are left out everywhere:
what stands here is passed by nobody and need not be reachable.
"""

import problems

STEPS = {"float64": 11}  # of the polynomial of 2^t; 5 elsewhere
BESIDE_STEPS = 3
LANES = {"baseline": 4, "avx2": 8, "neon": 4}  # of float32; 16 elsewhere
LAYERS, MODEL_DIM, FEED_FORWARD = 6, 384, 1536  # of all-MiniLM-L6-v2


def higher(found):
    """The ceilings of a run, each the higher of before and after: the clock moves."""
    after = found.get("ceilings_after", {})
    return {name: {key: max(value, after.get(name, {}).get(key, value)) for key, value in row.items()}
            for name, row in found["ceilings"].items()}


def multiplies(ceilings, kind, target):
    """GFLOP/s of one thread in products of that type, as bench/ceilings.hpp has it, and of the vector's multiply-adds."""
    rate = lambda name: ceilings.get(name, {}).get("GFLOPS")  # noqa: E731
    vector = rate("fma_f64" if kind == "float64" else "fma_f32")
    if kind == "bfloat16" and target == "avx512bf16" and rate("bf16_dot"):
        return rate("bf16_dot"), vector
    if target == "amx" and rate("bf16_tile") and kind in ("bfloat16", "float32"):
        return rate("bf16_tile") / (1 if kind == "bfloat16" else 6), vector
    return vector, vector


def reads(ceilings, size):
    """GB/s of one thread reading so many bytes: of the least level of whose caches they fill half at most."""
    levels = sorted((row for name, row in ceilings.items() if name.startswith("read_")), key=lambda row: row["bytes"])
    return next((row for row in levels if size <= row["bytes"]), levels[-1])["GBps"]


def edge_share(problem, target):
    """Of what the registers at a mask's edges compute, what some row sees of it."""
    edges = 2 if problem.window else 1 if problem.causal else 0
    lanes = LANES.get(target, 16) // (2 if problem.type == "float64" else 1)
    width = problem.pairs / (problem.batch * problem.length)
    return width / (width + edges * (lanes - 1) / 2)


class Core:
    """The one that a run was measured on, with so many threads."""

    def __init__(self, found, threads):
        self.ceilings, self.target, self.threads = higher(found), found["machine"]["target"], threads

    def attention(self, problem):
        """GFLOP/s of useful work."""
        flops = 2.0 * (5 if problem.kind == "backward" else 2) * problem.head_dim
        peak, vector = multiplies(self.ceilings, problem.type, self.target)
        parts = flops / peak, 2.0 * (STEPS.get(problem.type, 5) + BESIDE_STEPS) / vector
        tiles = self.target == "amx" and peak != vector
        return self.threads * edge_share(problem, self.target) * flops / (max(parts) if tiles else sum(parts))

    def slower(self, kind, flops, size):
        """Seconds of so many operations, or of reading so many bytes, whichever is longer; the loop that reads is of one
        thread."""
        computed = flops / (self.threads * multiplies(self.ceilings, kind, self.target)[0] * 1e9)
        return computed if self.threads > 1 else max(computed, size / (reads(self.ceilings, size) * 1e9))


def encoder_work(problem):
    """Operations of a call, and the bytes of its weights."""
    weights = LAYERS * (4 * MODEL_DIM ** 2 + 2 * MODEL_DIM * FEED_FORWARD)
    tokens = problem.batch * problem.length
    flops = 2.0 * tokens * weights + 4.0 * LAYERS * MODEL_DIM * tokens * problem.length
    return flops, weights * problems.SIZES[problem.type]


def limit(row, found):
    """In the unit of the row's rates; None where nothing bounds the row but the way to it."""
    problem, core = problems.named(row["name"]), Core(found, row["threads"])
    if problem.kind in ("forward", "backward"):
        return core.attention(problem)
    if problem.kind == "product":
        return problem.work * 1e-9 / core.slower(problem.type, problem.work, problem.weight_bytes)
    if problem.kind == "encoder":
        return problem.batch / core.slower(problem.type, *encoder_work(problem))
    if problem.kind == "layer":
        inside = problem.attention_flops / (core.attention(problem) * 1e9)
        beside = core.slower(problem.type, problem.work - problem.attention_flops, problem.weight_bytes)
        return problem.work * 1e-9 / (inside + beside)
    if problem.kind == "decode" and core.threads == 1:
        kind = problem.type if problem.type == "bfloat16" else "float32"
        return problem.work * 1e-9 / core.slower(kind, problem.flops, problem.cache_bytes)
    return None
