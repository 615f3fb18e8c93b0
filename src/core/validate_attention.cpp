// SPDX-License-Identifier: Apache-2.0
// The rules of attention() about extents and options.
#include <cmath>
#include <limits>

#include "core/validate.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kFar = std::int64_t{1} << 48;   // no extent and no offset lies beyond
constexpr std::int64_t kMost = std::int64_t{1} << 56;  // rows, and elements of a table: their bytes can be counted

std::string text(std::int64_t value) { return std::to_string(value); }

[[noreturn]] void refuse(const char* function, const std::string& rule) {
  fail(ErrorCode::bad_option, std::string(function) + ": " + rule);
}

void check_extents(const char* function, const AttentionShape& shape) {
  check_between(function, "batch", shape.batch, 0, kFar);
  check_between(function, "heads", shape.heads, 1, kFar);
  check_between(function, "kv_heads", shape.kv_heads, 1, kFar);
  check_between(function, "q_len", shape.q_len, 0, kFar);
  check_between(function, "kv_len", shape.kv_len, 0, kFar);
  check_between(function, "head_dim", shape.head_dim, 1, kMaxHeadDim);
  check_between(function, "value_dim", shape.value_dim, 1, kMaxHeadDim);
  std::int64_t rows = 0;
  if (__builtin_mul_overflow(shape.batch, shape.heads, &rows) || __builtin_mul_overflow(rows, shape.q_len, &rows) ||
      rows > kMost)
    fail(ErrorCode::shape_mismatch, std::string(function) + ": batch x heads x q_len is beyond the address space");
  if (shape.heads % shape.kv_heads != 0)
    fail(ErrorCode::shape_mismatch, std::string(function) + ": heads is " + text(shape.heads) + ", kv_heads is " +
                                        text(shape.kv_heads) + "; heads must be a multiple of kv_heads");
}

void check_count(const char* function, const char* name, std::size_t count, const char* what, std::int64_t wanted) {
  check_equal(function, name, "has", static_cast<std::int64_t>(count), what, wanted);
}

void check_packing(const char* function, const AttentionShape& shape, const AttentionOptions& options) {
  const auto& [starts_q, starts_k] = std::pair{options.cu_seqlens_q, options.cu_seqlens_k};
  const bool packed = !starts_q.empty() || !starts_k.empty();
  const bool q_given = options.q_segments.data() || !options.q_segments.empty();
  const bool kv_given = options.kv_segments.data() || !options.kv_segments.empty();
  if (packed && (q_given || kv_given))
    refuse(function, "cu_seqlens and segments are both given; one of them must say which keys belong together");
  if (packed) {
    if (starts_q.empty() || starts_k.empty())
      refuse(function, std::string(starts_q.empty() ? "cu_seqlens_q" : "cu_seqlens_k") +
                           " is missing; cu_seqlens_q and cu_seqlens_k must be given together");
    check_count(function, "cu_seqlens_k", starts_k.size(), "cu_seqlens_q has",
                static_cast<std::int64_t>(starts_q.size()));
    if (shape.batch != 1)
      refuse(function,
             "batch is " + text(shape.batch) + "; it must be 1 with cu_seqlens, whose sequences stand in one");
    check_boundaries(function, "cu_seqlens_q", starts_q, "q_len", shape.q_len);
    check_boundaries(function, "cu_seqlens_k", starts_k, "kv_len", shape.kv_len);
  }
  // Without rows or keys there is nothing to point to: the view that has some decides.
  if (!q_given && !kv_given) return;
  if ((!q_given && shape.batch * shape.q_len > 0) || (!kv_given && shape.batch * shape.kv_len > 0))
    refuse(function, std::string(q_given ? "kv_segments" : "q_segments") +
                         " is missing; q_segments and kv_segments must be given together");
  for (const auto& [name, view, what, length] :
       {std::tuple{"q_segments", &options.q_segments, "q_len is", shape.q_len},
        std::tuple{"kv_segments", &options.kv_segments, "kv_len is", shape.kv_len}}) {
    if (shape.batch * length == 0) continue;
    check_view(function, operand(name, *view));
    check_equal(function, name, "has batch", view->extent(0), "batch is", shape.batch);
    check_equal(function, name, "has length", view->extent(1), what, length);
  }
}

