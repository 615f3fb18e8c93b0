# SPDX-License-Identifier: Apache-2.0
"""KvCache: keys and values that grow with their sequences, and attention over them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Union

from . import _core
from ._types import Array, AttentionOptions, Integers, Layout

if TYPE_CHECKING:
    from typing_extensions import TypeAlias, Unpack

Storage = Literal["float32", "bfloat16", "float16", "int8"]
# One sequence or several.
Sequences: TypeAlias = "Union[int, Sequence[int], Array]"


class KvCache:
    """Keys and values of any number of sequences, layer by layer, in pages that sequences share.

    kv_heads, head_dim, value_dim (head_dim), layers   what a position holds
    pages, page_len   memory for pages * page_len positions in all, allocated at once; page_len is a multiple of 32
    storage     "float32", "bfloat16", "float16": of the arrays that are appended. "int8": of any of them, rounded
    scales      of int8: "per_token", the largest magnitude of each key and value / 127; "per_channel", with
                k_scales (layers, kv_heads, head_dim) and v_scales (.., value_dim) in float32
    window      a sliding cache: keys before a query's own that it may see, beside the `first` ones; pages that no query
                to come can see are given back while a sequence grows

    A sequence is an int that add(), fork() and load() give: no two are equal, and one that was removed, or is another
    cache's, is a ValueError. Every call that raises leaves the cache as it was: ValueError (shapes, options, names),
    TypeError (element types), MemoryError (the free pages do not suffice). Any number of threads may call it.
    """

    __slots__ = ("_cache", "_said")
    _cache: _core.KvCache

    def __init__(self, kv_heads: int, head_dim: int, *, pages: int, page_len: int = 128, layers: int = 1,
                 value_dim: int | None = None, storage: Storage = "float32", window: int | None = None, first: int = 0,
                 scales: Literal["per_token", "per_channel"] = "per_token", k_scales: Array | None = None,
                 v_scales: Array | None = None) -> None:
        self._cache = _core.KvCache.create((layers, kv_heads, head_dim, value_dim, pages, page_len), (window, first),
                                           (storage, scales, k_scales, v_scales))
        self._said = (f"KvCache(kv_heads={kv_heads}, head_dim={head_dim}, layers={layers}, storage={storage!r}, "
                      f"pages={pages}, page_len={page_len})")

    def __reduce__(self) -> NoReturn:  # what copy, deepcopy and pickle ask
        raise TypeError("KvCache: a cache cannot be copied; its sequences can be forked")

    def __repr__(self) -> str:
        return self._said

    @property
    def sequences(self) -> int:
        """How many sequences there are."""
        return self._cache.sequences

    @property
    def free_pages(self) -> int:
        """Pages that no sequence holds."""
        return self._cache.free_pages

    def add(self) -> int:
        """A new sequence without positions."""
        return self._cache.add()

    def fork(self, sequence: int, length: int | None = None) -> int:
        """A new sequence of the same first `length` positions (None: all). Pages are shared until one of both writes."""
        return self._cache.fork(sequence, length)

    def remove(self, sequence: int) -> None:
        """Gives a sequence's pages back, and its name."""
        self._cache.remove(sequence)

    def truncate(self, sequence: int, length: int) -> None:
        """Forgets the positions from `length` on, in every layer."""
        self._cache.truncate(sequence, length)

    def length(self, sequence: int, layer: int = 0) -> int:
        """The positions of a layer of a sequence."""
        return self._cache.length(sequence, layer)

    def given_back(self, sequence: int) -> tuple[int, int]:
        """The positions (begin, end) that a sliding cache gave back; (0, 0): none."""
        return self._cache.given_back(sequence)

    def append(self, layer: int, sequences: Sequences, k: Array, v: Array, *, cu_seqlens: Integers | None = None,
               layout: Layout = "bhsd") -> None:
        """Appends positions to a layer of each sequence.

        k (sequences, kv_heads, tokens, head_dim), v (.., value_dim); with layout "bshd" (sequences, tokens, kv_heads, ..).
        With cu_seqlens (sequences + 1) a batch of one: the positions of each sequence one after the other. Rank 3 is a
        batch of one without its axis. An int8 cache refuses NaN and infinity.
        """
        self._cache.append(layer, sequences, (k, v), (cu_seqlens, layout))

    def attention(self, q: Array, layer: int, sequences: Sequences, *, layout: Layout = "bhsd", return_lse: bool = False,
                  out: Array | None = None, **options: Unpack[AttentionOptions]) -> Any:
        """attention() of the last queries of each sequence over what a layer holds of it, with the same bits.

        q (sequences, heads, q_len, head_dim) as attention() has it; with cu_seqlens (sequences + 1) a batch of one: the
        queries of each sequence one after the other, of any numbers. Of the type that is stored; over int8 of any but
        float64. The last query meets the last position, unless another alignment is named; with one query each causal is not
        needed. Options are those of attention(), but for lengths, segments and the cu_seqlens of keys. Over a sliding
        cache window must be given, within its own. Returns out, or (out, lse) with return_lse.
        """
        return self._cache.attention(q, layer, sequences, (layout, out, return_lse), options)

    def read(self, layer: int, sequence: int, first: int = 0, count: int | None = None,
             out: tuple[Array, Array] | None = None) -> tuple[Any, Any]:
        """Keys (kv_heads, count, head_dim) and values (.., value_dim) from position `first` on: to the end unless count says.

        NumPy arrays of the type that is stored (bfloat16 wants ml_dtypes), of int8 float32; or `out`, two arrays to fill.
        """
        return self._cache.read(layer, sequence, (first, count, out))

    def save(self, path: str | os.PathLike[str], sequence: int) -> None:
        """Writes a sequence, all layers as they are stored, to a .safetensors file. Raises OSError."""
        self._cache.save(os.fsencode(path), sequence)

    def load(self, path: str | os.PathLike[str]) -> int:
        """Adds the sequence that save() wrote, of a cache of the same kind (pages may differ). Raises OSError, ValueError."""
        return self._cache.load(os.fsencode(path))
