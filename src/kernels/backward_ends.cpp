// SPDX-License-Identifier: Apache-2.0
// The ends of the backward pass: what comes before its tasks, what a task leaves, and the last linear passes.
#include <algorithm>
#include <array>
#include <cstdint>

#include "core/parallel.hpp"
#include "kernels/backward_pass.hpp"
#include "kernels/reference_terms.hpp"

namespace multihead {

namespace {

// Calls body(pointer to an element), last axis innermost.
template <class T, int Rank, class Body>
void each(const View<T, Rank>& view, const Body& body) {
  if (!view.data() || view.empty()) return;
  std::array<std::int64_t, Rank> at{};
  for (;;) {
    T* line = view.data();
    for (int axis = 0; axis + 1 < Rank; ++axis) line += at[axis] * view.stride(axis);
    for (std::int64_t i = 0; i < view.extent(Rank - 1); ++i) body(line[i * view.stride(Rank - 1)]);
    int axis = Rank - 2;
    while (axis >= 0 && ++at[axis] == view.extent(axis)) at[axis--] = 0;
    if (axis < 0) return;
  }
}

template <class T, int Rank>
void clear_view(const View<T, Rank>& view) {
  each(view, [](T& x) { x = T{}; });
}

template <class S>
S rounded(Sum<S> x) {
  return static_cast<S>(x);
}

}  // namespace

// Keys that no row sees, and those of no sequence, get zeros; sums begin with them.
template <class S>
void BackwardPass<S>::clear() const {
  const AttentionGradients<S>& to = *gradients_;
  clear_view(to.k), clear_view(to.v), clear_view(to.bias);
  if (!kStaged) clear_view(to.q);
  if (kStaged && to.q.data())
    std::fill_n(d_q_, product({shape_.batch, shape_.heads, shape_.q_len, shape_.head_dim}), T(0));
  std::fill_n(sums_, 1 + shape_.heads * (1 + buckets()), 0.0);
  for (std::int64_t task = 0; task < tasks(); ++task) progress_[task].store(0, std::memory_order_relaxed);
  added_->store(0, std::memory_order_relaxed);
}

// Whether a row sees a key at all.
template <class S>
bool BackwardPass<S>::sees_any(std::int64_t b, std::int64_t head, std::int64_t row) const {
  const Sequence sequence = schedule_.sequences().of_row(b, row);
  const KeyRange keys = sequence.row(row - sequence.q_begin, schedule_.rules());
  for (std::int64_t key = keys.begin; key < keys.end; ++key)
    if (sequence.outside_gap(row - sequence.q_begin, key, schedule_.rules()) &&
        !hidden(options_, {b, head, row, sequence.k_begin + key}))
      return true;
  return false;
}

template <class S>
void BackwardPass<S>::row_terms_of(std::int64_t b, std::int64_t head, std::int64_t row, std::byte* worker) const {
  const AttentionForward<S>& forward = *forward_;
  RowTermsTask<T> task{};
  task.out = {&forward.out(b, head, row, 0), forward.out.stride(2), kTypeOf<S>};
  task.d_out = {&forward.d_out(b, head, row, 0), forward.d_out.stride(2), kTypeOf<S>};
  if (forward.d_lse.data()) task.d_lse = &forward.d_lse(b, head, row), task.d_lse_stride = forward.d_lse.stride(2);
  task.rows = static_cast<int>(std::min<std::int64_t>(kRowBlock, shape_.q_len - row));
  task.value_dim = static_cast<int>(shape_.value_dim);
  task.row_terms = row_terms_ + (b * shape_.heads + head) * shape_.q_len + row;
  task.work = reinterpret_cast<T*>(worker);
  table_->kernels<T>().row_terms(task);
  for (int r = 0; r < task.rows; ++r) {
    T& term = task.row_terms[r];
    if (term - term == 0 || sees_any(b, head, row + r)) continue;
    term = task.d_lse ? -task.d_lse[r * task.d_lse_stride] : T(0);
  }
}

template <class S>
void BackwardPass<S>::fill_row_terms() const {
  const std::int64_t blocks = blocks_of(shape_.q_len);
  parallel_for(product({shape_.batch, shape_.heads, blocks}), options_.threads, options_.parallel_for,
               [&](int worker, std::int64_t index) {
                 const std::int64_t plane = index / blocks;
                 row_terms_of(plane / shape_.heads, plane % shape_.heads, index % blocks * kRowBlock,
                              workers_ + static_cast<std::size_t>(worker) * worker_bytes());
               });
}

// Scales and rounds the task's gradients of keys, rounds those of values; and k . dK, which is the scale's gradient.
template <class S>
void BackwardPass<S>::write_keys(const Run& run) const {
  const Sequence& sequence = run.unit.sequence;
  const std::int64_t b = sequence.batch, kv = run.unit.kv;
  const std::int64_t q_width = padded_width(shape_.head_dim), v_width = padded_width(shape_.value_dim);
  const T scale = static_cast<T>(scale_);
  for (std::int64_t j = run.task.key; j < std::min(run.task.key + kKeyBlock, sequence.kv_len); ++j) {
    const std::int64_t key = sequence.k_begin + j;
    const T* const d_k = run.d_k + (j - run.task.key) * q_width;
    const T* const d_v = run.d_v + (j - run.task.key) * v_width;
    if (gradients_->scale && std::any_of(d_k, d_k + shape_.head_dim, [](T x) { return x != 0; })) {
      const S* const k = &forward_->k(b, kv, key, 0);
      for (std::int64_t c = 0; c < shape_.head_dim; ++c)
        *run.scale += static_cast<double>(static_cast<T>(k[c])) * static_cast<double>(d_k[c]);
    }
    if (gradients_->k.data()) {
      S* const to = &gradients_->k(b, kv, key, 0);
      for (std::int64_t c = 0; c < shape_.head_dim; ++c) to[c] = rounded<S>(d_k[c] * scale);
    }
    if (gradients_->v.data()) {
      S* const to = &gradients_->v(b, kv, key, 0);
      for (std::int64_t c = 0; c < shape_.value_dim; ++c) to[c] = rounded<S>(d_v[c]);
    }
  }
}

// What the task has summed up by itself joins that of the tasks before.
template <class S>
void BackwardPass<S>::add_sums(const Run& run) const {
  const AttentionGradients<S>& to = *gradients_;
  const bool bias = to.bias.data() && to.bias.extent(2) == 1 && to.bias.extent(3) == 1;
  if (!to.scale && to.alibi_slopes.empty() && !to.relative_bias.data() && !bias) return;
  wait_until(*added_, run.unit.index);
  const std::int64_t heads = group(), first = run.unit.kv * heads;
  sums_[0] += run.scale[0];
  for (std::int64_t g = 0; g < heads; ++g) {
    sums_[1 + first + g] += run.slopes[g];
    double* const table = sums_ + 1 + shape_.heads + (first + g) * buckets();
    for (std::int64_t bucket = 0; bucket < buckets(); ++bucket) table[bucket] += run.table[g * buckets() + bucket];
    if (!bias) continue;
    const std::int64_t b = to.bias.extent(0) == 1 ? 0 : run.unit.sequence.batch;
    to.bias(b, to.bias.extent(1) == 1 ? 0 : first + g, 0, 0) += run.bias[g];
  }
  publish(*added_, run.unit.index + 1);
}

template <class S>
void BackwardPass<S>::finish_queries() const {
  if (!gradients_->q.data()) return;
  const T scale = static_cast<T>(scale_);
  const std::int64_t blocks = blocks_of(shape_.q_len);
  parallel_for(product({shape_.batch, shape_.heads, blocks}), options_.threads, options_.parallel_for,
               [&](int, std::int64_t index) {
                 const std::int64_t plane = index / blocks, b = plane / shape_.heads, head = plane % shape_.heads;
                 const std::int64_t begin = index % blocks * kRowBlock;
                 for (std::int64_t row = begin; row < std::min(begin + kRowBlock, shape_.q_len); ++row) {
                   S* const to = &gradients_->q(b, head, row, 0);
                   if constexpr (kStaged) {
                     const T* const from = d_q_ + (plane * shape_.q_len + row) * shape_.head_dim;
                     for (std::int64_t c = 0; c < shape_.head_dim; ++c) to[c] = rounded<S>(from[c] * scale);
                   } else {
                     for (std::int64_t c = 0; c < shape_.head_dim; ++c) to[c] *= scale;
                   }
                 }
               });
}

// The sinks' gradients, row by row. A sink is a part of lse, so its weight is at most 1, and 1 where lse is the sink
// rounded: of a sink far from zero more is rounded than exp bears.
template <class S>
void BackwardPass<S>::finish_sinks() const {
  constexpr std::int64_t kTogether = 64;
  for (std::int64_t head = 0; head < static_cast<std::int64_t>(gradients_->sinks.size()); ++head) {
    const double sink = options_.sinks[static_cast<std::size_t>(head)];
    double sum = 0;
    for (std::int64_t b = 0; b < shape_.batch; ++b)
      for (std::int64_t row = 0; row < shape_.q_len; row += kTogether) {
        const std::int64_t count = std::min(kTogether, shape_.q_len - row);
        double weights[kTogether];
        for (std::int64_t r = 0; r < count; ++r) {
          const T lse = forward_->lse(b, head, row + r);
          weights[r] = lse == static_cast<T>(sink) ? 0 : std::min(sink - static_cast<double>(lse), 0.0);
        }
        table_->f64.map(MathFunction::exp, weights, weights, count);
        const T* const terms = row_terms_ + (b * shape_.heads + head) * shape_.q_len + row;
        for (std::int64_t r = 0; r < count; ++r) sum -= weights[r] * static_cast<double>(terms[r]);
      }
    gradients_->sinks[static_cast<std::size_t>(head)] = sum;
  }
}

template <class S>
void BackwardPass<S>::finish_sums() const {
  const AttentionGradients<S>& to = *gradients_;
  if (to.scale) *to.scale = sums_[0];
  std::copy_n(sums_ + 1, to.alibi_slopes.size(), to.alibi_slopes.begin());
  const MatrixView<T>& table = to.relative_bias;
  for (std::int64_t bucket = 0; table.data() && bucket < table.extent(0); ++bucket)
    for (std::int64_t head = 0; head < shape_.heads; ++head)
      table(bucket, head) = static_cast<T>(sums_[1 + shape_.heads + head * buckets() + bucket]);
}

template <class S>
void BackwardPass<S>::run(const AttentionForward<S>& forward, const AttentionGradients<S>& gradients,
                          const KernelTable& table) {
  forward_ = &forward, gradients_ = &gradients, table_ = &table;
  const FloatMode mode;
  clear();
  const bool by_score = gradients.q.data() || gradients.k.data() || gradients.bias.data() || gradients.scale ||
                        !gradients.alibi_slopes.empty() || gradients.relative_bias.data();
  if (by_score || !gradients.sinks.empty()) fill_row_terms();
  if (by_score || gradients.v.data())
    parallel_for(tasks(), options_.threads, options_.parallel_for, [&](int worker, std::int64_t index) {
      run_task(unit_of(index), workers_ + static_cast<std::size_t>(worker) * worker_bytes());
    });
  finish_queries();
  finish_sinks();
  finish_sums();
}

template class BackwardPass<float>;
template class BackwardPass<double>;
template class BackwardPass<BFloat16>;
template class BackwardPass<Float16>;

}  // namespace multihead
