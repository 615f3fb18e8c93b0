// SPDX-License-Identifier: Apache-2.0
// Every way to hide a key hides its NaN and Inf too; rows without keys; biases that hide and biases that only weigh.
#include <gtest/gtest.h>

#include <algorithm>

#include "multihead/attention.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kLength = 150, kKey = 70, kWidth = 20, kValues = 13;
constexpr double kInf = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

// A mask or bias (q_len, kv_len) from a function of row and key.
template <class Function>
Spread matrix_of(const Function& function) {
  Spread spread;
  spread.rank = 2, spread.extents = {1, 1, kLength, kLength}, spread.strides = {0, 0, kLength, 1};
  for (std::int64_t i = 0; i < kLength; ++i)
    for (std::int64_t j = 0; j < kLength; ++j) spread.values.push_back(function(i, j));
  return spread;
}

// A problem of one head and what hides key kKey from some of its rows.
struct Way {
  const char* name;
  std::function<void(Problem&)> hide;

  Problem problem(Type type) const {
    Problem p;
    p.shape = {type, 1, 1, 1, kLength, kLength, kWidth, kValues};
    hide(p);
    return p;
  }
};

bool odd(std::int64_t i, std::int64_t j) { return (i + j / 5) % 3 == 1; }

std::vector<std::int64_t> runs_of(std::int64_t first) {
  std::vector<std::int64_t> ids(kLength, 5);
  std::fill_n(ids.begin(), first, 9);
  return ids;
}

template <class Function>
void add_mask(Spread& mask, bool bytes, const Function& function) {
  Random random(1);
  mask = matrix_of(function);
  mask.bytes = bytes, mask.store_mask(random);
}

void hide_by_bias(Problem& p, Type type) {
  p.bias = matrix_of([](std::int64_t i, std::int64_t j) { return odd(i, j) ? -kInf : static_cast<double>(i % 7); });
  p.bias.store(type);
}

const Way kWays[] = {
    {"causal", [](Problem& p) { p.plain.causal = true; }},
    {"window left", [](Problem& p) { p.plain.window.left = 20; }},
    {"window left and first", [](Problem& p) { p.plain.window = {.left = 20, .first = 10}; }},
    {"window right", [](Problem& p) { p.plain.window.right = 20; }},
    {"lengths", [](Problem& p) { p.lengths = {kKey}; }},
    {"cu_seqlens",
     [](Problem& p) {
       p.cu_seqlens_q = p.cu_seqlens_k = {0, 60, 60, 90, kLength};
     }},
    {"segments", [](Problem& p) { p.q_segments = runs_of(100), p.kv_segments = runs_of(40); }},
    {"keep mask", [](Problem& p) { add_mask(p.keep_mask, false, [](auto i, auto j) { return !odd(i, j); }); }},
    {"keep mask of bytes", [](Problem& p) { add_mask(p.keep_mask, true, [](auto i, auto j) { return !odd(i, j); }); }},
    {"drop mask", [](Problem& p) { add_mask(p.drop_mask, false, odd); }},
    {"drop mask of bytes", [](Problem& p) { add_mask(p.drop_mask, true, odd); }},
    {"bias", [](Problem& p) { hide_by_bias(p, Type::float32); }},
    {"bias of bfloat16", [](Problem& p) { hide_by_bias(p, Type::bfloat16); }},
    {"bias of float16", [](Problem& p) { hide_by_bias(p, Type::float16); }},
    {"drop mask under softcap", [](Problem& p) { p.plain.softcap = 2, add_mask(p.drop_mask, false, odd); }},
    {"bias under softcap", [](Problem& p) { p.plain.softcap = 2, hide_by_bias(p, Type::float32); }},
    {"causal, mask and bias",
     [](Problem& p) {
       p.plain.causal = true, add_mask(p.drop_mask, true, odd);
       hide_by_bias(p, Type::float32);
     }},
};

template <class T>
class Hidden : public ::testing::Test {
 protected:
  static std::uint64_t row_bits(const Answer<T>& answer, std::int64_t i) { return answer.bits({0, i, i + 1, 0, 0}); }
  static bool finite(const Answer<T>& answer, std::int64_t i, std::int64_t c) {
    return std::isfinite(widen(answer.out.view(0, 0, i, c)));
  }
};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(Hidden, Types);

