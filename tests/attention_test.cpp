// SPDX-License-Identifier: Apache-2.0
// attention() against the definition: random problems over every option, type and target of this machine.
#include "multihead/attention.hpp"

#include <gtest/gtest.h>

#include "multihead/reference.hpp"
#include "oracle.hpp"

namespace multihead::testing {
namespace {

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// On every target of this machine.
template <class T>
void expect_close(const Problem& p) {
  Solved<T> s(p);
  const std::vector<T> before = s.out.values;
  AttentionOptions options = p.options();
  for (Target target : available_targets()) {
    options.target = target;
    const std::uint64_t tasks = tasks_run(target);
    s.run(options);
    EXPECT_EQ(static_cast<std::int64_t>(tasks_run(target) - tasks), explain(p.shape, options).tasks) << p.describe();
    EXPECT_LE(output_excess(s, multiplies_pairs(target, kTypeOf<T>)), 0) << target_name(target) << " " << p.describe();
    EXPECT_LE(lse_excess(s), 0) << target_name(target) << " " << p.describe();
    // Elements between the rows are nobody's: they stay as they were.
    s.out.each([&](T& x) { x = before[static_cast<std::size_t>(&x - s.out.values.data())]; });
    EXPECT_TRUE(same_bytes(s.out.values, before)) << p.describe();
  }
}

template <class T>
class AttentionOf : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(AttentionOf, Types);

// Every problem runs on every target, so a pair of options that is met so often is met so often by each target.
TYPED_TEST(AttentionOf, RandomProblemsOverAllOptionsAndTargets) {
  constexpr int kEnough = 2000;  // problems; some 700 do
  const int often = quick_share() ? 2 : 20;
  Plan plan(kTypeOf<TypeParam>, often);
  for (int problems = 0; !plan.done() && problems < kEnough && !this->HasFailure(); ++problems)
    expect_close<TypeParam>(plan.next());
  EXPECT_EQ(plan.missing(), "") << "pairs of options that met less than " << often << " times";
}

// Sizes at which a tile, a register or a block ends, against each other.
TYPED_TEST(AttentionOf, UglyLengths) {
  for (auto [q_len, kv_len] : {std::pair{239, 1}, {1, 239}, {113, 203}, {49, 129}, {255, 256}, {257, 255}, {96, 384}})
    for (std::int64_t width : {64, 5}) {
      Problem p;
      p.shape = {kTypeOf<TypeParam>, 1, 2, 1, q_len, kv_len, width, width + 3};
      p.plain.causal = true, p.plain.alignment = Alignment::bottom_right();
      expect_close<TypeParam>(p);
    }
}

TYPED_TEST(AttentionOf, EveryHeadDimAndValueDim) {
  for (std::int64_t width = 1; width <= 1024; width += width < 70 ? 1 : quick_share() ? 318 : 53) {
    Problem p;
    p.shape = {kTypeOf<TypeParam>, 1, 1, 1, 5, 19, width, 1025 - width};
    p.seed = static_cast<std::uint64_t>(width);
    expect_close<TypeParam>(p);
  }
}

TEST(Attention, ReferenceIsTheDefinition) {
  Plan plan(Type::float64, 5);
  while (!plan.done()) {
    const Problem p = plan.next();
    Solved<double> s(p);
    attention_reference(View4<const double>(s.q.view), View4<const double>(s.k.view), View4<const double>(s.v.view),
                        s.out.view, s.lse_view, p.options());
    EXPECT_LE(output_excess(s), 0) << p.describe();
    EXPECT_LE(lse_excess(s), 0) << p.describe();
  }
}

// Worked on paper: two keys with scores ln 1 and ln 3, so weights 1/4 and 3/4.
TEST(Attention, ByHand) {
  const float q[] = {1}, k[] = {0, 1.0986122887f}, v[] = {4, 8, 0, 4};
  for (Target target : available_targets()) {
    float out[2] = {}, lse[1] = {};
    attention({q, {1, 1, 1, 1}}, {k, {1, 1, 2, 1}}, {v, {1, 1, 2, 2}}, {out, {1, 1, 1, 2}}, {lse, {1, 1, 1}},
              {.scale = 1.0, .target = target});
    EXPECT_FLOAT_EQ(out[0], 1);
    EXPECT_FLOAT_EQ(out[1], 5);
    EXPECT_FLOAT_EQ(lse[0], std::log(4.0f));
  }
}

// The same with each option that changes a weight, every figure by hand: softcap 1 takes the scores 0 and ln 3 to
// 0 and tanh(ln 3) = 0.8; slope ln 2 at offset 1 takes ln 2 from key 0; a sink of 0 weighs as much as a score of 0.
TEST(Attention, OptionsByHand) {
  const float q[] = {1}, k[] = {0, 1.0986122887f}, v[] = {4, 8, 0, 4};
  const double slopes[] = {0.6931471805599453}, sinks[] = {0};
  const float bias[] = {0.6931471806f, 0};
  const auto first = [&](AttentionOptions options) {
    float out[2] = {};
    options.scale = 1.0;
    attention({q, {1, 1, 1, 1}}, {k, {1, 1, 2, 1}}, {v, {1, 1, 2, 2}}, {out, {1, 1, 1, 2}}, options);
    return out[0];
  };
  for (Target target : available_targets()) {
    EXPECT_FLOAT_EQ(first({.softcap = 1, .target = target}), 4 / (1 + std::exp(0.8f)));
    EXPECT_FLOAT_EQ(first({.alignment = Alignment::at(1), .alibi_slopes = slopes, .target = target}), 4 * 0.5f / 3.5f);
    EXPECT_FLOAT_EQ(first({.bias = View<const float, 1>(bias, {2}), .target = target}), 4 * 2.0f / 5.0f);
    EXPECT_FLOAT_EQ(first({.sinks = sinks, .target = target}), 4 * 1.0f / 5.0f);
  }
}

// T5's own table of 32 buckets up to distance 128, from -130 to 130, where it changes.
TEST(Attention, RelativeBuckets) {
  const std::pair<int, int> both[] = {{0, 0},     {-1, 1},   {-7, 7},   {-8, 8},   {-11, 8},  {-12, 9},
                                      {-15, 9},   {-16, 10}, {-22, 10}, {-23, 11}, {-31, 11}, {-32, 12},
                                      {-45, 12},  {-46, 13}, {-63, 13}, {-64, 14}, {-90, 14}, {-91, 15},
                                      {-128, 15}, {1, 17},   {8, 24},   {130, 31}};
  for (auto [r, bucket] : both) EXPECT_EQ(relative_bucket(r, 32, true, 128), bucket) << r;
  const std::pair<int, int> one[] = {{5, 0},    {0, 0},    {-15, 15}, {-16, 16}, {-18, 16},  {-19, 17},
                                     {-20, 17}, {-21, 18}, {-63, 26}, {-64, 26}, {-113, 31}, {-999, 31}};
  for (auto [r, bucket] : one) EXPECT_EQ(relative_bucket(r, 32, false, 128), bucket) << r;
  for (int buckets : {2, 4, 12, 32, 64})
    for (std::int64_t distance : {64, 100, 128, 1000})
      for (std::int64_t r = -1100; r <= 1100; ++r)
        for (bool both_directions : {false, true}) {
          const int count = both_directions ? 2 * buckets : buckets;
          EXPECT_EQ(relative_bucket(r, count, both_directions, distance),
                    bucket_of(r, count, both_directions, distance))
              << r << " of " << count << " up to " << distance;
        }
}

}  // namespace
}  // namespace multihead::testing
