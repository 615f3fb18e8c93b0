// SPDX-License-Identifier: Apache-2.0
// Linear: sums, bias and activations against float64, special values, and bits over rows, strides, threads and targets.
#include "multihead/linear.hpp"

#include <gtest/gtest.h>

#include <map>

#include "allocations.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh,
                                       Activation::silu};
constexpr double kInf = std::numeric_limits<double>::infinity();

long double activated(Activation activation, long double x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x < 0 ? 0 : x;
    case Activation::gelu:
      return x == -kInf ? 0 : x * std::erfc(-x / std::sqrt(2.0L)) / 2;
    case Activation::gelu_tanh: {
      const long double inner = std::sqrt(2 / 3.14159265358979323846264338327950288L) * (x + 0.044715L * x * x * x);
      return x == -kInf ? 0 : x / (1 + std::exp(-2 * inner));
    }
    case Activation::silu:
      return x == -kInf ? 0 : x / (1 + std::exp(-x));
  }
  return 0;
}

// Of the activations, whose slopes lie between -0.13 and 1.13: how much an error of their argument may grow, and their
// own error as a share of the argument's magnitude, in units of eps.
constexpr double kSlope = 1.13, kOwnError = 1.1;

template <class T>
class LinearOf : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(LinearOf, Types);

// A layer and its input, strides of their own.
template <class T>
struct LinearProblem {
  std::int64_t rows, in, out;
  bool biased;
  WeightOrder order;
  std::vector<T> weight, bias, x;
  std::int64_t x_stride, y_stride;

  LinearProblem(Random& random, std::array<std::int64_t, 3> extents, bool with_bias, WeightOrder given_order,
                std::int64_t padding)
      : rows(extents[0]), in(extents[1]), out(extents[2]), biased(with_bias), order(given_order) {
    x_stride = in + padding, y_stride = out + 2 * padding;
    const auto fill = [&](std::vector<T>& v, std::int64_t count, double scale) {
      for (std::int64_t i = 0; i < std::max<std::int64_t>(count, 1); ++i)
        v.push_back(static_cast<T>(random.normal() * scale));
    };
    fill(weight, in * out, 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(in, 1))));
    fill(bias, out, 0.5), fill(x, rows * x_stride, 2);
  }
  MatrixView<const T> weight_view() const {
    const bool plain = order == WeightOrder::in_out;
    return {weight.data(), {plain ? in : out, plain ? out : in}};
  }
  Linear<T> layer() const {
    return Linear<T>(
        weight_view(), order,
        biased && out > 0 ? std::span<const T>(bias.data(), static_cast<std::size_t>(out)) : std::span<const T>());
  }
  MatrixView<const T> x_view() const { return {x.data(), {rows, in}, {x_stride, 1}}; }
  std::vector<T> run(Activation activation, const LayerOptions& options) const {
    std::vector<T> y(static_cast<std::size_t>(std::max<std::int64_t>(rows * y_stride, 1)), T(77));
    layer().forward(x_view(), MatrixView<T>(y.data(), {rows, out}, {y_stride, 1}), activation, options);
    return y;
  }
  T weight_at(std::int64_t i, std::int64_t j) const {
    return weight[static_cast<std::size_t>(order == WeightOrder::in_out ? i * out + j : j * in + i)];
  }
};

// |error| <= slope (in + 2) eps sum |x w| + own eps |y before|: the worst of any order of the sum (Higham 2002, 3.1).
template <class T>
double worst_share(const LinearProblem<T>& p, Activation activation, const std::vector<T>& y) {
  const double eps = std::numeric_limits<T>::epsilon();
  double worst = 0;
  for (std::int64_t r = 0; r < p.rows; ++r) {
    for (std::int64_t j = 0; j < p.out; ++j) {
      const long double bias = p.biased ? static_cast<long double>(p.bias[static_cast<std::size_t>(j)]) : 0;
      long double sum = bias, magnitude = std::fabs(bias);
      for (std::int64_t i = 0; i < p.in; ++i) {
        const long double term = static_cast<long double>(p.x_view()(r, i)) * p.weight_at(i, j);
        sum += term, magnitude += std::fabs(term);
      }
      const double bound = static_cast<double>(kSlope * (static_cast<double>(p.in) + 2) * eps * magnitude +
                                               kOwnError * eps * std::fabs(sum)) +
                           std::numeric_limits<T>::min();
      worst = std::max(worst,
                       distance(y[static_cast<std::size_t>(r * p.y_stride + j)], activated(activation, sum)) / bound);
    }
    for (std::int64_t j = p.out; j < p.y_stride; ++j) {
      EXPECT_EQ(y[static_cast<std::size_t>(r * p.y_stride + j)], T(77));
    }
  }
  return worst;
}

