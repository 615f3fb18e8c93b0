// SPDX-License-Identifier: Apache-2.0
// Fork and join: indexed tasks shared out to a bounded number of workers.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/float_mode.hpp"
#include "multihead/parallel.hpp"

namespace multihead {

// Runs task(argument, worker) for worker in [0, workers), each once, concurrently: the caller runs one and idle pool
// threads the rest; those that nobody has begun when the caller is done are dropped, so a worker must be a loop that
// takes work until there is none. Threads are created at the first need, sleep when idle, and are created anew in a
// forked child. Concurrent callers share them.
void run_workers(std::int64_t workers, ParallelFor::Task task, void* argument);

// body(worker) for each worker, as run_workers() or the caller's own loop runs them. body must not throw.
template <class Body>
void parallel_workers(std::int64_t workers, const ParallelFor& custom, const Body& body) {
  const ParallelFor::Task task = [](void* argument, std::int64_t worker) {
    const FloatMode mode;
    (*static_cast<const Body*>(argument))(worker);
  };
  void* const argument = const_cast<void*>(static_cast<const void*>(&body));
  if (custom.run)
    custom.run(custom.context, workers, task, argument);
  else
    run_workers(workers, task, argument);
}

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
  std::atomic<std::int64_t> next{0};
  parallel_workers(workers, custom, [&](std::int64_t worker) {
    for (;;) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      body(static_cast<int>(worker), index);
    }
  });
}

}  // namespace multihead
