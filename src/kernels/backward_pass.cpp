// SPDX-License-Identifier: Apache-2.0
// From a call to the steps of its tasks, and the order of what they add.
#include "kernels/backward_pass.hpp"

#include <algorithm>
#include <limits>

#include "core/float_mode.hpp"
#include "kernels/operands.hpp"
#include "kernels/reference_terms.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kPassed = std::numeric_limits<std::int64_t>::max();  // all steps
constexpr int kSpins = 4000;

}  // namespace

void wait_until(const std::atomic<std::int64_t>& progress, std::int64_t far) {
  for (int spin = 0; spin < kSpins; ++spin)
    if (progress.load(std::memory_order_acquire) >= far) return;
  for (;;) {
    const std::int64_t seen = progress.load(std::memory_order_acquire);
    if (seen >= far) return;
    progress.wait(seen, std::memory_order_acquire);
  }
}

void publish(std::atomic<std::int64_t>& progress, std::int64_t value) {
  progress.store(value, std::memory_order_release);
  progress.notify_all();
}

template <class S>
BackwardPass<S>::BackwardPass(const AttentionShape& shape, const AttentionOptions& options)
    : shape_(shape),
      options_(options),
      schedule_(shape, options),
      scale_(options.scale ? *options.scale : default_scale(shape.head_dim)) {}

template <class S>
std::int64_t BackwardPass<S>::key_blocks(const Sequence& sequence) const {
  return sequence.q_len == 0 ? 0 : (sequence.kv_len + kKeyBlock - 1) / kKeyBlock;
}

// No sequence has keys of another, so all have at most one block more each than their keys fill.
template <class S>
std::int64_t BackwardPass<S>::most_tasks() const {
  return shape_.kv_heads * (shape_.batch * shape_.kv_len / kKeyBlock + schedule_.sequences().count());
}

template <class S>
std::size_t BackwardPass<S>::workers() const {
  const std::int64_t most = std::max(most_tasks(), product({shape_.batch, shape_.heads, blocks_of(shape_.q_len)}));
  return static_cast<std::size_t>(std::min<std::int64_t>(options_.threads, most));
}

template <class S>
TaskNeeds BackwardPass<S>::needs() const {
  TaskNeeds needs = schedule_.task_needs();
  needs.type = kTypeOf<T>;                // rows are widened once a block
  needs.weights = options_.bias.given();  // rows of its gradient
  needs.tiles = false;                    // a step's have a place of their own
  return needs;
}

template <class S>
std::size_t BackwardPass<S>::step_bytes() const {
  const bool tiles = std::is_same_v<S, BFloat16> && schedule_.task_needs().tiles;
  const BackwardExtents extents(shape_.head_dim, shape_.value_dim, tiles);
  return round_to_line(attention_scratch_elements(needs()) * sizeof(T)) +
         round_to_line(backward_work_elements(extents, options_.softcap > 0) * sizeof(T));
}

// Numbers that a task sums up by itself: the scale's, then for each head of its group the slope's and the table's.
template <class S>
std::int64_t BackwardPass<S>::own_sums() const {
  return 1 + group() * (1 + buckets());
}

template <class S>
std::int64_t BackwardPass<S>::buckets() const {
  return options_.relative_bias.given() ? options_.relative_bias.extents[0] : 0;
}

template <class S>
std::size_t BackwardPass<S>::worker_bytes() const {
  const std::int64_t widths = padded_width(shape_.head_dim) + padded_width(shape_.value_dim);
  const std::size_t steps =
      step_bytes() + lines_of<T>(kKeyBlock * widths) + lines_of<double>(own_sums()) + lines_of<T>(group());
  return std::max(steps, round_to_line(row_terms_work_elements(shape_.value_dim) * sizeof(T)));
}

template <class S>
std::size_t BackwardPass<S>::bytes() const {
  const std::int64_t rows = product({shape_.batch, shape_.heads, shape_.q_len});
  const RelativeBias& relative = options_.relative_bias;
  const std::int64_t distances = relative.given() ? 2 * relative.max_distance + 1 : 0;
  const std::int64_t sums = 1 + shape_.heads * (1 + buckets());
  return table_bytes() + lines_of<Progress>(most_tasks() + 1) + lines_of<T>(rows) +
         (kStaged ? lines_of<T>(rows * shape_.head_dim) : 0) + lines_of<std::int32_t>(distances) +
         lines_of<double>(sums) + workers() * worker_bytes();
}

template <class S>
std::size_t BackwardPass<S>::table_bytes() const {
  return schedule_.table_bytes() + lines_of<std::int64_t>(schedule_.sequences().count() + 1);
}

