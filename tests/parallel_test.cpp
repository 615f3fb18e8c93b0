// SPDX-License-Identifier: Apache-2.0
// Threads: none with one, shared by concurrent callers, asleep when idle, alive after a fork; the caller's own loop;
// and no allocation once a thread has been here before.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "allocations.hpp"
#include "core/parallel.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace multihead::testing {
namespace {

std::int64_t threads_of_this_process() {
  std::int64_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) ++count;
  return count;
}

// A problem with several tasks, and its answer's bits.
struct Work {
  Tensor<float> q{{1, 4, 200, 32}}, k{{1, 4, 200, 32}}, v{{1, 4, 200, 32}};
  Work() {
    Random random(1);
    for (Tensor<float>* tensor : {&q, &k, &v}) tensor->fill_normal(random);
  }
  std::uint64_t run(const AttentionOptions& options) const {
    Tensor<float> out({1, 4, 200, 32});
    attention(View4<const float>(q.view), View4<const float>(k.view), View4<const float>(v.view), out.view, options);
    return hash_bits<float>(out.view);
  }
};

#if defined(__linux__)
// In a child, where no earlier test has made a pool.
TEST(Parallel, OneThreadCreatesNone) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const Work work;
    work.run({.threads = 1});
    _exit(threads_of_this_process() == 1 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Parallel, ForkIsSurvived) {
  const Work work;
  const std::uint64_t wanted = work.run({.threads = 3});
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(work.run({.threads = 3}) == wanted ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(work.run({.threads = 3}), wanted);
}

TEST(Parallel, IdleThreadsSleep) {
  const Work work;
  work.run({.threads = 4});
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  getrusage(RUSAGE_SELF, &after);
  const auto micros = [](const rusage& use) {
    return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000 + use.ru_utime.tv_usec + use.ru_stime.tv_usec;
  };
  EXPECT_LT(micros(after) - micros(before), 100000);  // one busy thread would use 300000
}
#endif

TEST(Parallel, ConcurrentCallers) {
  const Work work;
  const std::uint64_t wanted = work.run({.threads = 1});
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 6; ++caller)
    callers.emplace_back([&, caller] {
      for (int i = 0; i < 8; ++i) wrong += work.run({.threads = 1 + (caller + i) % 4}) != wanted;
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Parallel, EveryIndexOnceAndWorkersApart) {
  for (int threads : {1, 2, 5}) {
    std::vector<std::atomic<int>> seen(1000);
    std::vector<std::atomic<int>> inside(5);
    std::atomic<int> clashes{0};
    parallel_for(1000, threads, {}, [&](int worker, std::int64_t index) {
      auto& busy = inside[static_cast<std::size_t>(worker)];
      clashes += busy.fetch_add(1) != 0;
      ++seen[static_cast<std::size_t>(index)];
      busy.fetch_sub(1);
    });
    for (auto& count : seen) EXPECT_EQ(count, 1);
    EXPECT_EQ(clashes, 0);
  }
}

TEST(Parallel, TheCallersOwnLoop) {
  const Work work;
  const std::uint64_t wanted = work.run({.threads = 1});
  struct Loop {
    std::int64_t calls = 0, most = 0;
  } loop;
  const ParallelFor backwards{[](void* context, std::int64_t count, ParallelFor::Task task, void* argument) {
                                auto& counted = *static_cast<Loop*>(context);
                                ++counted.calls;
                                counted.most = std::max(counted.most, count);
                                for (std::int64_t index = count; index-- > 0;) task(argument, index);
                              },
                              &loop};
  EXPECT_EQ(work.run({.threads = 3, .parallel_for = backwards}), wanted);
  EXPECT_EQ(loop.calls, 1);
  EXPECT_LE(loop.most, 3);
}

// A caller's loop that calls the library again from inside, as a work-stealing scheduler may.
TEST(Parallel, ACallInsideACall) {
  const Work work;
  const std::uint64_t wanted = work.run({.threads = 1});
  struct Nested {
    const Work& work;
    std::uint64_t inner = 0;
  } nested{work};
  const ParallelFor steals{[](void* context, std::int64_t count, ParallelFor::Task task, void* argument) {
                             auto& inside = *static_cast<Nested*>(context);
                             inside.inner = inside.work.run({.threads = 1});
                             for (std::int64_t index = 0; index < count; ++index) task(argument, index);
                           },
                           &nested};
  EXPECT_EQ(work.run({.threads = 2, .parallel_for = steals}), wanted);
  EXPECT_EQ(nested.inner, wanted);
}

TEST(Parallel, NoAllocationAfterTheFirstCall) {
  const Matrix<double> X{{1, 0, 1}, {0, 1, 1}}, W{{1, 2, 3, 4, 5, 6}, {2, 1, 0, 1, 2, 3}, {0, 1, 0, 2, 0, 3}};
  const Matrix<double> Wo{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  Matrix<double> output(2, 3);
  const Work work;
  Tensor<float> out({1, 4, 200, 32});
  for (int threads : {1, 3}) {
    std::int64_t before = 0;
    for (int call = 0; call < 3; ++call) {
      if (call == 1) before = allocations;
      multi_head_attention(X, W, W, W, Wo, 2, output, {.threads = threads});
      attention(View4<const float>(work.q.view), View4<const float>(work.k.view), View4<const float>(work.v.view),
                out.view, {.causal = true, .threads = threads});
    }
    EXPECT_EQ(allocations, before) << threads << " threads";
  }
}

// With scratch of the caller's, not even the first call allocates.
TEST(Parallel, NoAllocationWithTheCallersScratch) {
  std::thread([] {  // a thread that has kept nothing yet
    const Work work;
    Tensor<float> out({1, 4, 200, 32});
    const AttentionShape shape{Type::float32, 1, 4, 4, 200, 200, 32, 32};
    std::vector<std::byte> scratch(attention_scratch_bytes(shape));
    chosen_target();
    const std::int64_t before = allocations;
    attention(View4<const float>(work.q.view), View4<const float>(work.k.view), View4<const float>(work.v.view),
              out.view, {.scratch = scratch});
    EXPECT_EQ(allocations, before);
  })
      .join();
}

}  // namespace
}  // namespace multihead::testing
