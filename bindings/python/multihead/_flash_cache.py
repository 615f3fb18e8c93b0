# SPDX-License-Identifier: Apache-2.0
"""FlashAttention's rules of a cache over multihead.paged_attention: what is checked, written, turned and read."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, NoReturn

import multihead

from . import _flash

_NAME = "flash_attn_with_kvcache"


def _refuse(sentence: str, kind: type[Exception] = ValueError) -> NoReturn:
    raise kind(f"{_NAME}: {sentence}")


def _is_torch(array: Any) -> bool:
    return type(array).__module__.partition(".")[0] == "torch"


def _integers(name: str, values: Any, count: int) -> list[int]:
    found = _flash.listed(values) if hasattr(values, "__len__") or hasattr(values, "tolist") else None
    if found is None or not all(hasattr(value, "__index__") for value in found):
        _refuse(f"{name} is {values!r}; it must be integers, one for each sequence", TypeError)
    if len(found) != count:
        _refuse(f"{name} has {len(found)} values, q has batch {count}; they must be equal")
    return [int(value) for value in found]


def _check_tensor(name: str, tensor: Any, like: Any) -> None:
    if not hasattr(tensor, "shape") or not hasattr(tensor, "dtype"):
        _refuse(f"{name} is of type {type(tensor).__name__}; it must be a torch.Tensor or an array", TypeError)
    if _is_torch(tensor) != _is_torch(like) or tensor.dtype != like.dtype:
        _refuse(f"{name} is {type(tensor).__name__} of {tensor.dtype}, q is {type(like).__name__} of {like.dtype}; they "
                f"must be the same", TypeError)
    if len(tensor.shape) != 4:
        _refuse(f"{name} has shape {tuple(tensor.shape)}; it must have 4 axes")


class Cached:
    """Where the positions of each sequence lie: rows of the pages that its table names."""

    def __init__(self, q: Any, caches: tuple[Any, Any], seqlens: Any, batch_idx: Any, block_table: Any) -> None:
        for name, tensor in zip(("q", "k_cache", "v_cache"), (q, *caches)):
            _check_tensor(name, tensor, q)
        self.k, self.v = caches
        if tuple(self.k.shape[:3]) != tuple(self.v.shape[:3]) or self.k.shape[3] != q.shape[3]:
            _refuse(f"q, k_cache and v_cache have shapes {tuple(q.shape)}, {tuple(self.k.shape)} and "
                    f"{tuple(self.v.shape)}; q and k_cache must be equal in head_dim, the caches in all but it")
        batch, pages, self.page_len = q.shape[0], self.k.shape[0], self.k.shape[1]
        if block_table is None:
            if batch_idx is None and pages < batch:
                _refuse(f"k_cache has batch {pages}, q has {batch}; it must have as many, or cache_batch_idx must say which")
            own = list(range(batch)) if batch_idx is None else _integers("cache_batch_idx", batch_idx, batch)
            self.table = [[page] for page in own]
        else:
            if batch_idx is not None:
                _refuse("cache_batch_idx and block_table are both given; the table says where a sequence lies")
            shape = getattr(block_table, "shape", None)
            if shape is None or len(shape) != 2 or shape[0] != batch:
                _refuse(f"block_table has shape {None if shape is None else tuple(shape)}; it must be (batch, pages of a "
                        f"sequence), and q has batch {batch}")
            self.table = [list(map(int, row)) for row in block_table.tolist()]
        self.capacity = self.page_len * (len(self.table[0]) if self.table else 0)
        self.lengths = self._lengths(seqlens, batch)

    def _lengths(self, seqlens: Any, batch: int) -> list[int]:
        if seqlens is None:
            return [self.capacity] * batch
        return [int(seqlens)] * batch if hasattr(seqlens, "__index__") and not getattr(seqlens, "shape", ()) \
            else _integers("cache_seqlens", seqlens, batch)

    def grown(self, count: int) -> list[int]:
        """The lengths after so many positions more, whose pages are there."""
        for s, length in enumerate(self.lengths):
            if length < 0 or length + count > self.capacity:
                _refuse(f"cache_seqlens of sequence {s} is {length}, {count} more positions come; together they must be from 0 "
                        f"to {self.capacity}, what the cache holds of a sequence")
            for page in self.table[s][:-(-(length + count) // self.page_len)]:
                if not 0 <= page < self.k.shape[0]:
                    _refuse(f"sequence {s} has page {page}; it must be from 0 to {self.k.shape[0] - 1}")
        return [length + count for length in self.lengths]

    def write(self, k: Any, v: Any) -> None:
        """Puts the new positions where they belong."""
        places = [[(self.table[s][p // self.page_len], p % self.page_len) for p in range(length, length + k.shape[1])]
                  for s, length in enumerate(self.lengths)]
        pages, rows = (_whole_numbers(k, [[place[i] for place in row] for row in places]) for i in (0, 1))
        self.k[pages, rows], self.v[pages, rows] = k, v


def _whole_numbers(like: Any, values: Any) -> Any:
    if _is_torch(like):
        return sys.modules["torch"].tensor(values)
    return sys.modules["numpy"].array(values, "int64")


def check_new(q: Any, cached: Cached, k: Any, v: Any) -> int:
    """The number of new positions of each sequence."""
    if (k is None) != (v is None):
        _refuse("of k and v one is given; they must come together")
    if k is None:
        return 0
    for name, tensor, cache in (("k", k, cached.k), ("v", v, cached.v)):
        _check_tensor(name, tensor, q)
        wanted = (q.shape[0], k.shape[1], *cache.shape[2:])
        if tuple(tensor.shape) != wanted:
            _refuse(f"{name} has shape {tuple(tensor.shape)}; it must be {wanted}: (batch, seqlen_new, kv_heads, head_dim)")
    return int(k.shape[1])


def check_rotary(cached: Cached, cos: Any, sin: Any, count: int, head_dim: int, queries: int) -> None:
    """Raises unless the tables reach all positions of the call."""
    if (cos is None) != (sin is None):
        _refuse("of rotary_cos and rotary_sin one is given; they must come together")
    if cos is None:
        return
    if count == 0:
        _refuse("rotary_cos is given without k and v; it turns new keys, and queries beside them")
    shape = tuple(cos.shape)
    if len(shape) != 2 or tuple(sin.shape) != shape or 2 * shape[1] > head_dim or shape[1] == 0:
        _refuse(f"rotary_cos and rotary_sin have shapes {shape} and {tuple(sin.shape)}; they must be (seqlen_ro, "
                f"rotary_dim / 2), rotary_dim at most head_dim {head_dim}")
    last = max(cached.lengths, default=0) + max(count, queries)
    if shape[0] < last:
        _refuse(f"rotary_cos has {shape[0]} positions; the call reaches {last}")


def turned(x: Any, cos: Any, sin: Any, positions: list[list[int]], interleaved: bool) -> Any:
    """x (batch, length, heads, head_dim) turned at positions (batch, length), in float32, rounded once."""
    def wide(part: Any) -> Any:
        return part.float() if _is_torch(part) else part.astype("float32")

    places, width = _whole_numbers(x, positions), 2 * cos.shape[1]
    c, s = (wide(table)[places][:, :, None] for table in (cos, sin))
    result = x.clone() if _is_torch(x) else x.copy()
    first, second = ((slice(0, width, 2), slice(1, width, 2)) if interleaved
                     else (slice(0, width // 2), slice(width // 2, width)))
    a, b = wide(x[..., first]), wide(x[..., second])
    for part, value in ((first, a * c - b * s), (second, b * c + a * s)):
        result[..., part] = value.to(x.dtype) if _is_torch(x) else value.astype(x.dtype)
    return result


def attend(q: Any, cached: Cached, k: Any, v: Any, *, rotary: tuple[Any, Any, bool], scale: float | None, causal: bool,
           window: tuple[int, int], softcap: float, alibi_slopes: Any) -> tuple[Any, Any]:
    """(out, lse): checks everything, writes k and v, and reads the cache."""
    cos, sin, interleaved = rotary
    count = check_new(q, cached, k, v)
    check_rotary(cached, cos, sin, count, q.shape[3], q.shape[1])
    lengths = cached.grown(count)
    options: dict[str, Any] = {"scale": scale, "softcap": softcap, "causal": False, "threads": None,
                               "window": tuple(None if side < 0 else side for side in (window[0], 0 if causal else window[1]))}
    if _is_torch(q):
        options["threads"] = sys.modules["torch"].get_num_threads()
    slopes = [None] * len(lengths) if alibi_slopes is None else _flash.listed(alibi_slopes)
    each = bool(slopes) and isinstance(slopes[0], list)
    extents = {"q_len": q.shape[1], "kv_len": max(lengths, default=0), "heads": q.shape[2], "kv_heads": cached.k.shape[2],
               "head_dim": q.shape[3], "value_dim": cached.v.shape[3], "batch": q.shape[0]}
    for own in (slopes if each else [None if alibi_slopes is None else slopes]):
        multihead.explain(**extents, **options, query_offset=0, alibi_slopes=own)
    if cos is not None:
        # Where queries see keys by position they stand at theirs, otherwise all at the first new one's.
        steps = causal or window != (-1, -1)
        q = turned(q, cos, sin, [[n + i * steps for i in range(q.shape[1])] for n in cached.lengths], interleaved)
        k = turned(k, cos, sin, [[n + i for i in range(count)] for n in cached.lengths], interleaved)
    if count:
        cached.write(k, v)

    def part(rows: slice, own: Any) -> Any:
        return multihead.paged_attention(q[rows], cached.k, cached.v, cached.table[rows], lengths[rows], layout="bshd",
                                         return_lse=True, alibi_slopes=own, **options)
    if not each:
        out, lse = part(slice(None), None if alibi_slopes is None else slopes)
        return out, lse
    outs, lses = zip(*(part(slice(s, s + 1), own) for s, own in enumerate(slopes)))
    arrays = sys.modules["torch" if _is_torch(q) else "numpy"]
    return arrays.concatenate(outs), arrays.concatenate(lses)


def without_gradients(q: Any) -> Any:
    """FlashAttention has none here."""
    return sys.modules["torch"].no_grad() if _is_torch(q) else contextlib.nullcontext()
