// SPDX-License-Identifier: Apache-2.0
// Dropout in attention(): exactly the weights that is_dropped() names, and nothing else changes.
#include <gtest/gtest.h>

#include "part.hpp"

namespace multihead::testing {
namespace {

template <class T>
class DropoutIn : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(DropoutIn, Types);

// Two row blocks, two key blocks; values that are the unit vectors, so that an output row is its row of weights.
template <class T>
struct Weights {
  static constexpr std::int64_t kBatch = 2, kHeads = 2, kRows = 70, kKeys = 150;
  Problem p;
  Tensors<T> in;

  Weights() : p(problem()), in(p) {
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < kHeads; ++h)
        for (std::int64_t j = 0; j < kKeys; ++j)
          for (std::int64_t c = 0; c < kKeys; ++c) in.v.view(b, h, j, c) = j == c ? T(1) : T(0);
  }
  static Problem problem() {
    Problem p;
    p.shape = {kTypeOf<T>, kBatch, kHeads, kHeads, kRows, kKeys, 8, kKeys};
    return p;
  }

  // Each weight with dropout: 0 where it is dropped, otherwise what it is without, times 1 / (1 - probability).
  void expect(const AttentionOptions& options, std::int64_t batch) {
    const auto of_batch = [&](View4<T> x) { return rows_of_batch(x, batch); };
    const View4<T> q = of_batch(in.q.view), k = of_batch(in.k.view), v = of_batch(in.v.view);
    AttentionOptions without = options;
    without.dropout = {};
    const Answer<T> dropped(q, k, v, options), whole(q, k, v, without);
    EXPECT_EQ(hash_bits(dropped.lse), hash_bits(whole.lse));
    const Dropout& dropout = options.dropout;
    const double share = 1 / (1 - dropout.probability);
    std::int64_t zeros = 0, wrong = 0, seen = 0;
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t h = 0; h < kHeads; ++h)
        for (std::int64_t i = 0; i < kRows; ++i)
          for (std::int64_t j = 0; j < kKeys; ++j) {
            const double weight = whole.out.view(b, h, i, j), got = dropped.out.view(b, h, i, j);
            if (weight == 0) continue;  // not seen
            const bool drops = is_dropped(dropout, b * kHeads + h, i, j);
            ++seen, zeros += drops;
            const double wanted = drops ? 0 : weight * share;
            wrong += !(std::fabs(got - wanted) <= 4 * std::numeric_limits<T>::epsilon() * wanted);
          }
    EXPECT_EQ(wrong, 0) << target_name(*options.target) << " of " << seen;
    EXPECT_GT(zeros, seen / 10);
    EXPECT_LT(zeros, seen / 2);
  }
  static View4<T> rows_of_batch(View4<T> x, std::int64_t batch) {
    return {x.data(), {batch, x.extent(1), x.extent(2), x.extent(3)}, x.strides()};
  }
};

TYPED_TEST(DropoutIn, TheWeightsThatIsDroppedNames) {
  Weights<TypeParam> weights;
  for (Target target : available_targets()) {
    const Dropout dropout{0.3, 0x123456789ABCDEF0, 7};
    weights.expect({.dropout = dropout, .target = target}, 2);
    weights.expect({.causal = true, .alignment = Alignment::bottom_right(), .dropout = dropout, .target = target}, 2);
    weights.expect({.alignment = Alignment::bottom_right(), .window = {20, 3}, .dropout = dropout, .target = target},
                   2);
    // Sequences that begin beside a draw of four keys: places are counted in the tensors.
    const std::int64_t queries[] = {0, 21, 70}, keys[] = {0, 31, 150};
    weights.expect({.cu_seqlens_q = queries, .cu_seqlens_k = keys, .dropout = dropout, .target = target}, 1);
  }
}

TYPED_TEST(DropoutIn, SeedAndStreamChooseAndNothingIsStored) {
  Weights<TypeParam> weights;
  const auto bits = [&](Dropout dropout) { return Answer<TypeParam>(weights.in, {.dropout = dropout}).bits(); };
  const std::uint64_t first = bits({0.5, 1, 0});
  EXPECT_EQ(bits({0.5, 1, 0}), first);
  EXPECT_NE(bits({0.5, 2, 0}), first);
  EXPECT_NE(bits({0.5, 1, 1}), first);
  EXPECT_NE(bits({0.5, std::uint64_t{1} << 32, 0}), first);
  EXPECT_EQ(bits({0, 1, 1}), bits({}));
}

// A weight that is dropped is 0 times its value: what is not finite still shows in the rows that see it, and only
// there.
TYPED_TEST(DropoutIn, ADroppedKeyIsSeen) {
  using T = TypeParam;
  Weights<T> weights;
  weights.in.v.view(0, 0, 100, 3) = std::numeric_limits<T>::infinity();
  for (Target target : available_targets()) {
    AttentionOptions options{.causal = true, .alignment = Alignment::at(60), .dropout = {0.3, 5, 5}, .target = target};
    const Answer<T> answer(weights.in, options);
    for (std::int64_t i = 0; i < weights.kRows; ++i) {
      const T got = answer.out.view(0, 0, i, 3);
      EXPECT_EQ(std::isfinite(got), i < 40) << i;
      EXPECT_EQ(std::isnan(got), i >= 40 && is_dropped(options.dropout, 0, i, 100)) << i;
    }
  }
}

// Probabilities at the ends of what is allowed.
TYPED_TEST(DropoutIn, AlmostNoneAndAlmostAll) {
  using T = TypeParam;
  Weights<T> weights;
  const Answer<T> without(weights.in, {});
  const Answer<T> none(weights.in, {.dropout = {0x1p-40, 3, 3}});
  const double most = std::nextafter(1.0, 0.0);
  const Answer<T> all(weights.in, {.dropout = {most, 3, 3}});
  std::int64_t kept = 0;
  for (std::size_t at = 0; at < without.out.values.size(); ++at) {
    const double weight = without.out.values[at];
    EXPECT_NEAR(none.out.values[at], weight, weight * (0x1p-39 + std::numeric_limits<T>::epsilon()));
    kept += all.out.values[at] != 0;
  }
  EXPECT_EQ(kept, 0);
}

}  // namespace
}  // namespace multihead::testing
