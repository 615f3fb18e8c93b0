// SPDX-License-Identifier: Apache-2.0
// linear, activations and norms: gradients against finite differences, sums in float against double, bits over threads,
// accumulation; memory of all of gradients.hpp.
#include "multihead/gradients.hpp"

#include <gtest/gtest.h>

#include "allocations.hpp"
#include "gradient_check.hpp"

namespace multihead::testing {
namespace {

constexpr WeightOrder kOrders[] = {WeightOrder::in_out, WeightOrder::out_in};
constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh,
                                       Activation::silu};
constexpr HeadNorm::Kind kNorms[] = {HeadNorm::Kind::rms, HeadNorm::Kind::rms_plus_1, HeadNorm::Kind::layer};

// ---- linear ----

template <class T>
struct LinearProblem {
  std::int64_t rows, in, out;
  WeightOrder order;
  std::vector<T> x, weight, bias, d_y;

  LinearProblem(std::array<std::int64_t, 3> extents, WeightOrder weight_order, int seed)
      : rows(extents[0]), in(extents[1]), out(extents[2]), order(weight_order) {
    Random random(seed);
    x = normal_values<T>(random, rows * in), weight = normal_values<T>(random, in * out);
    bias = normal_values<T>(random, out), d_y = normal_values<T>(random, rows * out);
  }
  template <class E>
  MatrixView<E> weight_view(E* data) const {
    const bool plain = order == WeightOrder::in_out;
    return {data, {plain ? in : out, plain ? out : in}};
  }
  std::vector<T> forward(const LayerOptions& options = {}) const {
    std::vector<T> y(static_cast<std::size_t>(rows * out));
    linear<T>({x, {rows, in}}, weight_view(weight.data()), order, bias, {y, {rows, out}}, options);
    return y;
  }
  struct Gradients {
    std::vector<T> x, weight, bias;
    bool operator==(const Gradients&) const = default;
  };
  Gradients backward(T start = 0, const LayerOptions& options = {}) const {
    Gradients g{std::vector<T>(x.size(), T(77)), std::vector<T>(weight.size(), start),
                std::vector<T>(bias.size(), start)};
    linear_backward<T>({x, {rows, in}}, weight_view(weight.data()), order, {d_y, {rows, out}},
                       {{g.x, {rows, in}}, weight_view(g.weight.data()), g.bias}, options);
    return g;
  }
};

constexpr std::array<std::int64_t, 3> kExtents[] = {{1, 1, 1},   {3, 5, 7},  {9, 50, 3},
                                                    {300, 3, 2}, {2, 1, 49}, {5, 260, 1}};

TEST(LinearGradients, AreThoseOfFiniteDifferences) {
  for (const auto& extents : kExtents)
    for (WeightOrder order : kOrders) {
      LinearProblem<double> p(extents, order, 1);
      const auto g = p.backward();
      const auto loss = [&] { return weighted_sum(p.forward(), p.d_y); };
      expect_gradient("x", p.x, g.x, loss);
      expect_gradient("weight", p.weight, g.weight, loss);
      expect_gradient("bias", p.bias, g.bias, loss);
    }
}

TEST(LinearGradients, FloatIsNearDouble) {
  for (WeightOrder order : kOrders)
    for (Target target : available_targets()) {
      const LinearProblem<float> p({600, 70, 90}, order, 2);
      LinearProblem<double> exact({600, 70, 90}, order, 2);
      exact.x.assign(p.x.begin(), p.x.end()), exact.weight.assign(p.weight.begin(), p.weight.end());
      exact.bias.assign(p.bias.begin(), p.bias.end()), exact.d_y.assign(p.d_y.begin(), p.d_y.end());
      const auto g = p.backward(0, {.target = target});
      const auto wanted = exact.backward();
      EXPECT_LE(worst_difference(p.forward({.target = target}), exact.forward()), 1e-5);
      EXPECT_LE(worst_difference(g.x, wanted.x), 1e-5);
      EXPECT_LE(worst_difference(g.weight, wanted.weight), 1e-5);
      EXPECT_LE(worst_difference(g.bias, wanted.bias), 1e-5);
    }
}

TEST(LinearGradients, ForwardHasTheBitsOfLinear) {
  for (const auto& extents : kExtents)
    for (WeightOrder order : kOrders) {
      const LinearProblem<float> p(extents, order, 3);
      std::vector<float> y(static_cast<std::size_t>(p.rows * p.out));
      Linear<float>(p.weight_view(p.weight.data()), order, p.bias).forward({p.x, {p.rows, p.in}}, {y, {p.rows, p.out}});
      EXPECT_EQ(y, p.forward());
    }
}

TEST(LinearGradients, StridesAndTheOtherAxisChangeNothing) {
  const LinearProblem<float> p({20, 7, 11}, WeightOrder::in_out, 4);
  const auto plain = p.backward();
  std::vector<float> x(20 * 9, 77), d_y(20 * 15, 77), d_x(20 * 10, 77), weight(7 * 11), d_weight(7 * 11);
  for (std::int64_t i = 0; i < 20; ++i) {
    for (std::int64_t c = 0; c < 7; ++c)
      x[static_cast<std::size_t>(i * 9 + c)] = p.x[static_cast<std::size_t>(i * 7 + c)];
    for (std::int64_t c = 0; c < 11; ++c)
      d_y[static_cast<std::size_t>(i * 15 + c)] = p.d_y[static_cast<std::size_t>(i * 11 + c)];
  }
  for (std::int64_t i = 0; i < 7; ++i)
    for (std::int64_t j = 0; j < 11; ++j)
      weight[static_cast<std::size_t>(j * 7 + i)] = p.weight[static_cast<std::size_t>(i * 11 + j)];
  // The weight and its gradient in memory as (out, in), seen as (in, out).
  linear_backward<float>({x.data(), {20, 7}, {9, 1}}, {weight.data(), {7, 11}, {1, 7}}, WeightOrder::in_out,
                         {d_y.data(), {20, 11}, {15, 1}},
                         {{d_x.data(), {20, 7}, {10, 1}}, {d_weight.data(), {7, 11}, {1, 7}}, {}});
  for (std::int64_t i = 0; i < 7; ++i)
    for (std::int64_t j = 0; j < 11; ++j)
      EXPECT_EQ(d_weight[static_cast<std::size_t>(j * 7 + i)], plain.weight[static_cast<std::size_t>(i * 11 + j)]);
  for (std::int64_t i = 0; i < 20; ++i)
    for (std::int64_t c = 0; c < 10; ++c)
      EXPECT_EQ(d_x[static_cast<std::size_t>(i * 10 + c)], c < 7 ? plain.x[static_cast<std::size_t>(i * 7 + c)] : 77);
}

TEST(LinearGradients, AreAddedToParametersAndWrittenToInputs) {
  const LinearProblem<double> p({6, 5, 4}, WeightOrder::out_in, 5);
  const auto once = p.backward(0), more = p.backward(2);
  EXPECT_EQ(once.x, more.x);
  for (std::size_t i = 0; i < once.weight.size(); ++i) EXPECT_EQ(more.weight[i], 2 + once.weight[i]);
  for (std::size_t i = 0; i < once.bias.size(); ++i) EXPECT_EQ(more.bias[i], 2 + once.bias[i]);
  // No rows: nothing is added.
  std::vector<double> weight(20, -0.0), bias(4, -0.0);
  linear_backward<double>({p.x.data(), {0, 5}}, p.weight_view(p.weight.data()), p.order, {p.d_y.data(), {0, 4}},
                          {{}, p.weight_view(weight.data()), bias});
  EXPECT_TRUE(std::signbit(weight[0]) && std::signbit(bias[0]));
}

TEST(LinearGradients, BitsDoNotDependOnThreads) {
  for (WeightOrder order : kOrders) {
    const LinearProblem<float> p({1000, 100, 130}, order, 6);
    const auto one = p.backward();
    for (int threads : {2, 3}) {
      EXPECT_EQ(p.forward({.threads = threads}), p.forward());
      EXPECT_EQ(p.backward(0, {.threads = threads}), one);
    }
  }
}

// Every target that fuses its multiplications has the same bits.
TEST(LinearGradients, BitsDoNotDependOnTargets) {
  const LinearProblem<double> p({300, 20, 30}, WeightOrder::in_out, 7);
  std::optional<LinearProblem<double>::Gradients> first;
  for (Target target : available_targets()) {
    if (target == Target::baseline) continue;
    const auto g = p.backward(0, {.target = target});
    if (!first) first = g;
    EXPECT_EQ(g, *first);
  }
}

// ---- activations ----

template <class T>
std::vector<T> activated(Activation activation, const std::vector<T>& x, std::optional<Target> target = {}) {
  std::vector<T> y(x.size());
  const auto n = static_cast<std::int64_t>(x.size());
  activate<T>(activation, {x, {1, n}}, {y, {1, n}}, {.target = target});
  return y;
}

template <class T>
std::vector<T> activation_gradient(Activation activation, const std::vector<T>& x, const std::vector<T>& d_y,
                                   std::optional<Target> target = {}) {
  std::vector<T> d_x(x.size());
  const auto n = static_cast<std::int64_t>(x.size());
  activation_backward<T>(activation, {x, {1, n}}, {d_y, {1, n}}, {d_x, {1, n}}, {.target = target});
  return d_x;
}

TEST(ActivationGradients, AreThoseOfFiniteDifferences) {
  for (Activation activation : kActivations)
    for (Target target : available_targets()) {
      Random random(8);
      std::vector<double> x = normal_values<double>(random, 203, 3);
      for (double& e : x)
        if (std::fabs(e) < 10 * kStep) e = 1;  // the corner of relu
      const std::vector<double> d_y = normal_values<double>(random, 203);
      const auto loss = [&] { return weighted_sum(activated(activation, x, target), d_y); };
      expect_gradient("x", x, activation_gradient(activation, x, d_y, target), loss, 300);
    }
}

TEST(ActivationGradients, FloatIsNearDouble) {
  for (Activation activation : kActivations) {
    std::vector<float> x;
    for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<float>(i) / 128);
    const std::vector<float> ones(x.size(), 1);
    const std::vector<double> wide(x.begin(), x.end()), wide_ones(x.size(), 1);
    const std::vector<double> wanted = activation_gradient(activation, wide, wide_ones);
    for (Target target : available_targets())
      EXPECT_LE(worst_difference(activation_gradient(activation, x, ones, target), wanted), 1e-6)
          << static_cast<int>(activation) << " " << target_name(target);
  }
}

