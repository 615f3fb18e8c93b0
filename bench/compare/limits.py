# SPDX-License-Identifier: Apache-2.0
"""The most that a core is held to be able to do, row by row: ceilings taken beside the row, and what is reckoned of them.

Everything that is reckoned and not measured stands here, once. docs/kernels.md derives it ("What limits it").

Attention is its products and the softmax. Both are measured in registers, without loads, stores, packing or merging: each
alone, one after the other, and multiply-adds evenly mixed with the softmax's instructions as an ideal schedule would have
them. The better of the two is the limit. A register of scores takes head_dim + value_dim multiply-adds, in a backward pass
five products of them and what is held to cost as much as a softmax. Tiles multiply beside the vector's pipes: the slower of
both binds. Without those measurements (pages of before) the softmax counts as the instructions that have no other pipe
than a multiply-add's: the scaling, the polynomial's steps, the comparison at its end, the maximum.

At a mask's edge a register of L rows computes what any of them sees, (L - 1) / 2 keys a row more for each edge that moves
with the row; with w visible keys in the mean that leaves w / (w + (L - 1) / 2) with one such edge.

A product takes its multiply-adds, or the reading of its weights once, whichever is longer; an encoder likewise; one token
over a cache, and few queries over many keys, their multiply-adds or the reading of keys and values. Activations, norms,
caches, packing, outputs and the merge are left out everywhere: what stands here need not be reachable. The softmax is that
of our own instructions.
"""

import problems

STEPS = {"float64": 11}  # of the polynomial of 2^t; 5 elsewhere
BESIDE_STEPS = 3
LANES = {"baseline": 4, "avx2": 8, "neon": 4}  # of float32; 16 elsewhere
LAYERS, MODEL_DIM, FEED_FORWARD = 6, 384, 1536  # of all-MiniLM-L6-v2
MIXED = (64, 128, 256, 320, 640)  # multiply-adds for a register of scores that bench/ceilings.hpp mixes with its softmax


def rate_of(row):
    """Of a ceiling as the benchmark gives it."""
    return next(row[key] for key in ("GFLOPS", "Gscores", "GBps") if key in row)


def vector_type(kind):
    return "f64" if kind == "float64" else "f32"


def multiply_names(kind, target, backward=False):
    """The ceiling of the products of attention in that type, how many of them make one, and that of multiply-adds."""
    vector = f"fma_{vector_type(kind)}"
    if backward and kind == "float32":
        return vector, 1, vector
    if kind == "bfloat16" and target == "avx512bf16":
        return "bf16_dot", 1, vector
    if target == "amx" and kind in ("bfloat16", "float32"):
        return "bf16_tile", 1 if kind == "bfloat16" else 6, vector
    return vector, 1, vector


def products_a_score(problem):
    """Multiply-adds for a register of scores."""
    return (5 if problem.kind == "backward" else 2) * problem.head_dim


def read_level(ceilings, size):
    """Of the least level of whose caches so many bytes fill half at most, the name."""
    levels = sorted((row["bytes"], name) for name, row in ceilings.items() if name.startswith("read_"))
    return next((name for bytes_read, name in levels if size <= bytes_read), levels[-1][1] if levels else None)


def read_bytes(problem):
    """What is read once: weights of products and encoders, a cache; 0 where reading does not bind."""
    if problem.kind == "encoder":
        return encoder_work(problem)[1]
    if problem.queries:
        return problem.cache_bytes
    return {"product": problem.weight_bytes, "layer": problem.weight_bytes, "decode": problem.cache_bytes}.get(problem.kind, 0)


def names(problem, target, ceilings, threads):
    """The ceilings that bound a row, of those that were measured; the loop that reads is of one thread."""
    kind = problem.type if problem.kind != "decode" or problem.type == "bfloat16" else "float32"
    wanted = [*multiply_names(kind, target, problem.kind == "backward")[::2]] if problem.kind != "sample" else []
    if problem.kind in ("forward", "backward", "layer"):
        vector = f"fma_{vector_type(kind)}"
        wanted += [f"softmax_{vector_type(kind)}", f"{vector}_softmax_{products_a_score(problem)}"]
    if read_bytes(problem) and threads == 1:
        wanted.append(read_level(ceilings, read_bytes(problem)))
    return [name for name in dict.fromkeys(wanted) if name in ceilings]


