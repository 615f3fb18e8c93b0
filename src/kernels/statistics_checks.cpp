// SPDX-License-Identifier: Apache-2.0
// The rules of a request for statistics.
#include <array>

#include "kernels/operands.hpp"
#include "kernels/statistics.hpp"

namespace multihead {

namespace {

std::int64_t size_of_list(std::span<const std::int64_t> list) { return static_cast<std::int64_t>(list.size()); }

[[noreturn]] void refuse(const char* function, const std::string& rule) {
  fail(ErrorCode::bad_option, std::string(function) + ": " + rule);
}

// One request being checked.
template <class T>
struct StatisticsCheck {
  const char* function;
  const StatisticsRequest<T>& request;
  const AttentionShape& shape;
  std::initializer_list<Operand> inputs;
  const AttentionOptions& options;

  // Calls visit(name, view, extents it must have) for every output that is asked for; -1: any extent.
  template <class Visit>
  void each_output(const RowStatistics<T>& to, bool weighted, const Visit& visit) const {
    const std::int64_t b = shape.batch, h = shape.heads, q = shape.q_len, k = shape.kv_len;
    const std::int64_t bin = std::max<std::int64_t>(request.bin, 1);
    const auto put = [&](const char* plain, const char* norm_weighted, const auto& view,
                         std::array<std::int64_t, 4> wanted) {
      if (given(view)) visit(operand(weighted ? norm_weighted : plain, view), wanted);
    };
#define MULTIHEAD_OUTPUT(name, ...) \
  put("statistics." #name, "statistics.norm_weighted." #name, to.name, std::array<std::int64_t, 4>{__VA_ARGS__})
    MULTIHEAD_OUTPUT(visible, b, h, q);
    MULTIHEAD_OUTPUT(entropy, b, h, q);
    MULTIHEAD_OUTPUT(sum_squares, b, h, q);
    MULTIHEAD_OUTPUT(distance, b, h, q);
    MULTIHEAD_OUTPUT(offset_mass, b, h, q, size_of_list(request.offsets));
    MULTIHEAD_OUTPUT(key_mass, b, h, q, size_of_list(request.keys));
    MULTIHEAD_OUTPUT(class_mass, b, h, q, -1);
    MULTIHEAD_OUTPUT(duplicate_mass, b, h, q);
    MULTIHEAD_OUTPUT(induction_mass, b, h, q);
    MULTIHEAD_OUTPUT(top_keys, b, h, q, -1);
    MULTIHEAD_OUTPUT(top_weights, b, h, q, -1);
    MULTIHEAD_OUTPUT(received, b, h, k);
    MULTIHEAD_OUTPUT(map, b, h, map_cells(q, bin), map_cells(k, bin));
#undef MULTIHEAD_OUTPUT
  }
  template <class Visit>
  void each_output(const Visit& visit) const {
    each_output(request.plain, false, visit);
    each_output(request.norm_weighted, true, visit);
  }

  void extents(const Operand& view, const std::array<std::int64_t, 4>& wanted) const {
    constexpr std::array<const char*, 4> kAxes{"on axis 0 has extent", "on axis 1 has extent", "on axis 2 has extent",
                                               "on axis 3 has extent"};
    check_view(function, view);
    for (std::size_t axis = 0; axis < view.extents.size(); ++axis)
      if (wanted[axis] >= 0)
        check_equal(function, view.name, kAxes[axis], view.extents[axis], "wanted is", wanted[axis]);
  }

  void output(const Operand& view, const std::array<std::int64_t, 4>& wanted, int index) const {
    extents(view, wanted);
    check_output(function, view, inputs, options);
    check_apart_from_statistics(function, view, request);
    int before = 0;
    each_output([&](const Operand& other, const std::array<std::int64_t, 4>&) {
      if (before++ < index) check_apart(function, view, other);
    });
  }

  template <class U, int Rank>
  void input(const char* name, const View<U, Rank>& view, std::array<std::int64_t, 4> wanted) const {
    if (given(view)) extents(operand(name, view), wanted);
  }
  void tokens(const char* name, const MatrixView<const std::int64_t>& view, std::int64_t length) const {
    input(name, view, {shape.batch, length});
    for (std::int64_t b = 0; given(view) && b < view.extent(0); ++b)
      for (std::int64_t i = 0; i < view.extent(1); ++i)
        check_between(function, "a token of the statistics", view(b, i), 0, kMostStatisticsToken);
  }

  void lists() const {
    constexpr std::int64_t kFar = kMostStatisticsReach;
    for (std::int64_t offset : request.offsets)
      check_between(function, "an offset of statistics.offsets", offset, -kFar, kFar);
    for (std::int64_t key : request.keys) check_between(function, "a key of statistics.keys", key, 0, kFar);
    input("statistics.key_classes", request.key_classes, {shape.batch, shape.kv_len});
    tokens("statistics.q_tokens", request.q_tokens, shape.q_len);
    tokens("statistics.kv_tokens", request.kv_tokens, shape.kv_len);
  }

  void distribution(const RowStatistics<T>& to) const {
    const auto wants = [&](const auto& view, const char* name, bool there, const char* needed) {
      if (given(view) && !there) refuse(function, std::string(name) + " is asked for without " + needed);
    };
    // Views of no batch and no length have no extents.
    const auto there = [&](const auto& view, std::int64_t length) {
      return given(view) || (shape.batch == 0 && length == 0);
    };
    wants(to.class_mass, "statistics.class_mass", there(request.key_classes, shape.kv_len), "statistics.key_classes");
    const bool tokens_given = there(request.q_tokens, shape.q_len) && there(request.kv_tokens, shape.kv_len);
    wants(to.duplicate_mass, "statistics.duplicate_mass", tokens_given, "statistics.q_tokens and kv_tokens");
    wants(to.induction_mass, "statistics.induction_mass", tokens_given, "statistics.q_tokens and kv_tokens");
    counts(to);
  }
  // What a request may hold, whatever its lists and views read.
  void counts(const RowStatistics<T>& to) const {
    if (given(to.class_mass))
      check_between(function, "the classes of statistics.class_mass", to.class_mass.extent(3), 1,
                    kMostStatisticsClasses);
    for (std::int64_t count :
         {given(to.top_keys) ? to.top_keys.extent(3) : 1, given(to.top_weights) ? to.top_weights.extent(3) : 1})
      check_between(function, "the places of statistics.top_keys and top_weights", count, 1, kMostTopKeys);
    if (given(to.top_keys) && given(to.top_weights))
      check_equal(function, "statistics.top_keys", "has places", to.top_keys.extent(3), "statistics.top_weights has",
                  to.top_weights.extent(3));
    if (!given(to.map)) return;
    if (!is_map_bin(request.bin))
      refuse(function, "statistics.bin is " + std::to_string(request.bin) +
                           "; it must be 16, 32, 64 or a multiple of 128 up to " +
                           std::to_string(kMostStatisticsReach));
    if (!options.cu_seqlens_q.empty() || options.q_segments.data())
      fail(ErrorCode::unsupported,
           std::string(function) + ": statistics.map is asked for with packed sequences; their rows share no bins");
  }

  void norms(bool norms_given) const {
    const bool wanted = request.norm_weighted.any();
    if (!norms_given && given(request.norms))
      refuse(function, "statistics.norms is given; the layer computes the norms itself");
    if (!norms_given) return;
    if (wanted != given(request.norms))
      refuse(function, wanted ? "statistics.norms is missing; statistics.norm_weighted must have it"
                              : "statistics.norms is given without statistics.norm_weighted; it must come with it");
    input("statistics.norms", request.norms, {shape.batch, shape.heads, shape.kv_len});
  }
};

}  // namespace

template <class T>
void check_apart_from_statistics(const char* function, const Operand& output, const StatisticsRequest<T>& request) {
  check_apart_from_list(function, output, "statistics.offsets", request.offsets);
  check_apart_from_list(function, output, "statistics.keys", request.keys);
  check_apart(function, output, operand("statistics.key_classes", request.key_classes));
  check_apart(function, output, operand("statistics.q_tokens", request.q_tokens));
  check_apart(function, output, operand("statistics.kv_tokens", request.kv_tokens));
  check_apart(function, output, operand("statistics.norms", request.norms));
}

template <class T>
void check_statistics(const char* function, const StatisticsRequest<T>& request, const AttentionShape& shape,
                      std::initializer_list<Operand> inputs, const AttentionOptions& options, bool norms_given) {
  if (!request.any()) return;
  const StatisticsCheck<T> check{function, request, shape, inputs, options};
  check.lists();
  check.distribution(request.plain);
  check.distribution(request.norm_weighted);
  check.norms(norms_given);
  int index = 0;
  check.each_output(
      [&](const Operand& view, const std::array<std::int64_t, 4>& wanted) { check.output(view, wanted, index++); });
}

template <class T>
void check_statistics_counts(const char* function, const StatisticsRequest<T>& request, const AttentionShape& shape,
                             const AttentionOptions& options) {
  const StatisticsCheck<T> check{function, request, shape, {}, options};
  check.counts(request.plain);
  check.counts(request.norm_weighted);
}

template void check_statistics_counts(const char*, const StatisticsRequest<float>&, const AttentionShape&,
                                      const AttentionOptions&);
template void check_statistics_counts(const char*, const StatisticsRequest<double>&, const AttentionShape&,
                                      const AttentionOptions&);
template void check_apart_from_statistics(const char*, const Operand&, const StatisticsRequest<float>&);
template void check_apart_from_statistics(const char*, const Operand&, const StatisticsRequest<double>&);
template void check_statistics(const char*, const StatisticsRequest<float>&, const AttentionShape&,
                               std::initializer_list<Operand>, const AttentionOptions&, bool);
template void check_statistics(const char*, const StatisticsRequest<double>&, const AttentionShape&,
                               std::initializer_list<Operand>, const AttentionOptions&, bool);

}  // namespace multihead
