// SPDX-License-Identifier: Apache-2.0
// Fork and join: indexed tasks shared out to a bounded number of workers.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "core/float_mode.hpp"
#include "multihead/parallel.hpp"

namespace multihead {

// Runs task(argument, worker) for worker in [0, workers), each once, concurrently: the caller runs one and idle pool
// threads the rest; those that nobody has begun when the caller is done are dropped, so a worker must be a loop that
// takes work until there is none. Threads are created at the first need, sleep when idle, and are created anew in a
// forked child. Concurrent callers share them.
void run_workers(std::int64_t workers, ParallelFor::Task task, void* argument);

// Calls body(worker, index) for every index in [0, count): worker in [0, threads) is held by one thread at a time, so
// it can name that thread's scratch. Indices are begun in ascending order. With one thread, or one index, all happens
// in the calling thread. body must not throw.
template <class Body>
void parallel_for(std::int64_t count, int threads, const ParallelFor& custom, const Body& body) {
  const std::int64_t workers = threads < count ? threads : count;
  if (workers <= 1) {
    const FloatMode mode;
    for (std::int64_t index = 0; index < count; ++index) body(0, index);
    return;
  }
  struct Work {
    const Body& body;
    std::int64_t count;
    std::atomic<std::int64_t> next{0};
  } work{body, count};
  const ParallelFor::Task drain = [](void* argument, std::int64_t worker) {
    auto& shared = *static_cast<Work*>(argument);
    const FloatMode mode;
    for (;;) {
      const std::int64_t index = shared.next.fetch_add(1, std::memory_order_relaxed);
      if (index >= shared.count) return;
      shared.body(static_cast<int>(worker), index);
    }
  };
  if (custom.run)
    custom.run(custom.context, workers, drain, &work);
  else
    run_workers(workers, drain, &work);
}

}  // namespace multihead
