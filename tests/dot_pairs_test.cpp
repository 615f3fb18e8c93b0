// SPDX-License-Identifier: Apache-2.0
// Products of pairs of bfloat16: the twin, and where there is one the processor, against Intel's description of
// VDPBF16PS and VCVTNE2PS2BF16, element by element.
#if defined(__x86_64__)

#include <gtest/gtest.h>
#include <immintrin.h>

#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "multihead/target.hpp"
#include "pair_model.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

// clang-format off
MULTIHEAD_REGION_BEGIN("avx2,fma,f16c")
namespace multihead::twin {
namespace {
#include "kernels/vec_avx2.inl.hpp"
#include "kernels/dot_twin.inl.hpp"
#include "kernels/described.inl.hpp"
#include "dot_pairs.inl.hpp"
}  // namespace
}  // namespace multihead::twin
MULTIHEAD_REGION_END

MULTIHEAD_REGION_BEGIN("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace multihead::processor {
namespace {
#include "kernels/vec_avx512.inl.hpp"
#include "kernels/vec_avx512bf16.inl.hpp"
#include "dot_pairs.inl.hpp"
}  // namespace
}  // namespace multihead::processor
MULTIHEAD_REGION_END
// clang-format on

namespace multihead::testing {
namespace {

float model_dot(float a, float b, float sum) {
  const auto odd = [](float x) { return from_bits(to_bits(x) & 0xFFFF0000u); };
  const auto even = [](float x) { return from_bits(to_bits(x) << 16); };
  return step(even(a), even(b), step(odd(a), odd(b), sum));
}

std::uint32_t model_half(float x) {
  if (std::isnan(x)) return to_bits(x) >> 16 | 0x40u;
  const std::uint32_t bits = to_bits(no_subnormal(x));
  return (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}

using Dot = void (*)(const float*, const float*, float*);

int wrong_dots(int lanes, Dot dot) {
  Draw draw(5);
  int wrong = 0;
  for (int round = 0; round < 200000; ++round) {
    float a[16], b[16], sum[16], wanted[16];
    for (int i = 0; i < lanes; ++i) {
      a[i] = draw.pair(), b[i] = draw.pair();
      sum[i] = round % 3 == 0 ? draw.opposite(a[i], b[i]) : draw.number();
      wanted[i] = model_dot(a[i], b[i], sum[i]);
    }
    dot(a, b, sum);
    for (int i = 0; i < lanes; ++i) wrong += !alike(sum[i], wanted[i]);
  }
  return wrong;
}

int wrong_packs(int lanes, Dot pack) {
  Draw draw(6);
  int wrong = 0;
  for (int round = 0; round < 200000; ++round) {
    float even[16], odd[16], pair[16];
    for (int i = 0; i < lanes; ++i) even[i] = draw.number(), odd[i] = draw.number();
    pack(even, odd, pair);
    for (int i = 0; i < lanes; ++i) wrong += to_bits(pair[i]) != (model_half(odd[i]) << 16 | model_half(even[i]));
  }
  return wrong;
}

int wrong_splats(int lanes, void (*splat)(const std::uint16_t*, float*)) {
  int wrong = 0;
  for (std::uint16_t low : {0x0000, 0x0001, 0x3F80, 0x7F81, 0xFFFF}) {  // a signalling NaN among them
    const std::uint16_t pair[2] = {low, 0x7F81};
    float all[16];
    splat(pair, all);
    for (int i = 0; i < lanes; ++i) wrong += to_bits(all[i]) != (0x7F810000u | low);
  }
  return wrong;
}

TEST(DotPairs, TheModelByHand) {
  const auto pair = [](std::uint32_t odd, std::uint32_t even) { return from_bits(odd << 16 | even); };
  EXPECT_EQ(model_dot(pair(0x3F80, 0x4000), pair(0x4040, 0x4080), 1.0f), 1 + 1 * 3 + 2 * 4);
  // The odd product first: 2^24 + 1 is lost to the even number, whichever comes second is not.
  EXPECT_EQ(model_dot(pair(0x3F80, 0xBF80), pair(0x3F80, 0x4B80), 0x1p24f), 0.0f);
  // Subnormal elements, and a subnormal sum, are zeros; a normal result stays, and one below the range is zero.
  EXPECT_EQ(model_dot(pair(0x007F, 0), pair(0x7F00, 0), 0.0f), 0.0f);
  EXPECT_EQ(model_dot(pair(0, 0), pair(0, 0), 0x1p-127f), 0.0f);
  EXPECT_EQ(step(0x1p-63f, 0x1p-63f, 0), 0x1p-126f);
  EXPECT_EQ(step(0x1p-64f, 0x1p-63f, 0), 0.0f);
  // Half a unit of 24 digits under the smallest normal number ties up to it; a whole one is below, though a subnormal
  // number's fewer digits would tie up as well.
  EXPECT_EQ(step(-0x1p-76f, 0x1p-75f, 0x1p-126f), 0x1p-126f);
  EXPECT_EQ(std::fma(-0x1p-75f, 0x1p-75f, 0x1p-126f), 0x1p-126f);
  EXPECT_EQ(step(-0x1p-75f, 0x1p-75f, 0x1p-126f), 0.0f);
  EXPECT_EQ(model_half(1.00390625f), 0x3F80u);  // ties to even
  EXPECT_EQ(model_half(1.01171875f), 0x3F82u);
}

TEST(DotPairs, TheTwinDoesWhatTheInstructionsDo) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) GTEST_SKIP() << "no fused multiply-add";
  EXPECT_EQ(wrong_dots(twin::kLanes, twin::dot), 0);
  EXPECT_EQ(wrong_packs(twin::kLanes, twin::pack), 0);
  EXPECT_EQ(wrong_splats(twin::kLanes, twin::splat), 0);
  EXPECT_TRUE(twin::dots_as_described());
}

TEST(DotPairs, TheProcessorDoesToo) {
  if (!__builtin_cpu_supports("avx512bf16")) GTEST_SKIP() << "the processor has no VDPBF16PS";
  if (wrong_dots(processor::kLanes, processor::dot) > 0) {  // the target then does not run on these instructions
    const std::vector<Target> targets = available_targets();
    const auto place = [&](Target target) { return std::find(targets.begin(), targets.end(), target); };
    const bool native = place(Target::avx512bf16) < place(Target::baseline);
    ASSERT_FALSE(native);
    GTEST_SKIP() << "the processor's VDPBF16PS rounds otherwise than its manual says: avx512bf16 is not available";
  }
  EXPECT_EQ(wrong_packs(processor::kLanes, processor::pack), 0);
  EXPECT_EQ(wrong_splats(processor::kLanes, processor::splat), 0);
}

}  // namespace
}  // namespace multihead::testing

#endif  // defined(__x86_64__)
