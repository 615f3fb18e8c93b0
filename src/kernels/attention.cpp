// SPDX-License-Identifier: Apache-2.0
// attention(): check, cut into tasks, hand them to threads; then the weights that were asked for.
#include "multihead/attention.hpp"

#include <algorithm>

#include "core/scratch.hpp"
#include "core/validate.hpp"
#include "kernels/operands.hpp"
#include "kernels/schedule.hpp"
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

  AttentionCall<Sum<S>> call() const {
    return {StoredTensor(q), StoredTensor(k), StoredTensor(v), StoredTensor(out), lse};
  }
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

template <class T>
std::size_t statistics_bytes(const AttentionShape& shape) {
  return 2 * round_to_line(static_cast<std::size_t>(shape.batch * shape.heads * shape.q_len) * sizeof(T));
}

template <class S>
void run(const Tensors<S>& tensors, const WeightsRequest<Sum<S>>& request, const AttentionOptions& options) {
  using T = Sum<S>;
  if (!request.any()) return run(tensors, options);
  const auto& [q, k, v, out, lse] = tensors;
  const AttentionShape shape = shape_of(q, k, v);
  const AttentionOperands operands = operands_of(q, k, v, out, lse);
  check_operands(kName, operands, options);
  check_attention(kName, shape, options);
  check_weights(kName, request, shape, {operands.q, operands.k, operands.v, operands.out, operand("lse", lse)},
                options);
  const KernelTable& table = choose_kernels(options.target);
  Schedule<T> schedule(shape, options);
  WeightsPass<T> pass(shape, options, request);
  const bool normalised = request.point == WeightsPoint::normalised;
  const std::size_t statistics = normalised ? statistics_bytes<T>(shape) : 0;
  const std::size_t first_bytes = schedule.table_bytes() + workers_bytes(schedule);
  Scratch scratch(first_bytes + pass.bytes() + statistics, options.scratch, kName);
  std::byte* const first = scratch.take<std::byte>(first_bytes);
  schedule.prepare(kName, first);
  pass.prepare(kName, scratch.take<std::byte>(pass.bytes()));
  AttentionCall<T> call = tensors.call();
  if (normalised) {
    call.row_max = scratch.take<T>(statistics / 2 / sizeof(T));
    call.row_sum = scratch.take<T>(statistics / 2 / sizeof(T));
  }
  schedule.run(call, table, first + schedule.table_bytes());
  pass.run(call, table);
}

template <class T>
std::size_t scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights) {
  Schedule<T> schedule(shape, options);
  const std::size_t bytes = schedule.table_bytes() + workers_bytes(schedule);
  if (options.q_segments.data()) {  // segments are checked where they are found
    Scratch tables(schedule.table_bytes(), {}, kScratchName);
    schedule.prepare(kScratchName, tables.take<std::byte>(schedule.table_bytes()));
  }
  if (!weights) return bytes;
  const WeightsRequest<T> request;
  return bytes + WeightsPass<T>(shape, options, request).most_bytes() + statistics_bytes<T>(shape);
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
  run<float>({q, k, v, out, lse}, weights, options);
}
void attention(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
               View3<double> lse, const WeightsRequest<double>& weights, const AttentionOptions& options) {
  run<double>({q, k, v, out, lse}, weights, options);
}
void attention(View4<const BFloat16> q, View4<const BFloat16> k, View4<const BFloat16> v, View4<BFloat16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const AttentionOptions& options) {
  run<BFloat16>({q, k, v, out, lse}, weights, options);
}
void attention(View4<const Float16> q, View4<const Float16> k, View4<const Float16> v, View4<Float16> out,
               View3<float> lse, const WeightsRequest<float>& weights, const AttentionOptions& options) {
  run<Float16>({q, k, v, out, lse}, weights, options);
}

std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights) {
  check_attention(kScratchName, shape, options);
  choose_kernels(options.target);
  return (shape.type == Type::float64 ? scratch_bytes<double>(shape, options, weights)
                                      : scratch_bytes<float>(shape, options, weights)) +
         kCacheLine;
}

}  // namespace multihead