TEST(ActivationGradients, TheEnds) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x{-inf, -1e30f, 1e30f, inf, nan, 0}, ones(x.size(), 1);
  for (Activation activation : {Activation::relu, Activation::gelu, Activation::gelu_tanh, Activation::silu}) {
    const std::vector<float> d_x = activation_gradient(activation, x, ones);
    EXPECT_EQ(d_x[0], 0) << static_cast<int>(activation);
    EXPECT_EQ(d_x[1], 0);
    EXPECT_EQ(d_x[2], 1);
    EXPECT_EQ(d_x[3], 1);
    EXPECT_TRUE(std::isnan(d_x[4]));
    EXPECT_EQ(d_x[5], activation == Activation::relu ? 0 : 0.5f);
  }
}

TEST(ActivationGradients, InPlaceAndOverThreadsTheBitsAreTheSame) {
  Random random(9);
  const std::vector<float> x = normal_values<float>(random, 100 * 37), d_y = normal_values<float>(random, 100 * 37);
  for (Activation activation : kActivations) {
    const std::vector<float> y = activated(activation, x), d_x = activation_gradient(activation, x, d_y);
    for (int threads : {1, 2, 3}) {
      std::vector<float> a = x, b = d_y;
      activate<float>(activation, {a, {100, 37}}, {a, {100, 37}}, {.threads = threads});
      activation_backward<float>(activation, {x, {100, 37}}, {b, {100, 37}}, {b, {100, 37}}, {.threads = threads});
      EXPECT_EQ(a, y);
      EXPECT_EQ(b, d_x);
    }
  }
}

