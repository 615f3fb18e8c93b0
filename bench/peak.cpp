// SPDX-License-Identifier: Apache-2.0
// The peak loops, one a target.
#include "peak.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "kernels/table.hpp"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__GNUC__) && !defined(__clang__)
// False in g++ 12, about its own _mm512_max_ps and the like.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(__x86_64__)
MULTIHEAD_REGION_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace multihead::avx512 {
namespace {
#include "kernels/vec_avx512.inl.hpp"
//
#include "peak.inl.hpp"
}  // namespace
}  // namespace multihead::avx512
MULTIHEAD_REGION_END
MULTIHEAD_REGION_BEGIN("avx2,fma")
namespace multihead::avx2 {
namespace {
#include "kernels/vec_avx2.inl.hpp"
//
#include "peak.inl.hpp"
}  // namespace
}  // namespace multihead::avx2
MULTIHEAD_REGION_END
#elif defined(__aarch64__)
namespace multihead::neon {
namespace {
#include "kernels/vec_neon.inl.hpp"
//
#include "peak.inl.hpp"
}  // namespace
}  // namespace multihead::neon
#endif
namespace multihead::baseline {
namespace {
#include "kernels/vec_baseline.inl.hpp"
//
#include "peak.inl.hpp"
}  // namespace
}  // namespace multihead::baseline

namespace multihead::bench {

namespace {

struct Loop {
  float (*run)(std::int64_t rounds);
  int lanes;
};

Loop loop_of(Target target) {
#if defined(__x86_64__)
  if (target == Target::avx512) return {avx512::chains, 16};
  if (target == Target::avx2) return {avx2::chains, 8};
#elif defined(__aarch64__)
  if (target == Target::neon) return {neon::chains, 4};
#endif
  return {baseline::chains, 4};
}

constexpr int kAdditionsInARound = 32;

// Additions that wait for each other: one a cycle, which gives the clock. Many a round, so that the loop costs nothing.
std::int64_t dependent_additions(std::int64_t rounds) {
  std::int64_t x = rounds;
  for (std::int64_t round = 0; round < rounds; ++round) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < kAdditionsInARound; ++i) {
      asm volatile("" : "+r"(x));
      x += round;
    }
  }
  return x;
}

template <class Function>
double best_seconds(const Function& function) {
  double best = 1e9;
  for (int run = 0; run < 8; ++run) {
    const auto start = std::chrono::steady_clock::now();
    volatile auto result = function();
    static_cast<void>(result);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

Peak measure_peak(Target target) {
  constexpr std::int64_t kRounds = 200000, kChains = 12, kClockRounds = 50000;
  const Loop loop = loop_of(target);
  const double per_second = static_cast<double>(kRounds * kChains) / best_seconds([&] { return loop.run(kRounds); });
  const double clock = static_cast<double>(kClockRounds * kAdditionsInARound) /
                       best_seconds([] { return dependent_additions(kClockRounds); });
  return {per_second * loop.lanes * 2, per_second / clock};
}

}  // namespace multihead::bench