TYPED_TEST(Hidden, InKeysAndValuesOfEveryWayToHide) {
  using T = TypeParam;
  for (const Way& way : kWays) {
    const Problem p = way.problem(kTypeOf<T>);
    Tensors<T> in(p);
    AttentionOptions options = p.options();
    for (Target target : available_targets()) {
      options.target = target;
      const Answer<T> clean(in, options);
      for (double poison : {kNaN, kInf, -kInf})
        for (bool in_value : {false, true}) {
          T& place = in_value ? in.v.view(0, 0, kKey, 5) : in.k.view(0, 0, kKey, 5);
          const T saved = std::exchange(place, static_cast<T>(poison));
          const Answer<T> poisoned(in, options);
          place = saved;
          int hidden = 0;
          for (std::int64_t i = 0; i < kLength; ++i) {
            if (!sees(p, Stand(p, 0, i), {0, 0, i}, kKey)) {
              ++hidden;
              EXPECT_EQ(this->row_bits(poisoned, i), this->row_bits(clean, i)) << way.name << " " << i << " " << poison;
              continue;
            }
            // A key's Inf makes a score -inf that weighs nothing, or one that softcap bounds; all else shows.
            if (!in_value && !std::isnan(poison) && (widen(in.q.view(0, 0, i, 5)) * poison < 0 || options.softcap > 0))
              continue;
            EXPECT_FALSE(this->finite(poisoned, i, 5)) << way.name << " " << i << " " << poison << in_value;
            EXPECT_TRUE(!in_value || this->finite(poisoned, i, 4)) << way.name << " " << i;
          }
          EXPECT_GT(hidden, 20) << way.name;
        }
    }
  }
}

// A NaN in a key never reaches the weights of a row that does not see it.
TYPED_TEST(Hidden, InKeysFromWeights) {
  using T = TypeParam;
  using Real = Sum<T>;
  for (const Way& way : kWays) {
    const Problem p = way.problem(kTypeOf<T>);
    Tensors<T> in(p);
    AttentionOptions options = p.options();
    for (Target target : available_targets()) {
      options.target = target;
      std::vector<Real> weights[2];
      for (std::vector<Real>& values : weights) {
        values.resize(kLength * kLength);
        WeightsRequest<Real> request;
        request.per_head = {values.data(), {1, 1, kLength, kLength}};
        Tensor<T> out({1, 1, kLength, kValues});
        attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), out.view,
                  View3<Real>(), request, options);
        in.k.view(0, 0, kKey, 5) = static_cast<T>(kNaN);
      }
      in.k.view(0, 0, kKey, 5) = static_cast<T>(1.0f);
      for (std::int64_t i = 0; i < kLength; ++i) {
        const bool seen = sees(p, Stand(p, 0, i), {0, 0, i}, kKey);
        const auto row = [&](const std::vector<Real>& values) {
          return std::span(values).subspan(i * kLength, kLength);
        };
        EXPECT_EQ(std::ranges::equal(row(weights[0]), row(weights[1])), !seen) << way.name << " " << i;
        EXPECT_EQ(std::isnan(row(weights[1])[kKey]), seen) << way.name << " " << i;
      }
    }
  }
}

// What a row does not see weighs 0 where the row has no softmax too: a NaN among its scores, or nothing but -inf.
TYPED_TEST(Hidden, KeysWeighNothingInRowsWithoutSoftmax) {
  using T = TypeParam;
  using Real = Sum<T>;
  for (const Way& way : kWays) {
    const Problem p = way.problem(kTypeOf<T>);
    std::vector<std::size_t> hidden;
    for (std::int64_t i = 0; i < kLength; ++i)
      for (std::int64_t j = 0; j < kLength; ++j)
        if (!sees(p, Stand(p, 0, i), {0, 0, i}, j)) hidden.push_back(static_cast<std::size_t>(i * kLength + j));
    EXPECT_GT(hidden.size(), 1000U) << way.name;
    for (bool infinite : {false, true}) {
      Tensors<T> in(p);
      for (std::int64_t i = 0; i < kLength; ++i) {
        if (infinite || i == kKey) in.k.view(0, 0, i, 0) = static_cast<T>(infinite ? -kInf : kNaN);
        if (infinite) in.q.view(0, 0, i, 0) = static_cast<T>(i % 2 ? 1.0f : -1.0f);
      }
      AttentionOptions options = p.options();
      for (Target target : available_targets()) {
        options.target = target;
        std::vector<Real> within(kLength * kLength), alone = within, lse(kLength);
        const View3<Real> lse_view(lse.data(), {1, 1, kLength});
        WeightsRequest<Real> request;
        request.per_head = {within.data(), {1, 1, kLength, kLength}};
        Tensor<T> out({1, 1, kLength, kValues});
        attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), out.view, lse_view,
                  request, options);
        const auto weighs = [&](const std::vector<Real>& weights) {
          return std::count_if(hidden.begin(), hidden.end(), [&](std::size_t at) { return weights[at] != 0; });
        };
        EXPECT_EQ(weighs(within), 0) << way.name << infinite;
        if constexpr (std::is_same_v<T, Real>) {
          request.per_head = {alone.data(), {1, 1, kLength, kLength}};
          attention_weights(View4<const T>(in.q.view), View4<const T>(in.k.view), View3<const T>(lse_view), request,
                            options);
          EXPECT_EQ(weighs(alone), 0) << way.name << " alone " << infinite;
        }
      }
    }
  }
}

