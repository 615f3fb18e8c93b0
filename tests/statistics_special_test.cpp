// SPDX-License-Identifier: Apache-2.0
// Statistics by hand, of equal scores, of NaN and infinity, and of rows that see nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "statistics_problem.hpp"

namespace multihead::testing {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

// Row 0: 1/2, 1/4, 1/4, 0; row 1: 0, 0, 0, 1; row 2: sees nothing. Of queries at positions 1, 2, 3.
TEST(StatisticsOfWeights, ByHand) {
  const std::vector<double> weights{0.5, 0.25, 0.25, 0, 0, 0, 0, 1, 0, 0, 0, 0};
  const std::vector<std::int64_t> offsets{-1, 1}, keys{0, 9}, q_tokens{7, 5, 5}, kv_tokens{7, 7, 5, 5};
  const std::vector<std::uint32_t> classes{1, 2, 3, 0};
  std::vector<double> h(3), squares(3), far(3), seen(3), same(3), after(3), at_offsets(6), at_keys(6), of_class(6),
      top(6), received(4), map(1);
  std::vector<std::int64_t> top_keys(6);
  StatisticsRequest<double> request;
  request.offsets = offsets, request.keys = keys, request.bin = 16;
  request.key_classes = {classes.data(), {1, 4}};
  request.q_tokens = {q_tokens.data(), {1, 3}}, request.kv_tokens = {kv_tokens.data(), {1, 4}};
  const auto three = [](std::vector<double>& values) { return View3<double>(values.data(), {1, 1, 3}); };
  const auto two_each = [](auto& values) {
    return View4<std::decay_t<decltype(values[0])>>(values.data(), {1, 1, 3, 2});
  };
  RowStatistics<double>& to = request.plain;
  to.entropy = three(h), to.sum_squares = three(squares), to.distance = three(far), to.visible = three(seen);
  to.duplicate_mass = three(same), to.induction_mass = three(after);
  to.offset_mass = two_each(at_offsets), to.key_mass = two_each(at_keys), to.class_mass = two_each(of_class);
  to.top_weights = two_each(top), to.top_keys = two_each(top_keys);
  to.received = {received.data(), {1, 1, 4}}, to.map = {map.data(), {1, 1, 1, 1}};
  statistics_of_weights(View4<const double>(weights.data(), {1, 1, 3, 4}), request, 1);
  using V = std::vector<double>;
  EXPECT_EQ(seen, (V{3, 1, 0}));
  EXPECT_NEAR(h[0], 1.5 * std::log(2.0), 1e-15);
  EXPECT_EQ(h[1], 0);
  EXPECT_TRUE(std::isnan(h[2]) && std::isnan(far[2]));
  EXPECT_EQ(squares, (V{0.375, 1, 0}));
  EXPECT_EQ(far[0], 0.5 * 1 + 0.25 * 0 + 0.25 * 1);
  EXPECT_EQ(far[1], 1);
  EXPECT_EQ(at_offsets, (V{0.5, 0.25, 0, 1, 0, 0}));
  EXPECT_EQ(at_keys, (V{0.5, 0, 0, 0, 0, 0}));
  EXPECT_EQ(of_class, (V{0.75, 0.5, 0, 0, 0, 0}));
  EXPECT_EQ(same, (V{0.5, 1, 0}));    // token 7: key 0, not key 1 where the query stands; token 5: key 3
  EXPECT_EQ(after, (V{0.25, 0, 0}));  // after token 7: key 1; key 2 follows the query itself. Token 5: itself again
  EXPECT_EQ(top, (V{0.5, 0.25, 1, 0, 0, 0}));
  EXPECT_EQ(top_keys, (std::vector<std::int64_t>{0, 1, 3, -1, -1, -1}));
  EXPECT_EQ(received, (V{0.5, 0.25, 0.25, 1}));
  EXPECT_NEAR(map[0], 2.0 / 3, 1e-15);
}

// One head, one query of width 1 and value 1: the scores are the keys.
struct OneRow {
  std::vector<float> keys;
  std::vector<std::uint8_t> keep;
  float q = 1, out = 0, lse = 0, entropy = 77, squares = 77, distance = 77, visible = 77, of_class = 77, same = 77;
  std::vector<float> at_keys, top;
  std::vector<std::int64_t> wanted, top_keys;