// Sequences that the options' per-sequence values count; segments count entries of the batch.
std::int64_t counted_sequences(const AttentionShape& shape, const AttentionOptions& options) {
  return options.cu_seqlens_q.empty() ? shape.batch : static_cast<std::int64_t>(options.cu_seqlens_q.size()) - 1;
}

const char* sequences_are(const AttentionOptions& options) {
  return options.cu_seqlens_q.empty() ? "batch is" : "the number of sequences is";
}

std::int64_t keys_of_sequence(const AttentionShape& shape, const AttentionOptions& options, std::size_t s) {
  return options.cu_seqlens_k.empty() ? shape.kv_len : options.cu_seqlens_k[s + 1] - options.cu_seqlens_k[s];
}

void check_sequences(const char* function, const AttentionShape& shape, const AttentionOptions& options) {
  const std::int64_t sequences = counted_sequences(shape, options);
  const char* what = sequences_are(options);
  if (!options.lengths.empty()) check_count(function, "lengths", options.lengths.size(), what, sequences);
  for (std::size_t s = 0; s < options.lengths.size(); ++s)
    check_between(function, "a length", options.lengths[s], 0, keys_of_sequence(shape, options, s));
  if (!options.prefixes.empty()) {
    if (!options.causal) refuse(function, "prefixes are given without causal; they must come with it");
    check_count(function, "prefixes", options.prefixes.size(), what, sequences);
  }
  for (std::size_t s = 0; s < options.prefixes.size(); ++s)
    check_between(function, "a prefix", options.prefixes[s], 0, keys_of_sequence(shape, options, s));
}

void check_alignment(const char* function, const AttentionShape& shape, const AttentionOptions& options) {
  const Alignment& alignment = options.alignment;
  check_between(function, "query offset", alignment.offset(), -kFar, kFar);
  if (alignment.kind() == Alignment::Kind::offsets)
    check_count(function, "the query offsets", alignment.offsets().size(), sequences_are(options),
                counted_sequences(shape, options));
  for (std::int64_t offset : alignment.offsets()) check_between(function, "a query offset", offset, -kFar, kFar);
  if (options.q_segments.data()) return;  // each run is checked where the runs are found
  if (options.cu_seqlens_q.empty()) return check_named(function, options, shape.q_len, shape.kv_len);
  for (std::size_t s = 0; s + 1 < options.cu_seqlens_q.size(); ++s)
    check_named(function, options, options.cu_seqlens_q[s + 1] - options.cu_seqlens_q[s],
                options.cu_seqlens_k[s + 1] - options.cu_seqlens_k[s]);
}

void check_by_head(const char* function, const AttentionShape& shape, const AttentionOptions& options) {
  for (const auto& [name, values] :
       {std::pair{"alibi_slopes", options.alibi_slopes}, std::pair{"sinks", options.sinks}}) {
    if (!values.empty()) check_count(function, name, values.size(), "heads is", shape.heads);
    for (double value : values)
      if (!std::isfinite(value)) refuse(function, std::string(name) + " has a value that is not finite; each must be");
  }
}

void check_dropout(const char* function, const AttentionShape& shape, const AttentionOptions& options) {
  const double probability = options.dropout.probability;
  if (!(probability >= 0 && probability < 1))
    refuse(function, "the dropout probability is " + std::to_string(probability) + "; it must be from 0 to below 1");
  if (probability == 0) return;
  constexpr std::int64_t kCounted = std::int64_t{1} << 32;  // what a word of the draw counts
  check_between(function, "q_len with dropout", shape.q_len, 0, kCounted);
  check_between(function, "kv_len with dropout", shape.kv_len, 0, kCounted);
  check_between(function, "batch x heads with dropout", shape.batch * shape.heads, 0, kCounted);
}

void check_bias_type(const char* function, const char* name, Type type, const AttentionShape& shape) {
  if (type == Type::float64 && shape.type != Type::float64)
    fail(ErrorCode::unsupported, std::string(function) + ": " + name + " is float64, q is " +
                                     std::string(type_name(shape.type)) + "; float64 must meet float64");
}

