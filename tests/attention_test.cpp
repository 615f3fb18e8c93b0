// SPDX-License-Identifier: Apache-2.0
// attention() against the definition: random problems over every option, type and target of this machine.
#include "multihead/attention.hpp"

#include <gtest/gtest.h>

#include <map>

#include "problem.hpp"

namespace multihead::testing {
namespace {

// On every target of this machine.
template <class T>
void expect_close(const Problem& problem) {
  Problem p = problem;
  p.shape.type = sizeof(T) == 4 ? Type::float32 : Type::float64;
  p.options.lengths = p.lengths;
  Solved<T> s(p);
  const std::vector<T> before = s.out.values;
  for (Target target : available_targets()) {
    p.options.target = target;
    s.run(p.options);
    EXPECT_LE(output_excess(s), 0) << target_name(target) << " " << p.describe();
    EXPECT_LE(lse_excess(s), 0) << target_name(target) << " " << p.describe();
    // Elements between the rows are nobody's: they stay as they were.
    s.out.each([&](T& x) { x = before[static_cast<std::size_t>(&x - s.out.values.data())]; });
    EXPECT_EQ(s.out.values, before) << p.describe();
  }
}

TEST(Attention, RandomProblemsOverAllOptionsTypesAndTargets) {
  std::map<std::string, int> met;
  const std::uint64_t problems = quick_share() ? 300 : 900;
  for (std::uint64_t seed = 0; seed < problems && !HasFailure(); ++seed) {
    const Problem p = draw_problem(seed);
    for (const std::string& tag : p.tags) ++met[tag + (seed % 2 ? " float64" : " float32")];
    if (seed % 2)
      expect_close<double>(p);
    else
      expect_close<float>(p);
  }
  // Every problem ran on every target, so a tag's count is that of each pair (option, target).
  for (const std::string& tag : all_tags())
    for (const char* type : {" float32", " float64"}) EXPECT_GE(met[tag + type], quick_share() ? 4 : 20) << tag << type;
}

// Sizes at which a tile, a register or a block ends, against each other.
TEST(Attention, UglyLengths) {
  for (auto [q_len, kv_len] : {std::pair{239, 1}, {1, 239}, {113, 203}, {49, 129}, {255, 256}, {257, 255}, {96, 384}})
    for (std::int64_t width : {64, 5}) {
      Problem p;
      p.shape = {Type::float32, 1, 2, 1, q_len, kv_len, width, width + 3};
      p.options.causal = Causal::bottom_right();
      expect_close<float>(p);
      expect_close<double>(p);
    }
}

TEST(Attention, EveryHeadDimAndValueDim) {
  for (std::int64_t width = 1; width <= 1024; width += width < 70 ? 1 : quick_share() ? 318 : 53) {
    Problem p;
    p.shape = {Type::float32, 1, 1, 1, 5, 19, width, 1025 - width};
    p.seed = static_cast<std::uint64_t>(width);
    expect_close<float>(p);
    expect_close<double>(p);
  }
}

TEST(Attention, ReferenceIsTheDefinition) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Problem p = draw_problem(seed);
    p.options.lengths = p.lengths;
    Solved<double> s(p);
    attention_reference(View4<const double>(s.q.view), View4<const double>(s.k.view), View4<const double>(s.v.view),
                        s.out.view, s.lse_view, p.options);
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

}  // namespace
}  // namespace multihead::testing
