// SPDX-License-Identifier: Apache-2.0
// From a call to the tasks of its columns, and the last steps of their sums.
#include "kernels/columns.hpp"

#include <algorithm>

#include "core/parallel.hpp"
#include "core/scratch.hpp"

namespace multihead {

namespace {

// Blocks whose rows are packed once for all of them; fewer where there would not be work for every thread. No bit
// depends on it.
constexpr std::int64_t kBlocksTogether = 4;
constexpr std::int64_t kTasksPerThread = 4;

std::int64_t chunks(std::int64_t count, std::int64_t together) { return (count + together - 1) / together; }

}  // namespace

// The keys [k_begin, k_end) of a sequence, for one head.
template <class T>
struct ColumnsPass<T>::Run {
  Sequence sequence;
  std::int64_t head, k_begin, k_end;
};

template <class T>
ColumnsPass<T>::ColumnsPass(const Schedule<T>& schedule, View3<T> received, View4<T> map, std::int64_t bin)
    : schedule_(schedule),
      received_(received),
      map_(map),
      bin_(std::max<std::int64_t>(bin, 1)),
      together_(kBlocksTogether) {
  const AttentionShape& shape = schedule_.shape();
  const std::int64_t pairs = shape.batch * shape.heads, blocks = chunks(shape.kv_len, kKeyBlock);
  while (together_ > 1 && pairs * chunks(blocks, together_) < kTasksPerThread * schedule_.options().threads)
    together_ /= 2;
  if (given_map()) {
    const std::int64_t whole = chunks(std::min(bin_, blocks * kKeyBlock), kKeyBlock);
    together_ = chunks(together_, whole) * whole;
  }
  together_ = std::min(together_, std::max<std::int64_t>(blocks, 1));
}

template <class T>
std::int64_t ColumnsPass<T>::runs_of(const Sequence& sequence) const {
  return sequence.q_len == 0 ? 0 : chunks(sequence.kv_len, together_ * kKeyBlock);
}

template <class T>
std::size_t ColumnsPass<T>::table_bytes() const {
  return round_to_line(static_cast<std::size_t>(schedule_.sequences().count() + 1) * sizeof(std::int64_t));
}

template <class T>
std::size_t ColumnsPass<T>::chains_bytes() const {
  return given_received() ? static_cast<std::size_t>(together_ * kKeyBlock * kSumChains) * sizeof(T) : 0;
}

template <class T>
std::size_t ColumnsPass<T>::worker_bytes() const {
  return round_to_line(chains_bytes()) + schedule_.task_bytes(true);
}

// No sequence has keys of another, so all have at most one run more each than their keys fill.
template <class T>
std::int64_t ColumnsPass<T>::most_tasks() const {
  const AttentionShape& shape = schedule_.shape();
  const std::int64_t keys = shape.batch * shape.kv_len;
  return shape.heads * (keys / (together_ * kKeyBlock) + schedule_.sequences().count());
}

template <class T>
std::size_t ColumnsPass<T>::bytes() const {
  if (!any()) return 0;
  return table_bytes() +
         worker_bytes() * static_cast<std::size_t>(std::min<std::int64_t>(schedule_.options().threads, most_tasks()));
}

// Keys of no sequence, and those that no row sees, get 0.
template <class T>
void ColumnsPass<T>::clear() const {
  const AttentionShape& shape = schedule_.shape();
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      for (std::int64_t j = 0; given_received() && j < shape.kv_len; ++j) received_(b, h, j) = 0;
      for (std::int64_t r = 0; given_map() && r < map_.extent(2); ++r)
        for (std::int64_t c = 0; c < map_.extent(3); ++c) map_(b, h, r, c) = 0;
    }
}

template <class T>
void ColumnsPass<T>::run_task(const AttentionCall<T>& call, const KernelTable& table, const Run& run,
                              std::byte* worker) const {
  const Sequence& sequence = run.sequence;
  ColumnsTask<T> task{};
  task.k_begin = run.k_begin, task.k_end = run.k_end;
  if (given_received()) {
    task.chains = reinterpret_cast<T*>(worker);
    std::fill_n(task.chains, (run.k_end - run.k_begin) * kSumChains, T(0));
  }
  if (given_map()) {
    task.map = &map_(sequence.batch, run.head, 0, 0), task.bin = bin_;
    task.map_row_stride = map_.stride(2), task.map_key_stride = map_.stride(3);
  }
  const KeyRange rows = sequence.rows_of(run.k_begin, run.k_end, schedule_.rules());
  for (task.row = rows.begin / kRowBlock * kRowBlock; task.row < rows.end; task.row += kRowBlock) {
    KeyRange visible[kRowBlock];
    task.attention = schedule_.task(call, sequence, run.head, task.row,
                                    std::min<std::int64_t>(kRowBlock, sequence.q_len - task.row), visible);
    task.attention.scratch = reinterpret_cast<T*>(worker + round_to_line(chains_bytes()));
    table.kernels<T>().columns(task);
  }
  finish(run, task.chains);
}

// Chains become sums, sums of bins means.
template <class T>
void ColumnsPass<T>::finish(const Run& run, T* chains) const {
  const Sequence& sequence = run.sequence;
  for (std::int64_t key = run.k_begin; chains && key < run.k_end; ++key, chains += kSumChains) {
    for (int step = kSumChains / 2; step > 0; step /= 2)
      for (int chain = 0; chain < step; ++chain) chains[chain] += chains[chain + step];
    received_(sequence.batch, run.head, sequence.k_begin + key) = chains[0];
  }
  if (!given_map()) return;
  for (std::int64_t r = 0; r < map_.extent(2); ++r) {
    const T rows = static_cast<T>(std::min(bin_, sequence.q_len - r * bin_));
    for (std::int64_t c = run.k_begin / bin_; c < map_cells(run.k_end, bin_); ++c)
      map_(sequence.batch, run.head, r, c) /= rows;
  }
}

template <class T>
void ColumnsPass<T>::run(const AttentionCall<T>& call, const KernelTable& table, std::byte* memory) const {
  if (!any()) return;
  clear();
  const Sequences& sequences = schedule_.sequences();
  const std::int64_t heads = schedule_.shape().heads, width = together_ * kKeyBlock;
  const std::span<std::int64_t> first_run(reinterpret_cast<std::int64_t*>(memory),
                                          static_cast<std::size_t>(sequences.count() + 1));
  std::int64_t runs = 0;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    first_run[static_cast<std::size_t>(s)] = runs;
    runs += runs_of(sequences.at(s));
  }
  first_run.back() = runs;
  std::byte* const workers = memory + table_bytes();
  const AttentionOptions& options = schedule_.options();
  parallel_for(runs * heads, options.threads, options.parallel_for, [&](int worker, std::int64_t index) {
    // Head by head within a sequence; the first keys first: under a causal mask most rows see them.
    const auto after = std::upper_bound(first_run.begin(), first_run.end(), index / heads);
    const std::int64_t s = after - first_run.begin() - 1, before = first_run[static_cast<std::size_t>(s)];
    const Sequence sequence = sequences.at(s);
    const std::int64_t local = index - before * heads, count = *after - before;
    const std::int64_t begin = local % count * width;
    run_task(call, table, {sequence, local / count, begin, std::min(begin + width, sequence.kv_len)},
             workers + static_cast<std::size_t>(worker) * worker_bytes());
  });
}

template class ColumnsPass<float>;
template class ColumnsPass<double>;

}  // namespace multihead
