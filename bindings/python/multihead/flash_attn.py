# SPDX-License-Identifier: Apache-2.0
"""FlashAttention's functions on the CPU, with the meaning of its versions from 2.1 on, for torch tensors and NumPy arrays.

Queries and keys are aligned at their ends: query i stands at position p = i + seqlen_k - seqlen_q of its sequence.
Causal, windows and ALiBi count from there: causal hides the keys after p, a window (left, right) the keys outside
p - left .. p + right, and ALiBi adds -slope |p - j| to the score of key j. Negative: no bound on that side. A query that
sees no key gets zeros, and -inf as its log-sum-exp (FlashAttention 2 has +inf there). With return_attn_probs=True a
function returns (out, softmax_lse, None): probabilities are not built.
"""

from __future__ import annotations

import sys
from typing import Any, Sequence

from . import _flash, _flash_cache

__all__ = ["flash_attn_func", "flash_attn_kvpacked_func", "flash_attn_qkvpacked_func", "flash_attn_varlen_func",
           "flash_attn_varlen_kvpacked_func", "flash_attn_varlen_qkvpacked_func", "flash_attn_with_kvcache"]


def flash_attn_func(q: Any, k: Any, v: Any, dropout_p: float = 0.0, softmax_scale: float | None = None,
                    causal: bool = False, window_size: Sequence[int] = (-1, -1), softcap: float = 0.0,
                    alibi_slopes: Any = None, deterministic: bool = False, return_attn_probs: bool = False) -> Any:
    """Attention of q (batch, seqlen_q, heads, head_dim) over k and v (batch, seqlen_k, kv_heads, head_dim).

    Returns out (batch, seqlen_q, heads, head_dim); with return_attn_probs (out, softmax_lse (batch, heads, seqlen_q)
    in float32, or float64 for float64, None). softmax_scale: 1/sqrt(head_dim) unless given. alibi_slopes: (heads) or
    (batch, heads). deterministic is always so. dropout_p: the probability with which a weight is dropped; torch.manual_seed
    (for arrays numpy.random.seed) makes it repeatable. Tensors have gradients: q, k, v and alibi_slopes, from out and
    softmax_lse. Raises ValueError or TypeError with a sentence for what does not fit, before anything is computed."""
    return _call("flash_attn_func", q, k, v, (None, None), 4, dropout_p, softmax_scale, causal, window_size, softcap,
                 alibi_slopes, return_attn_probs)


def flash_attn_varlen_func(q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int,
                           max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: float | None = None,
                           causal: bool = False, window_size: Sequence[int] = (-1, -1), softcap: float = 0.0,
                           alibi_slopes: Any = None, deterministic: bool = False, return_attn_probs: bool = False,
                           block_table: Any = None) -> Any:
    """The same of packed sequences: q (total_q, heads, head_dim), k and v (total_k, kv_heads, head_dim).

    cu_seqlens_q, cu_seqlens_k: (sequences + 1) integers, where each sequence begins, and the total at the end.
    max_seqlen_q and max_seqlen_k are not needed. softmax_lse is (heads, total_q). block_table: NotImplementedError."""
    if block_table is not None:
        raise NotImplementedError("flash_attn_varlen_func: block_table is given; paged keys are not supported, pass "
                                  "k and v packed")
    return _call("flash_attn_varlen_func", q, k, v, (cu_seqlens_q, cu_seqlens_k), 3, dropout_p, softmax_scale, causal,
                 window_size, softcap, alibi_slopes, return_attn_probs)


def flash_attn_qkvpacked_func(qkv: Any, *arguments: Any, **options: Any) -> Any:
    """flash_attn_func of qkv (batch, seqlen, 3, heads, head_dim), with its arguments after v."""
    q, k, v = _parts("flash_attn_qkvpacked_func", "qkv", qkv, 5, 3)
    return flash_attn_func(q, k, v, *arguments, **options)


def flash_attn_kvpacked_func(q: Any, kv: Any, *arguments: Any, **options: Any) -> Any:
    """flash_attn_func of q and kv (batch, seqlen_k, 2, kv_heads, head_dim), with its arguments after v."""
    k, v = _parts("flash_attn_kvpacked_func", "kv", kv, 5, 2)
    return flash_attn_func(q, k, v, *arguments, **options)


def flash_attn_varlen_qkvpacked_func(qkv: Any, cu_seqlens: Any, max_seqlen: int, *arguments: Any, **options: Any) -> Any:
    """flash_attn_varlen_func of qkv (total, 3, heads, head_dim), with its arguments after max_seqlen_k."""
    q, k, v = _parts("flash_attn_varlen_qkvpacked_func", "qkv", qkv, 4, 3)
    return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, *arguments, **options)


def flash_attn_varlen_kvpacked_func(q: Any, kv: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int,
                                    max_seqlen_k: int, *arguments: Any, **options: Any) -> Any:
    """flash_attn_varlen_func of q and kv (total_k, 2, kv_heads, head_dim), with its arguments after max_seqlen_k."""
    k, v = _parts("flash_attn_varlen_kvpacked_func", "kv", kv, 4, 2)
    return flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *arguments,
                                  **options)


