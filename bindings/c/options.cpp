// SPDX-License-Identifier: Apache-2.0
// The option structs, field by field: every value is checked, none is ignored.
#include "options.hpp"

#include <array>
#include <charconv>

namespace multihead::c {

namespace {

// By their numbers in multihead.h, which only ever grow.
constexpr std::array<Target, 6> kTargets{Target::baseline, Target::avx2,       Target::avx512,
                                         Target::neon,     Target::avx512bf16, Target::amx};

Alignment alignment_of(const char* function, const mh_attention_options& read) {
  check_enumerated(function, "alignment", read.alignment, MH_ALIGN_UNNAMED, MH_ALIGN_OFFSETS);
  if (read.query_offset != 0 && read.alignment != MH_ALIGN_OFFSET)
    bad_option(function, "query_offset is " + std::to_string(read.query_offset) +
                             " and alignment is not MH_ALIGN_OFFSET; they must come together");
  if (is_given(read.query_offsets) != (read.alignment == MH_ALIGN_OFFSETS))
    bad_option(function, "query_offsets and alignment MH_ALIGN_OFFSETS must come together");
  switch (read.alignment) {
    case MH_ALIGN_TOP_LEFT:
      return Alignment::top_left();
    case MH_ALIGN_BOTTOM_RIGHT:
      return Alignment::bottom_right();
    case MH_ALIGN_OFFSET:
      return Alignment::at(read.query_offset);
    case MH_ALIGN_OFFSETS:
      return Alignment::at(list<std::int64_t>({function, "query_offsets"}, read.query_offsets));
    default:
      return {};
  }
}

std::string text_of(const Field::Value& value) {
  if (const bool* pointer = std::get_if<bool>(&value)) return *pointer ? "given" : "NULL";
  if (const std::int64_t* whole = std::get_if<std::int64_t>(&value)) return std::to_string(*whole);
  std::array<char, 32> digits;
  return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), std::get<double>(value)).ptr};
}

void check_window(const char* function, const char* name, std::int64_t bound) {
  if (bound < -1)
    bad_option(function,
               std::string(name) + " is " + std::to_string(bound) + "; it must be at least 0, or -1 for no bound");
}

// To C++ a list without elements is not given; here it is, and must have one a sequence.
void check_empty(const Role& role, const mh_tensor* tensor, std::int64_t sequences) {
  if (is_given(tensor) && tensor->shape[0] == 0 && sequences != 0)
    shape_mismatch(role.function, std::string(role.name) + " has 0, the number of sequences is " +
                                      std::to_string(sequences) + "; they must be equal");
}

}  // namespace

void check_unread(const char* function, const char* where, std::initializer_list<Field> fields) {
  for (const auto& [name, value, unset] : fields)
    if (value != unset)
      bad_option(function,
                 std::string(name) + " is " + text_of(value) + "; " + where + " it must be " + text_of(unset));
}

std::optional<Target> target_of(const char* function, mh_target target) {
  check_enumerated(function, "target", target, MH_TARGET_CHOOSE, MH_TARGET_AMX);
  if (target == MH_TARGET_CHOOSE) return {};
  return kTargets[static_cast<std::size_t>(target - MH_TARGET_BASELINE)];
}

mh_target target_number(Target target) noexcept {
  for (std::size_t i = 0; i < kTargets.size(); ++i)
    if (kTargets[i] == target) return MH_TARGET_BASELINE + static_cast<mh_target>(i);
  return MH_TARGET_CHOOSE;
}

std::optional<double> scale_of(const char* function, int32_t has_scale, double scale) {
  check_flag(function, "has_scale", has_scale);
  if (has_scale) return scale;
  if (scale != 0) bad_option(function, "scale is given and has_scale is 0; they must come together");
  return {};
}

