// SPDX-License-Identifier: Apache-2.0
// The memory of one call of MultiHeadAttention::forward.
#pragma once

#include <algorithm>

#include "core/scratch.hpp"
#include "layer/layer_products.hpp"

namespace multihead {

constexpr std::int64_t kValuesTogether = 16;  // values whose lengths after the out weight a task computes

inline std::int64_t chunks(std::int64_t rows, std::int64_t together) { return (rows + together - 1) / together; }

// Where one call keeps what lies between the inputs and the output. Lines of it that a call does not need are null.
template <class T>
struct LayerBuffers {
  using S = Sum<T>;
  T *q, *k, *v, *concat;  // (batch, length, heads side by side), rows of q and k a step apart
  T* extra;               // attention over the extra keys
  S* extra_lse;
  S* lse;                     // of all keys
  S *lengths, *extra_length;  // (batch, heads, kv_len), (heads, extra_keys)
  S* of_lengths;              // of each worker that takes lengths: length_elements()
  // Where they are kept: heads' queries and keys before their norms, heads' outputs before gates. lse is then wanted.
  T *q_projected, *k_projected, *heads_out;
  std::byte* task_scratch;  // of attention or of products
  std::size_t task_bytes;

  static std::size_t attention_need(const LayerCall<T>& call) {
    const AttentionOptions options = call.attention();
    const bool weights = call.requests.weights.any();
    std::size_t bytes = attention_scratch_bytes(call.shape(call.kv_len), options, weights, call.requests.statistics);
    if (call.layer.e.extra_keys > 0)
      bytes = std::max(bytes, attention_scratch_bytes(call.shape(call.layer.e.extra_keys), plain(options), weights));
    return bytes;
  }
  static std::size_t task_need(const LayerCall<T>& call) {
    return round_to_line(std::max(attention_need(call), projection_bytes(call)));
  }
  // The options that reach the extra keys: none that hides, moves or biases.
  static AttentionOptions plain(const AttentionOptions& options) {
    AttentionOptions left;
    left.scale = options.scale, left.softcap = options.softcap;
    left.threads = options.threads, left.parallel_for = options.parallel_for, left.target = options.target;
    return left;
  }
  // Values after the out weight; where they are stored in two bytes also the values and a block of the weight, widened.
  static std::int64_t length_elements(const LayerCall<T>& call) {
    const MultiHeadExtents& e = call.layer.e;
    return chunks(e.out_dim, kRowBlock) * kRowBlock * kValuesTogether +
           (kNarrow<T> ? (kValuesTogether + kRowBlock) * e.value_dim : 0);
  }
  static std::int64_t length_workers(const LayerCall<T>& call) {
    const std::int64_t blocks = std::max<std::int64_t>(call.batch * chunks(call.kv_len, kValuesTogether), 1);
    return std::min<std::int64_t>(call.options.attention.threads, call.layer.e.heads * blocks);
  }

  // From a row of queries or keys to the next. Those of two bytes that are normed or turned are made as rows of floats,
  // and rounded to the beginnings of these.
  static std::int64_t step(const LayerCall<T>& call, const HeadNorm& norm, std::int64_t heads) {
    return heads * call.layer.e.head_dim * (kNarrow<T> && call.finishes(norm) ? 2 : 1);
  }
  static std::int64_t q_step(const LayerCall<T>& call) {
    return step(call, call.layer.spec.q_norm, call.layer.e.heads);
  }
  static std::int64_t k_step(const LayerCall<T>& call) {
    return step(call, call.layer.spec.k_norm, call.layer.e.kv_heads);
  }

  // Calls take(place, elements) for everything in turn.
  template <class Take>
  void each(const LayerCall<T>& call, const Take& take) {
    const MultiHeadExtents& e = call.layer.e;
    const std::int64_t q_rows = call.batch * call.q_len, kv_rows = call.batch * call.kv_len;
    const bool extras = e.extra_keys > 0, norms = call.wants_lengths();
    take(q, q_rows * q_step(call));
    take(k, kv_rows * k_step(call));
    take(v, kv_rows * e.kv_heads * e.value_dim);
    take(concat, q_rows * e.heads * e.value_dim);
    take(extra, extras ? q_rows * e.heads * e.value_dim : 0);
    take(extra_lse, extras ? q_rows * e.heads : 0);
    take(lse, extras || call.keep ? q_rows * e.heads : 0);
    take(lengths, norms ? kv_rows * e.heads : 0);
    take(extra_length, norms ? e.extra_keys * e.heads : 0);
    take(of_lengths, norms ? length_elements(call) * length_workers(call) : 0);
    const auto normed = [&](const HeadNorm& norm) { return call.keep && norm.kind != HeadNorm::Kind::none; };
    take(q_projected, normed(call.layer.spec.q_norm) ? q_rows * e.heads * e.head_dim : 0);
    take(k_projected, normed(call.layer.spec.k_norm) ? kv_rows * e.kv_heads * e.head_dim : 0);
    take(heads_out, call.keep && !call.options.gates.empty() ? q_rows * e.heads * e.value_dim : 0);
  }

  static std::size_t bytes(const LayerCall<T>& call) {
    std::size_t total = task_need(call);
    LayerBuffers().each(call, [&]<class E>(E*&, std::int64_t elements) {
      total += round_to_line(static_cast<std::size_t>(elements) * sizeof(E));
    });
    return total;
  }

  LayerBuffers() = default;
  LayerBuffers(Scratch& scratch, const LayerCall<T>& call) : task_bytes(task_need(call)) {
    each(call, [&]<class E>(E*& place, std::int64_t elements) {
      place = scratch.take<E>(static_cast<std::size_t>(elements));
    });
    task_scratch = scratch.take<std::byte>(task_bytes);
  }
};

}  // namespace multihead
