// SPDX-License-Identifier: Apache-2.0
// merge(): attention over two sets of keys joined is attention over both; a side that saw nothing counts for nothing.
#include <gtest/gtest.h>

#include "multihead/attention.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

template <class T>
class Merge : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Merge, Types);

template <class T>
void join(const Answer<T>& a, const Answer<T>& b, Answer<T>& to, Target target) {
  merge(View4<const T>(a.out.view), View3<const T>(a.lse), View4<const T>(b.out.view), View3<const T>(b.lse),
        to.out.view, to.lse, target);
}

// The keys of a sequence in two parts; the sinks are the first part's.
struct Halves {
  Part first, second;
  Problem of_first, of_second;

  Halves(const Problem& p, const Part& whole, Random& random) : first(whole), second(whole) {
    first.k_end = second.k_begin = random.between(whole.k_begin, whole.k_end);
    of_first = part_of(p, first), of_second = part_of(p, second);
    of_second.sinks.clear();
  }
};

// out and lse against the true ones of all keys. Beside what one call may be off by: an output moves by the error of
// either lse (its wobble and 8 roundings of 1 + |lse|) times the distance of the halves' outputs, 2 |v| at most.
template <class T>
struct MergeJudge {
  Solved<T>& s;
  Judge<T> out, lse;
  double largest;

  explicit MergeJudge(Solved<T>& solved)
      : s(solved), out(solved.largest_value()), lse(1), largest(solved.largest_value()) {}
  void meet(const Answer<T>& got, const Part& part) {
    const auto [heads, rows] = std::pair{got.lse.extent(1), got.lse.extent(2)};
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t row = part.q_begin + i;
        const auto at = static_cast<std::size_t>((part.b * heads + h) * s.p.shape.q_len + row);
        const long double truth = s.true_lse[at];
        const long double eight = 8 * static_cast<long double>(std::numeric_limits<T>::epsilon());
        const long double off = std::isinf(truth) ? 0 : s.lse_wobble[at] + eight * (1 + std::fabs(truth));
        lse.meet(got.lse(0, h, i), s.plain_lse[at], truth, off);
        for (std::int64_t c = 0; c < s.p.shape.value_dim; ++c)
          out.meet(got.out.view(0, h, i, c), s.plain.view(part.b, h, row, c), s.truth.view(part.b, h, row, c),
                   s.wobble.view(part.b, h, row, c) + 2 * largest * off);
      }
  }
};

TYPED_TEST(Merge, OfTwoPartsIsOneCall) {
  using T = TypeParam;
  Plan plan(kTypeOf<T>, quick_share() ? 1 : 5);
  while (!plan.done() && !this->HasFailure()) {
    const Problem p = undropped(plan.next());
    Solved<T> s(p);
    Tensors<T> in(p);
    for (Target target : available_targets()) {
      MergeJudge<T> judge(s);
      Random random(p.seed);
      for (const Part& whole : sequences_of(p)) {
        const Halves halves(p, whole, random);
        AttentionOptions of_first = halves.of_first.options(), of_second = halves.of_second.options();
        of_first.target = of_second.target = target;
        Answer<T> a(in, halves.first, of_first), b(in, halves.second, of_second), joined(in, halves.first, of_first);
        join(a, b, joined, target);
        judge.meet(joined, whole);
        join(a, b, a, target);  // in place
        EXPECT_EQ(a.bits(), joined.bits()) << p.describe();
      }
      EXPECT_LE(judge.out.excess(), 0) << target_name(target) << " " << p.describe();
      EXPECT_LE(judge.lse.excess(), 0) << target_name(target) << " " << p.describe();
    }
  }
}

// Two answers of random numbers, rows 48 and more, and the joined one.
template <class T>
struct Pair {
  Problem p;
  Tensors<T> in;
  Answer<T> a, b, joined;

  Pair() : p(of(53)), in(p), a(in, {}), b(in, {.scale = -0.3}), joined(in, {}) {}
  static Problem of(std::int64_t rows) {
    Problem p;
    p.shape = {kTypeOf<T>, 2, 3, 3, rows, 9, 8, 19};
    return p;
  }
};

TYPED_TEST(Merge, ASideThatSawNothingCountsForNothing) {
  using T = TypeParam;
  constexpr T kInf = std::numeric_limits<T>::infinity();
  for (Target target : available_targets())
    for (T garbage : {T(1e30), kInf, std::numeric_limits<T>::quiet_NaN()}) {
      Pair<T> pair;
      pair.a.out.each([&](T& x) { x = garbage; });
      std::fill(pair.a.lse_values.begin(), pair.a.lse_values.end(), -kInf);
      join(pair.a, pair.b, pair.joined, target);
      EXPECT_EQ(pair.joined.bits(), pair.b.bits());
      join(pair.b, pair.a, pair.joined, target);
      EXPECT_EQ(pair.joined.bits(), pair.b.bits());
      join(pair.a, pair.a, pair.joined, target);
      pair.joined.out.each([](T& x) { EXPECT_EQ(x, 0); });
      EXPECT_EQ(pair.joined.lse(1, 2, 52), -kInf);
    }
}

