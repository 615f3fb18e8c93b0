# SPDX-License-Identifier: Apache-2.0
"""Types of arguments and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, Union

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

# An array with the buffer protocol or DLPack: numpy.ndarray, torch.Tensor, memoryview, array.array.
Array: TypeAlias = Any
# Numbers in a list, or an array of them.
Integers: TypeAlias = "Union[Sequence[int], Sequence[Sequence[int]], Array]"
Numbers: TypeAlias = "Union[Sequence[float], Array]"

Layout = Literal["bhsd", "bshd"]
Causal = Union[bool, Literal["top_left", "bottom_right"]]
Target = Literal["baseline", "avx2", "avx512", "avx512bf16", "amx", "neon"]
Point = Literal["normalised", "scaled", "capped", "biased"]
Gradient = Literal["q", "k", "v", "bias", "alibi_slopes", "relative_bias", "sinks", "scale"]
DType = Literal["float32", "float64", "bfloat16", "float16"]
Precision = Literal["float32", "bfloat16", "float16"]
Products = Literal["float32", "bfloat16"]


class RelativeBias(NamedTuple):
    """T5's bias by relative position: table (buckets, heads), floating."""

    table: Array
    bidirectional: bool = True
    max_distance: int = 128


class WeightsRequest(NamedTuple):
    """Which weights are wanted, and at which point of a score's way.

    point           "normalised": the softmax. "scaled", "capped": the scores of every key, seen or not. "biased": the
                    scores that enter the softmax, -inf where a row does not see a key.
    heads, rows     query heads, each at most once, and query rows, in any order; None: all.
    mean            True: the mean over these heads, (batch, rows, kv_len); False: each, (batch, heads, rows, kv_len).
    norm_weighted   True: the sum over these heads of weight times norm (Kobayashi et al. 2020), (batch, rows, kv_len).
    norms           (batch, heads, kv_len) for it; a layer computes them itself.
    """

    point: Point = "normalised"
    heads: Integers | None = None
    rows: Integers | None = None
    mean: bool = False
    norm_weighted: bool = False
    norms: Array | None = None


class StatisticsRequest(NamedTuple):
    """Which statistics are wanted. Entropy, sum of squares, distance and visible keys of every row always are.

    offsets         of offset_mass: the weight on the key at the query's position + offset; () for none.
    keys            of key_mass: the weight on these keys, counted from a sequence's first; () for none.
    classes         of class_mass: {name: mask (kv_len) or (batch, kv_len) of bools, or a list of keys}, 32 at most.
    tokens          for duplicate_mass and induction_mass: ids (batch, length) of queries and keys, or (of queries, of
                    keys); True: the ids that an encoder or a recorded model reads; None: neither.
    top             the keys of the largest weights, 1 to 64; 0 for none, and then there are no summaries.
    received        what each key gets from all rows: a pass of its own.
    bin             of map: 16, 32, 64 or a multiple of 128 queries and keys; 0 for none. A pass of its own.
    norms           (batch, heads, kv_len): of each key's value vector after its head's rows of the output weight.
    norm_weighted   True: also of the weights times norms (Kobayashi et al. 2020); a layer computes norms itself.
    """

    offsets: Sequence[int] = (-1, 0, 1)
    keys: Sequence[int] = (0,)
    classes: Mapping[str, Any] | None = None
    tokens: Integers | tuple[Integers, Integers] | bool | None = None
    top: int = 1
    received: bool = False
    bin: int = 0
    norms: Array | None = None
    norm_weighted: bool = False


class AttentionGradients(NamedTuple):
    """What attention_backward() was asked for; None: it was not.

    q, k, v         of the shapes and types of q, k and v.
    bias            of the bias's shape, summed over the axes that it repeats; of lse's type.
    alibi_slopes    (heads) float64; sinks likewise.
    relative_bias   (buckets, heads): of the table; of lse's type.
    scale           a number: of the scale.
    """

    q: Any = None
    k: Any = None
    v: Any = None
    bias: Any = None
    alibi_slopes: Any = None
    relative_bias: Any = None
    sinks: Any = None
    scale: float | None = None


StatisticsAsked: TypeAlias = "Union[bool, StatisticsRequest, None]"
Weights: TypeAlias = "Union[bool, Literal['mean'], WeightsRequest, None]"


class AttentionOptions(TypedDict, total=False):
    """The options that attention() documents, for the functions and classes that take them too."""

    causal: Causal
    query_offset: int | Integers | None
    window: int | tuple[int | None, int | None] | None
    window_first: int
    lengths: Integers | None
    prefixes: Integers | None
    cu_seqlens: Integers | tuple[Integers, Integers] | None
    segments: Integers | tuple[Integers, Integers] | None
    keep_mask: Array | None
    drop_mask: Array | None
    bias: Array | None
    alibi_slopes: Numbers | None
    relative_bias: Array | RelativeBias | None
    softcap: float
    sinks: Numbers | None
    scale: float | None
    dropout: float
    dropout_seed: int | None
    dropout_stream: int
    threads: int | None
    target: Target | str | None
