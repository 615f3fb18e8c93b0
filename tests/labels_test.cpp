// SPDX-License-Identifier: Apache-2.0
// Labels: weights made by hand that earn each of them, alone or together, and the thresholds' both sides.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "multihead/inspect.hpp"

namespace multihead::testing {
namespace {

// One head of n tokens whose weights are weigh(i, j), rows brought to the sum 1.
HeadStats stats_of(HeadStatsSpec spec, std::int64_t n, const std::function<double(std::int64_t, std::int64_t)>& weigh) {
  spec.heads = 1, spec.q_len = spec.kv_len = n;
  HeadStats stats(std::move(spec));
  std::vector<float> weights(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < n; ++j) sum += weigh(i, j);
    for (std::int64_t j = 0; j < n; ++j)
      weights[static_cast<std::size_t>(i * n + j)] = static_cast<float>(weigh(i, j) / sum);
  }
  statistics_of_weights(View4<const float>(weights.data(), {1, 1, n, n}), stats.request());
  return stats;
}

std::vector<std::string> names_of(const HeadStats& stats) {
  std::vector<std::string> names;
  for (const HeadLabel& label : head_labels(stats, summarise(stats, 0))) names.push_back(label.name);
  return names;
}

using Names = std::vector<std::string>;

// Weight part at key to(i), the rest even over all keys.
std::function<double(std::int64_t, std::int64_t)> at(double part, std::int64_t n,
                                                     const std::function<std::int64_t(std::int64_t)>& to) {
  return
      [=](std::int64_t i, std::int64_t j) { return (1 - part) / static_cast<double>(n) + (j == to(i) ? part : 0.0); };
}

TEST(Labels, Offsets) {
  constexpr std::int64_t kN = 40;
  // The last place leads nowhere: 0.7 in 39 of 40 rows.
  const auto clamped = [](std::int64_t by) {
    return [by](std::int64_t i) { return std::clamp<std::int64_t>(i + by, 0, kN - 1); };
  };
  EXPECT_EQ(names_of(stats_of({}, kN, at(0.7, kN, clamped(-1)))), (Names{"previous", "local", "positional"}));
  EXPECT_EQ(names_of(stats_of({}, kN, at(0.7, kN, clamped(1)))), (Names{"next", "local", "positional"}));
  EXPECT_EQ(names_of(stats_of({}, kN, at(0.7, kN, clamped(0)))), (Names{"self", "local", "positional"}));
  EXPECT_EQ(names_of(stats_of({}, kN, at(0.7, kN, clamped(-3)))), Names{"positional"});
  // Half of the weight, no more: 0.5 is not above 0.5.
  EXPECT_EQ(names_of(stats_of({.offsets = {0}}, 2, [](auto, auto) { return 1.0; })), Names{"sink"});
}

// What Clark et al. and Voita et al. say is of neighbours; of other offsets it is said after them.
TEST(Labels, SourcesOfOffsets) {
  constexpr std::int64_t kN = 40;
  for (std::int64_t by : {-3, -1, 0, 1}) {
    const auto to = [by](std::int64_t i) { return std::clamp<std::int64_t>(i + by, 0, kN - 1); };
    const HeadStats stats = stats_of({}, kN, at(0.7, kN, to));
    const auto labels = head_labels(stats, summarise(stats, 0));
    const bool neighbour = by == -1 || by == 1;
    EXPECT_EQ(labels.back().name, "positional");
    EXPECT_EQ(labels.back().source, neighbour ? "Voita et al. 2019" : "this project, after Voita et al. 2019");
    if (by == -3) continue;
    EXPECT_EQ(labels.front().source,
              neighbour ? "Clark et al. 2019" : "this project, as Clark et al. 2019 for neighbours");
  }
}

TEST(Labels, PositionalNeedsRows) {
  const auto itself = [](std::int64_t i) { return i; };
  EXPECT_EQ(names_of(stats_of({.offsets = {}, .keys = {}}, 8, at(0.7, 8, itself))), Names{"positional"});
  EXPECT_EQ(names_of(stats_of({.offsets = {}, .keys = {}}, 7, at(0.7, 7, itself))), Names{"mixed"});
  EXPECT_EQ(names_of(stats_of({.offsets = {}, .keys = {}}, 1, at(1, 1, itself))), Names{"mixed"});
}

TEST(Labels, LocalAlone) {
  const auto near = [](std::int64_t i, std::int64_t j) { return std::abs(i - j) <= 1 ? 1.0 : 0.01; };
  const HeadStats stats = stats_of({}, 30, near);
  const auto labels = head_labels(stats, summarise(stats, 0));
  ASSERT_GE(labels.size(), 1U);
  EXPECT_EQ(labels[0].name, "local");
  EXPECT_EQ(labels[0].threshold, 0.5);
  EXPECT_GT(labels[0].value, 0.8);
  EXPECT_EQ(labels[0].source, "this project");
}

TEST(Labels, SinkSeparatorBroad) {
  constexpr std::int64_t kN = 100;
  HeadStatsSpec spec;
  spec.classes = {"other", "separator"}, spec.key_classes.assign(kN, 1);
  spec.key_classes[50] = spec.key_classes[99] = 2;
  EXPECT_EQ(names_of(stats_of({}, kN, at(0.35, kN, [](std::int64_t) { return 0; }))), Names{"sink"});
  EXPECT_EQ(names_of(stats_of(spec, kN, at(0.65, kN, [](std::int64_t i) { return i < 50 ? 50 : 99; }))),
            Names{"separator"});
  EXPECT_EQ(names_of(stats_of(spec, kN, at(0.0, kN, [](std::int64_t) { return 0; }))), Names{"broad"});
  // Nothing is said about what was not gathered.
  EXPECT_EQ(names_of(stats_of({.keys = {1}}, kN, at(0.7, kN, [](std::int64_t) { return 0; }))), Names{"mixed"});
  spec.classes = {"other", "another"};
  EXPECT_EQ(names_of(stats_of(spec, kN, at(0.65, kN, [](std::int64_t i) { return i < 50 ? 50 : 99; }))),
            Names{"mixed"});
}

TEST(Labels, Patterns) {
  constexpr std::int64_t kN = 60, kHalf = kN / 2;
  HeadStatsSpec spec;
  for (std::int64_t i = 0; i < kN; ++i) spec.q_tokens.push_back(i % kHalf);
  spec.kv_tokens = spec.q_tokens;
  const auto back = [](std::int64_t by) {
    return [by](std::int64_t i) { return i < kHalf ? (i * 7) % kHalf : i - kHalf + by; };
  };
  EXPECT_EQ(names_of(stats_of(spec, kN, at(0.8, kN, back(0)))), Names{"duplicate"});
  EXPECT_EQ(names_of(stats_of(spec, kN, at(0.8, kN, back(1)))), Names{"induction"});
  EXPECT_EQ(names_of(stats_of({}, kN, at(0.8, kN, back(1)))), Names{"mixed"});
}

TEST(Labels, MixedNamesTheNearest) {
  constexpr std::int64_t kN = 20;
  const HeadStats stats = stats_of({}, kN, at(0.25, kN, [](std::int64_t i) { return i % 2 ? 0 : 10; }));
  const auto labels = head_labels(stats, summarise(stats, 0));
  ASSERT_EQ(labels.size(), 1U);
  EXPECT_EQ(labels[0].name, "mixed");
  EXPECT_EQ(labels[0].measure.rfind("no other label; nearest is ", 0), 0U) << labels[0].measure;
  EXPECT_LE(labels[0].value, labels[0].threshold);
  EXPECT_FALSE(labels[0].source.empty());
}

TEST(Labels, EachHasItsNumber) {
  const HeadStats stats = stats_of({}, 12, [](std::int64_t, std::int64_t j) { return j == 0 ? 11.0 : 1.0; });
  const HeadSummary summary = summarise(stats, 0);
  const auto labels = head_labels(stats, summary);
  ASSERT_EQ(labels.size(), 1U);
  EXPECT_EQ(labels[0].name, "sink");
  EXPECT_EQ(labels[0].measure, "mean weight on the first key");
  EXPECT_EQ(labels[0].value, summary.key_mass[0]);
  EXPECT_NEAR(labels[0].value, 0.5, 1e-6);
  EXPECT_EQ(labels[0].threshold, 0.3);
  EXPECT_EQ(labels[0].source, "Gu et al. 2024");
}

TEST(Labels, WithoutRows) {
  HeadStats stats({.heads = 1, .q_len = 3, .kv_len = 3});
  const auto labels = head_labels(stats, summarise(stats, 0));
  ASSERT_EQ(labels.size(), 1U);
  EXPECT_EQ(labels[0].name, "mixed");
  EXPECT_TRUE(std::isnan(labels[0].value));
}

}  // namespace
}  // namespace multihead::testing
