// SPDX-License-Identifier: Apache-2.0
// Fork and join over tasks of which one makes ready what the next reads: each worker keeps to a run of them.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <limits>

#include "core/parallel.hpp"
#include "core/scratch.hpp"

namespace multihead {

// The tasks [begin, end) that nobody has begun, of which the owner takes the first and others take from the end. Both
// bounds are one word, so that no task is ever in two hands.
class alignas(kCacheLine) Share {
 public:
  void put(std::int64_t begin, std::int64_t end) noexcept {
    bounds_.store(joined(begin, end), std::memory_order_relaxed);
  }
  std::int64_t left() const noexcept { return left_of(bounds_.load(std::memory_order_relaxed)); }

  // The first; -1 where there is none. For the owner alone, who asks no more before he has put tasks in anew.
  std::int64_t take() noexcept {
    const std::uint64_t bounds = bounds_.fetch_add(1, std::memory_order_relaxed);
    return left_of(bounds) > 0 ? begin_of(bounds) : -1;
  }

  // Takes the later half, the larger where they differ, or else the last task alone, as [begin, end).
  bool rob(bool half, std::int64_t& begin, std::int64_t& end) noexcept {
    std::uint64_t bounds = bounds_.load(std::memory_order_relaxed);
    do {
      const std::int64_t left = left_of(bounds);
      if (left <= 0) return false;
      end = end_of(bounds);
      begin = end - (half ? (left + 1) / 2 : 1);
    } while (!bounds_.compare_exchange_weak(bounds, joined(begin_of(bounds), begin), std::memory_order_relaxed));
    return true;
  }

 private:
  static std::uint64_t joined(std::int64_t begin, std::int64_t end) noexcept {
    return static_cast<std::uint64_t>(end) << 32 | static_cast<std::uint64_t>(begin);
  }
  static std::int64_t begin_of(std::uint64_t bounds) noexcept { return static_cast<std::uint32_t>(bounds); }
  static std::int64_t end_of(std::uint64_t bounds) noexcept { return static_cast<std::int64_t>(bounds >> 32); }
  static std::int64_t left_of(std::uint64_t bounds) noexcept { return end_of(bounds) - begin_of(bounds); }

  std::atomic<std::uint64_t> bounds_{0};
};

// The shares of a call's workers. Workers past the last share have none, and rob one task at a time.
class Shares {
 public:
  Shares(std::int64_t count, std::int64_t workers) noexcept : shares_(std::min(workers, kMost)) {
    for (std::int64_t share = 0; share < shares_; ++share)
      at(share).put(share * count / shares_, (share + 1) * count / shares_);
  }

  // body(index) for tasks until none is left.
  template <class Body>
  void work(std::int64_t worker, const Body& body) noexcept {
    const bool owner = worker < shares_;
    std::int64_t begin = 0, end = 0;
    do {
      if (!owner)
        for (; begin < end; ++begin) body(begin);
      else if (begin < end)
        at(worker).put(begin, end);
      for (std::int64_t index; owner && (index = at(worker).take()) >= 0;) body(index);
    } while (rob(owner, begin, end));
  }

 private:
  static constexpr std::int64_t kMost = 64;

  Share& at(std::int64_t share) noexcept { return all_[static_cast<std::size_t>(share)]; }

  // From the share with the most left.
  bool rob(bool half, std::int64_t& begin, std::int64_t& end) noexcept {
    for (;;) {
      std::int64_t most = 0, fullest = 0;
      for (std::int64_t share = 0; share < shares_; ++share)
        if (const std::int64_t left = at(share).left(); left > most) most = left, fullest = share;
      if (most == 0) return false;
      if (at(fullest).rob(half, begin, end)) return true;
    }
  }

  std::int64_t shares_;
  std::array<Share, kMost> all_;
};

// parallel_for() for tasks that stand in an order of memory: calls body(worker, index) for every index in [0, count),
// each worker's mostly ascending one by one, so that a task may ask for what the next one reads. A worker who is done
// with his share goes on with the later half of another's. As to threads, workers and errors it is parallel_for().
template <class Body>
void parallel_shares(std::int64_t count, int threads, const ParallelFor& custom, const Body& body) {
  const std::int64_t workers = threads < count ? threads : count;
  if (workers <= 1 || count > std::numeric_limits<std::uint32_t>::max() / 2)
    return parallel_for(count, threads, custom, body);
  Shares shares(count, workers);
  parallel_workers(workers, custom, [&](std::int64_t worker) {
    shares.work(worker, [&](std::int64_t index) { body(static_cast<int>(worker), index); });
  });
}

}  // namespace multihead
