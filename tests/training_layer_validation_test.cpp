// SPDX-License-Identifier: Apache-2.0
// Every rule of MultiHeadTraining: those of MultiHeadAttention at its door, and those of backward().
#include <cmath>

#include "multihead/multi_head_training.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

constexpr const char* kTraining = "MultiHeadTraining";

// Cross-attention of 2 heads of 3 channels that share one key head, with everything that may have a gradient.
struct TrainingCall {
  Layout q{0, {5, 6}}, k{0, {5, 3}}, v{0, {5, 3}}, out{0, {6, 4}};
  Layout q_bias{0, {6}}, bias_k{0, {3}}, bias_v{0, {3}}, q_norm{0, {3}};
  Layout query{1, {2, 3, 5}}, key{1, {2, 4, 5}}, value{1, {2, 4, 5}}, output{2, {2, 3, 4}}, d_output{3, {2, 3, 4}};
  Layout to_query{4, {2, 3, 5}}, to_key{4, {2, 4, 5}}, to_value{4, {2, 4, 5}};
  Layout to_q{5, {5, 6}}, to_out{5, {6, 4}}, to_q_bias{6, {6}}, to_bias_k{6, {3}}, to_q_norm{6, {3}}, to_k_bias{6, {0}};
  Layout to_qkv{7, {0, 0}}, to_bias{7, {0, 0, 0, 0}}, to_table{7, {0, 0}};
  std::size_t to_gates = 2, to_slopes = 0, to_sinks = 0;
  bool self = false, twice = false, without_forward = false;
  MultiHeadSpec spec{.heads = 2, .kv_heads = 1, .order = WeightOrder::in_out};
  AttentionOptions options;

  TrainingCall() {
    spec.q_norm.kind = HeadNorm::Kind::rms;
    std::int64_t step = 0;
    for (Layout* apart : {&q, &k, &v, &out, &q_bias, &bias_k, &bias_v, &q_norm}) apart->place += 100 * step++;
    for (Layout* apart : {&query, &key, &value, &to_query, &to_key, &to_value, &to_q, &to_out, &to_q_bias, &to_bias_k,
                          &to_q_norm, &to_k_bias, &to_qkv, &to_bias, &to_table})
      apart->place += 100 * step++;
  }

  template <class T>
  void run(std::vector<T>& arena) const {
    const auto span = [&]<class E>(const Layout& at, E*) -> std::span<E> {
      return {at.null ? nullptr : arena.data() + at.place, static_cast<std::size_t>(at.extents[0])};
    };
    const auto read = [&](const Layout& at) { return span(at, static_cast<const T*>(nullptr)); };
    const auto written = [&](const Layout& at) { return span(at, static_cast<T*>(nullptr)); };
    MultiHeadWeights<T> w;
    w.q = q.view<const T, 2>(arena), w.k = k.view<const T, 2>(arena), w.v = v.view<const T, 2>(arena);
    w.out = out.view<const T, 2>(arena), w.q_bias = read(q_bias), w.bias_k = read(bias_k), w.bias_v = read(bias_v);
    w.q_norm = read(q_norm);
    MultiHeadTraining<T> layer(spec, w);
    MultiHeadOptions call;
    call.attention = options;
    std::vector<T> own(24, T(0));
    const bool to_own = output.place == Layout(2, {1}).place && !output.null;
    const View3<T> to(to_own ? own.data() : arena.data() + output.place, {2, 3, 4});
    const View3<const T> x = query.view<const T, 3>(arena);
    if (!without_forward) {
      if (self)
        layer.forward(x, to, call);
      else
        layer.forward(x, key.view<const T, 3>(arena), value.view<const T, 3>(arena), to, call);
    }
    std::array<double, 8> numbers{};
    MultiHeadGradients<T> g;
    g.q = to_q.view<T, 2>(arena), g.out = to_out.view<T, 2>(arena), g.q_bias = written(to_q_bias);
    g.bias_k = written(to_bias_k), g.q_norm = written(to_q_norm), g.k_bias = written(to_k_bias);
    const auto optional = [&]<int kRank>(const Layout& at, View<T, kRank>& view) {
      if (at.extents[0] > 0) view = at.view<T, kRank>(arena);
    };
    optional(to_qkv, g.qkv), optional(to_bias, g.attention_bias), optional(to_table, g.relative_bias);
    g.gates = std::span(numbers).first(to_gates), g.alibi_slopes = std::span(numbers).subspan(4, to_slopes);
    g.sinks = std::span(numbers).subspan(6, to_sinks);
    MultiHeadInputGradients<T> inputs{to_query.view<T, 3>(arena), to_key.view<T, 3>(arena), to_value.view<T, 3>(arena)};
    if (self && to_key.null) inputs.key = {};
    if (self) inputs.value = {};
    if (twice) layer.backward(d_output.view<const T, 3>(arena), inputs, MultiHeadGradients<T>{});
    layer.backward(d_output.view<const T, 3>(arena), inputs, g);
  }
};
using M = TrainingCall;