  explicit OneRow(std::vector<float> scores) : keys(std::move(scores)) {}
  void run(Target target, std::int64_t places) {
    const auto n = static_cast<std::int64_t>(keys.size());
    const std::vector<float> values(keys.size(), 1);
    const std::vector<std::uint32_t> classes(keys.size(), 1);
    const std::vector<std::int64_t> tokens(keys.size(), 3);
    AttentionOptions options;
    options.target = target, options.scale = 1;
    if (!keep.empty()) options.keep_mask = Mask(View<const std::uint8_t, 1>(keep.data(), {n}));
    at_keys.assign(wanted.size() + 1, 77);
    top.assign(static_cast<std::size_t>(places), 77), top_keys.assign(static_cast<std::size_t>(places), 77);
    StatisticsRequest<float> request;
    request.keys = wanted, request.key_classes = {classes.data(), {1, n}};
    request.q_tokens = {tokens.data(), {1, 1}}, request.kv_tokens = {tokens.data(), {1, n}};
    RowStatistics<float>& to = request.plain;
    to.entropy = {&entropy, {1, 1, 1}}, to.sum_squares = {&squares, {1, 1, 1}}, to.distance = {&distance, {1, 1, 1}};
    to.visible = {&visible, {1, 1, 1}}, to.class_mass = {&of_class, {1, 1, 1, 1}};
    to.duplicate_mass = {&same, {1, 1, 1}};
    to.key_mass = {at_keys.data(), {1, 1, 1, static_cast<std::int64_t>(wanted.size())}};
    to.top_keys = {top_keys.data(), {1, 1, 1, places}}, to.top_weights = {top.data(), {1, 1, 1, places}};
    attention(View4<const float>(&q, {1, 1, 1, 1}), View4<const float>(keys.data(), {1, 1, n, 1}),
              View4<const float>(values.data(), {1, 1, n, 1}), View4<float>(&out, {1, 1, 1, 1}),
              View3<float>(&lse, {1, 1, 1}), {}, request, options);
  }
};

// Equal scores in one block, over two and between blocks: the lower key first, whatever the number of places.
TEST(StatisticsSpecial, OfEqualScoresTheLowerKeyFirst) {
  for (Target target : available_targets())
    for (std::int64_t places : {1, 2, 3, 7, 9, 20, 64}) {
      std::vector<float> scores(400, 0);
      for (std::size_t key : {5u, 17u, 130u, 131u, 399u}) scores[key] = 2;
      for (std::size_t key : {9u, 200u, 300u}) scores[key] = 1;
      OneRow row(scores);
      row.run(target, places);
      std::vector<std::int64_t> wanted{5, 17, 130, 131, 399, 9, 200, 300};
      for (std::int64_t key = 0; wanted.size() < 64; ++key)
        if (scores[static_cast<std::size_t>(key)] == 0) wanted.push_back(key);
      wanted.resize(static_cast<std::size_t>(places));
      EXPECT_EQ(row.top_keys, wanted) << target_name(target) << " " << places;
    }
}

// A rising row puts every key on top of those before it.
TEST(StatisticsSpecial, RisingAndFallingScores) {
  for (Target target : available_targets())
    for (bool rising : {true, false}) {
      std::vector<float> scores;
      for (int key = 0; key < 300; ++key) scores.push_back(0.01f * static_cast<float>(rising ? key : -key));
      OneRow row(scores);
      row.run(target, 64);
      for (std::int64_t place = 0; place < 64; ++place)
        EXPECT_EQ(row.top_keys[static_cast<std::size_t>(place)], rising ? 299 - place : place) << target_name(target);
    }
}

TEST(StatisticsSpecial, HiddenNaNNeverShows) {
  for (Target target : available_targets())
    for (float hidden : {kNaN, kInf, -kInf}) {
      OneRow row({1, hidden, 1, hidden, 1, 1});
      row.keep = {1, 0, 1, 0, 1, 1};
      row.wanted = {0, 1, 5};
      row.run(target, 5);
      EXPECT_NEAR(row.entropy, std::log(4.0), 1e-6) << target_name(target) << " " << hidden;
      EXPECT_EQ(row.visible, 4);
      EXPECT_EQ(row.squares, 0.25f);
      EXPECT_EQ(row.distance, 0.25f * (0 + 2 + 4 + 5));
      EXPECT_EQ(row.of_class, 1);
      EXPECT_EQ(row.same, 0.75f);
      EXPECT_EQ(row.at_keys, (std::vector<float>{0.25f, 0, 0.25f, 77}));
      EXPECT_EQ(row.top_keys, (std::vector<std::int64_t>{0, 2, 4, 5, -1}));
      EXPECT_EQ(row.top, (std::vector<float>{0.25f, 0.25f, 0.25f, 0.25f, 0}));
    }
}

TEST(StatisticsSpecial, VisibleNaNShows) {
  for (Target target : available_targets())
    for (float seen : {kNaN, kInf}) {
      OneRow row({1, seen, 1, 1});
      row.wanted = {0, 1};
      row.run(target, 2);
      for (float x : {row.entropy, row.squares, row.distance, row.of_class, row.same, row.at_keys[0], row.at_keys[1]})
        EXPECT_TRUE(std::isnan(x)) << x << " " << target_name(target) << " " << seen;
      EXPECT_EQ(row.visible, 4);
      if (std::isnan(seen)) {
        EXPECT_EQ(row.top_keys, (std::vector<std::int64_t>{0, 2}));  // a NaN is never listed
      }
    }
}

TEST(StatisticsSpecial, ARowThatSeesNothing) {
  for (Target target : available_targets()) {
    OneRow row({1, 2, 3});
    row.keep = {0, 0, 0};
    row.wanted = {0, 2, 9};
    row.run(target, 2);
    EXPECT_TRUE(std::isnan(row.entropy) && std::isnan(row.distance)) << target_name(target);
    for (float x : {row.visible, row.squares, row.of_class, row.same}) EXPECT_EQ(x, 0);
    EXPECT_EQ(row.at_keys, (std::vector<float>{0, 0, 0, 77}));
    EXPECT_EQ(row.top_keys, (std::vector<std::int64_t>{-1, -1}));
    EXPECT_EQ(row.top, (std::vector<float>{0, 0}));
  }
}

// A key far above all others in another block: differences of maxima beyond the exponents, products that would
// overflow.
TEST(StatisticsSpecial, OneKeyFarAboveTheOthers) {
  for (Target target : available_targets())
    for (float far : {300.0f, 1e30f, 1e38f})
      for (std::size_t place : {3u, 200u}) {
        std::vector<float> scores(256, -far);
        scores[place] = far;
        OneRow row(scores);
        row.run(target, 1);
        EXPECT_EQ(row.entropy, 0) << target_name(target) << " " << far;
        EXPECT_EQ(row.squares, 1);
        EXPECT_EQ(row.distance, static_cast<float>(place));
        EXPECT_EQ(row.top_keys[0], static_cast<std::int64_t>(place));
        EXPECT_EQ(row.top[0], 1);
      }
}

// All tokens alike, wherever rows stand in a block: all but the row's own key are duplicates, and all but the first
// and the one after it follow its token.
TEST(StatisticsSpecial, PatternsLeaveOutTheRowItself) {
  constexpr std::int64_t kRows = 50, kKeys = 256;
  std::vector<float> q(kRows * 4), k(kKeys * 4), out(kRows * 4), same(kRows), after(kRows), near(2 * kRows),
      first(kRows);
  Random random(3);
  for (auto* values : {&q, &k})
    for (float& x : *values) x = static_cast<float>(random.normal());
  const std::vector<std::int64_t> tokens(kKeys, 11), offsets{0, 1}, keys{0};
  StatisticsRequest<float> request;
  request.offsets = offsets, request.keys = keys;
  request.q_tokens = {tokens.data(), {1, kRows}}, request.kv_tokens = {tokens.data(), {1, kKeys}};
  request.plain.duplicate_mass = {same.data(), {1, 1, kRows}};
  request.plain.induction_mass = {after.data(), {1, 1, kRows}};
  request.plain.offset_mass = {near.data(), {1, 1, kRows, 2}};
  request.plain.key_mass = {first.data(), {1, 1, kRows, 1}};
  const View4<const float> k_view(k.data(), {1, 1, kKeys, 4});
  for (Target target : available_targets())
    for (std::int64_t offset = -30; offset < 260; ++offset) {
      AttentionOptions options;
      options.target = target, options.alignment = Alignment::at(offset);
      attention(View4<const float>(q.data(), {1, 1, kRows, 4}), k_view, k_view,
                View4<float>(out.data(), {1, 1, kRows, 4}), {}, {}, request, options);
      for (std::size_t i = 0; i < kRows; ++i) {
        const bool next_is_first = offset + static_cast<std::int64_t>(i) == -1;
        ASSERT_NEAR(same[i], 1 - near[2 * i], 2e-6) << target_name(target) << " offset " << offset << " row " << i;
        ASSERT_NEAR(after[i], 1 - first[i] - (next_is_first ? 0 : near[2 * i + 1]), 2e-6)
            << target_name(target) << " offset " << offset << " row " << i;
      }
    }
}

// All keys alike: the entropy is the logarithm of their number, whatever the score is.
TEST(StatisticsSpecial, EqualScores) {
  for (Target target : available_targets())
    for (std::size_t n : {1u, 2u, 128u, 129u, 1000u})
      for (float score : {0.0f, -500.0f, 3e4f}) {
        OneRow row(std::vector<float>(n, score));
        row.run(target, 1);
        const auto count = static_cast<double>(n);
        EXPECT_NEAR(row.entropy, std::log(count), 1e-6 * std::log(count)) << target_name(target) << " " << n;
        EXPECT_NEAR(row.squares, 1 / count, 1e-6 / count);
        EXPECT_NEAR(row.distance, (count - 1) / 2, 1e-6 * count);
      }
}

}  // namespace
}  // namespace multihead::testing
