// SPDX-License-Identifier: Apache-2.0
// Every rule of attention_backward() and its questions: the error names function, argument, value and rule, and nothing
// has been written.
#include <gtest/gtest.h>

#include <cmath>

#include "multihead/attention_backward.hpp"
#include "problem.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

// A legal call that asks for everything; memory to spare behind each operand.
template <class T>
struct BackwardCall {
  using Real = Sum<T>;
  static constexpr std::size_t kSpare = 4000;
  std::vector<T> read = std::vector<T>(6 * kSpare), written = std::vector<T>(4 * kSpare, T(7));
  std::vector<Real> sums = std::vector<Real>(4 * kSpare, Real(7)), lse = std::vector<Real>(2 * kSpare);
  std::vector<float> bias = std::vector<float>(kSpare), table = std::vector<float>(kSpare);
  std::vector<double> by_head{1, 2, 3, 4}, slopes = std::vector<double>(8, 7), sinks = std::vector<double>(8, 7);
  double scale = 7;
  AttentionForward<T> forward;
  AttentionGradients<T> gradients;
  AttentionOptions options;

  BackwardCall() {
    const auto in = [&](std::size_t n, std::array<std::int64_t, 4> e) {
      return View4<const T>(read.data() + n * kSpare, e);
    };
    const auto to = [&](std::size_t n, std::array<std::int64_t, 4> e) {
      return View4<T>(written.data() + n * kSpare, e);
    };
    const std::array<std::int64_t, 4> q{2, 4, 3, 4}, k{2, 2, 3, 4}, v{2, 2, 3, 5}, out{2, 4, 3, 5};
    forward = {in(0, q),
               in(1, k),
               in(2, v),
               in(3, out),
               {lse.data(), {2, 4, 3}},
               in(4, out),
               {lse.data() + kSpare, {2, 4, 3}}};
    gradients.q = to(0, q), gradients.k = to(1, k), gradients.v = to(2, v);
    gradients.bias = {sums.data(), {1, 4, 3, 3}}, gradients.relative_bias = {sums.data() + kSpare, {8, 4}};
    gradients.alibi_slopes = std::span(slopes).first(4), gradients.sinks = std::span(sinks).first(4);
    gradients.scale = &scale;
    options.bias = View3<const float>(bias.data(), {4, 3, 3}), options.alibi_slopes = options.sinks = by_head;
    options.relative_bias = {MatrixView<const float>(table.data(), {8, 4}), true, 10};
  }
  BackwardCall(const BackwardCall&) = delete;
  bool untouched() const {
    const auto sevens = [](const auto& list) {
      return std::all_of(list.begin(), list.end(), [](auto x) { return widen(x) == 7; });
    };
    return sevens(written) && sevens(sums) && sevens(slopes) && sevens(sinks) && scale == 7;
  }
};

template <class T>
struct Rule {
  const char* name;
  std::function<void(BackwardCall<T>&)> change;
  ErrorCode code;
  Words words;
};

template <class T, int Rank>
void grow(View<T, Rank>& view, int axis) {
  auto extents = view.extents();
  ++extents[static_cast<std::size_t>(axis)];
  view = View<T, Rank>(view.data(), extents);
}

template <class T, int Rank>
void stretch(View<T, Rank>& view) {
  auto strides = view.strides();
  for (std::int64_t& stride : strides) stride *= 2;
  view = View<T, Rank>(view.data(), view.extents(), strides);
}