void check_relative(const char* function, const AttentionShape& shape, const AttentionOptions& options) {
  const RelativeBias& relative = options.relative_bias;
  if (!relative.given()) return;
  check_view(function, {"relative_bias", relative.data, size_of(relative.type), relative.extents, relative.strides});
  check_equal(function, "relative_bias", "has heads", relative.extents[1], "heads is", shape.heads);
  check_between(function, "the number of relative_bias buckets", relative.extents[0], relative.bidirectional ? 4 : 2,
                kMaxBuckets);
  const std::int64_t exact = relative.extents[0] / (relative.bidirectional ? 4 : 2);
  check_between(function, "relative_bias max_distance", relative.max_distance, exact + 1, kMaxBucketDistance);
  if (shape.heads > kMost / (2 * relative.max_distance + 1))
    fail(ErrorCode::shape_mismatch,
         std::string(function) + ": heads x distances of relative_bias is beyond the address space");
  check_bias_type(function, "relative_bias", relative.type, shape);
}

// Operands keep pointers to the view's extents: views outlive them.
void check_broadcast(const char* function, const char* name, const BroadcastView& view, std::size_t element,
                     const AttentionShape& shape) {
  if (view.rank == 0) return;
  check_view(function, {name, view.data, element, view.extents, view.strides});
  constexpr std::array kAxes{"batch", "heads", "q_len", "kv_len"};
  const std::array<std::int64_t, 4> wanted{shape.batch, shape.heads, shape.q_len, shape.kv_len};
  for (std::size_t axis = 0; axis < 4; ++axis)
    if (view.extents[axis] != 1 && view.extents[axis] != wanted[axis])
      fail(ErrorCode::shape_mismatch, std::string(function) + ": " + name + " has " + kAxes[axis] + " " +
                                          text(view.extents[axis]) + ", q and k have " + text(wanted[axis]) +
                                          "; it must be that or 1");
}

}  // namespace

void check_boundaries(const char* function, const char* name, std::span<const std::int64_t> bounds, const char* end,
                      std::int64_t length) {
  if (bounds.front() != 0)
    refuse(function, std::string(name) + " begins with " + text(bounds.front()) + "; it must begin with 0");
  for (std::size_t s = 1; s < bounds.size(); ++s)
    if (bounds[s] < bounds[s - 1])
      refuse(function, std::string(name) + " falls from " + text(bounds[s - 1]) + " to " + text(bounds[s]) +
                           "; it may never fall");
  if (bounds.back() != length)
    refuse(function, std::string(name) + " ends at " + text(bounds.back()) + ", " + end + " is " + text(length) +
                         "; they must be equal");
}

void check_named(const char* function, const AttentionOptions& options, std::int64_t queries, std::int64_t keys) {
  if (options.alignment.kind() != Alignment::Kind::unnamed || queries == keys || !goes_by_position(options)) return;
  const char* what = options.causal                 ? "causal"
                     : options.window.left >= 0     ? "a window"
                     : options.window.right >= 0    ? "a window"
                     : options.alibi_slopes.empty() ? "relative_bias"
                                                    : "alibi_slopes";
  refuse(function, std::string(what) + " with q_len " + text(queries) + " and kv_len " + text(keys) +
                       " must name its alignment: top_left, bottom_right or a query offset");
}

bool goes_by_position(const AttentionOptions& options) {
  return options.causal || options.window.left >= 0 || options.window.right >= 0 || !options.alibi_slopes.empty() ||
         options.relative_bias.given();
}

void check_attention(const char* function, const AttentionShape& shape, const AttentionOptions& options) {
  check_extents(function, shape);
  check_between(function, "threads", options.threads, 1, 1 << 16);
  if (options.scale && !std::isfinite(*options.scale)) refuse(function, "scale is not finite; it must be");
  // Finite and not zero in float too, with room for products.
  if (options.softcap != 0 && !(options.softcap >= 1e-18 && options.softcap <= 1e18))
    refuse(function, "softcap is " + std::to_string(options.softcap) + "; it must be 0 or from 1e-18 to 1e18");
  if (options.window.first < 0)
    refuse(function, "window.first is " + text(options.window.first) + "; it must be at least 0");
  check_dropout(function, shape, options);
  check_packing(function, shape, options);
  check_sequences(function, shape, options);
  check_alignment(function, shape, options);
  check_by_head(function, shape, options);
  check_relative(function, shape, options);
  check_broadcast(function, "keep_mask", options.keep_mask.view, 1, shape);
  check_broadcast(function, "drop_mask", options.drop_mask.view, 1, shape);
  check_broadcast(function, "bias", options.bias.view, size_of(options.bias.type), shape);
  if (options.bias.given()) check_bias_type(function, "bias", options.bias.type, shape);
}

}  // namespace multihead
