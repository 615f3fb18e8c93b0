// SPDX-License-Identifier: Apache-2.0
// Weights on request, and attention_weights(), which asks for nothing else.
#include "kernels/weights.hpp"

#include <algorithm>
#include <limits>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "kernels/operands.hpp"

namespace multihead {

namespace {

void check_indices(const char* function, const char* name, std::span<const std::int64_t> indices, std::int64_t count) {
  for (std::int64_t index : indices) check_between(function, name, index, 0, count - 1);
}

void check_heads(const char* function, std::span<const std::int64_t> heads, std::int64_t count) {
  check_indices(function, "a head of weights.heads", heads, count);
  for (std::size_t i = 0; i < heads.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (heads[i] == heads[j])
        fail(ErrorCode::bad_option, std::string(function) + ": weights.heads names head " + std::to_string(heads[i]) +
                                        " twice; each may stand in it once");
}

// (batch, [heads asked,] rows asked, kv_len).
void check_weights_extents(const char* function, const Operand& view, const AttentionShape& shape, std::int64_t heads,
                           std::int64_t rows) {
  check_view(function, view);
  const std::size_t rank = view.extents.size();
  check_equal(function, view.name, "has batch", view.extents[0], "the call has", shape.batch);
  if (rank == 4) check_equal(function, view.name, "has heads", view.extents[1], "asked for are", heads);
  check_equal(function, view.name, "has rows", view.extents[rank - 2], "asked for are", rows);
  check_equal(function, view.name, "has kv_len", view.extents[rank - 1], "the call has", shape.kv_len);
}

std::int64_t asked_count(std::span<const std::int64_t> list, std::int64_t all) {
  return list.empty() ? all : static_cast<std::int64_t>(list.size());
}

// Options up to the point: scaled and capped scores know neither masks nor sequences.
AttentionOptions options_up_to(WeightsPoint point, const AttentionOptions& options) {
  if (point == WeightsPoint::biased || point == WeightsPoint::normalised) return options;
  AttentionOptions less;
  less.scale = options.scale;
  if (point == WeightsPoint::capped) less.softcap = options.softcap;
  less.threads = options.threads;
  less.parallel_for = options.parallel_for;
  less.target = options.target;
  return less;
}

}  // namespace

template <class T>
void check_weights_outputs(const char* function, const WeightsRequest<T>& request, const AttentionShape& shape,
                           std::initializer_list<Operand> inputs, const AttentionOptions& options) {
  check_heads(function, request.heads, shape.heads);
  check_indices(function, "a row of weights.rows", request.rows, shape.q_len);
  if (given(request.norm_weighted) && request.point != WeightsPoint::normalised)
    fail(ErrorCode::bad_option, std::string(function) +
                                    ": weights.norm_weighted is asked for at a point that is not "
                                    "normalised; it must be");
  const std::int64_t heads = asked_count(request.heads, shape.heads), rows = asked_count(request.rows, shape.q_len);
  const std::array<Operand, 3> outputs{operand("weights.per_head", request.per_head),
                                       operand("weights.mean", request.mean),
                                       operand("weights.norm_weighted", request.norm_weighted)};
  const std::array<bool, 3> asked{given(request.per_head), given(request.mean), given(request.norm_weighted)};
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!asked[i]) continue;
    check_weights_extents(function, outputs[i], shape, heads, rows);
    check_output(function, outputs[i], inputs, options);
    check_apart_from_list(function, outputs[i], "weights.heads", request.heads);
    check_apart_from_list(function, outputs[i], "weights.rows", request.rows);
    for (std::size_t j = 0; j < i; ++j) check_apart(function, outputs[i], outputs[j]);
  }
}

template <class T>
void check_weights(const char* function, const WeightsRequest<T>& request, const AttentionShape& shape,
                   std::initializer_list<Operand> inputs, const AttentionOptions& options) {
  if (!request.any()) return;
  check_weights_outputs(function, request, shape, inputs, options);
  const Operand norms = operand("weights.norms", request.norms);
  if (given(request.norms) != given(request.norm_weighted))
    fail(ErrorCode::bad_option,
         std::string(function) + (given(request.norms) ? ": weights.norms is given without weights.norm_weighted; "
                                                         "it must come with it"
                                                       : ": weights.norms is missing; weights.norm_weighted must "
                                                         "have it"));
  if (!given(request.norms)) return;
  check_view(function, norms);
  check_equal(function, norms.name, "has batch", norms.extents[0], "q has", shape.batch);
  check_equal(function, norms.name, "has heads", norms.extents[1], "q has", shape.heads);
  check_equal(function, norms.name, "has kv_len", norms.extents[2], "k has", shape.kv_len);
  for (const Operand& output : {operand("weights.per_head", request.per_head), operand("weights.mean", request.mean),
                                operand("weights.norm_weighted", request.norm_weighted)})
    check_apart_from_weights(function, output, request);
}