// ---- norms ----

template <class T>
struct NormProblem {
  std::int64_t rows, width;
  HeadNorm norm;
  bool weighted;
  std::vector<T> x, weight, bias, d_y;

  NormProblem(std::array<std::int64_t, 2> extents, HeadNorm::Kind kind, bool with_weight, int seed)
      : rows(extents[0]), width(extents[1]), norm{kind, 1e-3}, weighted(with_weight) {
    Random random(seed);
    x = normal_values<T>(random, rows * width, 2), weight = normal_values<T>(random, width);
    bias = normal_values<T>(random, width), d_y = normal_values<T>(random, rows * width);
    for (T& e : x) e += 1;
  }
  bool biased() const { return norm.kind == HeadNorm::Kind::layer; }
  RowNorm<T> row() const {
    return {norm, weighted ? std::span<const T>(weight) : std::span<const T>(),
            weighted && biased() ? std::span<const T>(bias) : std::span<const T>()};
  }
  std::vector<T> forward() const {
    std::vector<T> y(x.size());
    row_norm(MatrixView<const T>(x, {rows, width}), {}, row(), MatrixView<T>(y, {rows, width}));
    return y;
  }
  struct Gradients {
    std::vector<T> x, weight, bias;
    bool operator==(const Gradients&) const = default;
  };
  Gradients backward(T start = 0, const LayerOptions& options = {}) const {
    Gradients g{std::vector<T>(x.size(), T(77)), std::vector<T>(weight.size(), start),
                std::vector<T>(bias.size(), start)};
    row_norm_backward<T>({x, {rows, width}}, row(), {d_y, {rows, width}},
                         {{g.x, {rows, width}}, g.weight, biased() ? std::span<T>(g.bias) : std::span<T>()}, options);
    return g;
  }
};