template <class S>
void BackwardPass<S>::prepare_tables(const char* function, std::byte* memory) {
  schedule_.prepare(function, memory);
  memory += schedule_.table_bytes();
  const Sequences& sequences = schedule_.sequences();
  first_task_ = {take_lines<std::int64_t>(memory, sequences.count() + 1),
                 static_cast<std::size_t>(sequences.count() + 1)};
  std::int64_t tasks = 0;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    first_task_[static_cast<std::size_t>(s)] = tasks;
    tasks += key_blocks(sequences.at(s)) * shape_.kv_heads;
  }
  first_task_.back() = tasks;
}

template <class S>
void BackwardPass<S>::prepare(const char* function, std::byte* memory) {
  prepare_tables(function, memory);
  memory += table_bytes();
  const std::int64_t rows = product({shape_.batch, shape_.heads, shape_.q_len});
  progress_ = take_lines<Progress>(memory, most_tasks() + 1), added_ = progress_ + most_tasks();
  row_terms_ = take_lines<T>(memory, rows);
  if (kStaged) d_q_ = take_lines<T>(memory, rows * shape_.head_dim);
  const RelativeBias& relative = options_.relative_bias;
  if (relative.given()) {
    const std::int64_t far = relative.max_distance;
    buckets_ = take_lines<std::int32_t>(memory, 2 * far + 1);
    for (std::int64_t r = -far; r <= far; ++r) buckets_[far + r] = bucket_of(relative, 0, r);
  }
  sums_ = take_lines<double>(memory, 1 + shape_.heads * (1 + buckets()));
  workers_ = memory;
}

template <class S>
std::int64_t BackwardPass<S>::tasks() const {
  return first_task_.back();
}

template <class S>
typename BackwardPass<S>::Unit BackwardPass<S>::unit_of(std::int64_t index) const {
  const auto after = std::upper_bound(first_task_.begin(), first_task_.end(), index);
  const std::int64_t s = after - first_task_.begin() - 1, local = index - *(after - 1);
  const Sequence sequence = schedule_.sequences().at(s);
  const std::int64_t blocks = key_blocks(sequence);
  return {sequence, index, s, local / blocks, local % blocks, blocks};
}

// A sum over batch or heads goes on where the sequence or kv head before has ended.
template <class S>
void BackwardPass<S>::wait_for_bias(const Unit& unit) const {
  const View4<T>& bias = gradients_->bias;
  if (!bias.data() || (bias.extent(2) == 1 && bias.extent(3) == 1)) return;
  const bool over_batch = bias.extent(0) == 1 && shape_.batch > 1, over_heads = bias.extent(1) == 1;
  // Heads of a group that share a row's sum: their steps lie apart, and no other task's may come between.
  if (over_heads && bias.extent(3) == 1 && group() > 1 && unit.block > 0)
    wait_until(progress_[unit.index - 1], kPassed);
  std::int64_t s = unit.s, kv = unit.kv;
  if (over_heads && kv > 0) {
    --kv;
  } else if (over_batch) {
    const auto first = [&](std::int64_t at) { return first_task_[static_cast<std::size_t>(at)]; };
    do {
      if (s-- == 0) return;
    } while (first(s) == first(s + 1));
    if (over_heads) kv = shape_.kv_heads - 1;
  } else {
    return;
  }
  const std::int64_t begin = first_task_[static_cast<std::size_t>(s)];
  const std::int64_t blocks = (first_task_[static_cast<std::size_t>(s + 1)] - begin) / shape_.kv_heads;
  for (std::int64_t block = 0; block < blocks; ++block) wait_until(progress_[begin + kv * blocks + block], kPassed);
}

template <class S>
BiasGradient<Sum<S>> BackwardPass<S>::bias_of(const Run& run, std::int64_t head, std::int64_t row) const {
  const View4<T>& bias = gradients_->bias;
  if (!bias.data()) return {};
  const bool sums_rows = bias.extent(2) == 1, sums_keys = bias.extent(3) == 1;
  if (sums_rows && sums_keys) return {run.bias + head % group(), 0, 0, true, true};
  const Sequence& sequence = run.unit.sequence;
  const auto at = [&](int axis, std::int64_t place) { return bias.extent(axis) == 1 ? 0 : place * bias.stride(axis); };
  T* const data = bias.data() + at(0, sequence.batch) + at(1, head) + at(2, sequence.q_begin + row) +
                  at(3, sequence.k_begin + run.unit.block * kKeyBlock);
  return {data, bias.stride(2), bias.stride(3), sums_rows, sums_keys};
}