LayerOptions run_options(const char* function, const mh_run_options* options) {
  LayerOptions run;
  if (!options) return run;
  const mh_run_options read = read_struct(function, options);
  check_reserved(function, "mh_run_options.reserved", read.reserved);
  if ((read.scratch == nullptr) != (read.scratch_bytes == 0))
    bad_argument(function, std::string("scratch is ") + (read.scratch ? "given" : "NULL") + " and scratch_bytes is " +
                               std::to_string(read.scratch_bytes) + "; they must come together");
  if (read.parallel_context && !read.parallel_for)
    bad_argument(function, "parallel_context is given without parallel_for; it must come with it");
  run.threads = read.threads;
  run.target = target_of(function, read.target);
  run.parallel_for = {read.parallel_for, read.parallel_context};
  run.scratch = {static_cast<std::byte*>(read.scratch), read.scratch_bytes};
  return run;
}

AttentionShape attention_shape(const char* function, const mh_attention_shape& read) {
  return {.type = element_type({function, "the call"}, read.type),
          .batch = read.batch,
          .heads = read.heads,
          .kv_heads = read.kv_heads,
          .q_len = read.q_len,
          .kv_len = read.kv_len,
          .head_dim = read.head_dim,
          .value_dim = read.value_dim};
}

AttentionOptions attention_options(const char* function, const mh_attention_options* options, std::int64_t batch) {
  AttentionOptions made;
  if (!options) return made;
  const mh_attention_options read = read_struct(function, options);
  check_reserved(function, "mh_attention_options.reserved", read.reserved);
  check_reserved(function, "mh_attention_options.reserved_2", read.reserved_2);
  check_flag(function, "causal", read.causal);
  check_flag(function, "relative_bidirectional", read.relative_bidirectional);
  made.scale = scale_of(function, read.has_scale, read.scale);
  made.softcap = read.softcap;
  made.causal = read.causal == 1;
  made.alignment = alignment_of(function, read);
  check_window(function, "window_left", read.window_left);
  check_window(function, "window_right", read.window_right);
  if (read.window_first < 0)
    bad_option(function,
               "window_first is " + std::to_string(read.window_first) + "; the first keys must be at least 0");
  made.window = {read.window_left, read.window_right, read.window_first};
  made.prefixes = list<std::int64_t>({function, "prefixes"}, read.prefixes);
  made.lengths = list<std::int64_t>({function, "lengths"}, read.lengths);
  made.cu_seqlens_q = filled_list<std::int64_t>({function, "cu_seqlens_q"}, read.cu_seqlens_q);
  made.cu_seqlens_k = filled_list<std::int64_t>({function, "cu_seqlens_k"}, read.cu_seqlens_k);
  const std::int64_t sequences =
      made.cu_seqlens_q.empty() ? batch : static_cast<std::int64_t>(made.cu_seqlens_q.size()) - 1;
  check_empty({function, "prefixes"}, read.prefixes, sequences);
  check_empty({function, "lengths"}, read.lengths, sequences);
  made.q_segments = optional_view<const std::int64_t, 2>({function, "q_segments"}, read.q_segments);
  made.kv_segments = optional_view<const std::int64_t, 2>({function, "kv_segments"}, read.kv_segments);
  made.keep_mask = mask({function, "keep_mask"}, read.keep_mask);
  made.drop_mask = mask({function, "drop_mask"}, read.drop_mask);
  made.bias = bias({function, "bias"}, read.bias);
  made.alibi_slopes = filled_list<double>({function, "alibi_slopes"}, read.alibi_slopes);
  made.sinks = filled_list<double>({function, "sinks"}, read.sinks);
  const auto unset = defaults<mh_attention_options>();
  if (!is_given(read.relative_bias))
    check_unread(function, "without relative_bias",
                 {{"relative_bidirectional", read.relative_bidirectional, unset.relative_bidirectional},
                  {"relative_max_distance", read.relative_max_distance, unset.relative_max_distance}});
  made.relative_bias = relative_bias({function, "relative_bias"}, read.relative_bias, read.relative_bidirectional == 1,
                                     read.relative_max_distance);
  made.dropout = {read.dropout, read.dropout_seed, read.dropout_stream};
  const LayerOptions run = run_options(function, read.run);
  made.threads = run.threads;
  made.parallel_for = run.parallel_for;
  made.target = run.target;
  made.scratch = run.scratch;
  return made;
}

}  // namespace multihead::c
