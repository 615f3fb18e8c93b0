// SPDX-License-Identifier: Apache-2.0
// The door of attention over cached keys: what queries and options must be, then the schedule.
#include "kernels/cached_call.hpp"

#include <algorithm>

#include "core/scratch.hpp"
#include "core/validate.hpp"
#include "kernels/cached_schedule.hpp"
#include "kernels/operands.hpp"

namespace multihead {

namespace {

std::string text(std::int64_t value) { return std::to_string(value); }

[[noreturn]] void refuse(const char* function, const std::string& rule) {
  fail(ErrorCode::bad_option, std::string(function) + ": " + rule);
}

// Options that say which keys are there: the cache does.
void check_refused(const char* function, const AttentionOptions& options) {
  const bool segments = options.q_segments.data() || !options.q_segments.empty() || options.kv_segments.data() ||
                        !options.kv_segments.empty();
  for (const auto& [given, name] :
       {std::pair{!options.lengths.empty(), "lengths"}, std::pair{!options.cu_seqlens_k.empty(), "cu_seqlens_k"},
        std::pair{segments, "segments"}})
    if (given) refuse(function, std::string(name) + " are given; the cache decides which keys a sequence has");
}

// The sequences of the queries, and what the options list of each.
void check_sequences(const char* function, const AttentionShape& shape, const CachedKeys& keys,
                     const AttentionOptions& options) {
  const auto count = [&](const char* name, std::size_t size, std::int64_t wanted, const char* what) {
    check_equal(function, name, "has", static_cast<std::int64_t>(size), what, wanted);
  };
  const char* const sequences = "the number of sequences is";
  if (options.cu_seqlens_q.empty()) {
    check_equal(function, "q", "has batch", shape.batch, sequences, keys.sequences);
  } else {
    count("cu_seqlens_q", options.cu_seqlens_q.size(), keys.sequences + 1, "the number of sequences and 1 are");
    if (shape.batch != 1)
      refuse(function,
             "batch is " + text(shape.batch) + "; it must be 1 with cu_seqlens_q, whose sequences stand in one");
    check_boundaries(function, "cu_seqlens_q", options.cu_seqlens_q, "q_len", shape.q_len);
  }
  if (!options.prefixes.empty()) {
    if (!options.causal) refuse(function, "prefixes are given without causal; they must come with it");
    count("prefixes", options.prefixes.size(), keys.sequences, sequences);
  }
  for (std::size_t s = 0; s < options.prefixes.size(); ++s)
    check_between(function, "a prefix", options.prefixes[s], 0,
                  keys.sequence(keys.context, static_cast<std::int64_t>(s)).length);
  if (options.alignment.kind() == Alignment::Kind::offsets)
    count("the query offsets", options.alignment.offsets().size(), keys.sequences, sequences);
}

// What is left for check_attention() and for the tasks: everything but sequences. Offsets are checked as its own.
AttentionOptions without_sequences(const AttentionOptions& options) {
  AttentionOptions rest = options;
  rest.cu_seqlens_q = {}, rest.prefixes = {};
  rest.alignment = Alignment::bottom_right();
  return rest;
}

void check_offsets(const char* function, const AttentionShape& shape, const AttentionOptions& options) {
  AttentionOptions offset;
  offset.threads = options.threads;
  const AttentionShape one{.type = shape.type, .head_dim = shape.head_dim, .value_dim = shape.value_dim};
  offset.alignment = Alignment::at(options.alignment.offset());
  check_attention(function, one, offset);
  for (const std::int64_t& each : options.alignment.offsets()) {
    offset.alignment = Alignment::at(std::span(&each, 1));
    check_attention(function, one, offset);
  }
}

template <class S>
void check_tensors(const char* function, const CachedTensors<S>& tensors, const CachedKeys& keys,
                   const AttentionOptions& options) {
  const Operand q = operand("q", tensors.q), out = operand("out", tensors.out);
  for (const Operand* view : {&q, &out}) {
    check_view(function, *view);
    check_contiguous(function, *view);
  }
  check_equal(function, "q", "has head_dim", q.extents[3], "the cache has", keys.head_dim);
  check_equal(function, "out", "has batch", out.extents[0], "q has", q.extents[0]);
  check_equal(function, "out", "has heads", out.extents[1], "q has", q.extents[1]);
  check_equal(function, "out", "has q_len", out.extents[2], "q has", q.extents[2]);
  check_equal(function, "out", "has value_dim", out.extents[3], "the cache has", keys.value_dim);
  check_output(function, out, {q}, options);
  if (!given(tensors.lse)) return;
  const Operand lse = operand("lse", tensors.lse);
  check_rows_extents(function, lse, {.batch = q.extents[0], .heads = q.extents[1], .q_len = q.extents[2]});
  check_output(function, lse, {q, out}, options);
}

}  // namespace

CachedRows CachedKeys::of(const CachedSequence& cached, std::int64_t kv_head) const {
  const auto moved = [](const float* scales, std::int64_t bytes) {
    return scales ? reinterpret_cast<const float*>(reinterpret_cast<const std::byte*>(scales) + bytes) : nullptr;
  };
  CachedRows of_head = rows;
  of_head.k += kv_head * k_head, of_head.v += kv_head * v_head;
  of_head.k_scales = moved(rows.k_scales, kv_head * k_scale_head);
  of_head.v_scales = moved(rows.v_scales, kv_head * v_scale_head);
  of_head.pages = cached.pages;
  return of_head;
}

template <class S>
void cached_attention(const char* function, const CachedTensors<S>& tensors, const CachedKeys& keys,
                      const AttentionOptions& options) {
  check_tensors(function, tensors, keys, options);
  check_refused(function, options);
  const auto& q = tensors.q;
  AttentionShape shape{.type = kTypeOf<S>,
                       .batch = q.extent(0),
                       .heads = q.extent(1),
                       .kv_heads = keys.kv_heads,
                       .q_len = q.extent(2),
                       .head_dim = keys.head_dim,
                       .value_dim = keys.value_dim};
  for (std::int64_t s = 0; s < keys.sequences; ++s)
    shape.kv_len = std::max(shape.kv_len, keys.sequence(keys.context, s).length);
  check_sequences(function, shape, keys, options);
  const AttentionOptions rest = without_sequences(options);
  check_attention(function, shape, rest);
  check_offsets(function, shape, options);
  if (const auto& starts = options.cu_seqlens_q; !starts.empty()) {  // from here on: of the longest sequence
    shape.q_len = 0;
    for (std::size_t s = 1; s < starts.size(); ++s) shape.q_len = std::max(shape.q_len, starts[s] - starts[s - 1]);
  }
  CachedSchedule schedule(shape, options, rest, keys);
  Scratch scratch(schedule.bytes(), {}, function);
  const AttentionCall<float> call{TypedTensor(q), {}, {}, TypedTensor(tensors.out), tensors.lse};
  schedule.run(function, call, scratch.take<std::byte>(schedule.bytes()));
}

template void cached_attention(const char*, const CachedTensors<float>&, const CachedKeys&, const AttentionOptions&);
template void cached_attention(const char*, const CachedTensors<BFloat16>&, const CachedKeys&, const AttentionOptions&);
template void cached_attention(const char*, const CachedTensors<Float16>&, const CachedKeys&, const AttentionOptions&);

}  // namespace multihead