template <class T>
std::vector<Rule<T>> rules_of_reading() {
  using C = BackwardCall<T>;
  return {
      {"q head_dim", [](C& c) { grow(c.forward.q, 3); }, kShape, {"k has head_dim 4", "q has 5"}},
      {"k batch", [](C& c) { grow(c.forward.k, 0); }, kShape, {"k has batch 3", "q has 2"}},
      {"v batch", [](C& c) { grow(c.forward.v, 0); }, kShape, {"v has batch 3", "q has 2"}},
      {"v kv_heads", [](C& c) { grow(c.forward.v, 1); }, kShape, {"v has kv_heads 3", "k has 2"}},
      {"v kv_len", [](C& c) { grow(c.forward.v, 2); }, kShape, {"v has kv_len 4", "k has 3"}},
      {"out heads", [](C& c) { grow(c.forward.out, 1); }, kShape, {"out has heads 5", "q and v have 4"}},
      {"out value_dim", [](C& c) { grow(c.forward.out, 3); }, kShape, {"out has value_dim 6", "have 5"}},
      {"d_out q_len", [](C& c) { grow(c.forward.d_out, 2); }, kShape, {"d_out has q_len 4", "q and v have 3"}},
      {"lse q_len", [](C& c) { grow(c.forward.lse, 2); }, kShape, {"lse has q_len 4", "q has 3"}},
      {"lse missing", [](C& c) { c.forward.lse = {}; }, kShape, {"lse has batch 0", "q has 2"}},
      {"d_lse heads", [](C& c) { grow(c.forward.d_lse, 1); }, kShape, {"d_lse has heads 5", "q has 4"}},
      {"d_lse null",
       [](C& c) {
         c.forward.d_lse = {nullptr, {2, 4, 3}};
       },
       kShape,
       {"d_lse is null"}},
      {"q strided", [](C& c) { stretch(c.forward.q); }, kShape, {"q has stride 2 on its last axis"}},
      {"out strided", [](C& c) { stretch(c.forward.out); }, kShape, {"out has stride 2 on its last axis"}},
      {"d_out strided", [](C& c) { stretch(c.forward.d_out); }, kShape, {"d_out has stride 2 on its last axis"}},
      {"d_out null",
       [](C& c) {
         c.forward.d_out = {nullptr, {2, 4, 3, 5}};
       },
       kShape,
       {"d_out is null"}},
      {"softcap", [](C& c) { c.options.softcap = -1; }, kOption, {"softcap is -1"}},
      {"dropout", [](C& c) { c.options.dropout.probability = 1; }, kOption, {"dropout probability is 1"}},
      {"threads", [](C& c) { c.options.threads = 0; }, kOption, {"threads is 0"}},
      {"target", [](C& c) { c.options.target = missing_target(); }, ErrorCode::unsupported, {}},
  };
}

template <class T>
std::vector<Rule<T>> rules_of_writing() {
  using C = BackwardCall<T>;
  return {
      {"d_q", [](C& c) { grow(c.gradients.q, 2); }, kShape, {"gradients.q has q_len 4", "q has 3"}},
      {"d_k", [](C& c) { grow(c.gradients.k, 1); }, kShape, {"gradients.k has kv_heads 3", "k has 2"}},
      {"d_v", [](C& c) { grow(c.gradients.v, 3); }, kShape, {"gradients.v has value_dim 6", "v has 5"}},
      {"d_q strided", [](C& c) { stretch(c.gradients.q); }, kShape, {"gradients.q has stride 2 on its last axis"}},
      {"d_q null",
       [](C& c) {
         c.gradients.q = {nullptr, {2, 4, 3, 4}};
       },
       kShape,
       {"gradients.q is null"}},
      {"d_k folded",
       [](C& c) {
         c.gradients.k = {c.gradients.k.data(), {2, 2, 3, 4}, {24, 0, 4, 1}};
       },
       kShape,
       {"gradients.k has strides that put two elements in one place"}},
      {"d_bias batch", [](C& c) { grow(c.gradients.bias, 0); }, kShape, {"bias has batch 2", "repeats", "must be 1"}},
      {"d_bias q_len", [](C& c) { grow(c.gradients.bias, 2); }, kShape, {"gradients.bias has q_len 4", "have 3"}},
      {"no bias", [](C& c) { c.options.bias = {}; }, kOption, {"gradients.bias is asked for without bias"}},
      {"no slopes", [](C& c) { c.options.alibi_slopes = {}; }, kOption, {"gradients.alibi_slopes", "without"}},
      {"no sinks", [](C& c) { c.options.sinks = {}; }, kOption, {"gradients.sinks is asked for without sinks"}},
      {"no table", [](C& c) { c.options.relative_bias = {}; }, kOption, {"gradients.relative_bias", "without"}},
      {"slopes",
       [](C& c) { c.gradients.alibi_slopes = std::span(c.slopes).first(3); },
       kShape,
       {"has 3", "heads is 4"}},
      {"sinks", [](C& c) { c.gradients.sinks = std::span(c.sinks).first(5); }, kShape, {"gradients.sinks has 5"}},
      {"buckets", [](C& c) { grow(c.gradients.relative_bias, 0); }, kShape, {"has buckets 9", "relative_bias has 8"}},
      {"table heads", [](C& c) { grow(c.gradients.relative_bias, 1); }, kShape, {"has heads 5", "has 4"}},
  };
}

