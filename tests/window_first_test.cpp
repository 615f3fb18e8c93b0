// SPDX-License-Identifier: Apache-2.0
// First keys that a window keeps, over many blocks of keys: every pass has the bits of the mask that says the same.
#include <gtest/gtest.h>

#include "backward_oracle.hpp"
#include "multihead/attention.hpp"
#include "part.hpp"
#include "statistics_problem.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kKeys = 700, kRows = 60;

template <class T>
class WindowFirst : public ::testing::Test {
 protected:
  // Rows at the end of many keys, and their first keys and window.
  static Problem problem(std::int64_t first, std::int64_t left) {
    Problem p;
    p.shape = {kTypeOf<T>, 1, 2, 1, kRows, kKeys, 9, 7};
    p.plain.causal = true, p.plain.alignment = Alignment::bottom_right();
    p.plain.window = {.left = left, .first = first};
    return p;
  }
  // function(problem, the same with a mask) for gaps that begin and end in, at and beside the cuts of blocks.
  template <class Function>
  static void each_gap(const Function& function) {
    for (const std::int64_t first : {1, 4, 127, 128, 129, 300})
      for (const std::int64_t left : {0, 30, 383, 520, 640}) {
        const Problem p = problem(first, left);
        function(p, as_one_mask(p));
      }
  }
};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(WindowFirst, Types);

TYPED_TEST(WindowFirst, HasTheMasksBitsWithWeights) {
  using T = TypeParam;
  using Real = Sum<T>;
  this->each_gap([](const Problem& p, const Problem& masked) {
    Tensors<T> in(p);
    for (Target target : available_targets()) {
      std::uint64_t bits[2] = {};
      for (const Problem* asked : {&p, &masked}) {
        AttentionOptions options = asked->options();
        options.target = target;
        std::vector<Real> weights(2 * kRows * kKeys);
        WeightsRequest<Real> request;
        request.per_head = {weights.data(), {1, 2, kRows, kKeys}};
        Answer<T> answer(in, options);
        attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), answer.out.view,
                  answer.lse, request, options);
        bits[asked == &masked] = hash_bits(request.per_head, answer.bits());
      }
      EXPECT_EQ(bits[0], bits[1]) << target_name(target) << " " << p.describe();
    }
  });
}

// What lies in a row's gap reaches nothing of it, whatever it is.
TYPED_TEST(WindowFirst, NothingOfTheGapIsSeen) {
  using T = TypeParam;
  this->each_gap([](const Problem& p, const Problem&) {
    Tensors<T> in(p);
    const std::int64_t begin = p.plain.window.first, end = kKeys - kRows - p.plain.window.left;
    if (begin >= end) return;
    for (Target target : available_targets()) {
      AttentionOptions options = p.options();
      options.target = target;
      const std::uint64_t clean = Answer<T>(in, options).bits();
      Tensors<T> poisoned(p);
      for (std::int64_t j = begin; j < end; ++j) {
        poisoned.k.view(0, 0, j, j % 9) = static_cast<T>(std::numeric_limits<Sum<T>>::quiet_NaN());
        poisoned.v.view(0, 0, j, j % 7) = static_cast<T>(std::numeric_limits<Sum<T>>::infinity());
      }
      EXPECT_EQ(Answer<T>(poisoned, options).bits(), clean) << target_name(target) << " " << p.describe();
    }
  });
}

TYPED_TEST(WindowFirst, StatisticsHaveTheMasksBits) {
  using T = TypeParam;
  using Real = Sum<T>;
  this->each_gap([](const Problem& p, const Problem& masked) {
    Tensors<T> in(p);
    for (Target target : available_targets()) {
      std::uint64_t bits[2] = {};
      for (const Problem* asked : {&p, &masked}) {
        AttentionOptions options = asked->options();
        options.target = target;
        StatisticsAnswer<T> answer(*asked, in, options);
        std::vector<Real> received(2 * kKeys), map(2 * 2 * 22);
        RowStatistics<Real> columns;
        columns.received = {received.data(), {1, 2, kKeys}};
        columns.map = {map.data(), {1, 2, 2, 22}};
        StatisticsRequest<Real> request;
        request.plain = columns, request.bin = 32;
        attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), answer.out.view,
                  answer.lse, {}, request, options);
        bits[asked == &masked] = hash_bits(columns.received, hash_bits(columns.map, answer.bits()));
      }
      EXPECT_EQ(bits[0], bits[1]) << target_name(target) << " " << p.describe();
    }
  });
}

TYPED_TEST(WindowFirst, GradientsHaveTheMasksBits) {
  using T = TypeParam;
  this->each_gap([](const Problem& p, const Problem& masked) {
    for (Target target : available_targets()) {
      std::uint64_t bits[2] = {};
      for (const Problem* asked : {&p, &masked}) {
        AttentionOptions options = asked->options();
        options.target = target;
        Pass<T> pass(*asked);
        pass.attend(options);
        Gradients<T> gradients(*asked, {});
        attention_backward(pass.forward(), gradients.asked(), options);
        bits[asked == &masked] = gradients.bits();
      }
      EXPECT_EQ(bits[0], bits[1]) << target_name(target) << " " << p.describe();
    }
  });
}

}  // namespace
}  // namespace multihead::testing