TYPED_TEST(Merge, WhatIsNotFiniteShowsInItsRowOnly) {
  using T = TypeParam;
  constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
  for (Target target : available_targets())
    for (bool in_second : {false, true}) {
      Pair<T> pair;
      join(pair.a, pair.b, pair.joined, target);
      Tensor<T> clean(pair.joined.out.view.extents());
      clean.values = pair.joined.out.values;
      Answer<T>& side = in_second ? pair.b : pair.a;
      side.out.view(0, 1, 50, 18) = kNaN;
      side.lse(1, 0, 3) = kNaN;
      join(pair.a, pair.b, pair.joined, target);
      EXPECT_TRUE(std::isnan(pair.joined.out.view(0, 1, 50, 18)));
      EXPECT_TRUE(std::isnan(pair.joined.lse(1, 0, 3)));
      for (std::int64_t c = 0; c < 19; ++c) EXPECT_TRUE(std::isnan(pair.joined.out.view(1, 0, 3, c)));
      std::int64_t changed = 0;
      for (std::size_t at = 0; at < clean.values.size(); ++at)
        changed += !(clean.values[at] == pair.joined.out.values[at]);
      EXPECT_EQ(changed, 20);
    }
}

TYPED_TEST(Merge, BitsOfFmaTargetsAgree) {
  using T = TypeParam;
  std::set<std::uint64_t> found;
  for (Target target : available_targets()) {
    if (target == Target::baseline) continue;  // rounds differently
    Pair<T> pair;
    Random random(5);
    for (auto* side : {&pair.a, &pair.b}) {
      side->out.fill_normal(random);
      for (T& x : side->lse_values) x = static_cast<T>(random.normal() * 5);
    }
    join(pair.a, pair.b, pair.joined, target);
    found.insert(pair.joined.bits());
  }
  EXPECT_LE(found.size(), 1u);
}

// lse of two sides far apart, and of the same: no overflow on the way.
TYPED_TEST(Merge, LargeDifferences) {
  using T = TypeParam;
  for (Target target : available_targets()) {
    Pair<T> pair;
    for (auto [a, b] : {std::pair<T, T>{T(1e30), T(-1e30)}, {T(-1e30), T(1e30)}, {T(700), T(700)}}) {
      pair.a.lse(0, 0, 0) = a, pair.b.lse(0, 0, 0) = b;
      join(pair.a, pair.b, pair.joined, target);
      const T x = pair.a.out.view(0, 0, 0, 4), y = pair.b.out.view(0, 0, 0, 4);
      EXPECT_NEAR(pair.joined.out.view(0, 0, 0, 4), a > b ? x : a < b ? y : (x + y) / 2, 4e-7);
      EXPECT_NEAR(pair.joined.lse(0, 0, 0), a == b ? a + std::log(T(2)) : T(1e30), 1e-4) << a << " " << b;
    }
  }
}

// The weights of a half of the keys, from the lse of all.
template <class T>
std::vector<T> weights_of_part(Tensors<T>& in, const Part& part, const Problem& own, const View3<T>& lse) {
  std::vector<T> values(static_cast<std::size_t>(own.shape.heads * own.shape.q_len * own.shape.kv_len));
  WeightsRequest<T> request;
  request.per_head = {values.data(), {1, own.shape.heads, own.shape.q_len, own.shape.kv_len}};
  attention_weights(View4<const T>(rows_of(in.q.view, part.b, part.q_begin, part.q_end)),
                    View4<const T>(rows_of(in.k.view, part.b, part.k_begin, part.k_end)), View3<const T>(lse), request,
                    own.options());
  return values;
}

// With the lse that merge() gives they are those of one call, off by what the scores and that lse are off by.
template <class T>
void expect_weights_of_parts(const Problem& p, Tensors<T>& in, const Part& whole, Random& random) {
  const Halves halves(p, whole, random);
  Answer<T> a(in, halves.first, halves.of_first.options());
  const Answer<T> b(in, halves.second, halves.of_second.options());
  join(a, b, a, chosen_target());
  const std::vector<T> first = weights_of_part(in, halves.first, halves.of_first, a.lse);
  const std::vector<T> second = weights_of_part(in, halves.second, halves.of_second, a.lse);
  const Problem own = part_of(p, whole);
  const View4<T> q = rows_of(in.q.view, whole.b, whole.q_begin, whole.q_end);
  const View4<T> k = rows_of(in.k.view, whole.b, whole.k_begin, whole.k_end);
  Judge<T> judge(0);
  double magnitude = 1;
  auto next_first = first.begin(), next_second = second.begin();
  for (std::int64_t h = 0; h < own.shape.heads; ++h)
    for (std::int64_t i = 0; i < own.shape.q_len; ++i) {
      const Row<long double> exact(own, q, k, {0, h, i}, true);
      const Row<T> plain(own, q, k, {0, h, i}, true);
      if (std::isfinite(exact.lse)) magnitude = std::max(magnitude, static_cast<double>(std::fabs(exact.lse)));
      for (std::size_t j = 0; j < exact.weights.size(); ++j) {
        const long double weight = exact.weights[j];
        if (weight > 0) magnitude = std::max(magnitude, static_cast<double>(exact.biased.magnitudes[j]));
        const bool in_first = whole.k_begin + static_cast<std::int64_t>(j) < halves.first.k_end;
        judge.meet(in_first ? *next_first++ : *next_second++, plain.weights[j], weight, 0);
      }
    }
  EXPECT_LE(judge.excess(), 16 * std::numeric_limits<T>::epsilon() * (1 + magnitude)) << p.describe();
}

TYPED_TEST(Merge, WeightsOfThePartsAreThoseOfTheWhole) {
  Plan plan(kTypeOf<TypeParam>, 1);
  for (int problems = 0; !plan.done() && !this->HasFailure(); ++problems) {
    const Problem p = plan.next();
    if (quick_share() && problems % 4) continue;
    Tensors<TypeParam> in(p);
    Random random(p.seed);
    for (const Part& whole : sequences_of(p)) expect_weights_of_parts(p, in, whole, random);
  }
}

}  // namespace
}  // namespace multihead::testing
