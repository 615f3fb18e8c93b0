// SPDX-License-Identifier: Apache-2.0
// Attention inside the library: operands with their type forgotten, cut into tasks; nothing is validated or allocated.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <string>
#include <utility>

#include "kernels/decode_task.hpp"
#include "kernels/sequences.hpp"
#include "kernels/statistics_task.hpp"
#include "kernels/table.hpp"
#include "multihead/attention.hpp"

namespace multihead {

// A tensor (batch, heads, length, width) of a storage type.
struct TypedTensor {
  std::byte* data = nullptr;
  Type type = Type::float32;
  std::array<std::int64_t, 4> strides{};

  TypedTensor() = default;
  template <class T>
  explicit TypedTensor(const View4<T>& view)
      : data(reinterpret_cast<std::byte*>(const_cast<std::remove_const_t<T>*>(view.data()))),
        type(kTypeOf<std::remove_const_t<T>>),
        strides(view.strides()) {}
  std::byte* at(std::int64_t b, std::int64_t h, std::int64_t i) const {
    if (!data) return nullptr;
    return data + (b * strides[0] + h * strides[1] + i * strides[2]) * static_cast<std::int64_t>(size_of(type));
  }
};

// T: the type of the sums.
template <class T>
struct AttentionCall {
  TypedTensor q, k, v, out;
  View3<T> lse;          // or without data
  T* row_max = nullptr;  // (batch, heads, q_len) or null: statistics for weights
  T* row_sum = nullptr;
};

// Whether the decode kernel takes what the options ask for: not what is read for each row and key, nor dropout.
bool decode_takes(const AttentionOptions& options);

// How a call is cut into tasks, and what its tasks share. The shape and options must outlive it.
template <class T>
class Schedule {
 public:
  // unit: that of the scores, log2(e) for the softmax, 1 for scores as they are.
  Schedule(const AttentionShape& shape, const AttentionOptions& options, double unit = std::numbers::log2e);
  // Has run() gather statistics of the rows. Both must outlive it. Before task_bytes() is asked.
  void gather(const StatisticsRequest<T>& request, const RowStatistics<T>& to);
  // Has tasks read CachedRows. Before task_bytes() is asked.
  void over_cache() {
    needs_.cached = true, decode_ = false;
    if (std::exchange(needs_.keeps_rows, false)) kept_blocks_ = 0;
  }
  // Adds to the scores of a key, in units of log 2. by_key: (batch, heads, kv_len).
  void add_by_key(const T* by_key) { by_key_ = by_key, decode_ = false; }
  // Memory for the tables that prepare() fills, and for the scratch of one worker; multiples of a cache line.
  std::size_t table_bytes() const;
  std::size_t task_bytes(bool weights) const;
  // Finds the sequences and fills the tables. Throws what Sequences throws.
  void prepare(const char* function, std::byte* tables);

  const AttentionShape& shape() const { return shape_; }
  const AttentionOptions& options() const { return options_; }
  const Sequences& sequences() const { return sequences_; }
  const RangeRules& rules() const { return rules_; }
  const TaskNeeds& task_needs() const { return needs_; }
  std::int64_t tasks() const { return sequences_.row_blocks() * shape_.heads; }
  // What run() hands to threads: tasks, the last of them cut where they are few. After prepare().
  std::int64_t pieces() const;

  // Whether run() leaves a sequence to the decode kernel where nothing but outputs and lse is asked for: few queries,
  // whose keys and values it passes once for all heads of a kv head. The bits are the same.
  bool decodes(const Sequence& sequence) const;
  // Rows of the largest task where every sequence is; else 0. After prepare().
  std::int64_t decode_rows() const;
  // Row i of a sequence, of one head, for that kernel: all but the state.
  DecodeRow decode_row(const AttentionCall<T>& call, const Sequence& sequence, std::int64_t i, std::int64_t head) const;
  // The blocks of keys that some row of a sequence may see; without any: {0, 0}.
  KeyRange decode_blocks(const Sequence& sequence) const;
  // A task over blocks of keys in scratch of its own: all but rows and cache.
  DecodeTask decode_task(KeyRange blocks, std::byte* scratch) const;

