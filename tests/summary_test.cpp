// SPDX-License-Identifier: Apache-2.0
// summarise(): means of weights made by hand, rows that see no key, offsets that are equally frequent, what is refused.
#include <gtest/gtest.h>

#include <cmath>

#include "multihead/attention.hpp"
#include "multihead/error.hpp"
#include "multihead/inspect.hpp"

namespace multihead::testing {
namespace {

constexpr double kClose = 1e-6;

// Statistics of weights (batch, heads, q_len, kv_len).
HeadStats stats_of(HeadStatsSpec spec, const std::vector<float>& weights, const std::vector<float>& norms = {}) {
  HeadStats stats(std::move(spec));
  const HeadStatsSpec& of = stats.spec();
  StatisticsRequest<float> request = stats.request();
  if (!norms.empty()) request.norms = {norms.data(), {of.batch, of.heads, of.kv_len}};
  statistics_of_weights(View4<const float>(weights.data(), {of.batch, of.heads, of.q_len, of.kv_len}), request,
                        of.query_offset);
  return stats;
}

double entropy_of(const std::vector<double>& p) {
  double sum = 0;
  for (const double x : p)
    if (x > 0) sum -= x * std::log(x);
  return sum;
}

// Two sequences, two heads, two rows, three keys; the last row of the second sequence sees no key.
const std::vector<float> kWeights{0.5F, 0.25F, 0.25F, 0, 0.75F, 0.25F, 1, 0, 0, 0.125F, 0.125F, 0.75F,  // sequence 0
                                  0,    1,     0,     0, 0,     0,     0, 0, 1, 0,      0,      0};     // sequence 1
HeadStatsSpec spec_of_weights() {
  HeadStatsSpec spec{.batch = 2, .heads = 2, .q_len = 2, .kv_len = 3};
  spec.classes = {"a", "separator"}, spec.key_classes = {1, 3, 2, 1, 1, 2};
  spec.q_tokens = {5, 6, 5, 6}, spec.kv_tokens = {5, 6, 5, 6, 5, 6};
  spec.top = 2;
  return spec;
}

TEST(Summary, MeansOverTheRowsThatSeeAKey) {
  const HeadStats stats = stats_of(spec_of_weights(), kWeights);
  const HeadSummary head = summarise(stats, 0);
  EXPECT_EQ(head.rows, 3);
  EXPECT_NEAR(head.entropy, (entropy_of({0.5, 0.25, 0.25}) + entropy_of({0.75, 0.25}) + 0) / 3, kClose);
  EXPECT_NEAR(head.entropy_share,
              (entropy_of({0.5, 0.25, 0.25}) / std::log(3.0) + entropy_of({0.75, 0.25}) / std::log(2.0)) / 2, kClose);
  EXPECT_NEAR(head.largest, (0.5 + 0.75 + 1) / 3, kClose);
  EXPECT_NEAR(head.sum_squares, (0.375 + 0.625 + 1) / 3, kClose);
  EXPECT_NEAR(head.distance, (0.75 + 0.25 + 1) / 3, kClose);
  ASSERT_EQ(head.offset_mass.size(), 3U);
  EXPECT_NEAR(head.offset_mass[0], (0 + 0 + 0) / 3.0, kClose);
  EXPECT_NEAR(head.offset_mass[1], (0.5 + 0.75 + 0) / 3, kClose);
  EXPECT_NEAR(head.offset_mass[2], (0.25 + 0.25 + 1) / 3, kClose);
  ASSERT_EQ(head.key_mass.size(), 1U);
  EXPECT_NEAR(head.key_mass[0], 0.5 / 3, kClose);
  ASSERT_EQ(head.class_mass.size(), 2U);
  EXPECT_NEAR(head.class_mass[0], (0.75 + 0.75 + 1) / 3, kClose);
  EXPECT_NEAR(head.class_mass[1], (0.5 + 1 + 0) / 3, kClose);
  EXPECT_NEAR(head.duplicate_mass, (0.25 + 0 + 1) / 3, kClose);  // sequence 1, row 0: token 5 stands at key 1
  EXPECT_EQ(head.top_offset, 0);                                 // offsets 0, 0, 1
  EXPECT_NEAR(head.top_offset_share, 2.0 / 3, kClose);
}

TEST(Summary, OfEqualsTheNearestOffset) {
  // Largest weights at keys 2, 0 and 2 of rows 0, 1 and 2: offsets 2, -1 and 0.
  const HeadStats three = stats_of({.heads = 1, .q_len = 3, .kv_len = 3}, {0, 0, 1, 1, 0, 0, 0, 0, 1});
  EXPECT_EQ(summarise(three, 0).top_offset, 0);
  EXPECT_NEAR(summarise(three, 0).top_offset_share, 1.0 / 3, kClose);
  // 1 and -1.
  const HeadStats two = stats_of({.heads = 1, .q_len = 2, .kv_len = 2}, {0, 1, 1, 0});
  EXPECT_EQ(summarise(two, 0).top_offset, -1);
  // Positions count from query_offset on: both rows look at the key of their own.
  const HeadStats later = stats_of({.heads = 1, .q_len = 2, .kv_len = 4, .query_offset = 2}, {0, 0, 1, 0, 0, 0, 0, 1});
  EXPECT_EQ(summarise(later, 0).top_offset, 0);
  EXPECT_EQ(summarise(later, 0).top_offset_share, 1);
  // Far offsets win by number alone.
  const HeadStats far = stats_of({.heads = 1, .q_len = 3, .kv_len = 5}, {0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0});
  EXPECT_EQ(summarise(far, 0).top_offset, 2);
}

TEST(Summary, RowsWithoutWeightAreLeftOut) {
  // The second row sees keys that all have n_j = 0.
  HeadStatsSpec spec{.heads = 1, .q_len = 2, .kv_len = 3};
  spec.norm_weighted = true;
  const HeadStats weighted = stats_of(spec, {0.5F, 0.25F, 0.25F, 0, 0.5F, 0.5F}, {1, 0, 0});
  EXPECT_EQ(weighted.norm_weighted().visible[1], 2);
  EXPECT_EQ(summarise(weighted, 0).rows, 2);
  const HeadSummary head = summarise(weighted, 0, true);
  EXPECT_EQ(head.rows, 1);
  EXPECT_EQ(head.entropy, 0);
  EXPECT_EQ(head.largest, 1);
  EXPECT_EQ(head.distance, 0);
  EXPECT_EQ(head.top_offset_share, 1);

  // A sink takes all of the second row's weight, in float.
  const auto attend = [](std::vector<float> x, double sink) {
    HeadStats stats({.heads = 1, .q_len = 2, .kv_len = 2});
    std::vector<float> out(2);
    const std::vector<double> sinks{sink};
    const View4<const float> q(x.data(), {1, 1, 2, 1}), k(x.data() + 2, {1, 1, 2, 1}), v(x.data() + 4, {1, 1, 2, 1});
    attention(q, k, v, View4<float>(out.data(), {1, 1, 2, 1}), {}, {}, stats.request(), {.scale = 1, .sinks = sinks});
    return summarise(stats, 0);
  };
  const HeadSummary sunk = attend({1, 0, 120, 120, 1, 1}, 120);
  EXPECT_EQ(sunk.rows, 1);
  EXPECT_EQ(sunk.distance, 0.5);
  EXPECT_NEAR(sunk.largest, 1.0 / 3, kClose);
  EXPECT_EQ(attend({0, 0, 1, 1, 1, 1}, 120).rows, 0);
  // A NaN is no row without weight: it shows, also where every key is one.
  const float nan = std::nanf("");
  for (const HeadSummary& bad : {attend({1, nan, 1, 1, 1, 1}, 0), attend({1, 1, nan, nan, 1, 1}, 0)}) {
    EXPECT_EQ(bad.rows, 2);
    EXPECT_TRUE(std::isnan(bad.entropy) && std::isnan(bad.sum_squares));
  }
}

TEST(Summary, PaddingIsLeftOut) {
  HeadStatsSpec spec = spec_of_weights();
  spec.q_lengths = {1, 1};
  const HeadSummary head = summarise(stats_of(spec, kWeights), 0);
  EXPECT_EQ(head.rows, 2);
  EXPECT_NEAR(head.largest, (0.5 + 1) / 2, kClose);
  EXPECT_NEAR(head.distance, (0.75 + 1) / 2, kClose);
  spec.q_lengths = {0, 2};
  EXPECT_EQ(summarise(stats_of(spec, kWeights), 0).rows, 1);
  spec.q_lengths = {0, 0};
  EXPECT_EQ(summarise(stats_of(spec, kWeights), 0).rows, 0);
}

TEST(Summary, SpecsRefused) {
  const auto refuse = [](ErrorCode code, const std::string& words, const auto& change) {
    HeadStatsSpec spec{.batch = 2, .heads = 1, .q_len = 2, .kv_len = 2};
    change(spec);
    try {
      HeadStats stats(std::move(spec));
      ADD_FAILURE() << words;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_NE(std::string(error.what()).find("HeadStats: " + words), std::string::npos) << error.what();
    }
  };
  constexpr ErrorCode kOption = ErrorCode::bad_option;
  constexpr std::int64_t kFar = kMostStatisticsReach + 1;
  using Spec = HeadStatsSpec;
  refuse(kOption, "bin is 48;", [](Spec& s) { s.bin = 48; });
  refuse(kOption, "bin is -16;", [](Spec& s) { s.bin = -16; });
  refuse(kOption, "bin is 9223372036854775680;",
         [](Spec& s) { s.bin = std::numeric_limits<std::int64_t>::max() - 127; });
  refuse(kOption, "a key of keys is -1;", [](Spec& s) { s.keys = {0, -1}; });
  refuse(kOption, "a key of keys is ", [](Spec& s) { s.keys = {kFar}; });
  refuse(kOption, "an offset of offsets is ", [](Spec& s) { s.offsets = {-kFar}; });
  refuse(kOption, "query_offset is ", [](Spec& s) { s.query_offset = kFar; });
  refuse(kOption, "top is 65;", [](Spec& s) { s.top = 65; });
  refuse(kOption, "a length of q_lengths is 3;", [](Spec& s) { s.q_lengths = {1, 3}; });
  refuse(ErrorCode::shape_mismatch, "q_lengths has elements 1,", [](Spec& s) { s.q_lengths = {1}; });
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  refuse(ErrorCode::out_of_memory, "statistics of batch 2147483648, heads 2147483648 and q_len 4",
         [](Spec& s) { s.batch = s.heads = kMost, s.q_len = 4; });
  refuse(ErrorCode::out_of_memory, "statistics of batch 2147483648,",
         [](Spec& s) { s.batch = s.heads = kMost, s.q_len = 0, s.kv_len = 4, s.received = true; });
}

TEST(Summary, NormWeighted) {
  HeadStatsSpec spec{.heads = 1, .q_len = 1, .kv_len = 2};
  spec.norm_weighted = true;
  const HeadStats stats = stats_of(spec, {0.75F, 0.25F}, {1, 3});
  EXPECT_NEAR(summarise(stats, 0).largest, 0.75, kClose);
  EXPECT_NEAR(summarise(stats, 0, true).largest, 0.5, kClose);
  EXPECT_NEAR(summarise(stats, 0, true).entropy_share, 1, kClose);
}

TEST(Summary, WhatWasNotGatheredIsNaN) {
  const HeadStats stats = stats_of({.heads = 1, .q_len = 1, .kv_len = 1, .offsets = {}, .keys = {}}, {1});
  const HeadSummary head = summarise(stats, 0);
  EXPECT_EQ(head.rows, 1);
  EXPECT_EQ(head.largest, 1);
  EXPECT_TRUE(std::isnan(head.entropy_share));  // no row sees two keys
  EXPECT_TRUE(std::isnan(head.duplicate_mass) && std::isnan(head.induction_mass));
  EXPECT_TRUE(head.offset_mass.empty() && head.key_mass.empty() && head.class_mass.empty());
  const HeadSummary empty = summarise(HeadStats({.heads = 1, .q_len = 2, .kv_len = 0}), 0);
  EXPECT_EQ(empty.rows, 0);
  EXPECT_TRUE(std::isnan(empty.entropy) && std::isnan(empty.largest) && std::isnan(empty.top_offset_share));
}

TEST(Summary, Refused) {
  const HeadStats stats({.heads = 2, .q_len = 1, .kv_len = 1});
  for (const std::int64_t head : {-1, 2}) try {
      summarise(stats, head);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_option);
      EXPECT_EQ(error.what(), "summarise: head is " + std::to_string(head) + "; there are 2, counted from 0");
    }
  EXPECT_THROW(summarise(stats, 0, true), Error);
}

}  // namespace
}  // namespace multihead::testing
