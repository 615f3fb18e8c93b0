// SPDX-License-Identifier: Apache-2.0
// Attention over keys and values that the caller keeps in pages of its own, row by row.
#pragma once

#include <cstdint>
#include <span>

#include "multihead/attention.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

// Position p of sequence s is row p % page_len of page block_table(s, p / page_len). A cache that is one tensor
// (sequences, capacity, kv_heads, dim) has pages = sequences, page_len = capacity and the table 0, 1, 2 ...
template <class T>
struct PagedKeys {
  View4<const T> k_pages = {};                      // (pages, page_len, kv_heads, head_dim), last axis contiguous
  View4<const T> v_pages = {};                      // (pages, page_len, kv_heads, value_dim)
  MatrixView<const std::int32_t> block_table = {};  // (sequences, most pages of one); last axis contiguous
  std::span<const std::int64_t> lengths = {};       // (sequences) valid positions, the queries' own included
};

// As attention() over a KvCache, of shapes and options too: the same bits for the same keys and values. Throws Error
// before anything is written: a length beyond the table, a page of a valid position that is none (others are not read).
// Masks and biases have the longest length, or 1, as their kv_len: keys count from each sequence's first.
void paged_attention(View4<const float> q, const PagedKeys<float>& keys, View4<float> out, View3<float> lse = {},
                     const AttentionOptions& options = {});
void paged_attention(View4<const BFloat16> q, const PagedKeys<BFloat16>& keys, View4<BFloat16> out,
                     View3<float> lse = {}, const AttentionOptions& options = {});
void paged_attention(View4<const Float16> q, const PagedKeys<Float16>& keys, View4<Float16> out, View3<float> lse = {},
                     const AttentionOptions& options = {});

}  // namespace multihead
