// SPDX-License-Identifier: Apache-2.0
// The thread pool: as many sleeping threads as the widest call so far needed.
#include "core/parallel.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__unix__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace multihead {

namespace {

// A thread that waits looks for so long, which is what falling asleep and being woken take, and then sleeps: the caller
// for the end of his call, a pool thread for the next call.
constexpr std::chrono::microseconds kLooking{20};

void pause() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whether it has come within kLooking.
template <class Condition>
bool look_for(const Condition& condition) noexcept {
  using Clock = std::chrono::steady_clock;
  constexpr int kBetween = 16;  // looks from clock to clock
  const Clock::time_point end = Clock::now() + kLooking;
  do {
    for (int look = 0; look < kBetween; ++look, pause())
      if (condition()) return true;
  } while (Clock::now() < end);
  return false;
}

// A call's workers, on the caller's stack and in the pool's list while some of them are still to be begun.
struct Job {
  ParallelFor::Task task;
  void* argument;
  std::int64_t next;            // the worker to begin next
  std::int64_t workers;         // past the last
  std::atomic<int> running{0};  // on pool threads
  Job* following = nullptr;
  std::condition_variable finished{};
};

class Pool {
 public:
  void run(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      grow(job.workers - 1);
      job.following = jobs_.load();
      jobs_ = &job;
    }
    for (std::int64_t worker = 1; worker < job.workers; ++worker) wake_.notify_one();
    job.task(job.argument, 0);
    const auto finished = [&] { return job.running == 0; };
    std::unique_lock lock(mutex_);
    unlist(job);
    if (finished()) return;
    look(lock, finished);
    job.finished.wait(lock, finished);
  }

 private:
  void grow(std::int64_t wanted) {
    constexpr std::int64_t kMost = 512;
    for (wanted = std::min(wanted, kMost); threads_ < wanted; ++threads_) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        return;  // fewer threads: the caller does the work
      }
    }
  }

  void serve() {
    std::unique_lock lock(mutex_);
    const auto called = [&] { return jobs_ != nullptr; };
    for (;;) {
      wake_.wait(lock, called);
      Job& job = *jobs_;
      const std::int64_t worker = job.next++;
      if (job.next == job.workers) jobs_ = job.following;
      ++job.running;
      lock.unlock();
      job.task(job.argument, worker);
      lock.lock();
      if (--job.running == 0) job.finished.notify_one();
      look(lock, called);
    }
  }

  // Without the lock, and only where each thread has a processor: else it would keep off those that it waits for.
  template <class Condition>
  void look(std::unique_lock<std::mutex>& lock, const Condition& condition) {
    if (threads_ >= processors_ || condition()) return;
    lock.unlock();
    look_for(condition);
    lock.lock();
  }

  void unlist(Job& job) {
    if (jobs_ == &job) {
      jobs_ = job.following;
      return;
    }
    for (Job* at = jobs_; at; at = at->following)
      if (at->following == &job) {
        at->following = job.following;
        return;
      }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<Job*> jobs_{nullptr};  // changed under the mutex
  std::int64_t threads_ = 0;
  const std::int64_t processors_ = hardware_threads();
};

// Never destroyed: its threads sleep until the process ends. A forked child has none of them, so it starts over.
std::atomic<Pool*> current_pool{nullptr};

Pool& pool() {
#if defined(__unix__)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { current_pool.store(nullptr); });
  static_cast<void>(registered);
#endif
  Pool* existing = current_pool.load(std::memory_order_acquire);
  if (existing) return *existing;
  Pool* fresh = new Pool;
  if (current_pool.compare_exchange_strong(existing, fresh, std::memory_order_acq_rel)) return *fresh;
  delete fresh;
  return *existing;
}

}  // namespace

void run_workers(std::int64_t workers, ParallelFor::Task task, void* argument) {
  Job job{.task = task, .argument = argument, .next = 1, .workers = workers};
  pool().run(job);
}

int hardware_threads() noexcept {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace multihead
