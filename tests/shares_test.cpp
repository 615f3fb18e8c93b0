// SPDX-License-Identifier: Apache-2.0
// Shares of tasks: each task once, whoever runs them and in whatever order workers come; runs of tasks stay together.
#include "core/shares.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace multihead::testing {
namespace {

TEST(Shares, EveryIndexOnceAndWorkersApart) {
  for (int threads : {1, 2, 3, 5, 70, 200})
    for (std::int64_t count : {0, 1, 2, 7, 64, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count)), inside(200);
      std::atomic<int> clashes{0};
      parallel_shares(count, threads, {}, [&](int worker, std::int64_t index) {
        auto& busy = inside[static_cast<std::size_t>(worker)];
        clashes += busy.fetch_add(1) != 0;
        ++seen[static_cast<std::size_t>(index)];
        busy.fetch_sub(1);
      });
      for (auto& times : seen) EXPECT_EQ(times, 1) << threads << " threads, " << count << " tasks";
      EXPECT_EQ(clashes, 0);
    }
}

// A caller's loop in one thread, the last worker first: it takes all, its own share and then halves of the others'.
TEST(Shares, OneWorkerTakesAllInRuns) {
  const ParallelFor backwards{[](void*, std::int64_t count, ParallelFor::Task task, void* argument) {
                                for (std::int64_t index = count; index-- > 0;) task(argument, index);
                              },
                              nullptr};
  std::vector<std::int64_t> order;
  parallel_shares(32, 2, backwards, [&](int worker, std::int64_t index) {
    EXPECT_EQ(worker, 1);
    order.push_back(index);
  });
  std::vector<std::int64_t> wanted;
  for (const auto& [begin, end] : {std::pair{16, 32}, {8, 16}, {4, 8}, {2, 4}, {1, 2}, {0, 1}})
    for (std::int64_t index = begin; index < end; ++index) wanted.push_back(index);
  EXPECT_EQ(order, wanted);
}

// Two workers who both go on keep to their shares.
TEST(Shares, WorkersKeepToTheirs) {
  Shares shares(10, 2);
  std::vector<std::int64_t> first, second;
  shares.work(0, [&](std::int64_t index) {
    first.push_back(index);
    if (index == 0) shares.work(1, [&](std::int64_t other) { second.push_back(other); });
  });
  EXPECT_EQ(first, (std::vector<std::int64_t>{0}));  // the second came to its end meanwhile, and took the rest
  EXPECT_EQ(second, (std::vector<std::int64_t>{5, 6, 7, 8, 9, 3, 4, 2, 1}));
}

// The owner takes from the front while others rob from the end: no task is lost or doubled.
TEST(Shares, OwnerAndRobbers) {
  constexpr std::int64_t kTasks = 20000;
  Share share;
  share.put(0, kTasks);
  std::vector<std::atomic<int>> seen(kTasks);
  std::vector<std::thread> robbers;
  for (int robber = 0; robber < 3; ++robber)
    robbers.emplace_back([&, robber] {
      std::int64_t begin = 0, end = 0;
      while (share.left() > kTasks / 2 && share.rob(robber == 0 && share.left() < kTasks * 3 / 4, begin, end))
        for (; begin < end; ++begin) ++seen[static_cast<std::size_t>(begin)];
    });
  for (std::int64_t index; (index = share.take()) >= 0;) ++seen[static_cast<std::size_t>(index)];
  for (std::thread& robber : robbers) robber.join();
  for (auto& times : seen) ASSERT_EQ(times, 1);
  EXPECT_LE(share.left(), 0);
  EXPECT_EQ(share.take(), -1);
}

}  // namespace
}  // namespace multihead::testing
