// SPDX-License-Identifier: Apache-2.0
// Multiply-adds and loads in the registers of each target, the clock, and which ceiling is whose.
#include <cstdint>

#include "ceilings.hpp"
#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "kernels/table.hpp"
#include "timed.hpp"
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
#include "ceilings.inl.hpp"
}  // namespace
}  // namespace multihead::avx512
MULTIHEAD_REGION_END
MULTIHEAD_REGION_BEGIN("avx2,fma")
namespace multihead::avx2 {
namespace {
#include "kernels/vec_avx2.inl.hpp"
//
#include "ceilings.inl.hpp"
}  // namespace
}  // namespace multihead::avx2
MULTIHEAD_REGION_END
#elif defined(__aarch64__)
namespace multihead::neon {
namespace {
#include "kernels/vec_neon.inl.hpp"
//
#include "ceilings.inl.hpp"
}  // namespace
}  // namespace multihead::neon
#endif
namespace multihead::baseline {
namespace {
#include "kernels/vec_baseline.inl.hpp"
//
#include "ceilings.inl.hpp"
}  // namespace
}  // namespace multihead::baseline

namespace multihead::bench {

namespace {

struct Loops {
  float (*chains_f32)(std::int64_t rounds);
  double (*chains_f64)(std::int64_t rounds);
  float (*loads)(const float* values, std::int64_t count);
  int bytes;  // of a register
};

// By name: targets that only replace some products of avx512 multiply and add as it does. Emulated ones have no ceiling
// of their own.
Loops loops_of(Target target) {
  const std::string_view name = target_name(target);
#if defined(__x86_64__)
  const bool wide = name.starts_with("avx512") || name == "amx";
  if (wide && __builtin_cpu_supports("avx512f"))
    return {avx512::chains<float>, avx512::chains<double>, avx512::loads, 64};
  if (wide || name == "avx2") return {avx2::chains<float>, avx2::chains<double>, avx2::loads, 32};
#elif defined(__aarch64__)
  if (name == "neon") return {neon::chains<float>, neon::chains<double>, neon::loads, 16};
#endif
  static_cast<void>(name);
  return {baseline::chains<float>, baseline::chains<double>, baseline::loads, 16};
}

constexpr int kAdditionsInARound = 32;

// Additions that wait for each other. Many a round, so that the loop costs nothing.
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

}  // namespace

double multiply_adds(Type type, Target target) {
  constexpr std::int64_t kRounds = 200000, kChains = 12;
  const Loops loops = loops_of(target);
  const double seconds = type == Type::float64 ? best_seconds([&] { return loops.chains_f64(kRounds); })
                                               : best_seconds([&] { return loops.chains_f32(kRounds); });
  const double lanes = loops.bytes / (type == Type::float64 ? 8.0 : 4.0);
  return 2 * lanes * static_cast<double>(kRounds * kChains) / seconds;
}

double clock_rate() {
  constexpr std::int64_t kRounds = 50000;
  return static_cast<double>(kRounds * kAdditionsInARound) / best_seconds([] { return dependent_additions(kRounds); });
}

double reads(std::span<const float> values, Target target) {
  const Loops loops = loops_of(target);
  const auto passes = static_cast<std::int64_t>((std::size_t{1} << 22) / values.size_bytes() + 1);
  const double seconds = best_seconds([&] {
    float sum = 0;
    for (std::int64_t pass = 0; pass < passes; ++pass)
      sum += loops.loads(values.data(), static_cast<std::int64_t>(values.size()));
    return sum;
  });
  return static_cast<double>(passes) * static_cast<double>(values.size_bytes()) / seconds;
}

double ceiling_of(Type type, Target target) {
  const std::string_view name = target_name(target);
  if (type == Type::bfloat16 && name == "avx512bf16") return bfloat16_dots();
  if (type == Type::bfloat16 && name == "amx") return bfloat16_tiles();
  if (type == Type::float32 && name == "amx") return bfloat16_tiles() / 6;
  return multiply_adds(type == Type::float64 ? type : Type::float32, target);
}

}  // namespace multihead::bench
