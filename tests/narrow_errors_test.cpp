// SPDX-License-Identifier: Apache-2.0
// How far a MultiHeadAttention of two bytes is from the same layer in float64: the bound of docs/numerics.md, and what
// is measured.
#include <gtest/gtest.h>

#include "module_problem.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kTokens = 96, kWidth = 128, kHeads = 2, kHeadDim = 64;
constexpr double kFloat = 0x1p-24;  // half an epsilon of the sums

std::size_t at(std::int64_t row, std::int64_t column, std::int64_t width = kWidth) {
  return static_cast<std::size_t>(row * width + column);
}

// Numbers and how far the layer's may be from them, (rows, kWidth).
struct Bounded {
  std::vector<double> value = std::vector<double>(at(kTokens, 0)), error = value;
};

template <class T>
struct ErrorProblem {
  static constexpr double kUnit = std::is_same_v<T, BFloat16> ? 0x1p-8 : 0x1p-11;  // half an epsilon of T
  std::vector<T> x, q, k, v, out;
  bool pairs = false;

  explicit ErrorProblem(double scale) {
    Random random(7);
    x = Values<T>::normal(random, kTokens * kWidth, scale).all;
    for (std::vector<T>* w : {&q, &k, &v, &out})
      *w = Values<T>::normal(random, kWidth * kWidth, 1 / std::sqrt(static_cast<double>(kWidth))).all;
  }

  template <class E>
  std::vector<E> run(std::optional<Target> target) const {
    std::vector<std::vector<E>> copies;
    for (const std::vector<T>* from : {&x, &q, &k, &v, &out}) {
      copies.emplace_back();
      for (T number : *from)
        if constexpr (std::is_same_v<E, T>)
          copies.back().push_back(number);
        else
          copies.back().push_back(static_cast<E>(widen(number)));
    }
    const auto weight = [&](std::size_t i) { return MatrixView<const E>(copies[i], {kWidth, kWidth}); };
    const MultiHeadAttention<E> layer({.heads = kHeads, .order = WeightOrder::in_out},
                                      {.q = weight(1), .k = weight(2), .v = weight(3), .out = weight(4)});
    std::vector<E> y(x.size());
    layer.forward(View3<const E>(copies[0], {1, kTokens, kWidth}), View3<E>(y, {1, kTokens, kWidth}),
                  {.attention = {.target = target}});
    return y;
  }

  // A product's row and column: its sum of float32, and then its rounding to T.
  Bounded product(const Bounded& from, const std::vector<T>& w) const {
    Bounded to;
    for (std::int64_t i = 0; i < kTokens; ++i)
      for (std::int64_t o = 0; o < kWidth; ++o) {
        double sum = 0, error = 0, magnitude = 0;
        for (std::int64_t c = 0; c < kWidth; ++c) {
          const double weight = static_cast<double>(widen(w[at(c, o)])), own = from.value[at(i, c)];
          sum += own * weight, error += from.error[at(i, c)] * std::fabs(weight), magnitude += std::fabs(own * weight);
        }
        error += kFloat * kWidth * magnitude;
        to.value[at(i, o)] = sum, to.error[at(i, o)] = error + kUnit * (std::fabs(sum) + error);
      }
    return to;
  }

