// SPDX-License-Identifier: Apache-2.0
// attention(): check, cut into tasks, which gather statistics, hand them to threads; then the passes asked for.
#include "multihead/attention.hpp"

#include <algorithm>

#include "core/scratch.hpp"
#include "core/validate.hpp"
#include "kernels/operands.hpp"
#include "kernels/schedule.hpp"
#include "kernels/statistics.hpp"
#include "kernels/statistics_passes.hpp"
#include "kernels/weights.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "attention";
constexpr const char* kScratchName = "attention_scratch_bytes";

template <class T>
std::size_t workers_bytes(const Schedule<T>& schedule) {
  return schedule.task_bytes(false) *
         static_cast<std::size_t>(std::min<std::int64_t>(schedule.options().threads, schedule.tasks()));
}

// S: the type of storage.
template <class S>
struct Tensors {
  View4<const S> q, k, v;
  View4<S> out;
  View3<Sum<S>> lse;

  AttentionCall<Sum<S>> call() const { return {TypedTensor(q), TypedTensor(k), TypedTensor(v), TypedTensor(out), lse}; }
};

template <class S>
void run(const Tensors<S>& tensors, const AttentionOptions& options) {
  using T = Sum<S>;
  const auto& [q, k, v, out, lse] = tensors;
  const AttentionShape shape = shape_of(q, k, v);
  check_operands(kName, operands_of(q, k, v, out, lse), options);
  check_attention(kName, shape, options);
  const KernelTable& table = choose_kernels(options.target);
  Schedule<T> schedule(shape, options);
  Scratch scratch(schedule.table_bytes() + workers_bytes(schedule), options.scratch, kName);
  schedule.prepare(kName, scratch.take<std::byte>(schedule.table_bytes()));
  schedule.run(tensors.call(), table, scratch.take<std::byte>(workers_bytes(schedule)));
}

// row_max and row_sum.
template <class T>
std::size_t softmax_bytes(const AttentionShape& shape) {
  return 2 * round_to_line(static_cast<std::size_t>(shape.batch * shape.heads * shape.q_len) * sizeof(T));
}

// What is read and written beside statistics, none of which may lie where they are read or written.
template <class S>
void check_requests(const Tensors<S>& tensors, const AttentionShape& shape, const WeightsRequest<Sum<S>>& weights,
                    const StatisticsRequest<Sum<S>>& statistics, const AttentionOptions& options) {
  const auto& [q, k, v, out, lse] = tensors;
  const AttentionOperands operands = operands_of(q, k, v, out, lse);
  check_operands(kName, operands, options);
  check_attention(kName, shape, options);
  const Operand lse_operand = operand("lse", lse), norms = operand("weights.norms", weights.norms);
  check_weights(kName, weights, shape, {operands.q, operands.k, operands.v, operands.out, lse_operand}, options);
  for (const Operand& output : {operands.out, lse_operand}) check_apart_from_weights(kName, output, weights);
  if (!statistics.any()) return;
  const ListView heads = view_of(weights.heads), rows = view_of(weights.rows);
  const Operand per_head = operand("weights.per_head", weights.per_head), mean = operand("weights.mean", weights.mean);
  const Operand weighted = operand("weights.norm_weighted", weights.norm_weighted);
  check_statistics(kName, statistics, shape,
                   {operands.q, operands.k, operands.v, operands.out, lse_operand, per_head, mean, weighted, norms,
                    operand("weights.heads", heads), operand("weights.rows", rows)},
                   options);
  for (const Operand& output : {operands.out, lse_operand, per_head, mean, weighted})
    check_apart_from_statistics(kName, output, statistics);
}

template <class S>
void run(const Tensors<S>& tensors, const WeightsRequest<Sum<S>>& request, const StatisticsRequest<Sum<S>>& statistics,
         const AttentionOptions& options) {
  using T = Sum<S>;
  if (!request.any() && !statistics.any()) return run(tensors, options);
  const AttentionShape shape = shape_of(tensors.q, tensors.k, tensors.v);
  check_requests(tensors, shape, request, statistics, options);
  const KernelTable& table = choose_kernels(options.target);
  Schedule<T> schedule(shape, options);
  schedule.gather(statistics, statistics.plain);
  std::optional<WeightsPass<T>> pass;
  if (request.any()) pass.emplace(shape, options, request);
  StatisticsPasses<T> passes(schedule, statistics);
  const bool weights_want = pass && request.point == WeightsPoint::normalised;
  const std::size_t of_softmax = weights_want || passes.wants_softmax() ? softmax_bytes<T>(shape) : 0;
  const std::size_t first_bytes = schedule.table_bytes() + workers_bytes(schedule);
  Scratch scratch(first_bytes + (pass ? pass->bytes() : 0) + passes.bytes() + of_softmax, options.scratch, kName);
  std::byte* const first = scratch.take<std::byte>(first_bytes);
  schedule.prepare(kName, first);
  if (pass) pass->prepare(kName, scratch.take<std::byte>(pass->bytes()));
  AttentionCall<T> call = tensors.call();
  if (of_softmax > 0) {
    call.row_max = scratch.take<T>(of_softmax / 2 / sizeof(T));
    call.row_sum = scratch.take<T>(of_softmax / 2 / sizeof(T));
  }
  schedule.run(call, table, first + schedule.table_bytes());
  if (pass) pass->run(call, table);
  passes.run(kName, call, table, scratch.take<std::byte>(passes.bytes()));
}