// What has the extents of an input or a parameter.
void add_extent_rules(std::vector<Case<M>>& cases) {
  const auto add = [&](Layout M::*of, const char* name, const std::vector<const char*>& axes, const char* other) {
    for (std::size_t axis = 0; axis < axes.size(); ++axis) {
      cases.push_back(longer(of, axis, std::string(name) + " " + axes[axis], other));
      cases.back().name = "longer_" + cases.back().name;
    }
  };
  add(&M::to_query, "inputs.query", {"has batch", "has length", "has width"}, "the input has");
  add(&M::to_key, "inputs.key", {"has batch", "has length", "has width"}, "the input has");
  add(&M::to_value, "inputs.value", {"has batch", "has length", "has width"}, "the input has");
  add(&M::to_q, "gradients.q", {"has rows", "has width"}, "its weight has");
  add(&M::to_out, "gradients.out", {"has rows", "has width"}, "its weight has");
  add(&M::to_q_bias, "gradients.q_bias", {"has"}, "its parameter has");
  add(&M::to_bias_k, "gradients.bias_k", {"has"}, "its parameter has");
  add(&M::to_q_norm, "gradients.q_norm", {"has"}, "its parameter has");
}

std::vector<Case<M>> place_cases() {
  return {
      {"q_on_weights", [](M& c) { c.to_q.place = c.q.place; }, kShape, {"gradients.q overlaps q;"}},
      {"q_on_query", [](M& c) { c.to_q.place = c.query.place; }, kShape, {"gradients.q overlaps query"}},
      {"out_on_q", [](M& c) { c.to_out.place = c.to_q.place; }, kShape, {"gradients.out overlaps gradients.q"}},
      {"query_on_d_output",
       [](M& c) { c.to_query.place = c.d_output.place; },
       kShape,
       {"inputs.query overlaps d_output"}},
      {"norm_on_bias",
       [](M& c) { c.to_q_norm.place = c.to_q_bias.place + 2; },
       kShape,
       {"gradients.q_norm overlaps gradients.q_bias"}},
      {"bias_k_on_key", [](M& c) { c.to_bias_k.place = c.key.place; }, kShape, {"gradients.bias_k overlaps key"}},
  };
}

