// SPDX-License-Identifier: Apache-2.0
// Products of tiles: the twin against Intel's description of TDPBF16PS, element by element; and where there are tiles,
// the processor against float64. Whether twin and processor have the same bits is printed there: that has not been seen
// on enough processors to be demanded.
#if defined(__x86_64__)

#include <gtest/gtest.h>
#include <immintrin.h>

#include <cstdio>

#include "core/tile_permission.hpp"
#include "kernels/region.hpp"
#include "kernels/standard.hpp"
#include "multihead/target.hpp"
#include "pair_model.hpp"

// clang-format off
MULTIHEAD_REGION_BEGIN("avx2,fma,f16c")
namespace multihead::twin {
namespace {
#include "kernels/vec_avx2.inl.hpp"
#include "kernels/dot_twin.inl.hpp"
#include "kernels/tile_twin.inl.hpp"
#include "kernels/described.inl.hpp"
#include "kernels/described_tiles.inl.hpp"
#include "tiles.inl.hpp"
}  // namespace
}  // namespace multihead::twin
MULTIHEAD_REGION_END

namespace multihead::processor {
namespace {
#include "kernels/tiles.inl.hpp"
#include "tiles.inl.hpp"
}  // namespace
}  // namespace multihead::processor
// clang-format on

namespace multihead::testing {
namespace {

constexpr int kRows = 16, kColumns = 16, kPairs = 16;

// Tiles within longer rows, so that strides count.
struct Product {
  static constexpr int kStride = 20;  // words
  float a[kRows * kStride], b[kPairs * kStride], c[kRows * kStride];

  static float odd(float pair) { return from_bits(to_bits(pair) & 0xFFFF0000u); }
  static float even(float pair) { return from_bits(to_bits(pair) << 16); }

  float model(int row, int column) const {
    float evens = 0, odds = 0;
    for (int p = 0; p < kPairs; ++p) {
      const float x = a[row * kStride + p], y = b[p * kStride + column];
      evens = step(even(x), even(y), evens);
      odds = step(odd(x), odd(y), odds);
    }
    return step(1, step(1, odds, evens), c[row * kStride + column]);
  }
  // The same in float64, and what a rounding of any of its steps could come to.
  double truth(int row, int column, double& unit) const {
    double sum = static_cast<double>(c[row * kStride + column]), size = std::fabs(sum);
    for (int p = 0; p < kPairs; ++p)
      for (const auto half : {even, odd}) {
        const double product =
            static_cast<double>(half(a[row * kStride + p])) * static_cast<double>(half(b[p * kStride + column]));
        sum += product, size += std::fabs(product);
      }
    unit = size * 0x1p-23;
    return sum;
  }
};

template <class Number>
Product drawn(const Number& number) {
  Product product;
  for (float& x : product.a) x = number(true);
  for (float& x : product.b) x = number(true);
  for (float& x : product.c) x = number(false);
  return product;
}

Product drawn_of_every_kind(Draw& draw) {
  return drawn([&](bool pair) { return pair ? draw.pair() : draw.number(); });
}
Product drawn_ordinary(Random& random) {
  const auto half = [&] { return to_bits(static_cast<float>(random.normal())) >> 16; };
  return drawn(
      [&](bool pair) { return pair ? from_bits(half() << 16 | half()) : static_cast<float>(random.normal()); });
}

using Multiply = void (*)(const float* a, const float* b, float* c, std::int64_t stride);

int differences(const Product& product, const Product& other) {
  int found = 0;
  for (int i = 0; i < kRows * Product::kStride; ++i) found += !alike(product.c[i], other.c[i]);
  return found;
}

void expect_as_the_model(const Product& product) {
  Product wanted = product, got = product;
  for (int row = 0; row < kRows; ++row)
    for (int column = 0; column < kColumns; ++column)
      wanted.c[row * Product::kStride + column] = product.model(row, column);
  twin::multiply(got.a, got.b, got.c, Product::kStride * 4);
  EXPECT_EQ(differences(got, wanted), 0);
}

TEST(Tiles, TheModelByHand) {
  Product product = drawn([](bool) { return 0.0f; });
  EXPECT_EQ(product.model(0, 0), 0.0f);
  product.a[0] = from_bits(0x40003F80), product.b[0] = from_bits(0x40404080);  // 1 x 4 + 2 x 3
  EXPECT_EQ(product.model(0, 0), 10.0f);
  // The odd elements by themselves: 2^24 + 1 - 2^24 is 0 in one chain, and 1 in two.
  product.a[0] = from_bits(0x3F804B80), product.b[0] = from_bits(0x3F803F80);
  product.a[1] = from_bits(0x0000CB80), product.b[Product::kStride] = from_bits(0x00003F80);
  EXPECT_EQ(product.model(0, 0), 1.0f);
  product.c[0] = 0x1p-127f;  // counts as zero
  EXPECT_EQ(product.model(0, 0), 1.0f);
}

TEST(Tiles, TheTwinDoesWhatTheInstructionsDo) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) GTEST_SKIP() << "no fused multiply-add";
  EXPECT_TRUE(twin::tiles_as_described());
  Draw draw(7);
  Random random(8);
  for (int round = 0; round < 500; ++round) {
    expect_as_the_model(drawn_of_every_kind(draw));
    expect_as_the_model(drawn_ordinary(random));
    Product small = drawn_ordinary(random);  // sums about the end of the normal range
    for (float& x : small.a) x = from_bits(to_bits(x) - (60u << 23) - (60u << 7));
    for (float& x : small.b) x = from_bits(to_bits(x) - (62u << 23) - (62u << 7));
    for (float& x : small.c) x *= 0x1p-122f;
    expect_as_the_model(small);
  }
}

TEST(Tiles, TheProcessorComesNear) {
  if (!tiles_permitted()) GTEST_SKIP() << "the processor has no tiles, or the operating system keeps them back";
  Random random(9);
  int differing = 0, elements = 0;
  for (int round = 0; round < 500; ++round) {
    const Product product = drawn_ordinary(random);
    Product got = product, of_twin = product;
    processor::multiply(got.a, got.b, got.c, Product::kStride * 4);
    twin::multiply(of_twin.a, of_twin.b, of_twin.c, Product::kStride * 4);
    differing += differences(got, of_twin), elements += kRows * kColumns;
    for (int row = 0; row < kRows; ++row)
      for (int column = 0; column < kColumns; ++column) {
        double unit = 0;
        const double truth = product.truth(row, column, unit);
        ASSERT_NEAR(static_cast<double>(got.c[row * Product::kStride + column]), truth, unit);
      }
  }
  std::printf("of %d elements the processor gave %d other bits than its twin\n", elements, differing);
}

}  // namespace
}  // namespace multihead::testing

#endif  // defined(__x86_64__)
