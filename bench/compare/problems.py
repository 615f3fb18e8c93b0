# SPDX-License-Identifier: Apache-2.0
"""The rows of the comparison: what is computed, on which random numbers, how much work it is, how well answers agree."""

import dataclasses
import re

# Of the largest absolute value of the answers: what rounding in the row's type allows two sound ways to differ by. Peers
# round weights to bfloat16 and float16 between the products; ours keeps them in float32. Encoders of bfloat16 round what
# they multiply, PyTorch's the states between layers too.
# int8: how a cache is stored; each way to quantise has an error of its own.
TOLERANCES = {"float32": 2e-5, "float64": 1e-13, "bfloat16": 3e-2, "float16": 5e-3, "int8": 5e-2}
SIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2, "int8": 1}
MASKS = ("padded", "packed", "boolean", "bias")


@dataclasses.dataclass(frozen=True)
class Problem:
    # forward, backward: attention; decode: one query over a cache of length keys; product: GELU(x W + bias), W constant;
    # layer: self-attention with four constant weights; sample; encoder
    kind: str
    type: str = "float32"
    batch: int = 1
    heads: int = 8
    kv_heads: int = 0  # as many as heads unless given
    length: int = 0
    head_dim: int = 64
    causal: bool = False
    window: int = 0  # of so many keys: its own and those before it where causal, else half of them behind it; 0: none
    # padded: every second sequence has 5 keys of 8; packed: one batch entry holds five sequences of unequal lengths;
    # boolean: a mask that hides one pair in five, at random; bias: float32, of every pair
    mask: str = ""
    rows: int = 0
    inner: int = 0
    columns: int = 0
    caller: str = ""  # of the sample: C++ or Python
    side_by_side: bool = False  # of forward: tensors are (batch, length, heads, head_dim) in memory
    queries: int = 0  # of forward, over length keys, all of which they see; 0: as many

    @property
    def extents(self):
        """As they stand in the name."""
        over = f"over{self.kv_heads}" if self.kv_heads else ""
        return {"product": f"{self.rows}x{self.inner}x{self.columns}", "sample": "2x3",
                "encoder": f"{self.batch}x{self.length}", "decode": f"{self.heads}{over}x{self.length}x{self.head_dim}"}.get(
                    self.kind, f"{self.batch}x{self.heads}{over}x{self.length}x{self.head_dim}")

    @property
    def name(self):
        """Words that --rows selects by, good for a file; named() reads it."""
        marks = [word for word in (self.window_mark or "causal" * self.causal, self.mask, self.caller, "side" * self.side_by_side,
                             f"queries{self.queries}" * bool(self.queries))
                 if word]
        return "-".join([self.kind, self.type, self.extents, *marks])

    @property
    def window_mark(self):
        return f"{'window' if self.causal else 'around'}{self.window}" if self.window else ""

    @property
    def title(self):
        """What a reader of the table sees."""
        if self.kind == "product":
            return f"GELU(x W + b), {self.rows} x {self.inner} x {self.columns}"
        if self.kind == "sample":
            return f"the 2 x 3 sample, two heads, called from {self.caller or 'Python'}"
        if self.kind == "encoder":
            return f"all-MiniLM-L6-v2, {self.batch} x {self.length} tokens"
        if self.kind == "decode":
            return (f"one token, {self.length // 1024}k keys, head_dim {self.head_dim}, {self.kv_heads} kv heads, "
                    f"{self.heads // self.kv_heads} queries each")
        marks = [f", {'causal ' * self.causal}window of {self.window}" if self.window else ", causal" * self.causal,
                 {"boolean": ", boolean mask", "bias": ", dense bias"}.get(self.mask, f", {self.mask}" if self.mask else "")]
        marks.append(", heads side by side" * self.side_by_side)
        if self.queries:
            marks.append(f", {self.queries} {'query' if self.queries == 1 else 'queries'}")
        batch = f"{self.batch} x " if self.batch > 1 else ""
        over = f" over {self.kv_heads} kv heads" if self.kv_heads else ""
        layer = "layer, " if self.kind == "layer" else ""
        return f"{layer}{batch}{self.heads} x {self.length} tokens{over}, head_dim {self.head_dim}{''.join(marks)}"

    @property
    def lengths(self):
        """Valid keys of each sequence of the batch."""
        return [self.length * 5 // 8 if self.mask == "padded" and b % 2 else self.length for b in range(self.batch)]

    @property
    def bounds(self):
        """Where packed sequences begin, and the end."""
        n = self.length
        return [0, n // 9, n // 3, n // 2 + 1, n * 3 // 4, n] if self.mask == "packed" else [0, n]

    @property
    def reach(self):
        """Keys before and behind its own that a row sees at most."""
        if not self.window:
            return self.length, 0 if self.causal else self.length
        before = self.window - 1 if self.causal else self.window // 2
        return before, self.window - 1 - before

    @property
    def pairs(self):
        """Of rows and the keys that ranges let them see, in all batch entries, of one head."""
        if self.queries:
            return self.batch * self.queries * self.length
        before, behind = self.reach
        return sum(min(begin + keys, row + behind + 1) - max(begin, row - before)
                   for length in self.lengths for begin, end in zip(self.bounds, self.bounds[1:])
                   for keys in [min(end, length) - begin] for row in range(begin, end))

    @property
    def model_dim(self):
        """Of a layer, which is as wide inside."""
        return self.heads * self.head_dim

    @property
    def attention_flops(self):
        return self.pairs * self.heads * self.head_dim * (10.0 if self.kind == "backward" else 4.0)

    @property
    def work(self):
        """Operations of one call, of what ranges leave visible; sequences for an encoder, calls for the sample, bytes of a
        cache."""
        if self.kind == "decode":
            return float(self.cache_bytes)
        if self.kind == "product":
            return 2.0 * self.rows * self.inner * self.columns
        if self.kind in ("sample", "encoder"):
            return float(self.batch)
        beside = 8.0 * self.batch * self.length * self.model_dim ** 2 if self.kind == "layer" else 0.0
        return self.attention_flops + beside

    @property
    def weight_bytes(self):
        """Of a product or a layer."""
        elements = 4 * self.model_dim ** 2 if self.kind == "layer" else self.inner * self.columns
        return elements * SIZES[self.type]

    @property
    def unit(self):
        return {"sample": "calls/s", "encoder": "sequences/s", "decode": "GB/s"}.get(self.kind, "GFLOP/s")

    @property
    def cache_bytes(self):
        """What decode, and attention of few queries, must read: keys and values, once for all queries of a kv head, and what
        int8 is scaled by."""
        scale = 4 if self.type == "int8" else 0
        return 2 * self.batch * (self.kv_heads or self.heads) * self.length * (self.head_dim * SIZES[self.type] + scale)

    @property
    def flops(self):
        """Of decode."""
        return 4.0 * self.heads * self.length * self.head_dim

    @property
    def tolerance(self):
        return TOLERANCES[self.type] * (3 if self.kind in ("backward", "encoder", "layer") else 1)

    def words(self):
        """For the processes: see main.cpp."""
        return [self.name, self.kind, self.type, self.batch, self.heads, self.kv_heads or self.heads, self.length,
                self.head_dim, int(self.causal), *(-1 if keys == self.length else keys for keys in self.reach), self.rows,
                self.inner, self.columns, int(self.side_by_side), self.queries or self.length]

    def arrays(self):
        """Name to operand: normal numbers that the row's type can hold, as float32 or float64."""
        import numpy
        draw = numpy.random.default_rng(1)

        def normal(*shape, scale=1.0):
            values = (draw.standard_normal(shape) * scale).astype(numpy.float64 if self.type == "float64" else numpy.float32)
            if self.type == "bfloat16":
                values = ((values.view(numpy.uint32) + 0x8000) & numpy.uint32(0xFFFF0000)).view(numpy.float32)
            return values.astype(numpy.float16).astype(numpy.float32) if self.type == "float16" else values

        if self.kind == "product":
            return {"x": normal(self.rows, self.inner), "weight": normal(self.inner, self.columns, scale=self.inner ** -0.5),
                    "bias": normal(self.columns)}
        if self.kind == "sample":
            return {"X": normal(2, 3), "Wq": normal(3, 6), "Wk": normal(3, 6), "Wv": normal(3, 6), "Wo": normal(6, 3)}
        if self.kind == "encoder":
            return {"ids": draw.integers(1000, 30000, (self.batch, self.length))}
        if self.kind == "layer":
            square = self.model_dim, self.model_dim
            weights = {name: normal(*square, scale=self.model_dim ** -0.5) for name in ("Wq", "Wk", "Wv", "Wo")}
            return {"x": normal(self.batch, self.length, self.model_dim), **weights}
        heads = {"q": self.heads, "k": self.kv_heads or self.heads, "v": self.kv_heads or self.heads}
        rows = {"q": 1 if self.kind == "decode" else self.queries or self.length}
        operands = {name: normal(self.batch, heads[name], rows.get(name, self.length), self.head_dim) for name in heads}
        if self.kind == "backward":
            operands["d_out"] = normal(*operands["q"].shape)
        if self.mask == "padded":
            operands["lengths"] = numpy.array(self.lengths, numpy.int64)
        if self.mask == "packed":
            operands["bounds"] = numpy.array(self.bounds, numpy.int64)
        if self.mask == "boolean":
            operands["keep"] = (draw.random((self.length, self.length)) < 0.8).astype(numpy.uint8)
        if self.mask == "bias":
            operands["bias"] = normal(self.length, self.length)
        return operands

    def visible(self, arrays):
        """True where a row sees a key, as (batch or 1, 1, length or 1, length), for peers that have no better way; None
        where causal says all."""
        import numpy
        rows, keys = numpy.arange(self.length)[:, None], numpy.arange(self.length)
        if self.mask == "padded":
            return (keys < numpy.array(self.lengths)[:, None])[:, None, None, :]
        if self.mask == "boolean":
            return arrays["keep"].astype(bool)[None, None]
        if self.mask == "packed":
            sequence = numpy.searchsorted(self.bounds, keys, "right")
            return (sequence[:, None] == sequence)[None, None]
        if not self.window:
            return None
        before, behind = self.reach
        return ((keys >= rows - before) & (keys <= rows + behind))[None, None]


def named(name):
    """The problem of a name."""
    kind, number_type, extents, *marks = name.split("-")
    found = [int(word) for word in re.findall(r"\d+", extents)]
    over = {"kv_heads": found.pop(extents.split("over")[0].count("x") + 1)} if "over" in extents else {}
    fields = {"product": ["rows", "inner", "columns"], "sample": [], "encoder": ["batch", "length"],
              "decode": ["heads", "length", "head_dim"]}.get(kind, ["batch", "heads", "length", "head_dim"])
    window = next((mark for mark in marks if mark[:6] in ("window", "around")), "")
    more = {"causal": "causal" in marks or window.startswith("window"), "window": int(window[6:] or 0),
            "mask": next((mark for mark in marks if mark in MASKS), ""), "caller": "C++" if "C++" in marks else "",
            "side_by_side": "side" in marks,
            "queries": next((int(mark[7:]) for mark in marks if mark.startswith("queries")), 0)}
    return Problem(kind, number_type, **dict(zip(fields, found)), **over, **more)


def rows(quick):
    """All rows, or a few of each kind."""
    forward = lambda length, head_dim=64, kind="float32", **more: Problem(  # noqa: E731
        "forward", kind, heads=more.pop("heads", 2 if length > 2048 else 8), length=length, head_dim=head_dim, **more)
    backward = lambda length, head_dim, kind="float32", **more: Problem(  # noqa: E731
        "backward", kind, heads=4, length=length, head_dim=head_dim, **more)
    product = lambda count, columns, kind="float32": Problem(  # noqa: E731
        "product", kind, rows=count, inner=768, columns=columns)
    encoders = [Problem("encoder", kind, batch=batch, length=length)
                for kind in ("float32", "bfloat16") for batch, length in ((1, 16), (1, 128), (32, 128))]
    decode = lambda kind, length, head_dim, group: Problem(  # noqa: E731
        "decode", kind, heads=4 * group, kv_heads=4, length=length, head_dim=head_dim)
    storages = ("float32", "bfloat16", "float16", "int8")
    if quick:
        return [forward(1024), forward(1024, causal=True), forward(1024, 128), forward(1024, kind="bfloat16"),
                decode("float32", 16384, 64, 1), decode("float32", 16384, 64, 4), backward(512, 64), product(8, 768),
                product(512, 768), Problem("sample", "float64"), encoders[1]]
    chosen = [forward(length, head_dim, causal=causal) for length in (512, 1024, 4096) for head_dim in (64, 128)
              for causal in (False, True)]
    chosen += [forward(1024, heads=1), forward(1024, heads=1, causal=True), forward(128, heads=12), forward(128, 32, heads=12)]
    chosen += [forward(4096, causal=True, window=256)]
    chosen += [forward(512, head_dim, batch=4, mask="padded") for head_dim in (64, 128)]
    chosen += [forward(4096, head_dim, causal=causal, window=128) for head_dim in (64, 128) for causal in (False, True)]
    chosen += [forward(1024, head_dim, mask=mask) for mask in ("packed", "boolean", "bias") for head_dim in (64, 128)]
    chosen += [forward(1024, kv_heads=2, causal=causal) for causal in (False, True)]
    chosen += [forward(length, head_dim, heads=heads, side_by_side=True)
               for length, head_dim, heads in ((512, 64, 12), (1024, 64, 16), (1024, 128, 8))]
    chosen += [forward(1024, head_dim, kind, heads=heads, kv_heads=kv_heads, queries=queries)
               for kind, head_dim, heads, kv_heads in (("float32", 64, 12, 0), ("float32", 128, 32, 8), ("bfloat16", 64, 12, 0))
               for queries in (1, 8)]
    chosen += [forward(length, head_dim, "bfloat16", causal=causal) for length in (1024, 4096) for head_dim in (64, 128)
               for causal in (False, True)]
    chosen += [forward(1024, kind=kind) for kind in ("float16", "float64")]
    chosen += [backward(1024, head_dim, causal=causal) for head_dim in (64, 128) for causal in (False, True)]
    chosen += [backward(1024, head_dim, "bfloat16", causal=causal) for head_dim in (64, 128) for causal in (False, True)]
    chosen += [product(count, columns) for count in (1, 8, 64, 512) for columns in (768, 3072)]
    chosen += [product(count, 768, kind) for count in (8, 512) for kind in ("bfloat16", "float16", "float64")]
    chosen += [decode(kind, length, head_dim, group) for kind in storages for length in (1024, 16384)
               for head_dim in (64, 128) for group in (1, 4, 8)]
    chosen += [decode(kind, 131072, 128, group) for kind in storages for group in (1, 4, 8)]
    chosen += [Problem("layer", kind, heads=12, length=512) for kind in ("float32", "bfloat16")]
    return [*chosen, Problem("sample", "float64"), Problem("sample", "float64", caller="C++"), *encoders]
