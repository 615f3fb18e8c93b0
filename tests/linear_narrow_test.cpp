// SPDX-License-Identifier: Apache-2.0
// Linear in bfloat16 and float16: its bits are those of the float32 layer of the same numbers, rounded once or not at
// all, but where bfloat16 is multiplied by itself (linear_pairs_test.cpp).
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "allocations.hpp"
#include "multihead/linear.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh,
                                       Activation::silu};

template <class T>
class NarrowLinearOf : public ::testing::Test {};
using Types = ::testing::Types<BFloat16, Float16>;
TYPED_TEST_SUITE(NarrowLinearOf, Types);

template <class T>
struct NarrowProblem {
  std::int64_t rows, in, out, x_stride, y_stride;
  WeightOrder order;
  std::vector<T> weight, bias, x;
  std::vector<float> wide_weight, wide_bias, wide_x;

  NarrowProblem(Random& random, std::array<std::int64_t, 3> extents, bool biased, WeightOrder given, int padding)
      : rows(extents[0]),
        in(extents[1]),
        out(extents[2]),
        x_stride(in + padding),
        y_stride(out + padding),
        order(given) {
    const auto fill = [&](std::vector<T>& narrow, std::vector<float>& wide, std::int64_t count, double scale) {
      for (std::int64_t i = 0; i < count; ++i) {
        narrow.push_back(T(static_cast<float>(random.normal() * scale)));
        wide.push_back(static_cast<float>(narrow.back()));
      }
    };
    fill(weight, wide_weight, in * out + 1, 0.2);
    fill(bias, wide_bias, biased ? out : 0, 0.5);
    fill(x, wide_x, rows * x_stride + 1, 2);
  }
  template <class E>
  MatrixView<const E> weight_view(const std::vector<E>& from) const {
    const bool plain = order == WeightOrder::in_out;
    return {from.data(), {plain ? in : out, plain ? out : in}};
  }
  Linear<T> layer() const { return Linear<T>(weight_view(weight), order, bias); }
  // The rows from first on.
  template <class C = T>
  std::vector<C> run(const Linear<T>& layer, Activation activation, const LayerOptions& options, std::int64_t first,
                     std::int64_t count) const {
    std::vector<C> y(static_cast<std::size_t>(count * y_stride + 1), C(77));
    layer.forward(MatrixView<const T>(x.data() + first * x_stride, {count, in}, {x_stride, 1}),
                  MatrixView<C>(y.data(), {count, out}, {y_stride, 1}), activation, options);
    return y;
  }
  std::vector<float> expected(Activation activation, Target target) const {
    std::vector<float> wide(static_cast<std::size_t>(rows * y_stride + 1), 77);
    Linear<float>(weight_view(wide_weight), order, wide_bias)
        .forward(MatrixView<const float>(wide_x.data(), {rows, in}, {x_stride, 1}),
                 MatrixView<float>(wide.data(), {rows, out}, {y_stride, 1}), activation, {.target = target});
    return wide;
  }
};

template <class T>
std::vector<T> rounded(const std::vector<float>& wide) {
  std::vector<T> y;
  for (float element : wide) y.push_back(T(element));
  return y;
}

template <class T>
void expect_same(const std::vector<T>& a, const std::vector<T>& b, std::size_t from, const std::string& where) {
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(a[i].bits, b[from + i].bits) << where << " element " << i << " of " << a.size();
}

TYPED_TEST(NarrowLinearOf, BitsAreThoseOfFloat32RoundedOnce) {
  using T = TypeParam;
  Random random(31);
  std::vector<std::array<std::int64_t, 3>> extents{{1, 1, 1},     {0, 5, 7},     {3, 0, 5},
                                                   {4, 9, 0},     {7, 300, 49},  {97, 257, 96},
                                                   {193, 20, 50}, {2, 513, 145}, {1, 1536, 40}};
  for (int i = 0; i < (quick_share() ? 8 : 40); ++i)
    extents.push_back({random.between(1, 120), random.between(1, 300), random.between(1, 110)});
  for (const auto& e : extents) {
    const NarrowProblem<T> p(random, e, random.chance(60), random.pick({WeightOrder::in_out, WeightOrder::out_in}),
                             static_cast<int>(random.between(0, 3)));
    for (Target target : available_targets())
      for (Activation activation : kActivations) {
        const std::string where = std::string(target_name(target)) + " " + std::to_string(e[0]) + "x" +
                                  std::to_string(e[1]) + "x" + std::to_string(e[2]);
        const std::vector<float> wide = p.template run<float>(p.layer(), activation, {.target = target}, 0, p.rows);
        expect_same(p.run(p.layer(), activation, {.target = target}, 0, p.rows), rounded<T>(wide), 0, where);
        if (multiplies_pairs(target, kTypeOf<T>)) continue;
        const std::vector<float> expected = p.expected(activation, target);
        for (std::size_t i = 0; i < wide.size(); ++i)
          ASSERT_EQ(std::bit_cast<std::uint32_t>(wide[i]), std::bit_cast<std::uint32_t>(expected[i])) << where;
      }
  }
}

