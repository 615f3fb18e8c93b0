# SPDX-License-Identifier: Apache-2.0
"""Attention over keys and values that lie in pages of the caller's."""

from __future__ import annotations

from typing import Any

from . import _core
from ._types import Array, Integers, Layout


def paged_attention(q: Array, k_pages: Array, v_pages: Array, block_table: Any, lengths: Integers, *,
                    layout: Layout = "bhsd", return_lse: bool = False, out: Array | None = None,
                    **options: Any) -> Any:
    """attention() of the last queries of each sequence over the keys of its pages.

    q            (sequences, heads, q_len, head_dim), or (sequences, q_len, heads, head_dim) with layout "bshd"; with
                 cu_seqlens (sequences + 1) a batch of one: the queries of each sequence one after the other, of any numbers
    k_pages      (pages, page_len, kv_heads, head_dim)   v_pages (pages, page_len, kv_heads, value_dim), in either layout;
                 float32, bfloat16 or float16, of q's type; any strides, the last axis contiguous; nothing is copied
    block_table  (sequences, most pages of one): position p of sequence s is row p % page_len of page
                 block_table[s][p // page_len]. A cache that is one array (sequences, capacity, kv_heads, dim) has the table
                 [[0], [1], ..]
    lengths      (sequences) valid positions of each, the queries' own included

    The last query of a sequence meets its last position, unless another alignment is named; with one query each causal is
    not needed. Options are those of attention(), but for lengths, segments and the cu_seqlens of keys. Returns out, or (out,
    lse (sequences, heads, q_len) in float32) with return_lse. A row has the bits that attention() gives it over the same
    keys and values. Raises as attention() does, and ValueError for a length beyond the table and a page that is none where
    a position is valid; then nothing was written.
    """
    return _core.paged_attention(q, (k_pages, v_pages, block_table, lengths), (layout, out, return_lse), options)
