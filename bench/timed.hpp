// SPDX-License-Identifier: Apache-2.0
// Times of calls: the best of several, processor time, and the median of turns.
#pragma once

#include <algorithm>
#include <chrono>
#include <ctime>
#include <vector>

namespace multihead::bench {

// Seconds in which run_seconds() runs again and again; 0: it runs eight times.
inline thread_local double averaged_for = 0;

// Seconds on the clock of a run: of eight the fastest, or the mean of all in averaged_for, as a clock that moves has
// it. What a run returns counts as used.
double run_seconds(const auto& run) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  double best = 1e9, passed = 0;
  int runs = 0;
  for (const Clock::time_point begin = Clock::now(); runs < 8 || passed < averaged_for; ++runs) {
    const Clock::time_point start = Clock::now();
    volatile auto result = run();
    static_cast<void>(result);
    best = std::min(best, since(start)), passed = since(begin);
  }
  return averaged_for > 0 ? passed / runs : best;
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