def turns(row, found):
    """Name to rate of all threads together, for each turn of the row; once of the whole run where the row has none of its
    own: then each is the higher of before and after, since the clock moves."""
    if "ceilings" in row:
        count = min((len(rates) for rates in row["ceilings"].values()), default=0)
        return [{name: rates[turn] for name, rates in row["ceilings"].items()} for turn in range(count)]
    after = found.get("ceilings_after", {})
    return [{name: row["threads"] * max(rate_of(one), rate_of(after.get(name, one)))
             for name, one in found["ceilings"].items()}]


def multiplies(rates, kind, target, backward=False):
    """GFLOP/s in products of that type, as bench/ceilings.hpp has it, and of the vector's multiply-adds."""
    name, parts, vector = multiply_names(kind, target, backward)
    return (rates[name] / parts if name in rates else rates[vector]), rates[vector]


def edge_share(problem, target):
    """Of what the registers at a mask's edges compute, what some row sees of it."""
    edges = 2 if problem.window else 1 if problem.causal else 0
    lanes = LANES.get(target, 16) // (2 if problem.type == "float64" else 1)
    width = problem.pairs / (problem.batch * problem.length)
    return width / (width + edges * (lanes - 1) / 2)


class Core:
    """A machine's processors at one moment: rates of all threads together by name."""

    def __init__(self, rates, found, threads):
        self.rates, self.ceilings, self.target, self.threads = rates, found["ceilings"], found["machine"]["target"], threads

    def attention(self, problem):
        """GFLOP/s of useful work."""
        products, kind = products_a_score(problem), vector_type(problem.type)
        flops = 2.0 * products  # of a score
        peak, vector = multiplies(self.rates, problem.type, self.target, problem.kind == "backward")
        paper = 2.0 * (STEPS.get(problem.type, 5) + BESIDE_STEPS) / vector
        parts = flops / peak, 1.0 / self.rates[f"softmax_{kind}"] if f"softmax_{kind}" in self.rates else paper
        tiles = self.target == "amx" and peak != vector
        best = flops / (max(parts) if tiles else sum(parts))
        if peak == vector:
            best = max(best, self.rates.get(f"fma_{kind}_softmax_{products}", 0))
        return edge_share(problem, self.target) * best

    def slower(self, kind, flops, size):
        """Seconds of so many operations, or of reading so many bytes, whichever is longer; the loop that reads is of one
        thread."""
        computed = flops / (multiplies(self.rates, kind, self.target)[0] * 1e9)
        reads = self.rates.get(read_level(self.ceilings, size)) if self.threads == 1 else None
        return max(computed, size / (reads * 1e9)) if reads else computed


def encoder_work(problem):
    """Operations of a call, and the bytes of its weights."""
    weights = LAYERS * (4 * MODEL_DIM ** 2 + 2 * MODEL_DIM * FEED_FORWARD)
    tokens = problem.batch * problem.length
    flops = 2.0 * tokens * weights + 4.0 * LAYERS * MODEL_DIM * tokens * problem.length
    return flops, weights * problems.SIZES[problem.type]


def limit(problem, core):
    """In the unit of the row's rates; None where nothing bounds the row but the way to it."""
    if problem.queries and core.threads == 1:
        return problem.work * 1e-9 / core.slower(problem.type, problem.work, problem.cache_bytes)
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


def limits(row, found):
    """Of each of turns(); empty where nothing bounds the row."""
    problem = problems.named(row["name"])
    found_limits = [limit(problem, Core(rates, found, row["threads"])) for rates in turns(row, found)]
    return [one for one in found_limits if one is not None]
