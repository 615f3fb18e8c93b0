// SPDX-License-Identifier: Apache-2.0
// What a row does not see never reaches its gradients, nor those of others through it: NaN and Inf in one query, key,
// value, output, lse or gradient from above, over every option; rows without keys; nothing to do.
#include <gtest/gtest.h>

#include "backward_oracle.hpp"

namespace multihead::testing {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

template <class T>
class BackwardHidden : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(BackwardHidden, Types);

enum class Poisoned { q, k, v, d_out };

// Who may show what stands in one row of one operand: rows by (batch, head, row), keys by (batch, kv head, key).
struct Reach {
  std::set<std::array<std::int64_t, 3>> rows, keys;
};

template <class T>
struct Poison {
  Pass<T>& pass;
  Poisoned where;
  std::int64_t b, h, i;  // a head or kv head, and a row or key of it

  Tensor<T>& tensor() const {
    return where == Poisoned::q ? pass.q : where == Poisoned::k ? pass.k : where == Poisoned::v ? pass.v : pass.d_out;
  }
  void put(double x) const {
    for (std::int64_t c = 0; c < tensor().view.extent(3); ++c) tensor().view(b, h, i, c) = static_cast<T>(x);
  }

  Reach reach() const {
    const Problem& p = pass.p;
    const AttentionShape& s = p.shape;
    const std::int64_t group = s.heads / s.kv_heads;
    const bool of_row = where == Poisoned::q || where == Poisoned::d_out;
    Reach all;
    for (std::int64_t head = 0; head < s.heads; ++head)
      for (std::int64_t row = 0; row < s.q_len; ++row) {
        const Stand stand(p, b, row);
        const bool shows = of_row ? head == h && row == i : head / group == h && sees(p, stand, {b, head, row}, i);
        if (!shows) continue;
        all.rows.insert({b, head, row});
        for (std::int64_t j = 0; j < s.kv_len; ++j)
          if (sees(p, stand, {b, head, row}, j)) all.keys.insert({b, head / group, j});
      }
    return all;
  }
};

template <class T>
void expect_same_outside(const Problem& p, Gradients<T>& clean, Gradients<T>& got, const Reach& reach) {
  const auto compare = [&](const char* name, Tensor<T>& a, Tensor<T>& b, const auto& tainted) {
    for (std::int64_t n = 0; n < a.view.extent(0); ++n)
      for (std::int64_t h = 0; h < a.view.extent(1); ++h)
        for (std::int64_t i = 0; i < a.view.extent(2); ++i) {
          if (tainted.count({n, h, i})) continue;
          const auto row = [&](Tensor<T>& of) {
            return hash_bits(View<T, 1>(&of.view(n, h, i, 0), {of.view.extent(3)}));
          };
          ASSERT_EQ(row(a), row(b)) << name << " " << n << " " << h << " " << i << " " << p.describe();
        }
  };
  compare("q", clean.q, got.q, reach.rows);
  compare("k", clean.k, got.k, reach.keys);
  compare("v", clean.v, got.v, reach.keys);
  if (reach.keys.empty()) {
    EXPECT_EQ(clean.bits(), got.bits()) << p.describe();
  }
}

// Numbers of one row of a head that stand beside the tensors: out, lse and the gradient of lse.
template <class T>
void expect_rows_apart(const Problem& p, const AttentionOptions& options, Gradients<T>& clean,
                       std::array<std::int64_t, 4> bias, Random& random) {
  const AttentionShape& s = p.shape;
  for (int which = 0; which < 3; ++which) {
    Pass<T> bad(p);
    bad.attend(options);
    const std::int64_t b = random.between(0, s.batch - 1), h = random.between(0, s.heads - 1),
                       i = random.between(0, s.q_len - 1);
    const double x = random.pick({kNaN, kInf, -kInf});
    const auto at = static_cast<std::size_t>((b * s.heads + h) * s.q_len + i);
    if (which == 0) bad.out.view(b, h, i, 0) = static_cast<T>(x);
    if (which == 1) bad.lse[at] = static_cast<Sum<T>>(x);
    if (which == 2 && !bad.d_lse.empty()) bad.d_lse[at] = static_cast<Sum<T>>(x);
    Reach reach = Poison<T>{bad, Poisoned::d_out, b, h, i}.reach();
    if (which > 0 && reach.keys.empty()) reach.keys.insert({-1, -1, -1});  // a sink's gradient has them
    Gradients<T> got(p, bias);
    attention_backward(bad.forward(), got.asked(), options);
    expect_same_outside(p, clean, got, reach);
  }
}

template <class T>
void expect_nothing_leaks(const Problem& p, Target target) {
  const AttentionShape& s = p.shape;
  Pass<T> pass(p);
  AttentionOptions options = p.options();
  options.target = target;
  if (p.seed % 3 == 0) options.dropout = {0.3, p.seed, 5};
  const auto bias = bias_gradient_extents(p, 0);
  pass.attend(options);
  Gradients<T> clean(p, bias);
  attention_backward(pass.forward(), clean.asked(), options);
  Random random(p.seed);
  for (Poisoned where : {Poisoned::q, Poisoned::k, Poisoned::v, Poisoned::d_out}) {
    Pass<T> bad(p);
    const bool of_row = where == Poisoned::q || where == Poisoned::d_out;
    const Poison<T> poison{bad, where, random.between(0, s.batch - 1),
                           random.between(0, (of_row ? s.heads : s.kv_heads) - 1),
                           random.between(0, (of_row ? s.q_len : s.kv_len) - 1)};
    poison.put(random.pick({kNaN, kInf, -kInf}));
    bad.attend(options);
    Gradients<T> got(p, bias);
    attention_backward(bad.forward(), got.asked(), options);
    expect_same_outside(p, clean, got, poison.reach());
  }
  expect_rows_apart<T>(p, options, clean, bias, random);
}

TYPED_TEST(BackwardHidden, NaNAndInfStayWithThoseWhoSeeThem) {
  Plan plan(kTypeOf<TypeParam>, 1);
  while (!plan.done() && !this->HasFailure()) {
    const Problem p = plan.next();
    if (p.shape.batch * p.shape.q_len * p.shape.kv_len == 0) continue;
    for (Target target : available_targets()) expect_nothing_leaks<TypeParam>(p, target);
  }
}

// One that is seen shows, in everything that it is a factor of.
TYPED_TEST(BackwardHidden, WhatIsSeenShows) {
  using T = TypeParam;
  Problem p;
  p.shape = {kTypeOf<T>, 1, 1, 1, 150, 150, 8, 8};
  p.plain.causal = true;
  for (Poisoned where : {Poisoned::q, Poisoned::k, Poisoned::v, Poisoned::d_out}) {
    Pass<T> pass(p);
    const Poison<T> poison{pass, where, 0, 0, 70};
    poison.put(kNaN);
    pass.attend(p.options());
    Gradients<T> got(p, {});
    attention_backward(pass.forward(), got.asked(), p.options());
    const bool of_row = where == Poisoned::q || where == Poisoned::d_out;
    for (std::int64_t i = 0; i < 150; ++i) {
      const auto nan = [](T x) { return std::isnan(widen(x)); };
      EXPECT_EQ(nan(got.q.view(0, 0, i, 3)), of_row ? i == 70 : i >= 70) << i;
      EXPECT_EQ(nan(got.k.view(0, 0, i, 3)), of_row ? i <= 70 : true) << i;
      EXPECT_EQ(nan(got.v.view(0, 0, i, 3)), of_row ? i <= 70 : where == Poisoned::k) << i;
    }
  }
}

// All gradients are zeros, but the sinks', which have what depends on lse; whatever the rows hold.
TYPED_TEST(BackwardHidden, RowsWithoutKeysGiveAndGetZeros) {
  using T = TypeParam;
  Problem p;
  p.shape = {kTypeOf<T>, 1, 2, 1, 60, 130, 8, 8};
  p.sinks = {0.5, -1};
  p.seed = 3;  // with d_lse
  for (int way = 0; way < 2; ++way) {
    Problem hidden = p;
    if (way == 0) hidden.lengths = {0};
    if (way == 1) {
      hidden.keep_mask.rank = 1, hidden.keep_mask.values = {0}, hidden.keep_mask.stored = {std::byte{0}};
    }
    Pass<T> pass(hidden);
    pass.q.each([](T& x) { x = static_cast<T>(kNaN); });
    pass.d_out.each([](T& x) { x = static_cast<T>(kInf); });
    pass.attend(hidden.options());
    Gradients<T> got(hidden, {});
    attention_backward(pass.forward(), got.asked(), hidden.options());
    for (Tensor<T>* tensor : {&got.q, &got.k, &got.v}) tensor->each([](T& x) { EXPECT_EQ(widen(x), 0); });
    EXPECT_EQ(got.scale, 0);
    for (std::size_t h = 0; h < 2; ++h) {
      double sum = 0;
      for (std::size_t i = 0; i < 60; ++i) sum += static_cast<double>(pass.d_lse[h * 60 + i]);
      EXPECT_NEAR(got.sinks[h], sum, 1e-5) << way;
    }
  }
}

// Of a sink far from zero lse keeps less than exp bears, but its weight is 1 where there is nothing else.
TYPED_TEST(BackwardHidden, ALoneSinkWeighsOneHoweverFar) {
  using T = TypeParam;
  Problem p;
  p.shape = {kTypeOf<T>, 1, 4, 1, 3, 5, 8, 8};
  p.sinks = {1e9 + 1, -1e30, 1e30, 0.1};
  p.seed = 3;  // with d_lse
  p.lengths = {0};
  for (Target target : available_targets()) {
    AttentionOptions options = p.options();
    options.target = target;
    Pass<T> pass(p);
    pass.attend(options);
    Gradients<T> got(p, {});
    attention_backward(pass.forward(), got.asked(), options);
    for (std::size_t h = 0; h < 4; ++h) {
      double sum = 0;
      for (std::size_t i = 0; i < 3; ++i) sum += static_cast<double>(pass.d_lse[h * 3 + i]);
      EXPECT_NEAR(got.sinks[h], sum, 1e-6) << h << " " << target_name(target);
    }
  }
}

// Rows whose scores are all so far from zero, as where a mask is a low number, that lse cannot tell them apart.
TYPED_TEST(BackwardHidden, WeightsAreAtMostOneHoweverFarLseIs) {
  using T = TypeParam;
  Problem p;
  p.shape = {kTypeOf<T>, 1, 1, 1, 3, 20, 4, 4};
  p.seed = 2;  // without d_lse
  Pass<T> pass(p);
  for (double low = -1e6; low > -3e38; low *= 1.7) {
    pass.d_out.each([](T& x) { x = T(1); });
    const std::vector<float> bias(3 * 20, static_cast<float>(low));
    AttentionOptions options;
    options.bias = Bias(View4<const float>(bias.data(), {1, 1, 3, 20}));
    for (Target target : available_targets()) {
      options.target = target;
      pass.attend(options);
      Gradients<T> got(p, {});
      attention_backward(pass.forward(), got.asked(), options);
      got.v.each([&](T& x) {
        EXPECT_TRUE(widen(x) >= 0 && widen(x) <= 6) << widen(x) << " at " << low << " " << target_name(target);
      });
      got.q.each([&](T& x) { EXPECT_LE(std::fabs(widen(x)), 1000) << low << " " << target_name(target); });
    }
  }
}

TYPED_TEST(BackwardHidden, NothingToDo) {
  using T = TypeParam;
  for (const auto& [batch, q_len, kv_len] : {std::array{0, 3, 3}, {2, 0, 3}, {2, 3, 0}, {0, 0, 0}}) {
    Problem p;
    p.shape = {kTypeOf<T>, batch, 2, 1, q_len, kv_len, 4, 5};
    Pass<T> pass(p);
    pass.attend({});
    Gradients<T> got(p, {});
    attention_backward(pass.forward(), got.asked(), {});
    for (Tensor<T>* tensor : {&got.q, &got.k, &got.v}) tensor->each([](T& x) { EXPECT_EQ(widen(x), 0); });
    EXPECT_EQ(got.scale, 0);
  }
}

}  // namespace
}  // namespace multihead::testing