TYPED_TEST(LinearOf, EveryWidthIsWithinTheBound) {
  using T = TypeParam;
  Random random(21);
  std::vector<std::array<std::int64_t, 3>> extents{{1, 1, 1},     {0, 5, 7},     {3, 0, 5},
                                                   {4, 9, 0},     {7, 300, 49},  {17, 257, 96},
                                                   {385, 20, 50}, {2, 513, 145}, {1, 1536, 40}};
  for (std::int64_t i = 0; i < (quick_share() ? 10 : 60); ++i)
    extents.push_back({random.between(1, 30), random.between(1, 90), random.between(1, 110)});
  for (const auto& e : extents) {
    const LinearProblem<T> p(random, e, random.chance(70), random.pick({WeightOrder::in_out, WeightOrder::out_in}),
                             random.between(0, 3));
    for (Target target : available_targets())
      for (Activation activation : kActivations) {
        const double share = worst_share(p, activation, p.run(activation, {.target = target}));
        EXPECT_LE(share, 1) << target_name(target) << " " << e[0] << "x" << e[1] << "x" << e[2] << " activation "
                            << static_cast<int>(activation);
      }
  }
}

// y = activation(x), through a layer that is the number 1.
template <class T>
std::vector<T> through(Activation activation, const std::vector<T>& x, Target target) {
  const T one = 1;
  std::vector<T> y(x.size());
  const std::int64_t count = static_cast<std::int64_t>(x.size());
  Linear<T>(MatrixView<const T>(&one, {1, 1}), WeightOrder::in_out)
      .forward(MatrixView<const T>(x.data(), {count, 1}), MatrixView<T>(y.data(), {count, 1}), activation,
               {.target = target});
  return y;
}

// Every magnitude there is: their error is a share of |x|, and the worst is printed for docs/numerics.md.
TYPED_TEST(LinearOf, ActivationsAreWithinTheirOwnBound) {
  using T = TypeParam;
  const double eps = std::numeric_limits<T>::epsilon();
  std::vector<T> x;
  Random random(22);
  for (int i = 0; i < (quick_share() ? 20000 : 300000); ++i)
    x.push_back(static_cast<T>(i % 3 ? random.normal() * 3
                                     : std::ldexp(random.normal(), static_cast<int>(random.between(-140, 12)))));
  for (Activation activation : kActivations) {
    double worst_of_all = 0;
    for (Target target : available_targets()) {
      const std::vector<T> y = through(activation, x, target);
      double worst = 0, at = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double error = distance(y[i], activated(activation, x[i])) /
                             (eps * std::fabs(static_cast<double>(x[i])) + std::numeric_limits<T>::min());
        if (error > worst) worst = error, at = x[i];
      }
      EXPECT_LE(worst, kOwnError) << target_name(target) << " activation " << static_cast<int>(activation) << " at "
                                  << at;
      worst_of_all = std::max(worst_of_all, worst);
    }
    std::printf("activation %d, %zu bytes: %.2f eps |x|\n", static_cast<int>(activation), sizeof(T), worst_of_all);
  }
}