  // Runs the call. scratch: task_bytes(false) for each of min(threads, tasks()) workers, aligned to a cache line.
  void run(const AttentionCall<T>& call, const KernelTable& table, std::byte* scratch) const;

  // Clears what a worker remembers, in its scratch, before its first task.
  void open_worker(std::byte* scratch) const;
  // Runs a task that task() made, in a worker's scratch.
  void run_task(AttentionTask<T>& task, const KernelTable& table, std::byte* scratch) const;

  // Of a task's scores, as ScoreTerms has it.
  T slope(std::int64_t head) const;

  // The task of rows [row, row + rows) of a sequence, rows at most kRowBlock, for one head: all but the statistics of
  // the softmax and the scratch. visible, kRowBlock of them, gets their ranges.
  AttentionTask<T> task(const AttentionCall<T>& call, const Sequence& sequence, std::int64_t head, std::int64_t row,
                        std::int64_t rows, KeyRange* visible) const;

 private:
  struct Worker;
  // Row blocks [first, first + count) of a head, from its last one on; of each the rows from offset on, at most most.
  struct Rows {
    std::int64_t head, first, count;
    std::int64_t offset = 0, most = kRowBlock;
  };
  TaskNeeds needs() const;
  std::int64_t finite_entries() const;
  std::int64_t kept_blocks() const;
  std::int64_t abreast() const;
  // Gives a task its memory; beside: of those that a worker runs side by side.
  void place_task(AttentionTask<T>& task, std::byte* scratch, std::int64_t beside) const;
  void run_rows(const AttentionCall<T>& call, const KernelTable& table, const Sequence& sequence, const Rows& rows,
                std::byte* scratch) const;
  // The same of several blocks, side by side through stretches of their keys.
  void run_abreast(const AttentionCall<T>& call, const KernelTable& table, const Sequence& sequence, const Rows& rows,
                   std::byte* scratch) const;
  std::int64_t cut_tasks() const;
  // decode_rows.cpp
  bool may_decode() const;
  std::int64_t decode_heads(const Sequence& sequence) const;
  std::int64_t decode_tasks(const Sequence& sequence) const;
  std::int64_t unlike_sequences() const;
  std::int64_t decode_saves() const;
  std::size_t decode_bytes() const;
  void run_decode(const AttentionCall<T>& call, const KernelTable& table, const Sequence& sequence, std::int64_t head,
                  std::byte* scratch) const;
  void fill_visible(const Sequence& sequence, std::int64_t row, std::int64_t rows, KeyRange* visible) const;
  ScoreTerms<T> terms(const Sequence& sequence, std::int64_t head, std::int64_t row) const;
  DropoutTask<T> dropout(const Sequence& sequence, std::int64_t head, std::int64_t row) const;
  std::size_t distances() const;
  void fill_distances();

  const AttentionShape& shape_;
  const AttentionOptions& options_;
  double unit_;
  T scale_ = 0, cap_ = 0;  // of the tasks
  std::int64_t group_;     // heads a kv head
  TaskNeeds needs_;
  std::int64_t kept_blocks_;  // that a worker keeps
  bool decode_;               // whether a sequence of few queries may be decoded
  RangeRules rules_;
  Sequences sequences_;
  T* by_distance_ = nullptr;  // (heads, distances())
  const T* by_key_ = nullptr;
  const StatisticsRequest<T>* request_ = nullptr;
  const RowStatistics<T>* gathered_ = nullptr;
};

// Words for what is done to scores beside scaling: "softcap, bias", or "none".
std::string terms_text(const AttentionOptions& options);

}  // namespace multihead
