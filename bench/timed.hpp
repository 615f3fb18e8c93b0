// SPDX-License-Identifier: Apache-2.0
// Times of calls: the best of several, processor time, and the median of turns.
#pragma once

#include <algorithm>
#include <chrono>
#include <ctime>
#include <vector>

namespace multihead::bench {

// Seconds on the clock of the fastest of eight runs; what a run returns counts as used.
double best_seconds(const auto& run) {
  double best = 1e9;
  for (int i = 0; i < 8; ++i) {
    const auto start = std::chrono::steady_clock::now();
    volatile auto result = run();
    static_cast<void>(result);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// Seconds on the clock, for calls that take several threads.
double wall_seconds(const auto& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Processor time, for calls that run in this thread: others may be at work beside it.
double seconds(const auto& call) {
  const std::clock_t start = std::clock();
  call();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace multihead::bench
