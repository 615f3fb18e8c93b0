// SPDX-License-Identifier: Apache-2.0
// The second pass over the keys: what each gets from all rows, and the map of weights in bins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/schedule.hpp"

namespace multihead {

// Fills received and map of RowStatistics, where they are given, after a pass that left row_max and row_sum. A task is
// a head and a run of key blocks, whole bins of them, so that no sum is shared by two.
template <class T>
class ColumnsPass {
 public:
  // The schedule, prepared, of the pass before; it and what it refers to must outlive this.
  ColumnsPass(const Schedule<T>& schedule, View3<T> received, View4<T> map, std::int64_t bin);
  ColumnsPass(const ColumnsPass&) = delete;

  bool any() const { return given_received() || given_map(); }
  // Memory for a table and the workers; a multiple of a cache line, 0 where nothing is asked for.
  std::size_t bytes() const;
  // call: q and k, row_max and row_sum.
  void run(const AttentionCall<T>& call, const KernelTable& table, std::byte* memory) const;

 private:
  struct Run;
  bool given_received() const { return !received_.empty(); }
  bool given_map() const { return !map_.empty(); }
  std::size_t table_bytes() const;
  std::size_t chains_bytes() const;
  std::size_t worker_bytes() const;
  std::int64_t most_tasks() const;
  std::int64_t runs_of(const Sequence& sequence) const;
  void clear() const;
  void run_task(const AttentionCall<T>& call, const KernelTable& table, const Run& run, std::byte* worker) const;
  void finish(const Run& run, T* chains) const;

  const Schedule<T>& schedule_;
  View3<T> received_;
  View4<T> map_;
  std::int64_t bin_;
  std::int64_t together_;  // key blocks of a task
};

}  // namespace multihead
