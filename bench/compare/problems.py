# SPDX-License-Identifier: Apache-2.0
"""The rows of the comparison: what is computed, on which random numbers, how much work it is, how well answers agree."""

import dataclasses

# Of the largest absolute value of the answers: what rounding in the row's type allows two sound ways to differ by. Peers
# round weights to bfloat16 and float16 between the products; ours keeps them in float32.
# int8: how a cache is stored; each way to quantise has an error of its own.
TOLERANCES = {"float32": 2e-5, "float64": 1e-13, "bfloat16": 3e-2, "float16": 5e-3, "int8": 5e-2}
SIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2, "int8": 1}


@dataclasses.dataclass(frozen=True)
class Problem:
    # forward, backward: attention; decode: one query over a cache of length keys; product: GELU(x W + bias), W constant;
    # sample; encoder
    kind: str
    type: str = "float32"
    batch: int = 1
    heads: int = 8
    length: int = 0
    head_dim: int = 64
    causal: bool = False
    window: int = 0   # causal, of so many keys; 0: none
    padded: bool = False  # every second sequence has 5 keys of 8
    rows: int = 0
    inner: int = 0
    columns: int = 0
    kv_heads: int = 0  # of decode

    @property
    def name(self):
        """Words that --rows selects by, good for a file."""
        if self.kind == "product":
            return f"product-{self.type}-{self.rows}x{self.inner}x{self.columns}"
        if self.kind == "sample":
            return f"sample-{self.type}-2x3"
        if self.kind == "encoder":
            return f"encoder-{self.type}-{self.batch}x{self.length}"
        if self.kind == "decode":
            return f"decode-{self.type}-{self.heads}over{self.kv_heads}x{self.length}x{self.head_dim}"
        marks = [word for word, on in (("causal", self.causal and not self.window), (f"window{self.window}", self.window),
                                       ("padded", self.padded)) if on]
        return "-".join([self.kind, self.type, f"{self.batch}x{self.heads}x{self.length}x{self.head_dim}", *marks])

    @property
    def title(self):
        """What a reader of the table sees."""
        if self.kind == "product":
            return f"GELU(x W + b), {self.rows} x {self.inner} x {self.columns}"
        if self.kind == "sample":
            return "the 2 x 3 sample, two heads, called from Python"
        if self.kind == "encoder":
            return f"all-MiniLM-L6-v2, {self.batch} x {self.length} tokens"
        if self.kind == "decode":
            return (f"one token, {self.length // 1024}k keys, head_dim {self.head_dim}, {self.kv_heads} kv heads, "
                    f"{self.heads // self.kv_heads} queries each")
        marks = f", causal window of {self.window}" if self.window else ", causal" if self.causal else ""
        batch = f"{self.batch} x " if self.batch > 1 else ""
        return f"{batch}{self.heads} x {self.length} tokens, head_dim {self.head_dim}{marks}{', padded' if self.padded else ''}"

    @property
    def lengths(self):
        """Valid keys of each sequence."""
        return [self.length * 5 // 8 if self.padded and b % 2 else self.length for b in range(self.batch)]

    @property
    def work(self):
        """Operations of one call, of what masks leave visible; sequences for an encoder, calls for the sample, bytes of a
        cache."""
        if self.kind == "decode":
            return float(self.cache_bytes)
        if self.kind == "product":
            return 2.0 * self.rows * self.inner * self.columns
        if self.kind in ("sample", "encoder"):
            return float(self.batch)
        seen = self.window if self.window else self.length
        if self.causal:
            pairs = self.batch * sum(min(row + 1, seen) for row in range(self.length))
        else:
            pairs = sum(self.length * keys for keys in self.lengths)
        return pairs * self.heads * self.head_dim * (10.0 if self.kind == "backward" else 4.0)

    @property
    def unit(self):
        return {"sample": "calls/s", "encoder": "sequences/s", "decode": "GB/s"}.get(self.kind, "GFLOP/s")

    @property
    def cache_bytes(self):
        """What decode must read: keys and values, once for all queries of a kv head, and what int8 is scaled by."""
        scale = 4 if self.type == "int8" else 0
        return 2 * self.kv_heads * self.length * (self.head_dim * SIZES[self.type] + scale)

    @property
    def flops(self):
        """Of decode."""
        return 4.0 * self.heads * self.length * self.head_dim

    @property
    def tolerance(self):
        return TOLERANCES[self.type] * (3 if self.kind in ("backward", "encoder") else 1)

    def words(self):
        """For the processes: see main.cpp."""
        return [self.name, self.kind, self.type, self.batch, self.heads, self.length, self.head_dim, int(self.causal),
                self.window, self.rows, self.inner, self.columns, self.kv_heads]

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
        if self.kind == "decode":
            cached = (self.batch, self.kv_heads, self.length, self.head_dim)
            return {"q": normal(self.batch, self.heads, 1, self.head_dim), "k": normal(*cached), "v": normal(*cached)}
        shape = (self.batch, self.heads, self.length, self.head_dim)
        operands = {name: normal(*shape) for name in ("q", "k", "v")}
        if self.kind == "backward":
            operands["d_out"] = normal(*shape)
        if self.padded:
            operands["lengths"] = numpy.array(self.lengths, numpy.int64)
        return operands

    def mask(self):
        """True where a row sees a key, as (batch or 1, 1, length or 1, length), for peers that have no better way."""
        import numpy
        rows, keys = numpy.arange(self.length)[:, None], numpy.arange(self.length)
        if self.padded:
            return (keys < numpy.array(self.lengths)[:, None])[:, None, None, :]
        return ((keys <= rows) & (keys > rows - self.window))[None, None]


def problem_of(words):
    """The problem of words()."""
    kind, kind_type = words[1:3]
    numbers = [int(word) for word in words[3:]]
    batch, heads, length, head_dim, causal, window, rows, inner, columns, kv_heads = numbers
    return Problem(kind, kind_type, batch, heads, length, head_dim, bool(causal), window, words[0].endswith("padded"), rows,
                   inner, columns, kv_heads)


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
                decode("float32", 16384, 64, 1), decode("float32", 16384, 64, 4), backward(512, 64), product(8, 768), product(512, 768), Problem("sample", "float64"), encoders[1]]
    chosen = [forward(length, head_dim, causal=causal) for length in (512, 1024, 4096) for head_dim in (64, 128)
              for causal in (False, True)]
    chosen += [forward(1024, heads=1), forward(1024, heads=1, causal=True), forward(128, heads=12), forward(128, 32, heads=12)]
    chosen += [forward(4096, causal=True, window=256), forward(512, batch=4, padded=True)]
    chosen += [forward(length, head_dim, "bfloat16", causal=causal) for length in (1024, 4096) for head_dim in (64, 128)
               for causal in (False, True)]
    chosen += [forward(1024, kind=kind) for kind in ("float16", "float64")]
    chosen += [backward(1024, head_dim, causal=causal) for head_dim in (64, 128) for causal in (False, True)]
    chosen += [backward(1024, 64, "bfloat16")]
    chosen += [product(count, columns) for count in (1, 8, 64, 512) for columns in (768, 3072)]
    chosen += [product(count, 768, kind) for count in (8, 512) for kind in ("bfloat16", "float16", "float64")]
    chosen += [decode(kind, length, head_dim, group) for kind in storages for length in (1024, 16384)
               for head_dim in (64, 128) for group in (1, 4, 8)]
    chosen += [decode(kind, 131072, 128, group) for kind in storages for group in (1, 4, 8)]
    return [*chosen, Problem("sample", "float64"), *encoders]