template <class T>
void check_apart_from_weights(const char* function, const Operand& output, const WeightsRequest<T>& request) {
  check_apart_from_list(function, output, "weights.heads", request.heads);
  check_apart_from_list(function, output, "weights.rows", request.rows);
  check_apart(function, output, operand("weights.norms", request.norms));
}

template <class T>
WeightsPass<T>::WeightsPass(const AttentionShape& shape, const AttentionOptions& options,
                            const WeightsRequest<T>& request)
    : shape_(shape),
      options_(options_up_to(request.point, options)),
      request_(request),
      schedule_(shape_, options_, request.point == WeightsPoint::normalised ? std::numbers::log2e : 1.0) {}

template <class T>
std::int64_t WeightsPass<T>::head_count() const {
  return asked_count(request_.heads, shape_.heads);
}

template <class T>
std::int64_t WeightsPass<T>::head_at(std::int64_t index) const {
  return request_.heads.empty() ? index : request_.heads[static_cast<std::size_t>(index)];
}

template <class T>
std::size_t WeightsPass<T>::most_runs() const {
  if (request_.rows.empty()) return static_cast<std::size_t>(schedule_.sequences().row_blocks());
  return static_cast<std::size_t>(shape_.batch) * request_.rows.size();
}

template <class T>
std::size_t WeightsPass<T>::bytes_of(std::size_t runs) const {
  const auto tasks = static_cast<std::int64_t>(runs) * (combines() ? 1 : head_count());
  return schedule_.table_bytes() + round_to_line(runs * sizeof(RowRun)) +
         schedule_.task_bytes(true) * static_cast<std::size_t>(std::min<std::int64_t>(options_.threads, tasks));
}

template <class T>
void WeightsPass<T>::prepare(const char* function, std::byte* memory) {
  schedule_.prepare(function, memory);
  runs_ = reinterpret_cast<RowRun*>(memory + schedule_.table_bytes());
  workers_ = memory + schedule_.table_bytes() + round_to_line(most_runs() * sizeof(RowRun));
  find_runs();
}

template <class T>
void WeightsPass<T>::find_runs() {
  const Sequences& sequences = schedule_.sequences();
  if (request_.rows.empty()) {
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const Sequence sequence = sequences.at(s);
      for (std::int64_t row = 0; row < sequence.q_len; row += kRowBlock)
        runs_[run_count_++] = {sequence, row, std::min<std::int64_t>(kRowBlock, sequence.q_len - row),
                               sequence.q_begin + row};
    }
    return;
  }
  const std::int64_t asked_rows = static_cast<std::int64_t>(request_.rows.size());
  const auto row_at = [&](std::int64_t i) { return request_.rows[static_cast<std::size_t>(i)]; };
  for (std::int64_t b = 0; b < shape_.batch; ++b)
    for (std::int64_t i = 0; i < asked_rows;) {
      const Sequence sequence = sequences.of_row(b, row_at(i));
      std::int64_t rows = 1;
      while (rows < kRowBlock && i + rows < asked_rows && row_at(i + rows) == row_at(i) + rows &&
             row_at(i + rows) < sequence.q_begin + sequence.q_len)
        ++rows;
      runs_[run_count_++] = {sequence, row_at(i) - sequence.q_begin, rows, i};
      i += rows;
    }
}

template <class T>
WeightsTask<T> WeightsPass<T>::task(const AttentionCall<T>& call, const RowRun& run, std::int64_t head_index,
                                    KeyRange* visible) const {
  const std::int64_t head = head_at(head_index), b = run.sequence.batch;
  WeightsTask<T> task{};
  task.attention = schedule_.task(call, run.sequence, head, run.row, run.rows, visible);
  task.attention.needs.weights = true;
  task.normalised = request_.point == WeightsPoint::normalised;
  task.hidden = task.normalised ? T(0) : -std::numeric_limits<T>::infinity();
  task.kv_len = shape_.kv_len;
  task.k_begin = run.sequence.k_begin, task.k_len = run.sequence.kv_len;
  if (shape_.kv_len == 0) return task;
  if (const auto& out = request_.per_head; out.data())
    task.per_head = {&out(b, head_index, run.out_row, 0), out.stride(2), out.stride(3)};
  if (const auto& out = request_.mean; out.data()) task.mean = {&out(b, run.out_row, 0), out.stride(1), out.stride(2)};
  if (const auto& out = request_.norm_weighted; out.data()) {
    task.norm_weighted = {&out(b, run.out_row, 0), out.stride(1), out.stride(2)};
    task.norms = &request_.norms(b, head, 0), task.norms_stride = request_.norms.stride(2);
  }
  task.mean_factor = T(1) / static_cast<T>(head_count());
  task.add = head_index > 0;
  return task;
}

