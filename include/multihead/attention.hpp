// SPDX-License-Identifier: Apache-2.0
// Scaled dot-product attention over many heads: options, shapes, contract.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "multihead/dropout.hpp"
#include "multihead/masks.hpp"
#include "multihead/parallel.hpp"
#include "multihead/statistics.hpp"
#include "multihead/target.hpp"
#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

// Every option composes with every other. A key is seen by a row when all of them let it be seen. What a score goes
// through, in this order: scale, softcap, the biases, the masks; the sink joins the denominator.
//
// A sequence is an entry of the batch; with cu_seqlens or segments it is one run of queries and the run of keys that
// belongs to it, and positions, alignment, windows and the order of sums count from its first query and key.
struct AttentionOptions {
  std::optional<double> scale = {};  // 1/sqrt(head_dim) unless given; any finite number
  double softcap = 0;                // c: a score s becomes c tanh(s / c); 0: none

  // By position.
  bool causal = false;       // key j is seen by the query at position p when j <= p
  Alignment alignment = {};  // where queries stand; must be named for sequences whose queries and keys differ in number
  Window window = {};
  std::span<const std::int64_t> prefixes = {};  // (sequences) leading keys that causal hides from no row; wants causal

  // Which keys are valid, and which belong together.
  std::span<const std::int64_t> lengths = {};  // (batch) valid keys in all, 0..kv_len; with cu_seqlens (sequences)
  // Packed sequences, batch 1: sequence s has the queries [cu_seqlens_q[s], cu_seqlens_q[s + 1]) and the keys of
  // cu_seqlens_k likewise. Both begin at 0, never fall, and end at q_len and kv_len.
  std::span<const std::int64_t> cu_seqlens_q = {}, cu_seqlens_k = {};
  // Segments: a query sees the keys of its own id. Equal ids of one batch entry are one run, in queries and in keys.
  MatrixView<const std::int64_t> q_segments = {};   // (batch, q_len)
  MatrixView<const std::int64_t> kv_segments = {};  // (batch, kv_len)

  // Element by element, over (batch, heads, q_len, kv_len) of the tensors as they are passed.
  Mask keep_mask = {};  // true: seen
  Mask drop_mask = {};  // true: hidden
  Bias bias = {};

  // By head.
  std::span<const double> alibi_slopes = {};  // (heads): - slope |p - j| is added (Press et al. 2022)
  RelativeBias relative_bias = {};
  std::span<const double> sinks = {};  // (heads) logits that join the denominator alone: not scaled, not capped

  // While training: weights dropped on their way to the values (dropout.hpp). lse, statistics and weights on request
  // are those before it. q_len, kv_len and batch * heads are then at most 2^32.
  Dropout dropout = {};

  int threads = 1;                    // at least 1; with 1 no thread is created
  ParallelFor parallel_for = {};      // the caller's loop instead of the pool; threads then bounds concurrency
  std::optional<Target> target = {};  // pin a target; otherwise chosen_target()
  std::span<std::byte> scratch = {};  // attention_scratch_bytes() of it, or empty: kept per thread and reused
};

