// SPDX-License-Identifier: Apache-2.0
// attention_backward() against its definition: random problems over every option, type and target of this machine.
#include <gtest/gtest.h>

#include "backward_oracle.hpp"

namespace multihead::testing {
namespace {

// Of the magnitudes of Truth, which count each pair's errors by themselves; in sums they mostly cancel.
constexpr double kRoundings = 16;

AttentionOptions with_dropout(const Problem& p) {
  AttentionOptions options = p.options();
  if (p.seed % 3 == 0) options.dropout = {0.1 + 0.2 * static_cast<double>(p.seed % 4), p.seed, 5};
  return options;
}

template <class T>
void expect_gradients(const Problem& p) {
  Pass<T> pass(p);
  AttentionOptions options = with_dropout(p);
  const auto bias = bias_gradient_extents(p, static_cast<unsigned>(p.seed / 7));
  for (Target target : available_targets()) {
    options.target = target;
    pass.attend(options);
    Truth<T> truth(pass, options, bias);
    Gradients<T> got(p, bias);
    attention_backward(pass.forward(), got.asked(), options);
    const double share = rounds_factors(target, kTypeOf<T>) ? Truth<T>::kFactorRounding : 0;
    EXPECT_EQ(truth.excess(got, kRoundings, share), "") << target_name(target) << " " << p.describe();
  }
}

template <class T>
class BackwardOf : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(BackwardOf, Types);

TYPED_TEST(BackwardOf, RandomProblemsOverAllOptionsAndTargets) {
  Plan plan(kTypeOf<TypeParam>, quick_share() ? 1 : 3);
  while (!plan.done() && !this->HasFailure()) expect_gradients<TypeParam>(plan.next());
}

// Sizes at which a tile, a register or a block ends, against each other.
TYPED_TEST(BackwardOf, UglyLengths) {
  for (auto [q_len, kv_len] : {std::pair{239, 1}, {1, 239}, {113, 203}, {49, 129}, {257, 255}, {96, 256}})
    for (std::int64_t width : {64, 5}) {
      Problem p;
      p.shape = {kTypeOf<TypeParam>, 1, 2, 1, q_len, kv_len, width, width + 3};
      p.plain.causal = true, p.plain.alignment = Alignment::bottom_right();
      expect_gradients<TypeParam>(p);
    }
}

TYPED_TEST(BackwardOf, EveryHeadDimAndValueDim) {
  for (std::int64_t width = 1; width <= 1024; width += width < 70 ? 1 : quick_share() ? 318 : 106) {
    Problem p;
    p.shape = {kTypeOf<TypeParam>, 1, 1, 1, 5, 19, width, 1025 - width};
    p.seed = static_cast<std::uint64_t>(width);
    expect_gradients<TypeParam>(p);
  }
}

// The tasks of the chosen target alone, and not more than the plan says.
TEST(Backward, RunsOnTheTargetThatIsPinned) {
  for (Target target : available_targets()) {
    Problem p;
    p.shape = {Type::float32, 2, 4, 2, 150, 300, 16, 16};
    Pass<float> pass(p);
    AttentionOptions options;
    options.target = target;
    pass.attend(options);
    Gradients<float> got(p, {});
    const std::uint64_t tasks = tasks_run(target);
    attention_backward(pass.forward(), got.asked(), options);
    const AttentionPlan plan = explain_backward(p.shape, options);
    EXPECT_EQ(static_cast<std::int64_t>(tasks_run(target) - tasks), plan.tasks);
    EXPECT_EQ(plan.tasks, 2 * 2 * 3);
    EXPECT_EQ(plan.target, target);
    EXPECT_EQ(plan.kernel, "attention_backward_f32_" + std::string(target_name(target)));
    EXPECT_EQ(plan.visible_pairs, 2 * 4 * 150 * 300);
    EXPECT_EQ(plan.flops, 2 * plan.visible_pairs * 5 * 16);
    EXPECT_EQ(plan.scratch_bytes, attention_backward_scratch_bytes(p.shape, options));
  }
}

// Without its terms' magnitudes: of the largest gradient. What is rounded first weighs more than all else.
template <class T>
void expect_within(Target target, double share) {
  Problem p;
  p.shape = {kTypeOf<T>, 1, 2, 1, 300, 300, 64, 64};
  p.plain.causal = true;
  Pass<T> pass(p);
  AttentionOptions options = p.options();
  options.target = target;
  pass.attend(options);
  Truth<T> truth(pass, options, {});
  Gradients<T> got(p, {});
  attention_backward(pass.forward(), got.asked(), options);
  std::vector<std::vector<double>> wanted;
  truth.value.each([&](const char*, const std::vector<double>& x) { wanted.push_back(x); });
  std::size_t at = 0;
  got.each([&](const char* name, const std::vector<double>& x) {
    double largest = 0, worst = 0;
    for (std::size_t n = 0; n < x.size(); ++n) {
      largest = std::max(largest, std::fabs(wanted[at][n]));
      worst = std::max(worst, distance(x[n], wanted[at][n]) - (at < 3 ? half_ulp<T>(std::fabs(wanted[at][n])) : 0));
    }
    EXPECT_LE(worst, share * largest) << name << " " << target_name(target);
    ++at;
  });
}

TEST(Backward, ErrorsAreASmallShareOfTheLargestGradient) {
  for (Target target : available_targets()) {
    expect_within<float>(target, 1e-5);
    expect_within<double>(target, 1e-13);
    expect_within<BFloat16>(target, rounds_factors(target, Type::bfloat16) ? 2e-3 : 1e-5);
    expect_within<Float16>(target, 1e-5);
  }
}

}  // namespace
}  // namespace multihead::testing
