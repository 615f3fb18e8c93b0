// SPDX-License-Identifier: Apache-2.0
// Attention of the last queries of sequences over keys and values that are cached: the one entry of every door.
#pragma once

#include <cstdint>

#include "kernels/cached_rows.hpp"
#include "multihead/attention.hpp"

namespace multihead {

// What is cached of a sequence: its pages, as CachedRows::pages, and its positions, those of the queries included.
struct CachedSequence {
  const std::int32_t* pages;
  std::int64_t length;
};

// Keys and values of all sequences and kv heads of a call.
struct CachedKeys {
  CachedRows rows;                                  // of kv head 0; its pages are not read
  std::int64_t k_head = 0, v_head = 0;              // bytes from kv head to kv head
  std::int64_t k_scale_head = 0, v_scale_head = 0;  // the same of scales
  std::int64_t kv_heads = 0, head_dim = 0, value_dim = 0;
  std::int64_t sequences = 0;
  CachedSequence (*sequence)(const void* context, std::int64_t index) = nullptr;  // stays as it is during the call
  const void* context = nullptr;

  CachedRows of(const CachedSequence& cached, std::int64_t kv_head) const;
};

// q (sequences, heads, q_len, head_dim)   out (sequences, heads, q_len, value_dim)   lse (sequences, heads, q_len) or
// without extents; with options.cu_seqlens_q batch 1 and the queries of sequence s in [cu_seqlens_q[s], [s + 1]).
template <class S>
struct CachedTensors {
  View4<const S> q;
  View4<S> out;
  View3<float> lse;
};

// Checks tensors and options, and runs. Whoever calls it has checked sequences, pages and lengths, that S is the type
// of storage or storage int8, and that out and lse lie apart from the cache. An alignment that is not named is
// bottom_right. The kv_len of masks and biases is 1 or the longest length; keys count from each sequence's first, for
// dropout too. Throws Error before anything is written.
template <class S>
void cached_attention(const char* function, const CachedTensors<S>& tensors, const CachedKeys& keys,
                      const AttentionOptions& options);

}  // namespace multihead