  // Row i of a head: numbers of the definition, and the bound.
  void attend(std::int64_t i, std::int64_t h, const std::array<Bounded, 3>& parts, Bounded& to) const {
    const auto& [queries, keys, values] = parts;
    std::vector<double> scores(static_cast<std::size_t>(kTokens)), away(scores.size());
    double largest = -std::numeric_limits<double>::infinity(), sum = 0, least = 0;
    for (std::int64_t j = 0; j < kTokens; ++j) {
      double& score = scores[static_cast<std::size_t>(j)];
      double& off = away[static_cast<std::size_t>(j)];
      for (std::int64_t c = h * kHeadDim; c < (h + 1) * kHeadDim; ++c) {
        const double a = queries.value[at(i, c)], b = keys.value[at(j, c)];
        const double ea = queries.error[at(i, c)], eb = keys.error[at(j, c)];
        score += a * b / 8, off += (ea * std::fabs(b) + std::fabs(a) * eb + ea * eb) / 8;
        off += kFloat * (kHeadDim + 8) * std::fabs(a * b) / 8;
      }
      largest = std::max(largest, score);
    }
    for (std::size_t j = 0; j < scores.size(); ++j) {
      scores[j] = std::exp(scores[j] - largest);
      sum += scores[j], least += scores[j] * std::exp(-away[j]);
    }
    for (std::int64_t c = h * kHeadDim; c < (h + 1) * kHeadDim; ++c) {
      double mean = 0, error = 0, low = 0, high = 0;
      for (std::int64_t j = 0; j < kTokens; ++j)
        mean += scores[static_cast<std::size_t>(j)] / sum * values.value[at(j, c)];
      for (std::int64_t j = 0; j < kTokens; ++j) {
        const double value = values.value[at(j, c)], ev = values.error[at(j, c)], d = away[static_cast<std::size_t>(j)];
        const double from_mean = std::fabs(value - mean) * (std::expm1(d) + (pairs ? std::exp(d) / 256 : 0));
        error += scores[static_cast<std::size_t>(j)] / least *
                 (from_mean + std::exp(d) * (ev + kFloat * 128 * std::fabs(value)));
        low = std::min(low, value - ev), high = std::max(high, value + ev);
      }
      error = std::min(error, (high - low) * (1 + 0x1p-16));  // a mean of values stays among them
      to.value[at(i, c)] = mean, to.error[at(i, c)] = error + kUnit * (std::fabs(mean) + error);
    }
  }

  Bounded output() const {
    Bounded from, heads;
    for (std::size_t i = 0; i < x.size(); ++i) from.value[i] = static_cast<double>(widen(x[i]));
    const std::array<Bounded, 3> parts{product(from, q), product(from, k), product(from, v)};
    for (std::int64_t h = 0; h < kHeads; ++h)
      for (std::int64_t i = 0; i < kTokens; ++i) attend(i, h, parts, heads);
    return product(heads, out);
  }
};

struct Limits {
  double scale, rms, worst;  // as a share of the largest output
};

template <class T>
void measure(const Limits& limits) {
  ErrorProblem<T> problem(limits.scale);
  const std::vector<double> truth = problem.template run<double>({});
  double largest = 0;
  for (double y : truth) largest = std::max(largest, std::fabs(y));
  for (Target target : available_targets()) {
    problem.pairs = multiplies_pairs(target, kTypeOf<T>);
    const Bounded bound = problem.output();
    const std::vector<T> got = problem.template run<T>(target);
    double squares = 0, worst = 0, share = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double away = std::fabs(static_cast<double>(widen(got[i])) - truth[i]);
      EXPECT_NEAR(bound.value[i], truth[i], 1e-9 * largest);
      squares += away * away, worst = std::max(worst, away), share = std::max(share, away / bound.error[i]);
    }
    const double rms = std::sqrt(squares / static_cast<double>(got.size())) / largest;
    const std::string name = std::string(target_name(target)) + "_" + std::string(type_name(kTypeOf<T>)) + "_" +
                             std::to_string(static_cast<int>(limits.scale));
    ::testing::Test::RecordProperty(name + "_rms", std::to_string(rms));
    ::testing::Test::RecordProperty(name + "_worst", std::to_string(worst / largest));
    ::testing::Test::RecordProperty(name + "_share_of_bound", std::to_string(share));
    EXPECT_LE(share, 1) << name;
    EXPECT_LE(rms, limits.rms) << name;
    EXPECT_LE(worst / largest, limits.worst) << name;
  }
}

TEST(NarrowErrors, AgainstFloat64) {
  for (const Limits& limits : {Limits{1, 1.2e-3, 7e-3}, Limits{10, 5e-3, 9e-2}}) measure<BFloat16>(limits);
  for (const Limits& limits : {Limits{1, 1.5e-4, 1e-3}, Limits{10, 1.1e-3, 2e-2}}) measure<Float16>(limits);
}

}  // namespace
}  // namespace multihead::testing