def flash_attn_with_kvcache(q: Any, k_cache: Any, v_cache: Any, k: Any = None, v: Any = None, rotary_cos: Any = None,
                            rotary_sin: Any = None, cache_seqlens: Any = None, cache_batch_idx: Any = None,
                            cache_leftpad: Any = None, block_table: Any = None, softmax_scale: float | None = None,
                            causal: bool = False, window_size: Sequence[int] = (-1, -1), softcap: float = 0.0,
                            rotary_interleaved: bool = True, alibi_slopes: Any = None, num_splits: int = 0,
                            return_softmax_lse: bool = False) -> Any:
    """Attention of q (batch, seqlen_q, heads, head_dim) over a cache, to which k and v are first appended, in place.

    k_cache, v_cache: (batch of the cache, capacity, kv_heads, head_dim), or with block_table (batch, pages of a sequence)
    integers pages of any length (pages, page_len, kv_heads, head_dim). cache_seqlens: an integer or (batch) integers, the
    positions that are there before the call; None: all of the capacity. k, v: (batch, seqlen_new, kv_heads, head_dim), of
    positions cache_seqlens and on. cache_batch_idx: (batch) integers, the place of each sequence in the cache.
    rotary_cos, rotary_sin: (positions, rotary_dim / 2): k is turned at its positions before it is written, q at those from
    cache_seqlens on where causal or a window is given, else all of it at cache_seqlens; rotary_interleaved: pairs are
    neighbours, otherwise halves. The last query meets the last position, those of k included. cache_leftpad:
    NotImplementedError. num_splits: any; keys are split at cuts of their own, and no bit depends on it.

    float32, float16 or bfloat16. Returns out (batch, seqlen_q, heads, head_dim), or with return_softmax_lse (out, softmax_lse
    (batch, heads, seqlen_q) in float32); no gradients. Raises ValueError or TypeError with a sentence for what does not
    fit; then nothing was written."""
    function = "flash_attn_with_kvcache"
    if cache_leftpad is not None:
        raise NotImplementedError(f"{function}: cache_leftpad is given; positions before a sequence are not supported, let "
                                  f"each begin at the first row of its cache")
    if not hasattr(num_splits, "__index__"):
        raise TypeError(f"{function}: num_splits is {num_splits!r}; it must be an integer")
    window = _flash.window_of(function, window_size)
    scale = None if softmax_scale is None else _flash.number(function, "softmax_scale", softmax_scale)
    softcap = _flash.number(function, "softcap", softcap)
    with _flash_cache.without_gradients(q):
        cached = _flash_cache.Cached(q, (k_cache, v_cache), cache_seqlens, cache_batch_idx, block_table)
        if alibi_slopes is not None:
            _flash.check_slopes(function, alibi_slopes, q.shape[0], q.shape[2])
        out, lse = _flash_cache.attend(
            q, cached, k, v, rotary=(rotary_cos, rotary_sin, rotary_interleaved), scale=scale, causal=causal, window=window,
            softcap=softcap, alibi_slopes=alibi_slopes)
    return (out, lse) if return_softmax_lse else out


def _parts(function: str, name: str, packed: Any, rank: int, count: int) -> list[Any]:
    if len(packed.shape) != rank or packed.shape[-3] != count:
        raise ValueError(f"{function}: {name} has shape {tuple(packed.shape)}; it must have {rank} axes, the third from "
                         f"the end of extent {count}")
    return [packed[..., part, :, :] for part in range(count)]


def _call(function: str, q: Any, k: Any, v: Any, cu_seqlens: tuple[Any, Any], rank: int, dropout_p: float,
          scale: float | None, causal: bool, window_size: Sequence[int], softcap: float, alibi_slopes: Any,
          return_attn_probs: bool) -> Any:
    dropout_p = _flash.probability(function, dropout_p)
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not hasattr(tensor, "shape"):
            raise TypeError(f"{function}: {name} is of type {type(tensor).__name__}; it must be a torch.Tensor or an array")
        if len(tensor.shape) != rank:
            raise ValueError(f"{function}: {name} has shape {tuple(tensor.shape)}; it must have {rank} axes")
    left, right = _flash.window_of(function, window_size)
    window = (left, 0 if causal else right)
    scale = None if scale is None else _flash.number(function, "softmax_scale", scale)
    softcap = _flash.number(function, "softcap", softcap)
    if rank == 3:
        _flash.check_starts(function, cu_seqlens)
    if alibi_slopes is not None:
        sequences = q.shape[0] if rank == 4 else len(cu_seqlens[0]) - 1
        _flash.check_slopes(function, alibi_slopes, sequences, q.shape[-2])
    if type(q).__module__.partition(".")[0] == "torch":
        from .torch._attention import flash_attention  # only here: arrays of NumPy do not import torch
        out, lse = flash_attention(function, q, k, v, cu_seqlens, alibi_slopes, scale, window, softcap, dropout_p)
    else:
        seed = sys.modules["numpy"].random.randint(2 ** 63 - 1, dtype="int64") if dropout_p else None
        out, lse = _flash.attend(q, k, v, cu_seqlens=cu_seqlens, alibi_slopes=alibi_slopes, scale=scale, window=window,
                                 softcap=softcap, dropout_p=dropout_p, seed=seed, threads=None)
    return (out, lse, None) if return_attn_probs else out