// out = softmax(bias + cap(q k^T * scale), over visible keys) v, head by head; query head h reads kv head
// h / (heads / kv_heads).
//   q    (batch, heads,    q_len,  head_dim)    head_dim 1 to 1024
//   k    (batch, kv_heads, kv_len, head_dim)    heads is a multiple of kv_heads
//   v    (batch, kv_heads, kv_len, value_dim)   value_dim 1 to 1024
//   out  (batch, heads,    q_len,  value_dim)   may overlap nothing that is read
//   lse  (batch, heads,    q_len)               natural log of the sum of exp of the scaled, capped, biased scores of
//                                               the visible keys and the sink; without extents: not asked for
// Strides are free but for the last axis of q, k, v and out, which must be contiguous. Zero extents of batch, q_len
// and kv_len are legal. A query that sees no key gets zeros and lse -inf (the sink's logit where there is one). A NaN
// or Inf that a row cannot see never reaches it; one that it can see shows. A row's bits depend on its query, its
// visible keys, values and their positions, the options and the type (with dropout on its place in the tensors too):
// not on batch, neighbours, padding, packing, q_len or threads; a range and the boolean mask that says the same give
// the same bits; targets: see Target. BFloat16 and Float16 are storage: their results are those of the float call on
// the same values, rounded once. float is summed in float, double in double (docs/numerics.md). Thread-safe for
// distinct outputs. Allocates nothing after a thread's first calls of a size. Throws Error (shape_mismatch, bad_option,
// unsupported, out_of_memory) before anything is written. Method: blocks of keys with a running maximum (Milakov and
// Gimelshein 2018; Dao 2023), memory linear in length. Time follows the area that ranges (causal, window, lengths,
// prefixes, packing) leave visible.
void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out,
               const AttentionOptions& options = {});
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               const AttentionOptions& options = {});
void attention(View4<const BFloat16> q, View4<const BFloat16> k, View4<const BFloat16> v, View4<BFloat16> out,
               const AttentionOptions& options = {});
void attention(View4<const Float16> q, View4<const Float16> k, View4<const Float16> v, View4<Float16> out,
               const AttentionOptions& options = {});
void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out, View3<float> lse,
               const AttentionOptions& options = {});
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               View3<double> lse, const AttentionOptions& options = {});
void attention(View4<const BFloat16> q, View4<const BFloat16> k, View4<const BFloat16> v, View4<BFloat16> out,
               View3<float> lse, const AttentionOptions& options = {});
void attention(View4<const Float16> q, View4<const Float16> k, View4<const Float16> v, View4<Float16> out,
               View3<float> lse, const AttentionOptions& options = {});

// Where along a score's way its value is taken. scaled and capped: of every key of the batch entry, seen or not;
// biased: -inf where the row does not see the key; normalised: the softmax, 0 where the row does not see the key.
enum class WeightsPoint { scaled, capped, biased, normalised };

// Weights on request. Views without extents ask for nothing. Outputs may overlap nothing else; their strides are free.
// T is the type of the sums: float, or double for double.
template <class T>
struct WeightsRequest {
  WeightsPoint point = WeightsPoint::normalised;
  std::span<const std::int64_t> heads = {};  // query heads, in any order, each at most once; empty: all
  std::span<const std::int64_t> rows = {};   // query rows, in any order; empty: all
  View4<T> per_head = {};                    // (batch, heads asked, rows asked, kv_len)
  View3<T> mean = {};                        // (batch, rows asked, kv_len): the mean over the heads asked
  // The sum over the heads asked of weight x norms (Kobayashi et al. 2020, where a norm is that of the value vector
  // after Wo); normalised only.
  View3<T> norm_weighted = {};  // (batch, rows asked, kv_len)
  View3<const T> norms = {};    // (batch, heads, kv_len), wanted by norm_weighted

  bool any() const noexcept {
    const auto given = [](const auto& view) { return view.data() || view.extents() != decltype(view.extents()){}; };
    return given(per_head) || given(mean) || given(norm_weighted);
  }
};

// attention() with weights. They are computed in a pass of their own over what was asked for, in time and memory that
// follow it, and change no bit of out or lse.
void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out, View3<float> lse,
               const WeightsRequest<float>& weights, const AttentionOptions& options);
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               View3<double> lse, const WeightsRequest<double>& weights, const AttentionOptions& options);
void attention(View4<const BFloat16> q, View4<const BFloat16> k, View4<const BFloat16> v, View4<BFloat16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const AttentionOptions& options);
void attention(View4<const Float16> q, View4<const Float16> k, View4<const Float16> v, View4<Float16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const AttentionOptions& options);

// attention() with weights and statistics. What a row's statistics need is gathered while its keys pass; received, map
// and what is norm_weighted take a pass of their own. None changes a bit of out, lse or weights. Memory is linear in
// length. Formulas: docs/insight.md.
void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out, View3<float> lse,
               const WeightsRequest<float>& weights, const StatisticsRequest<float>& statistics,
               const AttentionOptions& options);
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               View3<double> lse, const WeightsRequest<double>& weights, const StatisticsRequest<double>& statistics,
               const AttentionOptions& options);
