// SPDX-License-Identifier: Apache-2.0
// The backward pass: a call cut into tasks that own the gradients of a block of keys, and the order in which they add
// to what they share.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>

#include "core/scratch.hpp"
#include "kernels/backward_task.hpp"
#include "kernels/schedule.hpp"
#include "multihead/attention_backward.hpp"

namespace multihead {

constexpr std::int64_t product(std::initializer_list<std::int64_t> factors) {
  std::int64_t all = 1;
  for (std::int64_t factor : factors) all *= factor;
  return all;
}

template <class T>
constexpr std::size_t lines_of(std::int64_t count) {
  return round_to_line(static_cast<std::size_t>(count) * sizeof(T));
}

// The next count elements of memory that is handed out in lines.
template <class T>
T* take_lines(std::byte*& next, std::int64_t count) {
  return reinterpret_cast<T*>(std::exchange(next, next + lines_of<T>(count)));
}

void publish(std::atomic<std::int64_t>& progress, std::int64_t value);
// Until the progress is at least that far. Most waits are short.
void wait_until(const std::atomic<std::int64_t>& progress, std::int64_t far);

// S: the type of storage. A task is a sequence, a kv head and a block of keys; it goes through the heads of the group
// and, ascending, the blocks of rows that see its keys: its steps. The shape, options, operands and gradients must
// outlive this.
//
// Sums that tasks share grow in the order of tasks, whoever runs them. A row's dQ, and its gradient of a bias that is
// summed over the keys, take a step of a block of keys after that of the block before: the task waits until the one
// before has passed that step. A gradient of a bias that is summed over batch or heads waits for the whole tasks of the
// sequence, or kv head, before, and where the keys are summed over too for the task before; what a task sums up by
// itself is added when all tasks before have added theirs. Tasks are begun in their order, so whoever is waited for is
// at work.
template <class S>
class BackwardPass {
 public:
  using T = Sum<S>;
  BackwardPass(const AttentionShape& shape, const AttentionOptions& options);
  BackwardPass(const BackwardPass&) = delete;

  // Memory for all that may be asked for; a multiple of a cache line.
  std::size_t bytes() const;
  // Before run(). Throws what Sequences throws.
  void prepare(const char* function, std::byte* memory);
  // The part of it that tells how many tasks there are, in memory of table_bytes().
  std::size_t table_bytes() const;
  void prepare_tables(const char* function, std::byte* memory);
  std::int64_t tasks() const;
  const Schedule<T>& schedule() const { return schedule_; }
  void run(const AttentionForward<S>& forward, const AttentionGradients<S>& gradients, const KernelTable& table);

 private:
  using Progress = std::atomic<std::int64_t>;
  // A task's place.
  struct Unit {
    Sequence sequence;
    std::int64_t index, s, kv, block, blocks;
  };
  // A task at work: its sums, and the step at hand.
  struct Run {
    const Unit& unit;
    BackwardTask<T> task;
    std::byte* scratch;
    T *d_k, *d_v;  // (kKeyBlock, padded width), or null
    double *scale, *slopes, *table;
    T* bias;  // a gradient of a bias that is one number a head
  };
  static constexpr bool kStaged = !std::is_same_v<S, T>;  // dQ is summed in memory of its own

  std::int64_t group() const { return shape_.heads / shape_.kv_heads; }
  std::int64_t key_blocks(const Sequence& sequence) const;
  std::int64_t most_tasks() const;
  std::size_t workers() const;
  std::size_t step_bytes() const;
  std::int64_t own_sums() const;
  std::int64_t buckets() const;
  std::size_t worker_bytes() const;
  TaskNeeds needs() const;

  void clear() const;
  void fill_row_terms() const;
  void row_terms_of(std::int64_t b, std::int64_t head, std::int64_t row, std::byte* worker) const;
  bool sees_any(std::int64_t b, std::int64_t head, std::int64_t row) const;
  Unit unit_of(std::int64_t index) const;
  void run_task(const Unit& unit, std::byte* worker) const;
  void open_task(Run& run, std::byte* worker) const;
  void run_step(Run& run, std::int64_t head, std::int64_t row) const;
  BiasGradient<T> bias_of(const Run& run, std::int64_t head, std::int64_t row) const;
  void wait_for_bias(const Unit& unit) const;
  void write_keys(const Run& run) const;
  void add_sums(const Run& run) const;
  void finish_queries() const;
  void finish_sinks() const;
  void finish_sums() const;

  const AttentionShape& shape_;
  const AttentionOptions& options_;
  Schedule<T> schedule_;
  double scale_;
  // Memory.
  std::span<std::int64_t> first_task_;  // of each sequence, and the end
  Progress* progress_ = nullptr;        // of each task: steps passed
  Progress* added_ = nullptr;           // tasks whose sums have been added
  T* row_terms_ = nullptr;              // (batch, heads, q_len)
  T* d_q_ = nullptr;                    // (batch, heads, q_len, head_dim), where it is staged
  std::int32_t* buckets_ = nullptr;     // at each distance
  double* sums_ = nullptr;              // scale, slopes, table: of the call
  std::byte* workers_ = nullptr;
  // Of the call.
  const AttentionForward<S>* forward_ = nullptr;
  const AttentionGradients<S>* gradients_ = nullptr;
  const KernelTable* table_ = nullptr;
};

}  // namespace multihead