// Rows whose keys are all hidden: zeros and lse -inf; with a sink, zeros and the sink's logit.
TYPED_TEST(Hidden, RowsWithoutKeys) {
  using T = TypeParam;
  const auto hides = [](std::int64_t i) { return i % 4 == 0; };
  const Way ways[] = {
      {"keep mask", [&](Problem& p) { add_mask(p.keep_mask, true, [&](auto i, auto) { return !hides(i); }); }},
      {"drop mask", [&](Problem& p) { add_mask(p.drop_mask, false, [&](auto i, auto) { return hides(i); }); }},
      {"bias",
       [&](Problem& p) {
         p.bias = matrix_of([&](auto i, auto j) { return hides(i) ? -kInf : static_cast<double>(j % 3); });
         p.bias.store(Type::float32);
       }},
      {"keep and drop", [&](Problem& p) {
         add_mask(p.keep_mask, true, [&](auto i, auto j) { return !hides(i) || j % 2; });
         add_mask(p.drop_mask, true, [&](auto i, auto j) { return hides(i) && j % 2; });
       }}};
  for (const Way& way : ways)
    for (bool sink : {false, true})
      for (Target target : available_targets()) {
        Problem p = way.problem(kTypeOf<T>);
        if (sink) p.sinks = {0.25};
        Tensors<T> in(p);
        AttentionOptions options = p.options();
        options.target = target;
        const Answer<T> answer(in, options);
        for (std::int64_t i = 0; i < kLength; ++i) {
          bool zeros = true;
          for (std::int64_t c = 0; c < kValues; ++c) zeros &= widen(answer.out.view(0, 0, i, c)) == 0;
          EXPECT_EQ(zeros, hides(i)) << way.name << " " << i;
          EXPECT_TRUE(!hides(i) || answer.lse(0, 0, i) == (sink ? 0.25 : -kInf)) << way.name << " " << i;
        }
      }
}

// A finite bias, however low, hides nothing: of keys that it lowers alike, the mean of the values remains.
TYPED_TEST(Hidden, TheLowestFiniteBiasHidesNothing) {
  using T = TypeParam;
  const double lowest = -static_cast<double>(std::numeric_limits<float>::max());
  // Summed in float, a bias below -2.358e38 counts as that (docs/numerics.md); the row's lse says so.
  const double floor = sizeof(Sum<T>) == 4 ? -2.358e38 : lowest;
  for (auto [type, low] : {std::pair{Type::float32, lowest}, {Type::bfloat16, -3.3e38}, {Type::float16, -65504.0}}) {
    const Way way{"", [t = type, l = low](Problem& p) {
                    p.plain.scale = 0;
                    p.bias = matrix_of([=](auto i, auto) { return i % 2 ? l : 0; });
                    p.bias.store(t);
                  }};
    const Problem p = way.problem(kTypeOf<T>);
    Tensors<T> in(p);
    AttentionOptions options = p.options();
    for (Target target : available_targets()) {
      options.target = target;
      const Answer<T> answer(in, options);
      for (std::int64_t i = 1; i < kLength; i += 2) {
        EXPECT_EQ(hash_bits(rows_of(answer.out.view, 0, i, i + 1)), hash_bits(rows_of(answer.out.view, 0, 0, 1))) << i;
        EXPECT_LT(answer.lse(0, 0, i), std::max(low, floor) * 0.99) << i;
        EXPECT_GT(answer.lse(0, 0, i), -kInf) << i;
      }
    }
  }
}

// +inf and NaN in a bias show in the rows that read them, at places that nothing else hides.
TYPED_TEST(Hidden, BiasesThatAreNoNumbersShow) {
  using T = TypeParam;
  for (double poison : {kNaN, kInf}) {
    const Way way{"", [=](Problem& p) {
                    p.plain.causal = true;
                    p.bias = matrix_of([=](auto i, auto j) { return j == kKey && i % 2 ? poison : 0; });
                    p.bias.store(Type::float32);
                  }};
    const Problem p = way.problem(kTypeOf<T>);
    Tensors<T> in(p);
    AttentionOptions options = p.options();
    for (Target target : available_targets()) {
      options.target = target;
      const Answer<T> answer(in, options);
      for (std::int64_t i = 0; i < kLength; ++i)
        EXPECT_EQ(std::isnan(widen(answer.out.view(0, 0, i, 0))), i >= kKey && i % 2) << i << " " << poison;
    }
  }
}

// All visible keys of a row at score -inf without being hidden: no softmax, a NaN, and not a row that sees nothing.
TYPED_TEST(Hidden, ScoresOfMinusInfinityAreNotHidden) {
  using T = TypeParam;
  const Way way{"",
                [](Problem& p) { add_mask(p.keep_mask, false, [](auto i, auto j) { return i != 1 || j == kKey; }); }};
  const Problem p = way.problem(kTypeOf<T>);
  Tensors<T> in(p);
  in.k.view(0, 0, kKey, 0) = static_cast<T>(-kInf), in.q.view(0, 0, 1, 0) = static_cast<T>(1.0f);
  AttentionOptions options = p.options();
  for (Target target : available_targets()) {
    options.target = target;
    EXPECT_TRUE(std::isnan(widen(Answer<T>(in, options).out.view(0, 0, 1, 3))));
  }
}

}  // namespace
}  // namespace multihead::testing
