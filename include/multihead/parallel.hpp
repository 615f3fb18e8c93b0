// SPDX-License-Identifier: Apache-2.0
// Threads: how many, or the caller's own parallel loop. No result depends on either.
#pragma once

#include <cstdint>

namespace multihead {

// The caller's parallel loop. run must call task(argument, index) exactly once for each index in [0, count), on any
// threads and in any order, and return when all have finished. task never throws. Empty means the library's own pool.
struct ParallelFor {
  using Task = void (*)(void* argument, std::int64_t index);
  void (*run)(void* context, std::int64_t count, Task task, void* argument) = nullptr;
  void* context = nullptr;
};

// Threads of the machine the process may use; at least 1.
int hardware_threads() noexcept;

}  // namespace multihead