// Each number of rows has tiles of its own; 250 columns are more than the panels of a task, the last one ending inside
// a register; 259 elements end in a second block by an odd one.
TYPED_TEST(NarrowLinearOf, BitsAreThoseOfFloat32ForEachNumberOfRows) {
  using T = TypeParam;
  Random random(34);
  for (std::int64_t rows = 1; rows <= 50; ++rows) {
    const NarrowProblem<T> p(random, {rows, 259, 250}, true, WeightOrder::in_out, static_cast<int>(rows % 3));
    const Linear<T> layer = p.layer();
    for (Target target : available_targets()) {
      const std::string where = std::string(target_name(target)) + " " + std::to_string(rows) + " rows";
      const std::vector<T> y = p.run(layer, Activation::relu, {.target = target}, 0, rows);
      expect_same(p.run(layer, Activation::relu, {.threads = 2, .target = target}, 0, rows), y, 0,
                  where + ", 2 threads");
      if (!multiplies_pairs(target, kTypeOf<T>))
        expect_same(y, rounded<T>(p.expected(Activation::relu, target)), 0, where);
    }
  }
}

// What cannot be rounded like other numbers, among those that can: a register's and those after the last whole one.
TYPED_TEST(NarrowLinearOf, SpecialValuesAreRoundedLikeOthers) {
  using T = TypeParam;
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values{0.0f,        -0.0f,    infinity,     -infinity,       nan,       1.00390625f,
                                  1.01171875f, 65519.0f, 65520.0f,     -65536.0f,       0x1p-24f,  0x1p-25f,
                                  0x1.8p-25f,  0x1p-14f, 0x1.ffcp-15f, 0x1.fffffep127f, 0x1p-133f, 0x1.8p-134f,
                                  -0x1p-149f,  2049.0f,  2051.0f};
  const auto out = static_cast<std::int64_t>(values.size());
  for (Target target : available_targets()) {
    // One channel: a sum is the product of two values, which T may lack.
    std::vector<T> weight, x{T(1.0f)};
    for (float value : values) weight.push_back(T(value));
    const Linear<T> layer(MatrixView<const T>(weight.data(), {1, out}), WeightOrder::in_out);
    std::vector<T> y(values.size());
    std::vector<float> sums(values.size());
    for (float factor : {1.0f, 1.0078125f, -1.00390625f, 0x1p-8f}) {
      x[0] = T(factor);
      layer.forward(MatrixView<const T>(x.data(), {1, 1}), MatrixView<float>(sums.data(), {1, out}), Activation::none,
                    {.target = target});
      layer.forward(MatrixView<const T>(x.data(), {1, 1}), MatrixView<T>(y.data(), {1, out}), Activation::none,
                    {.target = target});
      for (std::size_t i = 0; i < y.size(); ++i) {
        if (std::isnan(sums[i]))
          EXPECT_TRUE(std::isnan(static_cast<float>(y[i])) && std::isnan(values[i])) << target_name(target) << " " << i;
        else
          EXPECT_EQ(y[i].bits, T(sums[i]).bits) << target_name(target) << " " << values[i] << " x " << factor;
      }
    }
  }
}

TYPED_TEST(NarrowLinearOf, BitsAreARowsOwnForAnyThreads) {
  using T = TypeParam;
  Random random(32);
  const NarrowProblem<T> p(random, {205, 270, 131}, true, WeightOrder::out_in, 1);
  const Linear<T> layer = p.layer();
  for (Target target : available_targets()) {
    const std::vector<T> all = p.run(layer, Activation::gelu, {.target = target}, 0, p.rows);
    expect_same(p.run(layer, Activation::gelu, {.threads = 3, .target = target}, 0, p.rows), all, 0, "threads");
    for (std::int64_t row : {0, 1, 95, 96, 204}) {
      std::vector<T> one = p.run(layer, Activation::gelu, {.target = target}, row, 1);
      one.resize(static_cast<std::size_t>(p.out));
      expect_same(one, all, static_cast<std::size_t>(row * p.y_stride), "row " + std::to_string(row));
    }
  }
}

TYPED_TEST(NarrowLinearOf, LaterCallsAllocateNothing) {
  using T = TypeParam;
  Random random(33);
  const NarrowProblem<T> p(random, {40, 30, 60}, true, WeightOrder::in_out, 0);
  const Linear<T> layer = p.layer();
  std::vector<T> y(static_cast<std::size_t>(p.rows * p.out));
  const MatrixView<const T> from(p.x.data(), {p.rows, p.in});
  const MatrixView<T> to(y.data(), {p.rows, p.out});
  layer.forward(from, to, Activation::gelu);
  const std::int64_t before = allocations;
  layer.forward(from, to, Activation::gelu);
  EXPECT_EQ(allocations, before);
}

TYPED_TEST(NarrowLinearOf, WhatDoesNotFitIsRefused) {
  using T = TypeParam;
  const std::vector<T> weight(6), x(4);
  std::vector<T> y(6, T(5.0f));
  const Linear<T> layer(MatrixView<const T>(weight.data(), {2, 3}), WeightOrder::in_out);
  try {
    layer.forward(MatrixView<const T>(x.data(), {2, 2}), MatrixView<T>(y.data(), {3, 2}));
    FAIL() << "a width of 2 was taken for 3";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::shape_mismatch);
    EXPECT_NE(std::string(error.what()).find("y has width 2, out is 3; they must be equal"), std::string::npos)
        << error.what();
  }
  for (T element : y) EXPECT_EQ(element.bits, T(5.0f).bits);
}

}  // namespace
}  // namespace multihead::testing
