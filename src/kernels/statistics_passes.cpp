// SPDX-License-Identifier: Apache-2.0
// The passes of statistics after the first, one after the other.
#include "kernels/statistics_passes.hpp"

#include <algorithm>
#include <numbers>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "kernels/math_function.hpp"

namespace multihead {

namespace {

// No values are read.
AttentionShape without_values(AttentionShape shape) {
  shape.value_dim = 0;
  return shape;
}

AttentionOptions without_sinks(AttentionOptions options) {
  options.sinks = {};
  return options;
}

}  // namespace

template <class T>
NormWeightedPass<T>::NormWeightedPass(const AttentionShape& shape, const AttentionOptions& options,
                                      const StatisticsRequest<T>& request)
    : shape_(without_values(shape)),
      options_(without_sinks(options)),
      request_(request),
      schedule_(shape_, options_),
      columns_(schedule_, request.norm_weighted.received, request.norm_weighted.map, request.bin) {
  schedule_.gather(request_, request_.norm_weighted);
}

template <class T>
std::size_t NormWeightedPass<T>::norms_bytes() const {
  return round_to_line(static_cast<std::size_t>(shape_.batch * shape_.heads * shape_.kv_len) * sizeof(T));
}

template <class T>
std::size_t NormWeightedPass<T>::workers_bytes() const {
  return schedule_.task_bytes(false) *
         static_cast<std::size_t>(std::min<std::int64_t>(options_.threads, schedule_.tasks()));
}

template <class T>
std::size_t NormWeightedPass<T>::bytes() const {
  return norms_bytes() + schedule_.table_bytes() + workers_bytes() + columns_.bytes();
}

// In units of log 2, as scores are.
template <class T>
void NormWeightedPass<T>::take_logarithms(const KernelTable& table, T* to) const {
  const View3<const T>& norms = request_.norms;
  parallel_for(shape_.batch * shape_.heads, options_.threads, options_.parallel_for, [&](int, std::int64_t index) {
    T* const line = to + index * shape_.kv_len;
    for (std::int64_t j = 0; j < shape_.kv_len; ++j) line[j] = norms(index / shape_.heads, index % shape_.heads, j);
    table.kernels<T>().map(MathFunction::log, line, line, shape_.kv_len);
    for (std::int64_t j = 0; j < shape_.kv_len; ++j) line[j] *= static_cast<T>(std::numbers::log2e);
  });
}

template <class T>
void NormWeightedPass<T>::run(const char* function, const AttentionCall<T>& call, const KernelTable& table,
                              std::byte* memory) {
  T* const by_key = reinterpret_cast<T*>(memory);
  std::byte* const tables = memory + norms_bytes();
  std::byte* const workers = tables + schedule_.table_bytes();
  take_logarithms(table, by_key);
  schedule_.add_by_key(by_key);
  schedule_.prepare(function, tables);
  AttentionCall<T> scores;
  scores.q = call.q, scores.k = call.k;
  if (wants_softmax()) scores.row_max = call.row_max, scores.row_sum = call.row_sum;
  schedule_.run(scores, table, workers);
  columns_.run(scores, table, workers + workers_bytes());
}

template <class T>
StatisticsPasses<T>::StatisticsPasses(const Schedule<T>& first, const StatisticsRequest<T>& request)
    : columns_(first, request.plain.received, request.plain.map, request.bin) {
  if (request.norm_weighted.any()) norm_weighted_.emplace(first.shape(), first.options(), request);
}

template <class T>
void StatisticsPasses<T>::run(const char* function, const AttentionCall<T>& call, const KernelTable& table,
                              std::byte* memory) {
  columns_.run(call, table, memory);
  if (norm_weighted_) norm_weighted_->run(function, call, table, memory + columns_.bytes());
}

template class NormWeightedPass<float>;
template class NormWeightedPass<double>;
template class StatisticsPasses<float>;
template class StatisticsPasses<double>;

}  // namespace multihead
