// SPDX-License-Identifier: Apache-2.0
// Layouts by name: each one's tensors give the layer that its parameters give by hand; every tensor is accounted for.
#include "multihead/layouts.hpp"

#include <gtest/gtest.h>

#include "problem.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

using Tensors = std::vector<NamedTensor<double>>;

// 4 heads on 2 kv heads where a layout has such, of 6 channels, model_dim 10.
using Shapes = std::vector<std::pair<std::string, std::vector<std::int64_t>>>;
struct Checkpoint {
  std::string layout;
  Shapes shapes;
  std::int64_t heads = 4, kv_heads = 4;
  bool rotary = false;
};

Shapes bert_shapes() {
  return {{"self.query.weight", {24, 10}},   {"self.query.bias", {24}},       {"self.key.weight", {24, 10}},
          {"self.key.bias", {24}},           {"self.value.weight", {24, 10}}, {"self.value.bias", {24}},
          {"output.dense.weight", {10, 24}}, {"output.dense.bias", {10}}};
}

Shapes distilbert_shapes() {
  return {{"q_lin.weight", {24, 10}}, {"q_lin.bias", {24}}, {"k_lin.weight", {24, 10}},   {"k_lin.bias", {24}},
          {"v_lin.weight", {24, 10}}, {"v_lin.bias", {24}}, {"out_lin.weight", {10, 24}}, {"out_lin.bias", {10}}};
}

std::vector<Checkpoint> checkpoints() {
  const Shapes llama{{"q_proj.weight", {24, 10}},
                     {"k_proj.weight", {12, 10}},
                     {"v_proj.weight", {12, 10}},
                     {"o_proj.weight", {10, 24}}};
  auto qwen2 = llama, qwen3 = llama;
  qwen2.insert(qwen2.end(), {{"q_proj.bias", {24}}, {"k_proj.bias", {12}}, {"v_proj.bias", {12}}});
  qwen3.insert(qwen3.end(), {{"q_norm.weight", {6}}, {"k_norm.weight", {6}}});
  return {
      {"bert", bert_shapes()},
      {"distilbert", distilbert_shapes()},
      {"flax",
       {{"query/kernel", {10, 4, 6}},
        {"key/kernel", {10, 2, 6}},
        {"value/kernel", {10, 2, 6}},
        {"out/kernel", {4, 6, 10}}},
       4,
       2},
      {"gpt2",
       {{"c_attn.weight", {10, 72}}, {"c_attn.bias", {72}}, {"c_proj.weight", {24, 10}}, {"c_proj.bias", {10}}}},
      {"gpt_neox",
       {{"query_key_value.weight", {72, 10}},
        {"query_key_value.bias", {72}},
        {"dense.weight", {10, 24}},
        {"dense.bias", {10}}},
       4,
       4,
       true},
      {"keras",
       {{"query/kernel", {10, 4, 6}},
        {"query/bias", {4, 6}},
        {"key/kernel", {10, 2, 6}},
        {"key/bias", {2, 6}},
        {"value/kernel", {10, 2, 5}},
        {"value/bias", {2, 5}},
        {"attention_output/kernel", {4, 5, 11}},
        {"attention_output/bias", {11}}},
       4,
       2},
      {"llama", llama, 4, 2, true},
      {"mistral", llama, 4, 2, true},
      {"phi3", {{"qkv_proj.weight", {48, 10}}, {"o_proj.weight", {10, 24}}}, 4, 2, true},
      {"qwen2", qwen2, 4, 2, true},
      {"qwen3", qwen3, 4, 2, true},
      {"roberta", bert_shapes()},
      {"t5", {{"q.weight", {24, 10}}, {"k.weight", {24, 10}}, {"v.weight", {24, 10}}, {"o.weight", {10, 24}}}},
      {"torch",
       {{"in_proj_weight", {72, 10}}, {"in_proj_bias", {72}}, {"out_proj.weight", {10, 24}}, {"out_proj.bias", {10}}}},
      {"torch",
       {{"q_proj_weight", {24, 10}},
        {"k_proj_weight", {24, 7}},
        {"v_proj_weight", {24, 3}},
        {"in_proj_bias", {72}},
        {"out_proj.weight", {10, 24}},
        {"bias_k", {1, 1, 24}},
        {"bias_v", {1, 1, 24}}}},
  };
}