std::vector<Case<M>> backward_cases() {
  std::vector<Case<M>> cases{
      {"without_forward",
       [](M& c) { c.without_forward = true; },
       kOption,
       {"backward is called without a forward before it"}},
      {"key_of_self",
       [](M& c) { c.self = true; },
       kOption,
       {"key is asked for after self-attention", "query is the gradient"}},
      {"qkv",
       [](M& c) {
         c.to_qkv.extents = {5, 12};
       },
       kOption,
       {"gradients.qkv is asked for", "has no qkv"}},
      {"k_bias", [](M& c) { c.to_k_bias.extents = {3}; }, kOption, {"gradients.k_bias is asked for", "has no k_bias"}},
      {"q_strides",
       [](M& c) {
         c.to_q.strides = {14, 2};
       },
       kShape,
       {"gradients.q has strides 14 and 2", "one of them must be 1"}},
      {"q_bias_null", [](M& c) { c.to_q_bias.null = true; }, kShape, {"gradients.q_bias is null"}},
      {"gates_many", [](M& c) { c.to_gates = 3; }, kShape, {"gradients.gates has 3", "heads is 2"}},
      {"slopes", [](M& c) { c.to_slopes = 2; }, kOption, {"alibi_slopes is asked for without alibi_slopes"}},
      {"sinks", [](M& c) { c.to_sinks = 2; }, kOption, {"sinks is asked for without sinks"}},
      {"bias",
       [](M& c) {
         const std::int64_t place = c.to_bias.place;
         c.to_bias = Layout(7, {2, 2, 3, 4}), c.to_bias.place = place;
       },
       kOption,
       {"bias is asked for without bias"}},
      {"table",
       [](M& c) {
         const std::int64_t place = c.to_table.place;
         c.to_table = Layout(7, {8, 2}), c.to_table.place = place;
       },
       kOption,
       {"relative_bias is asked for without relative_bias"}},
      longer(&M::d_output, 0, "d_output has batch", "the forward had"),
      longer(&M::d_output, 1, "d_output has q_len", "the forward had"),
      longer(&M::d_output, 2, "d_output has out_dim", "the layer has"),
  };
  add_extent_rules(cases);
  add_view_rules<M>(cases, {{"d_output", &M::d_output}, {"inputs.query", &M::to_query}}, false);
  add_last_axis_rules<M>(cases, {{"d_output", &M::d_output}});
  return cases;
}

class AtTrainingBackward : public ::testing::TestWithParam<Case<M>> {};
TEST_P(AtTrainingBackward, Refused) {
  const auto door = [](const M& call, auto& arena) { call.run(arena); };
  expect_refused<float>(kTraining, GetParam(), M(), door);
  expect_refused<double>(kTraining, GetParam(), M(), door);
}
INSTANTIATE_TEST_SUITE_P(Rules, AtTrainingBackward, ::testing::ValuesIn(backward_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Places, AtTrainingBackward, ::testing::ValuesIn(place_cases()), name_of);

TEST(AtTraining, AForwardIsTakenOnce) {
  const auto twice = [](auto zero) {
    using T = decltype(zero);
    std::vector<T> arena(kArena, T(0.5));
    M call;
    call.twice = true;
    expect_error(kTraining, kOption, {"backward is called without a forward before it", "once"},
                 [&] { call.run(arena); });
  };
  twice(0.0f), twice(0.0);
}

TEST(AtTraining, OutputIsApartFromTheWeights) {
  std::vector<float> arena(kArena, 0.5f);
  const auto refused = [&](Layout M::*weight, const char* said) {
    M call;
    call.output.place = (call.*weight).place;
    expect_error(kTraining, kShape, {said}, [&] { call.run(arena); });
    EXPECT_EQ(arena, std::vector<float>(kArena, 0.5f));
  };
  refused(&M::q, "output overlaps q"), refused(&M::out, "output overlaps out");
  refused(&M::q_bias, "output overlaps q_bias"), refused(&M::bias_k, "output overlaps bias_k");
  refused(&M::bias_v, "output overlaps bias_v"), refused(&M::q_norm, "output overlaps q_norm");
}

// The layer's own rules are those of MultiHeadAttention, under its name.
TEST(AtTraining, TheRulesOfTheLayerHold) {
  std::vector<float> arena(kArena, 0.5f);
  M call;
  call.spec.heads = 5;
  expect_error("MultiHeadAttention", kShape, {"5", "must divide it"}, [&] { call.run(arena); });
  call = M();
  call.options.threads = 0;
  expect_error("MultiHeadAttention", kOption, {"threads is 0"}, [&] { call.run(arena); });
  call = M();
  call.options.target = missing_target();
  expect_error("MultiHeadAttention", ErrorCode::unsupported, {"cannot run on this machine"}, [&] { call.run(arena); });
}

}  // namespace
}  // namespace multihead::testing