template <class S>
void BackwardPass<S>::run_step(Run& run, std::int64_t head, std::int64_t row) const {
  const AttentionForward<S>& forward = *forward_;
  const Sequence& sequence = run.unit.sequence;
  const std::int64_t b = sequence.batch, i = sequence.q_begin + row, g = head % group();
  KeyRange visible[kRowBlock];
  BackwardTask<T>& task = run.task;
  AttentionCall<T> call{TypedTensor(forward.q), TypedTensor(forward.k), TypedTensor(forward.v), {}, {}};
  task.attention =
      schedule_.task(call, sequence, head, row, std::min<std::int64_t>(kRowBlock, sequence.q_len - row), visible);
  task.attention.needs = needs();
  task.attention.scratch = reinterpret_cast<T*>(run.scratch);
  task.d_out = {&forward.d_out(b, head, i, 0), forward.d_out.stride(2), kTypeOf<S>};
  task.lse = &forward.lse(b, head, i), task.lse_stride = forward.lse.stride(2);
  task.row_terms = row_terms_ + (b * shape_.heads + head) * shape_.q_len + i;
  if (gradients_->q.data()) {
    if constexpr (kStaged)
      task.d_q = d_q_ + ((b * shape_.heads + head) * shape_.q_len + i) * shape_.head_dim,
      task.d_q_stride = shape_.head_dim;
    else
      task.d_q = &gradients_->q(b, head, i, 0), task.d_q_stride = gradients_->q.stride(2);
  }
  task.bias = bias_of(run, head, row);
  if (!gradients_->alibi_slopes.empty()) task.slope = run.slopes + g;
  if (gradients_->relative_bias.data()) task.table = run.table + g * buckets();
  table_->kernels<T>().backward(task);
  task.opens = false;
}

// The task's memory, zeros, and what is asked of its steps.
template <class S>
void BackwardPass<S>::open_task(Run& run, std::byte* worker) const {
  const std::int64_t heads = group(), q_width = padded_width(shape_.head_dim), v_width = padded_width(shape_.value_dim);
  run.scratch = worker;
  BackwardTask<T>& task = run.task;
  task.work = reinterpret_cast<T*>(worker + round_to_line(attention_scratch_elements(needs()) * sizeof(T)));
  std::byte* next = worker + step_bytes();
  const std::int64_t left = run.unit.sequence.kv_len - run.unit.block * kKeyBlock;
  const std::int64_t keys = std::min<std::int64_t>(kKeyBlock, (left + kSumChains - 1) / kSumChains * kSumChains);
  T* const sums = take_lines<T>(next, kKeyBlock * (q_width + v_width));
  std::fill_n(sums, keys * q_width, T(0));
  std::fill_n(sums + kKeyBlock * q_width, keys * v_width, T(0));
  run.scale = take_lines<double>(next, own_sums());
  std::fill_n(run.scale, own_sums(), 0.0);
  run.slopes = run.scale + 1, run.table = run.slopes + heads;
  run.bias = take_lines<T>(next, heads);
  std::fill_n(run.bias, heads, T(0));
  const AttentionGradients<S>& to = *gradients_;
  run.d_k = to.k.data() || to.scale ? sums : nullptr;
  run.d_v = to.v.data() ? sums + kKeyBlock * q_width : nullptr;
  task.key = run.unit.block * kKeyBlock, task.opens = true, task.d_k = run.d_k, task.d_v = run.d_v;
  task.buckets = buckets_;
  task.wants_scores = to.q.data() || run.d_k || to.bias.data() || !to.alibi_slopes.empty() || to.relative_bias.data();
}

template <class S>
void BackwardPass<S>::run_task(const Unit& unit, std::byte* worker) const {
  const AttentionGradients<S>& to = *gradients_;
  Run run{unit, {}, {}, {}, {}, {}, {}, {}, {}};
  open_task(run, worker);
  wait_for_bias(unit);
  const bool shares_rows = to.q.data() || (to.bias.data() && to.bias.extent(3) == 1);
  const std::int64_t key = run.task.key, steps = blocks_of(unit.sequence.q_len);
  const KeyRange rows = unit.sequence.rows_of(key, std::min(key + kKeyBlock, unit.sequence.kv_len), schedule_.rules());
  for (std::int64_t g = 0; g < group(); ++g) {
    for (std::int64_t block = rows.begin / kRowBlock; block * kRowBlock < rows.end; ++block) {
      const std::int64_t step = g * steps + block;
      if (shares_rows && unit.block > 0) wait_until(progress_[unit.index - 1], step + 1);
      run_step(run, unit.kv * group() + g, block * kRowBlock);
      publish(progress_[unit.index], step + 1);
    }
    publish(progress_[unit.index], (g + 1) * steps);
  }
  write_keys(run);
  add_sums(run);
  publish(progress_[unit.index], kPassed);
}

template class BackwardPass<float>;
template class BackwardPass<double>;
template class BackwardPass<BFloat16>;
template class BackwardPass<Float16>;

}  // namespace multihead
