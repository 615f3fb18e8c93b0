// SPDX-License-Identifier: Apache-2.0
// Nothing leaks, nothing hides: rows that see no key, and NaN and Inf in hidden and visible places.
#include <gtest/gtest.h>

#include "multihead/attention.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kLength = 150;

template <class T>
class Special : public ::testing::Test {
 protected:
  static constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
  static constexpr T kInf = std::numeric_limits<T>::infinity();

  Special() {
    Random random(3);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random);
  }
  void run(Target target, std::optional<Alignment> causal, std::span<const std::int64_t> lengths = {}) {
    attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view,
              View3<T>(lse.data(), {1, 1, kLength}),
              {.causal = causal.has_value(),
               .alignment = causal.value_or(Alignment()),
               .lengths = lengths,
               .target = target});
  }
  std::vector<T> row(std::int64_t i) const {
    std::vector<T> values;
    for (std::int64_t c = 0; c < out.view.extent(3); ++c) values.push_back(out.view(0, 0, i, c));
    return values;
  }

  Tensor<T> q{{1, 1, kLength, 20}}, k{{1, 1, kLength, 20}}, v{{1, 1, kLength, 13}}, out{{1, 1, kLength, 13}};
  std::vector<T> lse = std::vector<T>(kLength);
};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Special, Types);

TYPED_TEST(Special, RowsThatSeeNoKeyAreZero) {
  for (Target target : available_targets()) {
    this->run(target, Alignment::at(-100));
    for (std::int64_t i = 0; i < kLength; ++i) {
      const bool empty = i < 100;
      EXPECT_EQ(this->row(i) == std::vector<TypeParam>(13, 0), empty) << i;
      EXPECT_EQ(this->lse[static_cast<std::size_t>(i)] == -this->kInf, empty) << i;
    }
    const std::vector<std::int64_t> none{0};
    this->run(target, {}, none);
    for (std::int64_t i = 0; i < kLength; ++i) EXPECT_EQ(this->row(i), std::vector<TypeParam>(13, 0));
  }
}

// NaN or Inf at key 70: the rows before it keep their bits, those from it on show it. Placed in the key or the value.
TYPED_TEST(Special, WhatIsHiddenStaysHidden) {
  for (Target target : available_targets())
    for (TypeParam poison : {this->kNaN, this->kInf, -this->kInf})
      for (bool in_value : {false, true}) {
        this->run(target, Alignment());
        std::vector<std::vector<TypeParam>> clean;
        for (std::int64_t i = 0; i < kLength; ++i) clean.push_back(this->row(i));
        TypeParam& place = in_value ? this->v.view(0, 0, 70, 5) : this->k.view(0, 0, 70, 5);
        const TypeParam saved = std::exchange(place, poison);
        this->run(target, Alignment());
        place = saved;
        for (std::int64_t i = 0; i < 70; ++i) EXPECT_EQ(this->row(i), clean[static_cast<std::size_t>(i)]) << i;
        for (std::int64_t i = 70; i < kLength; ++i) {
          // An infinite key whose score is -inf weighs nothing; every other poison makes the element not finite.
          const bool weightless = !in_value && !std::isnan(poison) && (this->q.view(0, 0, i, 5) * poison < 0);
          EXPECT_EQ(std::isfinite(this->row(i)[5]), weightless) << i << " " << poison;
          if (!in_value) continue;
          // Of floats, amx takes the whole row's block by multiply-adds then: within roundings of the same sums.
          const TypeParam beside = this->row(i)[4], before = clean[static_cast<std::size_t>(i)][4];
          const bool by_parts = target == Target::amx && has_own_bits(target, kTypeOf<TypeParam>);
          EXPECT_NEAR(beside, before, by_parts ? 4e-6 : 0) << i << " " << target_name(target);
        }
      }
}

// The same row alone and in a block with rows that see less: not one bit differs, whatever the values hold.
TYPED_TEST(Special, ValuesThatAreNotFiniteKeepTheirBits) {
  Random random(11);
  for (int i = 0; i < 6; ++i)
    this->v.view(0, 0, random.between(0, kLength - 1), random.between(0, 12)) =
        random.pick({this->kNaN, this->kInf, -this->kInf});
  for (Target target : available_targets()) {
    this->run(target, Alignment());
    const Tensor<TypeParam>& all = this->out;
    for (std::int64_t i = 0; i < kLength; i += 7) {
      Tensor<TypeParam> alone({1, 1, 1, 13});
      attention(View4<const TypeParam>(&this->q.view(0, 0, i, 0), {1, 1, 1, 20}),
                View4<const TypeParam>(this->k.values.data(), {1, 1, i + 1, 20}),
                View4<const TypeParam>(this->v.values.data(), {1, 1, i + 1, 13}), alone.view, {.target = target});
      const View4<TypeParam> row(&all.view(0, 0, i, 0), {1, 1, 1, 13});
      EXPECT_EQ(hash_bits<TypeParam>(alone.view), hash_bits<TypeParam>(row)) << i;
    }
  }
}

TYPED_TEST(Special, ANaNQueryShowsInItsRowOnly) {
  for (Target target : available_targets()) {
    this->run(target, {});
    const std::vector<TypeParam> before = this->row(30), after = this->row(32);
    const TypeParam saved = std::exchange(this->q.view(0, 0, 31, 0), this->kNaN);
    this->run(target, {});
    this->q.view(0, 0, 31, 0) = saved;
    EXPECT_EQ(this->row(30), before);
    EXPECT_EQ(this->row(32), after);
    for (TypeParam x : this->row(31)) EXPECT_TRUE(std::isnan(x));
    EXPECT_TRUE(std::isnan(this->lse[31]));
  }
}

// Scores that overflow without the running maximum, and scores at the edge of the type.
TYPED_TEST(Special, LargeScores) {
  const TypeParam large = sizeof(TypeParam) == 4 ? TypeParam(1e17) : TypeParam(1e150);
  for (Target target : available_targets()) {
    std::fill(this->k.values.begin(), this->k.values.end(), TypeParam(0));
    for (std::int64_t i = 0; i < kLength; ++i)
      for (std::int64_t c = 0; c < 20; ++c) this->q.view(0, 0, i, c) = c == 0 ? large : TypeParam(0);
    this->k.view(0, 0, 77, 0) = large;
    this->k.view(0, 0, 78, 0) = -large;
    this->run(target, {});
    for (std::int64_t c = 0; c < 13; ++c) EXPECT_EQ(this->row(0)[c], this->v.view(0, 0, 77, c));
    EXPECT_TRUE(std::isfinite(this->lse[0]));
  }
}

// Every visible score -inf: there is no softmax of that, and the row is not one that sees nothing.
TYPED_TEST(Special, OnlyMinusInfinityVisibleIsNotEmpty) {
  for (Target target : available_targets()) {
    for (std::int64_t j = 0; j < kLength; ++j) this->k.view(0, 0, j, 0) = -this->kInf;
    this->q.view(0, 0, 0, 0) = 1;
    this->run(target, {});
    EXPECT_TRUE(std::isnan(this->row(0)[0]));
  }
}

}  // namespace
}  // namespace multihead::testing