TEST(NormGradients, AreThoseOfFiniteDifferences) {
  for (HeadNorm::Kind kind : kNorms)
    for (const auto& extents : std::initializer_list<std::array<std::int64_t, 2>>{{1, 1}, {3, 5}, {2, 16}, {5, 33}})
      for (bool weighted : {false, true}) {
        NormProblem<double> p(extents, kind, weighted, 10);
        const auto g = p.backward();
        const auto loss = [&] { return weighted_sum(p.forward(), p.d_y); };
        expect_gradient("x", p.x, g.x, loss);
        if (!weighted) continue;
        expect_gradient("weight", p.weight, g.weight, loss);
        if (p.biased()) expect_gradient("bias", p.bias, g.bias, loss);
      }
}

TEST(NormGradients, FloatIsNearDouble) {
  for (HeadNorm::Kind kind : kNorms)
    for (Target target : available_targets()) {
      const NormProblem<float> p({700, 67}, kind, true, 11);
      NormProblem<double> exact({700, 67}, kind, true, 11);
      exact.x.assign(p.x.begin(), p.x.end()), exact.weight.assign(p.weight.begin(), p.weight.end());
      exact.bias.assign(p.bias.begin(), p.bias.end()), exact.d_y.assign(p.d_y.begin(), p.d_y.end());
      const auto g = p.backward(0, {.target = target});
      const auto wanted = exact.backward();
      EXPECT_LE(worst_difference(g.x, wanted.x), 1e-5);
      EXPECT_LE(worst_difference(g.weight, wanted.weight), 1e-5);
      EXPECT_LE(worst_difference(g.bias, wanted.bias), 1e-5);
    }
}

TEST(NormGradients, AreAddedAndTheirBitsDoNotDependOnThreads) {
  for (HeadNorm::Kind kind : kNorms) {
    const NormProblem<float> p({900, 20}, kind, true, 12);
    const auto one = p.backward();
    for (int threads : {2, 3}) EXPECT_EQ(p.backward(0, {.threads = threads}), one);
    const NormProblem<float> few({200, 20}, kind, true, 12);  // one block: one addition
    const auto from_zero = few.backward(0), from_two = few.backward(2);
    EXPECT_EQ(from_zero.x, from_two.x);
    for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(from_two.weight[i], 2 + from_zero.weight[i]);
    std::vector<float> in_place = p.d_y;
    row_norm_backward<float>({p.x, {900, 20}}, p.row(), {in_place, {900, 20}}, {{in_place, {900, 20}}});
    EXPECT_EQ(in_place, one.x);
  }
}

// An empty list over memory, such as a vector's that has been cleared, asks for nothing and gives nothing.
TEST(NormGradients, AnEmptyListIsNoneWhereverItPoints) {
  const NormProblem<float> p({3, 5}, HeadNorm::Kind::layer, false, 14);
  std::vector<float> memory(5, 7.0f), d_x(15), wanted(15);
  const std::span<float> empty(memory.data(), 0);
  RowNorm<float> norm = p.row();
  norm.weight = norm.bias = {};
  row_norm_backward<float>({p.x, {3, 5}}, norm, {p.d_y, {3, 5}}, {{wanted, {3, 5}}});
  norm.weight = norm.bias = empty;
  row_norm_backward<float>({p.x, {3, 5}}, norm, {p.d_y, {3, 5}}, {{d_x, {3, 5}}, empty, empty});
  EXPECT_EQ(memory, std::vector<float>(5, 7.0f));
  EXPECT_EQ(d_x, wanted);
}

// ---- memory ----

TEST(Gradients, AllocateNothingAfterTheFirstCalls) {
  const LinearProblem<float> p({300, 64, 80}, WeightOrder::in_out, 15);
  const NormProblem<float> n({300, 64}, HeadNorm::Kind::layer, true, 15);
  std::vector<float> y(300 * 80), d_x(300 * 64), d_weight(64 * 80), d_bias(80), d_norm(64), table(10 * 64);
  std::vector<std::int64_t> ids(300, 3);
  const auto calls = [&] {
    const MatrixView<const float> x(p.x, {300, 64}), d_y(p.d_y, {300, 80}), weight(p.weight, {64, 80});
    const MatrixView<float> to(d_x, {300, 64}), out(y, {300, 80});
    linear<float>(x, weight, p.order, p.bias, out);
    linear_backward<float>(x, weight, p.order, d_y, {to, {d_weight, {64, 80}}, d_bias});
    activate<float>(Activation::gelu, out, out);
    activation_backward<float>(Activation::gelu, d_y, out, out);
    row_norm_backward<float>(x, n.row(), to, {to, d_norm, std::span<float>(d_bias).first(64)});
    embedding<float>({table, {10, 64}}, ids, to);
    embedding_backward<float>(ids, x, {table, {10, 64}});
    cross_entropy<float>(d_y, ids, 0.1, out);
    drop_elements<float>({0.5, 1, 2}, x, to);
  };
  calls();
  const std::int64_t before = allocations;
  calls();
  EXPECT_EQ(allocations, before);
}

}  // namespace
}  // namespace multihead::testing
