// SPDX-License-Identifier: Apache-2.0
// Scaled dot-product attention over many heads: options, shapes, contract.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "multihead/parallel.hpp"
#include "multihead/target.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

// Which keys a query may see by position: key j of query i when j <= i + offset.
class Causal {
 public:
  enum class Kind { none, square, top_left, bottom_right, offset };

  constexpr Causal() = default;
  // true: causal with q_len equal to kv_len; anything else must name its alignment.
  constexpr Causal(bool causal) : kind_(causal ? Kind::square : Kind::none) {}
  static constexpr Causal top_left() { return Causal(Kind::top_left, 0); }          // offset 0
  static constexpr Causal bottom_right() { return Causal(Kind::bottom_right, 0); }  // offset length - q_len
  // Any offset, also negative: leading rows are then empty. The number of keys before the first query.
  static constexpr Causal at(std::int64_t query_offset) { return Causal(Kind::offset, query_offset); }

  constexpr Kind kind() const { return kind_; }
  constexpr std::int64_t query_offset() const { return offset_; }

 private:
  constexpr Causal(Kind kind, std::int64_t offset) : kind_(kind), offset_(offset) {}
  Kind kind_ = Kind::none;
  std::int64_t offset_ = 0;
};

struct AttentionOptions {
  std::optional<double> scale = {};            // 1/sqrt(head_dim) unless given; any finite number
  Causal causal = {};                          // none unless given; composes with lengths
  std::span<const std::int64_t> lengths = {};  // (batch) valid keys of each sequence, 0..kv_len; empty: all kv_len
  int threads = 1;                             // at least 1; with 1 no thread is created
  ParallelFor parallel_for = {};               // the caller's loop instead of the pool; threads then bounds concurrency
  std::optional<Target> target = {};           // pin a target; otherwise chosen_target()
  std::span<std::byte> scratch = {};           // attention_scratch_bytes() of it, or empty: kept per thread and reused
};

// out = softmax(q k^T * scale, over visible keys) v, head by head; query head h reads kv head h / (heads / kv_heads).
//   q    (batch, heads,    q_len,  head_dim)    head_dim 1 to 1024
//   k    (batch, kv_heads, kv_len, head_dim)    heads is a multiple of kv_heads
//   v    (batch, kv_heads, kv_len, value_dim)   value_dim 1 to 1024
//   out  (batch, heads,    q_len,  value_dim)   may not overlap q, k or v
//   lse  (batch, heads,    q_len)               natural log of the sum of exp of the scaled scores of the visible keys
// Strides are free but for the last axis of q, k, v and out, which must be contiguous. Zero extents of batch, q_len
// and kv_len are legal. With lengths, bottom_right aligns the last query with the last valid key of its sequence.
// A query that sees no key gets zeros and lse -inf. A NaN or Inf that a row cannot see never reaches it; one that it
// can see shows. A row's bits depend on its query, its visible keys, values and their positions, the options and the
// type: not on batch, neighbours, padding, q_len or threads; targets: see Target. float is summed in float, double in
// double (docs/numerics.md). Thread-safe for distinct outputs. Allocates nothing after a thread's first calls of a
// size. Throws Error (shape_mismatch, bad_option, unsupported, out_of_memory) before anything is written.
// Method: blocks of keys with a running maximum (Milakov and Gimelshein 2018; Dao 2023), memory linear in length.
void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out,
               const AttentionOptions& options = {});
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               const AttentionOptions& options = {});
void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out, View3<float> lse,
               const AttentionOptions& options = {});
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               View3<double> lse, const AttentionOptions& options = {});

enum class Type { float32, float64 };

// The extents of one call, for questions that need no data.
struct AttentionShape {
  Type type = Type::float32;
  std::int64_t batch = 1, heads = 1, kv_heads = 1, q_len = 0, kv_len = 0, head_dim = 0, value_dim = 0;
};

// Bytes of scratch that attention() takes with these extents and threads. Throws as attention() does.
std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options = {});

// What would run and why.
struct AttentionPlan {
  Target target;
  std::string kernel;         // the kernel's name: "attention_f32_avx512"
  std::string why;            // why this target
  int row_block, key_block;   // query rows of a task, keys of a block
  std::string score_tile;     // registers: "8 keys x 48 queries"
  std::int64_t tasks;         // independent pieces of work
  double visible_pairs;       // (query, key) pairs that are computed with, over batch and heads
  double flops;               // 2 x visible_pairs x (head_dim + value_dim)
  std::size_t scratch_bytes;  // attention_scratch_bytes()
};

// The plan for these extents and options. Throws as attention() does; computes nothing.
AttentionPlan explain(const AttentionShape& shape, const AttentionOptions& options = {});

}  // namespace multihead