TYPED_TEST(LinearOf, ActivationsOfSpecialValues) {
  using T = TypeParam;
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const T huge = std::numeric_limits<T>::max();
  const std::vector<T> x{T(0), inf, -inf, huge, -huge, nan, T(17), T(-17), T(-2000)};
  for (Target target : available_targets())
    for (Activation activation : kActivations) {
      const std::vector<T> y = through(activation, x, target);
      const bool none = activation == Activation::none;
      EXPECT_EQ(y[0], 0);
      EXPECT_EQ(y[1], inf);
      EXPECT_EQ(y[3], huge);
      EXPECT_NEAR(static_cast<double>(y[6]), 17, activation == Activation::silu ? 8e-7 : 0);
      EXPECT_EQ(y[2], none ? -inf : T(0)) << target_name(target) << static_cast<int>(activation);
      EXPECT_EQ(y[4], none ? -huge : T(0)) << target_name(target) << static_cast<int>(activation);
      EXPECT_TRUE(std::isnan(y[5])) << target_name(target) << static_cast<int>(activation);
      EXPECT_NEAR(static_cast<double>(y[7]), none ? -17 : 0, activation == Activation::silu ? 8e-7 : 0);
      EXPECT_EQ(y[8], none ? T(-2000) : T(0)) << target_name(target) << static_cast<int>(activation);
    }
}

TYPED_TEST(LinearOf, BitsAreARowsOwn) {
  using T = TypeParam;
  Random random(23);
  const LinearProblem<T> p(random, {401, 270, 131}, true, WeightOrder::out_in, 1);
  LinearProblem<T> turned = p;  // the same weight in the other order
  turned.order = WeightOrder::in_out;
  for (std::int64_t i = 0; i < p.in; ++i)
    for (std::int64_t j = 0; j < p.out; ++j) turned.weight[static_cast<std::size_t>(i * p.out + j)] = p.weight_at(i, j);
  for (Activation activation : kActivations) {
    std::map<bool, std::vector<T>> of_family;
    for (Target target : available_targets()) {
      const std::vector<T> all = p.run(activation, {.target = target});
      const auto family = of_family.emplace(target == Target::baseline, all).first;
      EXPECT_EQ(all, family->second) << target_name(target);
      EXPECT_EQ(all, p.run(activation, {.threads = 3, .target = target}));
      EXPECT_EQ(all, turned.run(activation, {.target = target}));
      const Linear<T> layer = p.layer();
      for (std::int64_t r : {0, 1, 7, 384, 400}) {
        std::vector<T> y(static_cast<std::size_t>(p.out));
        layer.forward(MatrixView<const T>(p.x.data() + r * p.x_stride, {1, p.in}), MatrixView<T>(y.data(), {1, p.out}),
                      activation, {.target = target});
        EXPECT_TRUE(std::equal(y.begin(), y.end(), all.begin() + r * p.y_stride)) << target_name(target) << " " << r;
      }
    }
  }
}

// A fused activation has the bits of the plain product followed by it: the product's own are unchanged.
TYPED_TEST(LinearOf, BitsOfTheFusedActivationAreThoseOfTheSeparateOne) {
  using T = TypeParam;
  Random random(24);
  const LinearProblem<T> p(random, {33, 600, 70}, true, WeightOrder::in_out, 0);
  for (Target target : available_targets())
    for (Activation activation : kActivations)
      EXPECT_EQ(p.run(activation, {.target = target}),
                through(activation, p.run(Activation::none, {.target = target}), target));
}

TYPED_TEST(LinearOf, CallsAllocateNothing) {
  using T = TypeParam;
  Random random(25);
  const LinearProblem<T> p(random, {40, 30, 60}, true, WeightOrder::in_out, 0);
  const Linear<T> layer = p.layer();
  std::vector<T> y(static_cast<std::size_t>(p.rows * p.out));
  const MatrixView<T> view(y.data(), {p.rows, p.out});
  layer.forward(p.x_view(), view, Activation::gelu);
  const std::int64_t before = allocations;
  layer.forward(p.x_view(), view, Activation::gelu);
  row_norm(MatrixView<const T>(view), {}, {.norm = {HeadNorm::Kind::layer}}, view);
  EXPECT_EQ(allocations, before);
}

}  // namespace
}  // namespace multihead::testing
