// SPDX-License-Identifier: Apache-2.0
// What an encoder is asked for in statistics, checked before anything is written.
#include "models/encoder_statistics.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kFar = kMostStatisticsReach;

[[noreturn]] void refuse(const std::string& rule) { fail(kEncoder, ErrorCode::bad_option, rule); }

void check_between(const char* what, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high)
    refuse(std::string(what) + " is " + std::to_string(value) + "; it must be " + std::to_string(low) + " to " +
           std::to_string(high));
}

// (1, tokens) where it is given.
template <class T>
void check_by_token(const EncoderCall& call, const char* name, const MatrixView<const T>& view) {
  if (!is_given(view)) return;
  Written read(name, view);
  check_read(kEncoder, read, std::array<std::int64_t, 2>{1, call.tokens()});
}

void check_distribution(const EncoderCall& call, const StatisticsRequest<float>& request,
                        const RowStatistics<float>& to) {
  const auto want = [](bool asked, const char* what, bool there, const char* needed) {
    if (asked && !there) refuse(std::string("statistics.") + what + " is asked for without statistics." + needed);
  };
  const bool tokens = is_given(request.q_tokens) && is_given(request.kv_tokens);
  want(is_given(to.class_mass), "class_mass", is_given(request.key_classes), "key_classes");
  want(is_given(to.duplicate_mass), "duplicate_mass", tokens, "q_tokens and kv_tokens");
  want(is_given(to.induction_mass), "induction_mass", tokens, "q_tokens and kv_tokens");
  if (is_given(to.class_mass))
    check_between("the classes of statistics.class_mass", to.class_mass.extent(3), 1, kMostStatisticsClasses);
  for (std::int64_t count :
       {is_given(to.top_keys) ? to.top_keys.extent(3) : 1, is_given(to.top_weights) ? to.top_weights.extent(3) : 1})
    check_between("the places of statistics.top_keys and top_weights", count, 1, kMostTopKeys);
  if (is_given(to.top_keys) && is_given(to.top_weights) && to.top_keys.extent(3) != to.top_weights.extent(3))
    fail(kEncoder, ErrorCode::shape_mismatch,
         "statistics.top_keys has " + std::to_string(to.top_keys.extent(3)) + " places, statistics.top_weights " +
             std::to_string(to.top_weights.extent(3)) + "; they must be equal");
  if (!is_given(to.map)) return;
  if (!is_map_bin(request.bin))
    refuse("statistics.bin is " + std::to_string(request.bin) + "; it must be 16, 32, 64 or a multiple of 128 up to " +
           std::to_string(kMostStatisticsReach));
  if (!call.input.cu_seqlens.empty())
    fail(kEncoder, ErrorCode::unsupported,
         "statistics.map is asked for with cu_seqlens; rows of packed sequences share no bins");
}

}  // namespace

void check_statistics(const EncoderCall& call, const StatisticsRequest<float>& request) {
  if (!request.any()) return;
  for (std::int64_t offset : request.offsets) check_between("an offset of statistics.offsets", offset, -kFar, kFar);
  for (std::int64_t key : request.keys) check_between("a key of statistics.keys", key, 0, kFar);
  check_by_token(call, "statistics.key_classes", request.key_classes);
  for (const auto& [name, tokens] :
       {std::pair{"statistics.q_tokens", &request.q_tokens}, std::pair{"statistics.kv_tokens", &request.kv_tokens}}) {
    check_by_token(call, name, *tokens);
    for (std::int64_t t = 0; is_given(*tokens) && t < call.tokens(); ++t)
      check_between("a token of the statistics", (*tokens)(0, t), 0, kMostStatisticsToken);
  }
  if (is_given(request.norms)) refuse("statistics.norms is given; the encoder computes them");
  check_distribution(call, request, request.plain);
  check_distribution(call, request, request.norm_weighted);
}

void check_apart_from_statistics(const Written& view, const StatisticsRequest<float>& request) {
  const auto list = [&](const char* name, std::span<const std::int64_t> values) {
    check_apart(kEncoder, view, name, values.data(), values.data() + values.size());
  };
  const auto matrix = [&](const char* name, const auto& from) {
    if (!is_given(from)) return;
    Written read(name, from);
    check_read(kEncoder, read, read.extents);
    check_apart(kEncoder, view, name, read.begin, read.end);
  };
  list("statistics.offsets", request.offsets), list("statistics.keys", request.keys);
  matrix("statistics.key_classes", request.key_classes);
  matrix("statistics.q_tokens", request.q_tokens), matrix("statistics.kv_tokens", request.kv_tokens);
}

}  // namespace multihead