struct Loaded {
  Checkpoint from;
  std::vector<std::string> names;
  std::vector<std::vector<double>> values;
  Tensors tensors;
  MultiHeadSpec spec;

  explicit Loaded(const Checkpoint& checkpoint, const std::string& prefix = "", std::uint64_t seed = 1)
      : from(checkpoint) {
    Random random(seed);
    for (const auto& [name, shape] : from.shapes) {
      std::int64_t count = 1;
      for (std::int64_t extent : shape) count *= extent;
      std::vector<double>& x = values.emplace_back();
      for (std::int64_t i = 0; i < count; ++i) x.push_back(random.normal() * 0.4);
      names.push_back(prefix + name);
    }
    for (std::size_t i = 0; i < names.size(); ++i)
      tensors.push_back({names[i], values[i].data(), from.shapes[i].second});
    spec.heads = from.heads, spec.kv_heads = from.kv_heads;
    if (from.rotary) spec.rotary = RotaryOptions{};
  }
  MultiHeadAttention<double> load(const LayoutOptions& options = {}) const {
    return load_layer(from.layout, tensors, spec, options);
  }
  MatrixView<const double> matrix(std::size_t i) const {
    const auto& s = from.shapes[i].second;
    if (s.size() == 2) return {values[i].data(), {s[0], s[1]}};
    return from.shapes[i].first.starts_with("out") || from.shapes[i].first.starts_with("attention_output")
               ? MatrixView<const double>(values[i].data(), {s[0] * s[1], s[2]})
               : MatrixView<const double>(values[i].data(), {s[0], s[1] * s[2]});
  }
};

std::vector<double> run(const MultiHeadAttention<double>& layer) {
  const MultiHeadExtents& e = layer.extents();
  Random random(9);
  std::vector<double> q, k, v, out(static_cast<std::size_t>(5 * e.out_dim));
  for (std::int64_t i = 0; i < 5 * e.model_dim; ++i) q.push_back(random.normal());
  for (std::int64_t i = 0; i < 5 * e.kdim; ++i) k.push_back(random.normal());
  for (std::int64_t i = 0; i < 5 * e.vdim; ++i) v.push_back(random.normal());
  layer.forward(View3<const double>(q.data(), {1, 5, e.model_dim}), View3<const double>(k.data(), {1, 5, e.kdim}),
                View3<const double>(v.data(), {1, 5, e.vdim}), View3<double>(out.data(), {1, 5, e.out_dim}));
  return out;
}

// By hand, from what docs/layer.md says of the layout.
MultiHeadAttention<double> by_hand(const Loaded& l) {
  MultiHeadSpec spec = l.spec;
  MultiHeadWeights<double> w;
  const std::string& layout = l.from.layout;
  spec.order = layout == "gpt2" || layout == "keras" || layout == "flax" ? WeightOrder::in_out : WeightOrder::out_in;
  if (layout == "gpt_neox") spec.fused_order = FusedOrder::groups;
  if (layout == "t5") spec.scale = 1;
  if (layout == "qwen3") spec.q_norm.kind = spec.k_norm.kind = HeadNorm::Kind::rms;
  for (std::size_t i = 0; i < l.values.size(); ++i) {
    const std::string& name = l.from.shapes[i].first;
    const bool bias = name.ends_with("bias"), fused = name.find("in_proj") == 0 || name.find("c_attn") == 0 ||
                                                      name.find("qkv") == 0 || name.find("query_key_value") == 0;
    const auto part = [&](auto& q, auto& k, auto& v, auto& qkv, auto& out, const auto& value) {
      const std::string word = name.starts_with("self.") ? name.substr(5) : name;
      (fused ? qkv : word.starts_with("q") ? q : word.starts_with("k") ? k : word.starts_with("v") ? v : out) = value;
    };
    const std::span<const double> vector(l.values[i]);
    if (name == "bias_k")
      w.bias_k = vector;
    else if (name == "bias_v")
      w.bias_v = vector;
    else if (name == "q_norm.weight")
      w.q_norm = vector;
    else if (name == "k_norm.weight")
      w.k_norm = vector;
    else if (bias)
      part(w.q_bias, w.k_bias, w.v_bias, w.qkv_bias, w.out_bias, vector);
    else
      part(w.q, w.k, w.v, w.qkv, w.out, l.matrix(i));
  }
  return MultiHeadAttention<double>(spec, w);
}