template <class T>
std::vector<Rule<T>> rules_of_places() {
  using C = BackwardCall<T>;
  return {
      {"d_q on q",
       [](C& c) {
         c.gradients.q = {const_cast<T*>(c.forward.q.data()), {2, 4, 3, 4}};
       },
       kShape,
       {"gradients.q overlaps q"}},
      {"d_v on d_out",
       [](C& c) {
         c.gradients.v = {const_cast<T*>(c.forward.d_out.data()), {2, 2, 3, 5}};
       },
       kShape,
       {"gradients.v overlaps d_out"}},
      {"d_k on d_q",
       [](C& c) {
         c.gradients.k = {c.gradients.q.data() + 1, {2, 2, 3, 4}};
       },
       kShape,
       {"gradients.k overlaps gradients.q"}},
      {"d_bias on lse",
       [](C& c) {
         c.gradients.bias = {c.lse.data(), {1, 4, 3, 3}};
       },
       kShape,
       {"gradients.bias overlaps lse"}},
      {"slopes on slopes",
       [](C& c) { c.gradients.alibi_slopes = c.by_head; },
       kShape,
       {"gradients.alibi_slopes overlaps"}},
      {"scale on slopes",
       [](C& c) { c.gradients.scale = c.slopes.data() + 1; },
       kShape,
       {"gradients.scale overlaps gradients.alibi_slopes"}},
  };
}

template <class T>
class BackwardRules : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(BackwardRules, Types);

template <class T>
void expect_rules(const std::vector<Rule<T>>& rules) {
  for (const Rule<T>& rule : rules) {
    SCOPED_TRACE(rule.name);
    BackwardCall<T> call;
    rule.change(call);
    expect_error("attention_backward", rule.code, rule.words,
                 [&] { attention_backward(call.forward, call.gradients, call.options); });
    EXPECT_TRUE(call.untouched());
    if constexpr (std::is_same_v<T, double>) {
      if (std::string(rule.name) == "target") continue;  // the reference has none
      expect_error("attention_backward_reference", rule.code, rule.words,
                   [&] { attention_backward_reference(call.forward, call.gradients, call.options); });
      EXPECT_TRUE(call.untouched());
    }
  }
}

TYPED_TEST(BackwardRules, OfWhatIsRead) { expect_rules(rules_of_reading<TypeParam>()); }
TYPED_TEST(BackwardRules, OfWhatIsWritten) { expect_rules(rules_of_writing<TypeParam>()); }
TYPED_TEST(BackwardRules, OfPlaces) { expect_rules(rules_of_places<TypeParam>()); }
TYPED_TEST(BackwardRules, TheLegalCall) {
  BackwardCall<TypeParam> call;
  EXPECT_NO_THROW(attention_backward(call.forward, call.gradients, call.options));
  EXPECT_FALSE(call.untouched());
}

TEST(BackwardQuestions, ThrowAsTheCallDoes) {
  const AttentionShape shape{Type::float32, 2, 4, 2, 3, 3, 4, 5};
  const auto refused = [&](AttentionShape s, const AttentionOptions& options, ErrorCode code, const Words& words) {
    expect_error("explain_backward", code, words, [&] { explain_backward(s, options); });
    expect_error("attention_backward_scratch_bytes", code, words,
                 [&] { attention_backward_scratch_bytes(s, options); });
  };
  AttentionShape odd = shape;
  odd.heads = 3;
  refused(odd, {}, kShape, {"heads is 3", "kv_heads is 2", "multiple"});
  AttentionOptions options;
  options.threads = 0;
  refused(shape, options, kOption, {"threads is 0"});
  options = {};
  options.target = missing_target();
  refused(shape, options, ErrorCode::unsupported, {});
  options = {};
  const std::int64_t ids[] = {1, 2, 1, 1, 2, 1};
  options.q_segments = options.kv_segments = {ids, {2, 3}};
  refused(shape, options, kOption, {"segments has id 1 in two runs"});
}

}  // namespace
}  // namespace multihead::testing