template <class T>
std::size_t scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights,
                          const StatisticsRequest<T>& statistics) {
  Schedule<T> schedule(shape, options);
  schedule.gather(statistics, statistics.plain);
  const StatisticsPasses<T> passes(schedule, statistics);
  const std::size_t bytes = schedule.table_bytes() + workers_bytes(schedule) + passes.bytes() + kCacheLine;
  if (options.q_segments.data()) {  // segments are checked where they are found
    Scratch tables(schedule.table_bytes(), {}, kScratchName);
    schedule.prepare(kScratchName, tables.take<std::byte>(schedule.table_bytes()));
  }
  if (!weights) return bytes + (passes.wants_softmax() ? softmax_bytes<T>(shape) : 0);
  const WeightsRequest<T> request;
  return bytes + WeightsPass<T>(shape, options, request).most_bytes() + softmax_bytes<T>(shape);
}

template <class T>
std::size_t scratch_with_statistics(const AttentionShape& shape, const AttentionOptions& options, bool weights,
                                    const StatisticsRequest<T>& statistics) {
  check_attention(kScratchName, shape, options);
  if ((shape.type == Type::float64) != (kTypeOf<T> == Type::float64))
    fail(ErrorCode::bad_option, std::string(kScratchName) + ": the statistics are of " +
                                    std::string(type_name(kTypeOf<T>)) + ", the type is " +
                                    std::string(type_name(shape.type)) + "; they must be of the type of its sums");
  check_statistics_counts(kScratchName, statistics, shape, options);
  choose_kernels(options.target);
  return scratch_bytes(shape, options, weights, statistics);
}

}  // namespace

void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out,
               const AttentionOptions& options) {
  run<float>({q, k, v, out, {}}, options);
}
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               const AttentionOptions& options) {
  run<double>({q, k, v, out, {}}, options);
}
void attention(View4<const BFloat16> q, View4<const BFloat16> k, View4<const BFloat16> v, View4<BFloat16> out,
               const AttentionOptions& options) {
  run<BFloat16>({q, k, v, out, {}}, options);
}
void attention(View4<const Float16> q, View4<const Float16> k, View4<const Float16> v, View4<Float16> out,
               const AttentionOptions& options) {
  run<Float16>({q, k, v, out, {}}, options);
}
void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out, View3<float> lse,
               const AttentionOptions& options) {
  run<float>({q, k, v, out, lse}, options);
}
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               View3<double> lse, const AttentionOptions& options) {
  run<double>({q, k, v, out, lse}, options);
}
void attention(View4<const BFloat16> q, View4<const BFloat16> k, View4<const BFloat16> v, View4<BFloat16> out,
               View3<float> lse, const AttentionOptions& options) {
  run<BFloat16>({q, k, v, out, lse}, options);
}
void attention(View4<const Float16> q, View4<const Float16> k, View4<const Float16> v, View4<Float16> out,
               View3<float> lse, const AttentionOptions& options) {
  run<Float16>({q, k, v, out, lse}, options);
}
void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out, View3<float> lse,
               const WeightsRequest<float>& weights, const AttentionOptions& options) {
  run<float>({q, k, v, out, lse}, weights, {}, options);
}
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               View3<double> lse, const WeightsRequest<double>& weights, const AttentionOptions& options) {
  run<double>({q, k, v, out, lse}, weights, {}, options);
}
void attention(View4<const BFloat16> q, View4<const BFloat16> k, View4<const BFloat16> v, View4<BFloat16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const AttentionOptions& options) {
  run<BFloat16>({q, k, v, out, lse}, weights, {}, options);
}
void attention(View4<const Float16> q, View4<const Float16> k, View4<const Float16> v, View4<Float16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const AttentionOptions& options) {
  run<Float16>({q, k, v, out, lse}, weights, {}, options);
}

void attention(View4<const float> q, View4<const float> k, View4<const float> v, View4<float> out, View3<float> lse,
               const WeightsRequest<float>& weights, const StatisticsRequest<float>& statistics,
               const AttentionOptions& options) {
  run<float>({q, k, v, out, lse}, weights, statistics, options);
}
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               View3<double> lse, const WeightsRequest<double>& weights, const StatisticsRequest<double>& statistics,
               const AttentionOptions& options) {
  run<double>({q, k, v, out, lse}, weights, statistics, options);
}
void attention(View4<const BFloat16> q, View4<const BFloat16> k, View4<const BFloat16> v, View4<BFloat16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const StatisticsRequest<float>& statistics,
               const AttentionOptions& options) {
  run<BFloat16>({q, k, v, out, lse}, weights, statistics, options);
}
void attention(View4<const Float16> q, View4<const Float16> k, View4<const Float16> v, View4<Float16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const StatisticsRequest<float>& statistics,
               const AttentionOptions& options) {
  run<Float16>({q, k, v, out, lse}, weights, statistics, options);
}

std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights) {
  if (shape.type == Type::float64) return attention_scratch_bytes(shape, options, weights, StatisticsRequest<double>{});
  return attention_scratch_bytes(shape, options, weights, StatisticsRequest<float>{});
}
std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights,
                                    const StatisticsRequest<float>& statistics) {
  return scratch_with_statistics(shape, options, weights, statistics);
}
std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights,
                                    const StatisticsRequest<double>& statistics) {
  return scratch_with_statistics(shape, options, weights, statistics);
}

}  // namespace multihead