TEST(LayerLayouts, EachIsTheLayerOfItsParametersBits) {
  std::set<std::string> seen;
  for (const Checkpoint& checkpoint : checkpoints()) {
    const std::string prefix = "model.layers.7.attention.";
    Loaded l(checkpoint, prefix);
    l.tensors.push_back({"model.layers.70.attention.q_proj.weight", nullptr, {1}});  // not of this prefix
    const std::vector<double> wanted = run(by_hand(Loaded(checkpoint)));
    EXPECT_EQ(run(l.load({.prefix = prefix})), wanted) << checkpoint.layout;
    std::reverse(l.tensors.begin(), l.tensors.end());
    EXPECT_EQ(run(l.load({.prefix = prefix})), wanted) << checkpoint.layout << ": the order of tensors means nothing";
    for (const double x : wanted) EXPECT_TRUE(std::isfinite(x));
    seen.insert(checkpoint.layout);
  }
  const std::vector<std::string_view> names = layout_names();
  EXPECT_EQ(std::vector<std::string>(seen.begin(), seen.end()), std::vector<std::string>(names.begin(), names.end()))
      << "a layout without a test";
}

TEST(LayerLayouts, EveryTypeLoads) {
  const Loaded l(checkpoints().front());
  const auto converted = [&](auto one) {
    using T = decltype(one);
    std::vector<std::vector<T>> values;
    std::vector<NamedTensor<T>> tensors;
    for (const auto& x : l.values) {
      values.emplace_back();
      for (double value : x) values.back().push_back(T(static_cast<float>(value)));
    }
    for (std::size_t i = 0; i < values.size(); ++i)
      tensors.push_back({l.names[i], values[i].data(), l.tensors[i].shape});
    return load_layer(l.from.layout, std::span<const NamedTensor<T>>(tensors), l.spec).extents().out_dim;
  };
  EXPECT_EQ(converted(float{}), 10);
  EXPECT_EQ(converted(BFloat16()), 10);
  EXPECT_EQ(converted(Float16()), 10);
}

void expect_refused(const Loaded& l, ErrorCode code, const Words& words, const LayoutOptions& options = {}) {
  expect_error("load_layer", code, words, [&] { l.load(options); });
}

