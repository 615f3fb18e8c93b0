// SPDX-License-Identifier: Apache-2.0
// The table of docs/numerics.md: the worst error of each storage type at inputs of scale 1, 10 and 100.
#include <gtest/gtest.h>

#include <cstdio>
#include <vector>

#include "multihead/attention.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kHeads = 4, kQueries = 96, kKeys = 300, kWidth = 64;
constexpr double kScales[] = {1, 10, 100};

// |out - true| / max |v| may be at most this, at the three scales. The truth is computed from the inputs as stored.
template <class T>
struct Bounds;
template <>
struct Bounds<float> {
  static constexpr double kOut[] = {1.5e-7, 4e-5, 1e-3}, kLse[] = {1e-6, 3e-4, 2e-2};
};
template <>
struct Bounds<double> {
  static constexpr double kOut[] = {2.5e-16, 6e-14, 1e-12}, kLse[] = {2e-15, 5e-13, 5e-11};
};
template <>
struct Bounds<BFloat16> {
  static constexpr double kOut[] = {5e-4, 4e-3, 4e-3}, kLse[] = {1e-6, 3e-4, 2e-2};
};
template <>
struct Bounds<Float16> {
  static constexpr double kOut[] = {6e-5, 6e-4, 6e-4}, kLse[] = {1e-6, 3e-4, 2e-2};
};

template <class T>
struct Case {
  Tensor<T> q{{1, kHeads, kQueries, kWidth}}, k{{1, kHeads, kKeys, kWidth}}, v{{1, kHeads, kKeys, kWidth}};
  Tensor<T> out{{1, kHeads, kQueries, kWidth}};
  std::vector<Sum<T>> lse = std::vector<Sum<T>>(kHeads * kQueries);
  std::vector<long double> true_out, true_lse;
  double largest = 0;

  explicit Case(double scale) {
    Random random(77);
    for (Tensor<T>* tensor : {&q, &k, &v})
      tensor->each([&](T& x) { x = T(static_cast<Sum<T>>(random.normal() * scale)); });
    v.each([&](T x) { largest = std::max(largest, std::fabs(static_cast<double>(widened(x)))); });
    for (std::int64_t h = 0; h < kHeads; ++h)
      for (std::int64_t i = 0; i < kQueries; ++i) solve_row(h, i);
  }
  static long double widened(T x) { return static_cast<long double>(static_cast<Sum<T>>(x)); }

  // Row i sees the keys up to i + kKeys - kQueries.
  void solve_row(std::int64_t h, std::int64_t i) {
    std::vector<long double> scores;
    long double most = -std::numeric_limits<long double>::infinity(), sum = 0;
    for (std::int64_t j = 0; j <= i + kKeys - kQueries; ++j) {
      long double dot = 0;
      for (std::int64_t c = 0; c < kWidth; ++c) dot += widened(q.view(0, h, i, c)) * widened(k.view(0, h, j, c));
      scores.push_back(dot / std::sqrt(static_cast<long double>(kWidth)));
      most = std::max(most, scores.back());
    }
    for (long double& s : scores) sum += s = std::exp(s - most);
    true_lse.push_back(most + std::log(sum));
    for (std::int64_t c = 0; c < kWidth; ++c) {
      long double total = 0;
      for (std::size_t j = 0; j < scores.size(); ++j)
        total += scores[j] * widened(v.view(0, h, static_cast<std::int64_t>(j), c));
      true_out.push_back(total / sum);
    }
  }
  void run(Target target) {
    attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view,
              View3<Sum<T>>(lse.data(), {1, kHeads, kQueries}),
              {.causal = true, .alignment = Alignment::bottom_right(), .target = target});
  }
  double out_error() {
    double worst = 0;
    std::size_t at = 0;
    out.each([&](T x) { worst = std::max(worst, distance(widened(x), true_out[at++])); });
    return worst / largest;
  }
  double lse_error() const {
    double worst = 0;
    for (std::size_t at = 0; at < lse.size(); ++at) worst = std::max(worst, distance(lse[at], true_lse[at]));
    return worst;
  }
};

template <class T>
class Accuracy : public ::testing::Test {};
using Storage = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(Accuracy, Storage);

TYPED_TEST(Accuracy, StaysWithinTheTableAtEveryScale) {
  for (std::size_t at = 0; at < std::size(kScales); ++at) {
    Case<TypeParam> problem(kScales[at]);
    for (Target target : available_targets()) {
      problem.run(target);
      const double out = problem.out_error(), lse = problem.lse_error();
      EXPECT_LE(out, Bounds<TypeParam>::kOut[at]) << target_name(target) << " at scale " << kScales[at];
      EXPECT_LE(lse, Bounds<TypeParam>::kLse[at]) << target_name(target) << " at scale " << kScales[at];
      std::printf("%-8s %-8s scale %3.0f: out %.1e of the largest value, lse %.1e\n",
                  std::string(type_name(kTypeOf<TypeParam>)).c_str(), std::string(target_name(target)).c_str(),
                  kScales[at], out, lse);
    }
  }
}

}  // namespace
}  // namespace multihead::testing
