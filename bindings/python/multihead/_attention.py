# SPDX-License-Identifier: Apache-2.0
"""Functions of arrays: self_attention, multi_head_attention, attention, attention_backward, attention_weights, merge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, overload

from . import _core
from ._statistics import Statistics, query_offset_of
from ._types import (Array, AttentionGradients, AttentionOptions, Causal, Gradient, Integers, Layout, Numbers, RelativeBias,
                     StatisticsAsked, StatisticsRequest, Target, Weights, WeightsRequest)

if TYPE_CHECKING:
    from typing_extensions import TypeAlias, Unpack

_Wanted: TypeAlias = "Union[Literal[True], StatisticsRequest]"
_WeightsWanted: TypeAlias = "Union[Literal[True, 'mean'], WeightsRequest]"


def self_attention(X: Array, Wq: Array, Wk: Array, Wv: Array, *, threads: int | None = None,
                   target: Target | str | None = None) -> tuple[Any, Any]:
    """One head: softmax((X Wq) (X Wk)^T / sqrt(head_dim)) (X Wv), and the weights of the softmax.

    X (n, model_dim)   Wq, Wk (model_dim, head_dim)   Wv (model_dim, value_dim)
    Returns output (n, value_dim) and weights (n, n), whose rows sum to 1.

    float32 or float64. Rows of numbers (lists) and integers are read as float64, and float32 beside float64 becomes
    float64, as in NumPy. threads and target: see attention().
    Raises TypeError (element types) and ValueError (shapes, options). Any number of threads may call it at a time.
    """
    return _core.self_attention(X, Wq, Wk, Wv, threads, target)


def multi_head_attention(X: Array, Wq: Array, Wk: Array, Wv: Array, Wo: Array, num_heads: int, *,
                         out: Array | None = None, return_weights: bool = False, threads: int | None = None,
                         target: Target | str | None = None) -> Any:
    """Many heads (Vaswani et al. 2017): self-attention on each head's columns, the outputs joined, times Wo.

    X (n, model_dim)   Wq, Wk (model_dim, num_heads * head_dim)   Wv (model_dim, num_heads * value_dim)
    Wo (num_heads * value_dim, out_dim)
    Returns output (n, out_dim); with return_weights also the weights (num_heads, n, n).

    out: the caller's array for the output, which is then what is returned; it may overlap no input.
    float32 or float64. Rows of numbers (lists) and integers are read as float64, and float32 beside float64 becomes
    float64, as in NumPy. threads and target: see attention().
    Raises TypeError (element types) and ValueError (shapes, options); then nothing was written. Any number of threads may
    call it at a time, with an out each.
    """
    return _core.multi_head_attention(X, Wq, Wk, Wv, Wo, (num_heads, out, return_weights, threads, target))


# What comes back with statistics: (out, statistics), and lse and weights between them where they are asked for.
@overload
def attention(q: Array, k: Array, v: Array, *, return_statistics: _Wanted, return_lse: Literal[False] = False,
              return_weights: Literal[False] | None = None, layout: Layout = "bhsd", out: Array | None = None,
              **options: Unpack[AttentionOptions]) -> tuple[Any, Statistics]: ...
@overload
def attention(q: Array, k: Array, v: Array, *, return_statistics: _Wanted, return_lse: Literal[True],
              return_weights: Literal[False] | None = None, layout: Layout = "bhsd", out: Array | None = None,
              **options: Unpack[AttentionOptions]) -> tuple[Any, Any, Statistics]: ...
@overload
def attention(q: Array, k: Array, v: Array, *, return_statistics: _Wanted, return_lse: Literal[False] = False,
              return_weights: _WeightsWanted, layout: Layout = "bhsd", out: Array | None = None,
              **options: Unpack[AttentionOptions]) -> tuple[Any, Any, Statistics]: ...
@overload
def attention(q: Array, k: Array, v: Array, *, return_statistics: _Wanted, return_lse: Literal[True],
              return_weights: _WeightsWanted, layout: Layout = "bhsd", out: Array | None = None,
              **options: Unpack[AttentionOptions]) -> tuple[Any, Any, Any, Statistics]: ...
@overload
def attention(q: Array, k: Array, v: Array, *, return_statistics: bool | None = None, return_lse: bool = False,
              return_weights: Weights = None, layout: Layout = "bhsd", out: Array | None = None,
              **options: Unpack[AttentionOptions]) -> Any: ...


def attention(q: Array, k: Array, v: Array, *, layout: Layout = "bhsd", causal: Causal = False,
              query_offset: int | Integers | None = None,
              window: int | tuple[int | None, int | None] | None = None, window_first: int = 0,
              lengths: Integers | None = None,
              prefixes: Integers | None = None, cu_seqlens: Integers | tuple[Integers, Integers] | None = None,
              segments: Integers | tuple[Integers, Integers] | None = None, keep_mask: Array | None = None,
              drop_mask: Array | None = None, bias: Array | None = None, alibi_slopes: Numbers | None = None,
              relative_bias: Array | RelativeBias | None = None, softcap: float = 0.0, sinks: Numbers | None = None,
              scale: float | None = None, dropout: float = 0.0, dropout_seed: int | None = None, dropout_stream: int = 0,
              return_lse: bool = False, return_weights: Weights = None, return_statistics: StatisticsAsked = None,
              threads: int | None = None, target: Target | str | None = None, out: Array | None = None) -> Any:
    """softmax(bias + cap(q k^T * scale), over the keys a row sees) v, head by head.

    layout "bhsd":  q (batch, heads, q_len, head_dim)   k (batch, kv_heads, kv_len, head_dim)
                    v (batch, kv_heads, kv_len, value_dim)   out (batch, heads, q_len, value_dim)
    layout "bshd":  the same with the axes of heads and lengths exchanged: (batch, q_len, heads, head_dim) ..
    Rank 3 is a batch of one without its axis: (heads, q_len, head_dim), or (q_len, heads, head_dim) with "bshd".
    heads is a multiple of kv_heads: query head h reads kv head h // (heads // kv_heads).

    float32, float64, bfloat16 (PyTorch, ml_dtypes) or float16, the same for all; any strides, the last axis contiguous;
    nothing is copied. Results are arrays of the kind that q is: PyTorch's for tensors, otherwise NumPy's.

    Returns out; with requests a tuple (out, lse, weights, statistics) of those that were asked for.
      lse      (batch, heads, q_len) in either layout: the logarithm of the sum of exp of a row's scores; float32, float64
               for float64
      weights  return_weights=True: (batch, heads, q_len, kv_len) of lse's type; "mean": their mean over the heads
               (batch, q_len, kv_len); or a WeightsRequest
      statistics return_statistics=True or a StatisticsRequest: Statistics of each row's weights, gathered while its keys
               pass, in memory linear in length; they change no bit of the other results

    Every option composes with every other; a key is seen by a row when all of them let it be seen. A row that sees no
    key gives zeros and lse -inf.
      causal         True: key j is seen by query i when j <= i, and q_len must equal kv_len. "top_left": the same for any
                     lengths. "bottom_right": the last query meets the last valid key.
      query_offset   the position of the first query among the keys, or one for each sequence; with or without causal
      window         (left, right): keys from position p - left to p + right; None (or -1): no bound. n: (n, None)
      window_first   leading keys of a sequence that the window's left hides from no row (attention sinks)
      lengths        (batch) valid keys of each entry
      prefixes       (sequences) leading keys that causal hides from no row
      cu_seqlens     sequences packed one after the other in a batch of one: (sequences + 1) starts and the end; a tuple of
                     two such lists: for queries and for keys (a list of two is no pair)
      segments       (batch, length) ids; a query sees the keys of its own id; a tuple of two: for queries and for keys
      keep_mask      bool, broadcast to (batch, heads, q_len, kv_len): True is seen
      drop_mask      bool, likewise: True is hidden
      bias           floating (float64 beside float64 alone), likewise, added to the scaled and capped scores
      alibi_slopes   (heads): -slope |p - j| is added
      relative_bias  T5's table (buckets, heads), or RelativeBias
      softcap        c: a score s becomes c tanh(s / c)
      sinks          (heads) logits that join the denominator alone
      scale          instead of 1 / sqrt(head_dim)
      dropout        the probability, 0 to below 1, that a weight becomes 0 on its way to v; the others are taken times
                     1 / (1 - dropout). Which are is a function of dropout_seed (wanted with it: another one each step of
                     a training), dropout_stream (tells apart calls that share a seed) and of batch, head, row and key, so
                     attention_backward() drops the same. lse, weights and statistics are those before it
    Short lists (lengths, cu_seqlens, ids, slopes) come as any sequence or array of numbers.

      threads        at most so many; None: get_num_threads(), and one where the work is too small to share. No bit of a
                     result depends on it.
      target         "baseline", "avx2", "avx512", "avx512bf16", "amx" or "neon": run this one or raise
      out            the caller's array, in the layout of q; it is what is returned; it may overlap no input

    Raises TypeError (element types, arguments of another kind), ValueError (shapes, strides, options that contradict each
    other, another device than the CPU), MemoryError; then nothing was written. Any number of threads may call it at a
    time, with an out each; other Python threads run while it computes.
    """
    options = {
        "causal": causal, "query_offset": query_offset, "window": window,
        "window_first": window_first, "lengths": lengths, "prefixes": prefixes,
        "cu_seqlens": cu_seqlens, "segments": segments, "keep_mask": keep_mask, "drop_mask": drop_mask, "bias": bias,
        "alibi_slopes": alibi_slopes, "relative_bias": relative_bias, "softcap": softcap, "sinks": sinks, "scale": scale,
        "dropout": dropout, "dropout_seed": dropout_seed, "dropout_stream": dropout_stream,
        "threads": threads, "target": target}
    results = _core.attention(q, k, v, (layout, out, return_lse, return_weights, return_statistics), options)
    if return_statistics is None or return_statistics is False:
        return results
    *others, found = results
    return (*others, Statistics(found, query_offset_of(options, *found["extents"][2:])))


def attention_backward(d_out: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, *, d_lse: Array | None = None,
                       want: Sequence[Gradient] = ("q", "k", "v"), layout: Layout = "bhsd",
                       **options: Unpack[AttentionOptions]) -> AttentionGradients:
    """Gradients of attention(), from that of its output.

    q, k, v, options, layout: those of attention(.., return_lse=True), and out and lse what it returned. d_out, in the
    layout and type of out: the gradient of out. d_lse (batch, heads, q_len): that of lse, if anything depends on it.
    want: which gradients; bias, alibi_slopes, relative_bias and sinks only where they are given. What is not asked for
    costs nothing.

    Memory is linear in length, and no bit depends on threads. A row that sees no key gives and gets zeros. Gradients are
    new arrays of the kind that q is. Raises as attention() does; any number of threads may call it at a time.
    """
    return AttentionGradients(**_core.attention_backward(d_out, q, k, v, (layout, out, lse, d_lse, want), options))


def attention_weights(q: Array, k: Array, lse: Array | None = None, *, layout: Layout = "bhsd", weights: Weights = True,
                      **options: Unpack[AttentionOptions]) -> Any:
    """The weights alone, of keys that are all a row sees or a part of it: exp(score - lse).

    q, k: as attention() has them, float32 or float64. lse (batch, heads, q_len): that of everything a row sees, as
    attention(.., return_lse=True) or merge() gives it; needed but at other points than "normalised".
    weights: True, "mean" or a WeightsRequest. options: those of attention(). Raises as attention() does.
    """
    return _core.attention_weights(q, k, (layout, lse, weights), options)


def merge(out_a: Array, lse_a: Array, out_b: Array, lse_b: Array, *, target: Target | str | None = None) -> tuple[Any, Any]:
    """Attention over two disjoint sets of keys joined into attention over both: (out, lse).

    out_a, out_b (batch, heads, q_len, value_dim)   lse_a, lse_b (batch, heads, q_len)   float32 or float64
    Both without the axis of the batch: (heads, q_len, value_dim) and (heads, q_len). Raises as attention() does.
    """
    return _core.merge(out_a, lse_a, out_b, lse_b, target)
