// SPDX-License-Identifier: Apache-2.0
// embedding, cross_entropy and drop_elements: by hand, against finite differences, at the ends of the numbers.
#include <gtest/gtest.h>

#include "gradient_check.hpp"
#include "multihead/gradients.hpp"

namespace multihead::testing {
namespace {

// ---- embeddings ----

TEST(EmbeddingGradients, RowsGoOutAndComeBack) {
  const std::vector<std::int64_t> ids{2, -1, 0, 2};
  const std::vector<double> table{1, 2, 3, 4, 5, 6}, d_y{1, 10, 2, 20, 4, 40, 8, 80};
  std::vector<double> y(8, 77), d_table{100, 100, 100, 100, 100, 100};
  embedding<double>({table, {3, 2}}, ids, {y, {4, 2}});
  EXPECT_EQ(y, (std::vector<double>{5, 6, 0, 0, 1, 2, 5, 6}));
  embedding_backward<double>(ids, {d_y, {4, 2}}, {d_table, {3, 2}});
  EXPECT_EQ(d_table, (std::vector<double>{104, 140, 100, 100, 109, 190}));
}

// ---- the loss ----

TEST(CrossEntropyLoss, AreTheNumbersOfTheDefinition) {
  // exp gives 1, 2, 5 of 8: p = 1/8, 2/8, 5/8.
  const std::vector<double> logits{0, std::log(2.0), std::log(5.0), 0, 0, 0, 3, 1, 3};
  const std::vector<std::int64_t> targets{1, -1, 2};
  std::vector<double> d(9, 77);
  const CrossEntropy plain = cross_entropy<double>({logits, {3, 3}}, targets, 0, {d, {3, 3}}, 2);
  const double z = 2 * std::exp(3.0) + std::exp(1.0);
  EXPECT_NEAR(plain.loss, (std::log(4.0) + std::log(z / std::exp(3.0))) / 2, 1e-15);
  EXPECT_EQ(plain.rows, 2);
  EXPECT_EQ(plain.correct, 0);  // of two largest the lower class counts
  const double p = std::exp(3.0) / z;
  const std::vector<double> wanted{0.25, -1.5, 1.25, 0, 0, 0, 2 * p, 2 * std::exp(1.0) / z, 2 * p - 2};
  for (std::size_t i = 0; i < 9; ++i) EXPECT_NEAR(d[i], wanted[i], 1e-15) << i;
  // Smoothed: 0.7 at the target, 0.1 more everywhere.
  const CrossEntropy smooth = cross_entropy<double>({logits.data(), {1, 3}}, std::span(targets).first(1), 0.3);
  EXPECT_NEAR(smooth.loss, 0.8 * std::log(4.0) + 0.1 * std::log(8.0) + 0.1 * std::log(1.6), 1e-15);
  const std::vector<std::int64_t> none{-1, -1, -1};
  EXPECT_EQ(cross_entropy<double>({logits, {3, 3}}, none, 0).loss, 0);
  EXPECT_EQ(cross_entropy<double>({logits, {3, 3}}, none, 0).rows, 0);
  const std::vector<std::int64_t> first{0, 0, 0};
  EXPECT_EQ(cross_entropy<double>({logits, {3, 3}}, first, 0).correct, 2);
}

TEST(CrossEntropyLoss, GradientsAreThoseOfFiniteDifferences) {
  Random random(13);
  std::vector<double> logits = normal_values<double>(random, 6 * 11, 2);
  const std::vector<std::int64_t> targets{3, -1, 0, 10, 5, 5};
  for (double smoothing : {0.0, 0.1, 1.0}) {
    std::vector<double> d(66), in_place = logits;
    cross_entropy<double>({logits, {6, 11}}, targets, smoothing, {d, {6, 11}}, 0.7);
    expect_gradient("logits", logits, d, [&] {
      return 0.7 * 5 * cross_entropy<double>({logits, {6, 11}}, targets, smoothing).loss;
    });
    cross_entropy<double>({in_place, {6, 11}}, targets, smoothing, {in_place, {6, 11}}, 0.7);
    EXPECT_EQ(in_place, d);
    const std::vector<float> narrow(logits.begin(), logits.end());
    const std::vector<double> wide(narrow.begin(), narrow.end());
    std::vector<float> d_narrow(66);
    cross_entropy<float>({narrow, {6, 11}}, targets, smoothing, {d_narrow, {6, 11}});
    cross_entropy<double>({wide, {6, 11}}, targets, smoothing, {d, {6, 11}});
    EXPECT_LE(worst_difference(d_narrow, d), 1e-6);
  }
}

TEST(CrossEntropyLoss, LargeHiddenAndMissingNumbers) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto loss = [](std::vector<float> logits, std::int64_t target, double smoothing = 0) {
    return cross_entropy<float>({logits, {1, static_cast<std::int64_t>(logits.size())}}, {&target, 1}, smoothing).loss;
  };
  EXPECT_EQ(loss({1e30f, 0, 0}, 0), 0);
  EXPECT_EQ(loss({3e38f, -3e38f}, 0), 0);
  EXPECT_EQ(loss({1000, 0}, 1), 1000);
  EXPECT_NEAR(loss({0, -inf, 0}, 0), std::log(2.0), 1e-7);  // a class that is ruled out
  EXPECT_EQ(loss({0, -inf}, 1), inf);
  EXPECT_EQ(loss({0, -inf}, 0, 0.1), inf);
  EXPECT_TRUE(std::isnan(loss({0, nan, 0}, 0)));
  EXPECT_TRUE(std::isnan(loss({nan, 0, 0}, 1)));
  EXPECT_TRUE(std::isnan(loss({inf, 0, 0}, 1)));
  EXPECT_TRUE(std::isnan(loss({-inf, -inf}, 1)));
}

// ---- dropout of elements ----

TEST(DropElements, DropsWhereTheWordsSay) {
  Random random(14);
  const std::vector<float> x = normal_values<float>(random, 50 * 33);
  const Dropout dropout{0.25, 99, 7};
  std::vector<float> y(x.size()), in_place = x;
  drop_elements<float>(dropout, {x, {50, 33}}, {y, {50, 33}});
  std::size_t dropped = 0;
  for (std::uint32_t i = 0; i < 50; ++i)
    for (std::uint32_t n = 0; n < 33; ++n) {
      const bool drop = philox4x32({n / 4, i, 0, 7}, 99)[n % 4] < (1u << 30);
      dropped += drop;
      EXPECT_EQ(y[i * 33 + n], drop ? 0 : x[i * 33 + n] * static_cast<float>(1 / 0.75));
    }
  EXPECT_NEAR(static_cast<double>(dropped), 0.25 * 1650, 4 * std::sqrt(0.25 * 0.75 * 1650));
  drop_elements<float>(dropout, {in_place, {50, 33}}, {in_place, {50, 33}});
  EXPECT_EQ(in_place, y);
  drop_elements<float>({}, {x, {50, 33}}, {y, {50, 33}});
  EXPECT_EQ(y, x);
}

}  // namespace
}  // namespace multihead::testing
