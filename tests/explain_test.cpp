// SPDX-License-Identifier: Apache-2.0
// Questions about calls over every option: the pairs that ranges leave, and scratch that is enough and not too much.
#include <gtest/gtest.h>

#include "multihead/attention.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

// Pairs of a query and a key that causal, window, lengths, prefixes and packing leave, counted one by one.
std::int64_t pairs_of(const Problem& problem) {
  Problem p = problem;
  p.keep_mask = p.drop_mask = p.bias = Spread{};
  std::int64_t pairs = 0;
  for (std::int64_t b = 0; b < p.shape.batch; ++b)
    for (std::int64_t i = 0; i < p.shape.q_len; ++i) {
      const Stand stand(p, b, i);
      for (std::int64_t j = 0; j < p.shape.kv_len; ++j) pairs += sees(p, stand, {b, 0, i}, j);
    }
  return pairs * p.shape.heads;
}

TEST(Explain, CountsThePairsThatRangesLeave) {
  Plan plan(Type::float32, quick_share() ? 2 : 20);
  while (!plan.done() && !HasFailure()) {
    const Problem p = plan.next();
    const AttentionPlan found = explain(p.shape, p.options());
    const auto pairs = static_cast<double>(pairs_of(p));
    EXPECT_EQ(found.visible_pairs, pairs) << p.describe();
    EXPECT_EQ(found.flops, 2 * pairs * static_cast<double>(p.shape.head_dim + p.shape.value_dim)) << p.describe();
    EXPECT_EQ(found.scratch_bytes, attention_scratch_bytes(p.shape, p.options())) << p.describe();
  }
}

TEST(Explain, NamesTheTermsOfAScore) {
  const double by_head[] = {1};
  const float bias[] = {0, 0, 0, 0};
  const bool mask[] = {true};
  const AttentionShape shape{.q_len = 1, .kv_len = 1, .head_dim = 1, .value_dim = 1};
  EXPECT_EQ(explain(shape).terms, "none");
  const AttentionPlan plan = explain(shape, {.softcap = 1,
                                             .keep_mask = View<const bool, 1>(mask, {1}),
                                             .drop_mask = View<const bool, 1>(mask, {1}),
                                             .bias = View<const float, 1>(bias, {1}),
                                             .alibi_slopes = by_head,
                                             .relative_bias = {MatrixView<const float>(bias, {4, 1}), true},
                                             .sinks = by_head,
                                             .dropout = {.probability = 0.5}});
  for (const char* word :
       {"softcap", "alibi_slopes", "relative_bias", "bias", "keep_mask", "drop_mask", "sinks", "dropout"})
    EXPECT_NE(plan.terms.find(word), std::string::npos) << plan.terms;
}

template <class T>
class ScratchOf : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(ScratchOf, Types);

// As much scratch as the question says is enough, a byte less is refused, none beyond it is touched, and the bits are
// those of a call without.
TYPED_TEST(ScratchOf, AttentionIsWhatTheQuestionSays) {
  using T = TypeParam;
  Plan plan(kTypeOf<T>, 1);
  while (!plan.done() && !this->HasFailure()) {
    const Problem p = plan.next();
    Tensors<T> in(p);
    AttentionOptions options = p.options();
    const std::uint64_t wanted = Answer<T>(in, options).bits();
    const std::size_t bytes = attention_scratch_bytes(p.shape, options);
    std::vector<std::byte> scratch(bytes + 64, std::byte{0xA5});
    options.scratch = std::span(scratch).first(bytes);
    EXPECT_EQ(Answer<T>(in, options).bits(), wanted) << p.describe();
    for (std::size_t at = bytes; at < scratch.size(); ++at) EXPECT_EQ(scratch[at], std::byte{0xA5}) << p.describe();
    options.scratch = std::span(scratch).first(bytes - 1);
    EXPECT_THROW(Answer<T>(in, options), Error) << p.describe();
  }
}

// The same with weights: enough for any request.
TYPED_TEST(ScratchOf, WeightsIsWhatTheQuestionSays) {
  using T = TypeParam;
  using Real = Sum<T>;
  Plan plan(kTypeOf<T>, 1);
  for (int problems = 0; !plan.done() && !this->HasFailure(); ++problems) {
    const Problem p = plan.next();
    Tensors<T> in(p);
    AttentionOptions options = p.options();
    const AttentionShape& s = p.shape;
    std::vector<std::int64_t> rows;  // every second, none beside another
    for (std::int64_t i = 0; i < s.q_len; i += 2) rows.push_back(i);
    const auto asked = rows.empty() || problems % 2 ? s.q_len : static_cast<std::int64_t>(rows.size());
    std::vector<Real> per_head(static_cast<std::size_t>(s.batch * s.heads * asked * s.kv_len) + 1), mean = per_head;
    WeightsRequest<Real> request;
    if (problems % 2 == 0) request.rows = rows;
    request.per_head = {per_head.data(), {s.batch, s.heads, asked, s.kv_len}};
    if (problems % 3) request.mean = {mean.data(), {s.batch, asked, s.kv_len}};
    const std::size_t bytes = attention_scratch_bytes(s, options, true);
    std::vector<std::byte> scratch(bytes + 64, std::byte{0xA5});
    options.scratch = std::span(scratch).first(bytes);
    Tensor<T> out({s.batch, s.heads, s.q_len, s.value_dim});
    EXPECT_NO_THROW(attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), out.view,
                              View3<Real>(), request, options))
        << p.describe();
    for (std::size_t at = bytes; at < scratch.size(); ++at) EXPECT_EQ(scratch[at], std::byte{0xA5}) << p.describe();
  }
}

}  // namespace
}  // namespace multihead::testing
