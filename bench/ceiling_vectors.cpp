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

namespace multihead::bench {
namespace {

// The loops of a target.
template <class T>
struct LoopsOf {
  T (*chains)(std::int64_t rounds);
  T (*softmax)(std::int64_t rounds);    // of one register a round
  T (*softmax_2)(std::int64_t rounds);  // of two
  T (*softmax_4)(std::int64_t rounds);
  T (*(*beside_softmax)(int products))(std::int64_t rounds);
};

struct Loops {
  LoopsOf<float> f32;
  LoopsOf<double> f64;
  float (*loads)(const float* values, std::int64_t count);
  int bytes;  // of a register
};

}  // namespace
}  // namespace multihead::bench

#if defined(__x86_64__)
MULTIHEAD_REGION_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace multihead::avx512 {
namespace {
#include "kernels/vec_avx512.inl.hpp"
//
#include "kernels/exp2.inl.hpp"
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
#include "kernels/exp2.inl.hpp"
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
#include "kernels/exp2.inl.hpp"
//
#include "ceilings.inl.hpp"
}  // namespace
}  // namespace multihead::neon
#endif
namespace multihead::baseline {
namespace {
#include "kernels/vec_baseline.inl.hpp"
//
#include "kernels/exp2.inl.hpp"
//
#include "ceilings.inl.hpp"
}  // namespace
}  // namespace multihead::baseline

namespace multihead::bench {

namespace {

// By name: targets that only replace some products of avx512 multiply and add as it does. Emulated ones have no ceiling
// of their own.
Loops loops_of(Target target) {
  const std::string_view name = target_name(target);
#if defined(__x86_64__)
  const bool wide = name.starts_with("avx512") || name == "amx";
  if (wide && __builtin_cpu_supports("avx512f")) return avx512::loops();
  if (wide || name == "avx2") return avx2::loops();
#elif defined(__aarch64__)
  if (name == "neon") return neon::loops();
#endif
  static_cast<void>(name);
  return baseline::loops();
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

// Calls use with the loops of the type, and lanes of a register.
auto with_loops(Type type, Target target, const auto& use) {
  const Loops loops = loops_of(target);
  return type == Type::float64 ? use(loops.f64, loops.bytes / 8.0) : use(loops.f32, loops.bytes / 4.0);
}

}  // namespace

double multiply_adds(Type type, Target target) {
  constexpr std::int64_t kRounds = 200000, kChains = 12;
  return with_loops(type, target, [](const auto& loops, double lanes) {
    return 2 * lanes * static_cast<double>(kRounds * kChains) / run_seconds([&] { return loops.chains(kRounds); });
  });
}

double softmax_scores(Type type, Target target) {
  constexpr std::int64_t kRegisters = 80000;
  return with_loops(type, target, [](const auto& loops, double lanes) {
    const double seconds = std::min({run_seconds([&] { return loops.softmax(kRegisters); }),
                                     run_seconds([&] { return loops.softmax_2(kRegisters / 2); }),
                                     run_seconds([&] { return loops.softmax_4(kRegisters / 4); })});
    return lanes * static_cast<double>(kRegisters) / seconds;
  });
}

double multiply_adds_beside_softmax(Type type, int products, Target target) {
  const std::int64_t rounds = 1200000 / products;
  return with_loops(type, target, [&](const auto& loops, double lanes) {
    const auto loop = loops.beside_softmax(products);
    return loop ? 2 * lanes * static_cast<double>(rounds * products) / run_seconds([&] { return loop(rounds); }) : 0.0;
  });
}

double clock_rate() {
  constexpr std::int64_t kRounds = 50000;
  return static_cast<double>(kRounds * kAdditionsInARound) / run_seconds([] { return dependent_additions(kRounds); });
}

double reads(std::span<const float> values, Target target) {
  const Loops loops = loops_of(target);
  const auto passes = static_cast<std::int64_t>((std::size_t{1} << 22) / values.size_bytes() + 1);
  const double seconds = run_seconds([&] {
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
