// SPDX-License-Identifier: Apache-2.0
// The rules of what an encoder is asked for in statistics.
#pragma once

#include <algorithm>
#include <array>

#include "models/encoder_call.hpp"

namespace multihead {

template <class T, int Rank>
bool is_given(const View<T, Rank>& view) {
  return view.data() || view.extents() != typename View<T, Rank>::Extents{};
}

// Calls visit(view, extents wanted) for everything that one distribution writes.
template <class Visit>
void each_statistic(const EncoderCall& call, const StatisticsRequest<float>& request, const RowStatistics<float>& to,
                    const Visit& visit) {
  const std::int64_t heads = call.encoder.e.heads, tokens = call.tokens();
  const std::int64_t bin = std::max<std::int64_t>(request.bin, 1), bins = map_cells(tokens, bin);
  const bool weighted = &to == &request.norm_weighted;
  const auto put = [&](const char* plain, const char* norm_weighted, const auto& view, const auto& wanted) {
    if (is_given(view)) visit(Written(weighted ? norm_weighted : plain, view), std::span<const std::int64_t>(wanted));
  };
  const std::array<std::int64_t, 3> rows{1, heads, tokens};
  const auto list = [&](std::int64_t count) { return std::array<std::int64_t, 4>{1, heads, tokens, count}; };
#define MULTIHEAD_PUT(name, wanted) put("statistics." #name, "statistics.norm_weighted." #name, to.name, wanted)
  MULTIHEAD_PUT(visible, rows);
  MULTIHEAD_PUT(entropy, rows);
  MULTIHEAD_PUT(sum_squares, rows);
  MULTIHEAD_PUT(distance, rows);
  MULTIHEAD_PUT(duplicate_mass, rows);
  MULTIHEAD_PUT(induction_mass, rows);
  MULTIHEAD_PUT(received, rows);
  MULTIHEAD_PUT(offset_mass, list(static_cast<std::int64_t>(request.offsets.size())));
  MULTIHEAD_PUT(key_mass, list(static_cast<std::int64_t>(request.keys.size())));
  MULTIHEAD_PUT(class_mass, list(-1));
  MULTIHEAD_PUT(top_keys, list(-1));
  MULTIHEAD_PUT(top_weights, list(-1));
  put("statistics.map", "statistics.norm_weighted.map", to.map, std::array<std::int64_t, 4>{1, heads, bins, bins});
#undef MULTIHEAD_PUT
}
template <class Visit>
void each_statistic(const EncoderCall& call, const StatisticsRequest<float>& request, const Visit& visit) {
  each_statistic(call, request, request.plain, visit);
  each_statistic(call, request, request.norm_weighted, visit);
}

// Lists in range and inputs of their extents; not what is written.
void check_statistics(const EncoderCall& call, const StatisticsRequest<float>& request);
// What is written is apart from everything that the request reads.
void check_apart_from_statistics(const Written& view, const StatisticsRequest<float>& request);

}  // namespace multihead