template <class T>
void WeightsPass<T>::run(const AttentionCall<T>& call, const KernelTable& table) const {
  const std::int64_t heads_apart = combines() ? 1 : head_count();  // a combination adds its heads in their order
  const std::size_t bytes = schedule_.task_bytes(true);
  parallel_for(run_count_ * heads_apart, options_.threads, options_.parallel_for, [&](int worker, std::int64_t index) {
    const RowRun& run = runs_[index / heads_apart];
    const std::int64_t first = index % heads_apart, last = combines() ? head_count() : first + 1;
    for (std::int64_t head_index = first; head_index < last; ++head_index) {
      KeyRange visible[kRowBlock];
      WeightsTask<T> next = task(call, run, head_index, visible);
      next.attention.scratch = reinterpret_cast<T*>(workers_ + static_cast<std::size_t>(worker) * bytes);
      table.kernels<T>().weights(next);
    }
  });
}

template class WeightsPass<float>;
template class WeightsPass<double>;

namespace {

constexpr const char* kName = "attention_weights";

// S: the type of storage.
template <class S>
void weights_alone(View4<const S> q, View4<const S> k, View3<const Sum<S>> lse, const WeightsRequest<Sum<S>>& request,
                   const AttentionOptions& options) {
  using T = Sum<S>;
  const Operand q_operand = operand("q", q), k_operand = operand("k", k), lse_operand = operand("lse", lse);
  for (const Operand* view : {&q_operand, &k_operand}) {
    check_view(kName, *view);
    check_contiguous(kName, *view);
  }
  check_equal(kName, "k", "has batch", k.extent(0), "q has", q.extent(0));
  check_equal(kName, "k", "has head_dim", k.extent(3), "q has", q.extent(3));
  AttentionShape shape = shape_of<S>(q, k, k);
  shape.value_dim = 1;  // no values are read
  check_attention(kName, shape, options);
  const bool normalised = request.point == WeightsPoint::normalised;
  if (normalised) check_rows_extents(kName, lse_operand, shape);
  check_weights(kName, request, shape, {q_operand, k_operand, lse_operand}, options);
  const KernelTable& table = choose_kernels(options.target);
  if (!request.any()) return;

  WeightsPass<T> pass(shape, options, request);
  const std::size_t rows = normalised ? static_cast<std::size_t>(shape.batch * shape.heads * shape.q_len) : 0;
  Scratch scratch(pass.bytes() + 2 * round_to_line(rows * sizeof(T)), options.scratch, kName);
  pass.prepare(kName, scratch.take<std::byte>(pass.bytes()));
  AttentionCall<T> call;
  call.q = TypedTensor(q), call.k = TypedTensor(k);
  if (normalised) {
    const FloatMode mode;
    call.row_max = scratch.take<T>(rows), call.row_sum = scratch.take<T>(rows);
    T* max = call.row_max;
    for (std::int64_t b = 0; b < shape.batch; ++b)
      for (std::int64_t h = 0; h < shape.heads; ++h)
        for (std::int64_t i = 0; i < shape.q_len; ++i) {
          const T x = lse(b, h, i);
          // A maximum of +inf makes every weight of the row zero.
          *max++ = x == -std::numeric_limits<T>::infinity() ? -x : x * static_cast<T>(std::numbers::log2e);
        }
    std::fill_n(call.row_sum, rows, T(1));
  }
  pass.run(call, table);
}

}  // namespace

void attention_weights(View4<const float> q, View4<const float> k, View3<const float> lse,
                       const WeightsRequest<float>& weights, const AttentionOptions& options) {
  weights_alone<float>(q, k, lse, weights, options);
}
void attention_weights(View4<const double> q, View4<const double> k, View3<const double> lse,
                       const WeightsRequest<double>& weights, const AttentionOptions& options) {
  weights_alone<double>(q, k, lse, weights, options);
}
void attention_weights(View4<const BFloat16> q, View4<const BFloat16> k, View3<const float> lse,
                       const WeightsRequest<float>& weights, const AttentionOptions& options) {
  weights_alone<BFloat16>(q, k, lse, weights, options);
}
void attention_weights(View4<const Float16> q, View4<const Float16> k, View3<const float> lse,
                       const WeightsRequest<float>& weights, const AttentionOptions& options) {
  weights_alone<Float16>(q, k, lse, weights, options);
}

template void check_weights_outputs(const char*, const WeightsRequest<float>&, const AttentionShape&,
                                    std::initializer_list<Operand>, const AttentionOptions&);
template void check_weights_outputs(const char*, const WeightsRequest<double>&, const AttentionShape&,
                                    std::initializer_list<Operand>, const AttentionOptions&);
template void check_apart_from_weights(const char*, const Operand&, const WeightsRequest<float>&);
template void check_apart_from_weights(const char*, const Operand&, const WeightsRequest<double>&);
template void check_weights(const char*, const WeightsRequest<float>&, const AttentionShape&,
                            std::initializer_list<Operand>, const AttentionOptions&);
template void check_weights(const char*, const WeightsRequest<double>&, const AttentionShape&,
                            std::initializer_list<Operand>, const AttentionOptions&);

}  // namespace multihead
