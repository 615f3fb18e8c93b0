// SPDX-License-Identifier: Apache-2.0
// From a request for statistics to what one task gathers.
#include "kernels/statistics.hpp"

#include <algorithm>

namespace multihead {

namespace {

template <class T>
RowsOutput<T> output_of(const View3<T>& view, std::int64_t b, std::int64_t h, std::int64_t i) {
  return view.data() ? RowsOutput<T>{&view(b, h, i), view.stride(2), 0} : RowsOutput<T>{};
}
template <class T>
RowsOutput<T> output_of(const View4<T>& view, std::int64_t b, std::int64_t h, std::int64_t i) {
  return view.data() ? RowsOutput<T>{&view(b, h, i, 0), view.stride(2), view.stride(3)} : RowsOutput<T>{};
}

std::int64_t size_if(bool wanted, std::span<const std::int64_t> list) {
  return wanted ? static_cast<std::int64_t>(list.size()) : 0;
}

}  // namespace

template <class T>
bool gathers(const RowStatistics<T>& to) {
  RowStatistics<T> in_pass = to;
  in_pass.received = {}, in_pass.map = {};
  return in_pass.any();
}

template <class T>
StatisticsCounts statistics_counts(const StatisticsRequest<T>& request, const RowStatistics<T>& to) {
  return {.offsets = size_if(given(to.offset_mass), request.offsets),
          .keys = size_if(given(to.key_mass), request.keys),
          .classes = to.class_mass.extent(3),
          .top = std::max(to.top_keys.extent(3), to.top_weights.extent(3))};
}

template <class T>
StatisticsTask<T> statistics_task(const StatisticsRequest<T>& request, const RowStatistics<T>& to,
                                  const Sequence& sequence, std::int64_t head, std::int64_t row) {
  const std::int64_t b = sequence.batch, i = sequence.q_begin + row;
  StatisticsTask<T> task;
  const auto place = [&](auto& output, const auto& view) { output = output_of(view, b, head, i); };
  place(task.visible, to.visible);
  place(task.entropy, to.entropy);
  place(task.sum_squares, to.sum_squares);
  place(task.distance, to.distance);
  place(task.duplicate_mass, to.duplicate_mass);
  place(task.induction_mass, to.induction_mass);
  place(task.offset_mass, to.offset_mass);
  place(task.key_mass, to.key_mass);
  place(task.class_mass, to.class_mass);
  place(task.top_weights, to.top_weights);
  place(task.top_keys, to.top_keys);
  task.counts = statistics_counts(request, to);
  task.offsets = request.offsets.data(), task.keys = request.keys.data();
  const bool any_keys = sequence.kv_len > 0;  // a view of none may be null
  if (task.class_mass.data && any_keys) {
    task.key_classes = &request.key_classes(b, sequence.k_begin);
    task.key_classes_stride = request.key_classes.stride(1);
  }
  if ((task.duplicate_mass.data || task.induction_mass.data) && any_keys) {
    task.q_tokens = &request.q_tokens(b, i), task.q_tokens_stride = request.q_tokens.stride(1);
    task.kv_tokens = &request.kv_tokens(b, sequence.k_begin), task.kv_tokens_stride = request.kv_tokens.stride(1);
  }
  task.position = row + sequence.offset, task.k_begin = sequence.k_begin;
  return task;
}

template bool gathers(const RowStatistics<float>&);
template bool gathers(const RowStatistics<double>&);
template StatisticsCounts statistics_counts(const StatisticsRequest<float>&, const RowStatistics<float>&);
template StatisticsCounts statistics_counts(const StatisticsRequest<double>&, const RowStatistics<double>&);
template StatisticsTask<float> statistics_task(const StatisticsRequest<float>&, const RowStatistics<float>&,
                                               const Sequence&, std::int64_t, std::int64_t);
template StatisticsTask<double> statistics_task(const StatisticsRequest<double>&, const RowStatistics<double>&,
                                                const Sequence&, std::int64_t, std::int64_t);

}  // namespace multihead