void attention(View4<const BFloat16> q, View4<const BFloat16> k, View4<const BFloat16> v, View4<BFloat16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const StatisticsRequest<float>& statistics,
               const AttentionOptions& options);
void attention(View4<const Float16> q, View4<const Float16> k, View4<const Float16> v, View4<Float16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const StatisticsRequest<float>& statistics,
               const AttentionOptions& options);

// The weights alone, of keys that are all the row sees or a part of it: normalised ones are exp(score - lse), where lse
// (batch, heads, q_len) is that of everything the row sees, as merge() gives it (its error enters them in full). At
// the other points lse is not read and may be without extents. A row whose lse is -inf weighs 0.
void attention_weights(View4<const float> q, View4<const float> k, View3<const float> lse,
                       const WeightsRequest<float>& weights, const AttentionOptions& options = {});
void attention_weights(View4<const double> q, View4<const double> k, View3<const double> lse,
                       const WeightsRequest<double>& weights, const AttentionOptions& options = {});

// Joins attention over two disjoint sets of keys, such as two halves of a cache, into attention over both:
//   lse = log(exp(lse_a) + exp(lse_b))    out = out_a exp(lse_a - lse) + out_b exp(lse_b - lse)
//   out_a, out_b, out (batch, heads, q_len, value_dim)   lse_a, lse_b, lse (batch, heads, q_len)
// out and lse may be out_a and lse_a themselves, and otherwise overlap nothing. A side whose lse is -inf counts for
// nothing, whatever its out holds. A sink must have been counted on one side only, and ALiBi in the same form on both
// (as attention() has it). Equal to one call over all keys up to rounding.
void merge(View4<const float> out_a, View3<const float> lse_a, View4<const float> out_b, View3<const float> lse_b,
           View4<float> out, View3<float> lse, std::optional<Target> target = {});
void merge(View4<const double> out_a, View3<const double> lse_a, View4<const double> out_b, View3<const double> lse_b,
           View4<double> out, View3<double> lse, std::optional<Target> target = {});

// The extents of one call, for questions that need no data.
struct AttentionShape {
  Type type = Type::float32;
  std::int64_t batch = 1, heads = 1, kv_heads = 1, q_len = 0, kv_len = 0, head_dim = 0, value_dim = 0;
};

// Bytes of scratch that attention() takes with these extents, options and threads; weights: whether any are asked for.
// Throws as attention() does.
std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options = {},
                                    bool weights = false);
// The same with statistics: of them, what is asked for and how much of it is read, float or double as the sums are.
std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights,
                                    const StatisticsRequest<float>& statistics);
std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights,
                                    const StatisticsRequest<double>& statistics);

// What would run and why.
struct AttentionPlan {
  Target target;
  std::string kernel;         // the kernel's name: "attention_f32_avx512", or "decode_f32_avx512" for few queries
  std::string why;            // why this target
  int row_block, key_block;   // query rows of a task, of one head or of those of a kv head; keys of a block
  std::string score_tile;     // registers: "8 keys x 48 queries"
  std::string terms;          // what is done to each score beside scaling: "softcap, bias", or "none"
  std::int64_t tasks;         // independent pieces of work
  double visible_pairs;       // (query, key) pairs that ranges leave visible, over batch and heads
  double flops;               // 2 x visible_pairs x (head_dim + value_dim)
  std::size_t scratch_bytes;  // attention_scratch_bytes()
};

// The plan for these extents and options. Throws as attention() does; computes nothing. Where each sequence has at most
// 12 queries, outputs and lse are all that is asked for, nothing is read for each row and key (masks, bias, relative
// bias) and nothing is dropped, the decode kernel passes keys and values once for all heads of a kv head: the plan is
// its where that holds for all of a call. float64 and target amx have none. The bits are the same.
AttentionPlan explain(const AttentionShape& shape, const AttentionOptions& options = {});

}  // namespace multihead