// Every tensor of every layout: gone, twice, with one more axis, with another extent, null.
TEST(LayerLayouts, EveryTensorIsCheckedByName) {
  for (const Checkpoint& checkpoint : checkpoints()) {
    const Loaded legal(checkpoint);
    for (std::size_t i = 0; i < legal.tensors.size(); ++i) {
      const std::string name = "'" + legal.names[i] + "'";
      const bool optional =
          (legal.names[i].ends_with("bias") &&
           (checkpoint.layout == "keras" || checkpoint.layout == "gpt_neox" || checkpoint.layout == "torch")) ||
          legal.names[i].starts_with("bias_");
      Loaded l(checkpoint);
      const auto again = [&] { l.tensors = legal.tensors; };
      l.tensors.erase(l.tensors.begin() + static_cast<std::ptrdiff_t>(i));
      const bool sign = checkpoint.layout == "torch" && i == 0;  // without it another form is looked for
      if (!optional && !sign) expect_refused(l, kOption, {"layout " + checkpoint.layout, name, "is missing"});
      if (sign) {
        EXPECT_THROW(l.load(), Error);
      }
      again(), l.tensors.push_back(l.tensors[i]);
      expect_refused(l, kOption, {name, "is given twice"});
      again(), l.tensors[i].shape.push_back(1);
      expect_refused(l, kShape, {name, "has shape", "it must be"});
      again(), l.tensors[i].data = nullptr;
      expect_refused(l, kShape, {name, "is null"});
      for (std::int64_t extent : {std::int64_t{-1}, std::int64_t{1} << 62}) {
        again(), l.tensors[i].shape[0] = extent;
        EXPECT_THROW(l.load(), Error) << name << " " << extent;
      }
    }
    Loaded l(checkpoint);
    l.tensors.push_back({"more.weight", l.values[0].data(), {1}});
    expect_refused(l, kOption, {"'more.weight'", "is surplus"});
    const std::string_view aside[] = {"more.weight"};
    EXPECT_NO_THROW(l.load({.aside = aside}));
  }
}

TEST(LayerLayouts, ShapesThatDisagree) {
  const auto changed = [](std::size_t layout, std::size_t tensor, std::vector<std::int64_t> shape, const Words& words) {
    Loaded l(checkpoints()[layout]);
    std::int64_t count = 1;
    for (std::int64_t extent : shape) count *= extent;
    l.values[tensor].resize(static_cast<std::size_t>(count));
    l.tensors[tensor].data = l.values[tensor].data(), l.tensors[tensor].shape = shape;
    expect_refused(l, kShape, words);
  };
  changed(0, 0, {26, 10}, {"'self.query.weight' has shape [26, 10]", "[a multiple of 4, any width]"});
  changed(0, 1, {23}, {"'self.query.bias' has shape [23]", "[24]"});
  changed(0, 6, {10, 23}, {"'output.dense.weight' has shape [10, 23]", "[any width, 24]"});
  changed(3, 0, {10, 71}, {"'c_attn.weight' has shape [10, 71]", "[any width, a multiple of 12]"});
  changed(3, 2, {23, 10}, {"'c_proj.weight' has shape [23, 10]", "[24, any width]"});
  changed(6, 1, {24, 10}, {"'k_proj.weight' has shape [24, 10]", "[12, 10]"});
  changed(6, 1, {12, 9}, {"'k_proj.weight' has shape [12, 9]", "[12, 10]"});
  changed(5, 0, {10, 3, 6}, {"'query/kernel' has shape [10, 3, 6]", "[any width, 4, head_dim]"});
  changed(10, 4, {7}, {"'q_norm.weight' has shape [7]", "[6]"});
}

TEST(LayerLayouts, WhatTheSpecMustSay) {
  for (const Checkpoint& checkpoint : checkpoints()) {
    Loaded l(checkpoint);
    l.spec.heads = 0;
    expect_refused(l, kOption, {"heads is 0"});
    l = Loaded(checkpoint);
    const bool in_out = checkpoint.layout == "gpt2" || checkpoint.layout == "keras" || checkpoint.layout == "flax";
    l.spec.order = in_out ? WeightOrder::out_in : WeightOrder::in_out;
    expect_refused(l, kOption, {"in the other order"});
    if (!checkpoint.rotary) continue;
    l = Loaded(checkpoint);
    l.spec.rotary.reset();
    expect_refused(l, kOption, {"has rotary embedding"});
    l.spec.rotary = RotaryOptions{.pairing = RotaryPairing::interleaved};
    expect_refused(l, kOption, {"half-split"});
  }
  const Loaded l(checkpoints().front());
  expect_error("load_layer", kOption, {"layout 'bart' is not known", "bert, distilbert", "torch"},
               [&] { load_layer("bart", l.tensors, l.spec); });
}

}  // namespace
}  // namespace multihead::testing
