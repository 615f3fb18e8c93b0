// SPDX-License-Identifier: Apache-2.0
// The memory of one call of MultiHeadAttention::forward.
#pragma once

#include <algorithm>

#include "core/scratch.hpp"
#include "layer/layer_call.hpp"

namespace multihead {

constexpr std::int64_t kValuesTogether = 16;  // values whose lengths after the out weight a task computes

inline std::int64_t chunks(std::int64_t rows, std::int64_t together) { return (rows + together - 1) / together; }

// Where one call keeps what lies between the inputs and the output. Lines of it that a call does not need are null.
template <class T>
struct LayerBuffers {
  using S = Sum<T>;
  static constexpr bool kNarrow = !std::is_same_v<T, S>;
  S *query, *key, *value;     // the inputs, widened: narrow types only
  S *q, *k, *v, *concat;      // (batch, length, heads side by side)
  S *extra, *extra_lse;       // attention over the extra keys
  S* lse;                     // of all keys
  S *lengths, *extra_length;  // (batch, heads, kv_len), (heads, extra_keys)
  S* products;                // of each worker: rows of a product whose lengths are taken
  S* output;                  // narrow types only
  // Where they are kept: heads' queries and keys before their norms, heads' outputs before gates. lse is then wanted.
  S *q_projected, *k_projected, *heads_out;
  std::byte* attention;
  std::size_t attention_bytes;

  static std::size_t attention_need(const LayerCall<T>& call) {
    const AttentionOptions options = call.attention();
    const bool weights = call.requests.weights.any();
    std::size_t bytes = attention_scratch_bytes(call.shape(call.kv_len), options, weights, call.requests.statistics);
    if (call.layer.e.extra_keys > 0)
      bytes = std::max(bytes, attention_scratch_bytes(call.shape(call.layer.e.extra_keys), plain(options), weights));
    return round_to_line(bytes);
  }
  // The options that reach the extra keys: none that hides, moves or biases.
  static AttentionOptions plain(const AttentionOptions& options) {
    AttentionOptions left;
    left.scale = options.scale, left.softcap = options.softcap;
    left.threads = options.threads, left.parallel_for = options.parallel_for, left.target = options.target;
    return left;
  }
  // For each worker that takes lengths.
  static std::int64_t product_lines(const LayerCall<T>& call) {
    return chunks(call.layer.e.out_dim, kRowBlock) * kRowBlock * kValuesTogether;
  }
  static std::int64_t length_workers(const LayerCall<T>& call) {
    const std::int64_t blocks = std::max<std::int64_t>(call.batch * chunks(call.kv_len, kValuesTogether), 1);
    return std::min<std::int64_t>(call.options.attention.threads, call.layer.e.heads * blocks);
  }

  // Calls take(place, elements) for everything in turn.
  template <class Take>
  void each(const LayerCall<T>& call, const Take& take) {
    const MultiHeadExtents& e = call.layer.e;
    const std::int64_t q_rows = call.batch * call.q_len, kv_rows = call.batch * call.kv_len;
    const bool extras = e.extra_keys > 0, norms = call.wants_lengths();
    take(query, kNarrow ? q_rows * e.model_dim : 0);
    take(key, kNarrow && !call.self ? kv_rows * e.kdim : 0);
    take(value, kNarrow && !call.self ? kv_rows * e.vdim : 0);
    take(q, q_rows * e.heads * e.head_dim);
    take(k, kv_rows * e.kv_heads * e.head_dim);
    take(v, kv_rows * e.kv_heads * e.value_dim);
    take(concat, q_rows * e.heads * e.value_dim);
    take(extra, extras ? q_rows * e.heads * e.value_dim : 0);
    take(extra_lse, extras ? q_rows * e.heads : 0);
    take(lse, extras || call.keep ? q_rows * e.heads : 0);
    take(lengths, norms ? kv_rows * e.heads : 0);
    take(extra_length, norms ? e.extra_keys * e.heads : 0);
    take(products, norms ? product_lines(call) * length_workers(call) : 0);
    take(output, kNarrow ? q_rows * e.out_dim : 0);
    const auto normed = [&](const HeadNorm& norm) { return call.keep && norm.kind != HeadNorm::Kind::none; };
    take(q_projected, normed(call.layer.spec.q_norm) ? q_rows * e.heads * e.head_dim : 0);
    take(k_projected, normed(call.layer.spec.k_norm) ? kv_rows * e.kv_heads * e.head_dim : 0);
    take(heads_out, call.keep && !call.options.gates.empty() ? q_rows * e.heads * e.value_dim : 0);
  }

  static std::size_t bytes(const LayerCall<T>& call) {
    std::size_t total = attention_need(call);
    LayerBuffers().each(call, [&](S*&, std::int64_t elements) {
      total += round_to_line(static_cast<std::size_t>(elements) * sizeof(S));
    });
    return total;
  }

  LayerBuffers() = default;
  LayerBuffers(Scratch& scratch, const LayerCall<T>& call) : attention_bytes(attention_need(call)) {
    each(call, [&](S*& place, std::int64_t elements) { place = scratch.take<S>(static_cast<std::size_t>(elements)); });
    attention = scratch.take<std::byte>(attention_bytes);
  }
};

}  // namespace multihead
