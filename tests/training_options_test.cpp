// SPDX-License-Identifier: Apache-2.0
// MultiHeadTraining with the options of attention: masks, biases and terms by head, dropout (where there are no extra
// keys) and packed sequences, with extra keys and without; gradients of all that learns among them against finite
// differences.
#include <gtest/gtest.h>

#include "allocations.hpp"
#include "training_layer.hpp"

namespace multihead::testing {
namespace {

enum Feature : unsigned {
  kCausalWindow = 1,
  kLengthsOf = 2,
  kWholeBias = 4,
  kRepeatedBias = 8,
  kSlopes = 16,
  kTable = 32,
  kSinksOf = 64,
  kCap = 128,
  kDropped = 256,
  kGated = 512,
  kExtras = 1024,
  kPackedSelf = 2048,
  kEnd = 4096,
};

// A layer of 4 heads that share 2 key heads, and a call: cross-attention of two entries, or self-attention over three
// packed sequences, one of them empty.
template <class T>
struct OptionProblem {
  static constexpr std::int64_t kHeads = 4, kWidth = 10, kHeadDim = 6, kValueDim = 5, kBuckets = 8;
  unsigned features;
  bool packed;
  std::int64_t batch, q_len, kv_len;
  std::map<std::string, std::vector<T>> parameters;
  std::vector<T> query, key, value, d_output, bias, table;
  std::vector<double> slopes{0.3, 0.1, -0.2, 0.05}, sinks{0.5, -1, 2, 0}, gates{1.5, -0.5, 0.75, 2};
  std::vector<std::int64_t> cu_seqlens{0, 5, 5, 12}, lengths{6, 0}, whole_lengths{4, 0, 7};
  MultiHeadSpec spec;
  MultiHeadOptions options;

  OptionProblem(unsigned of, std::uint64_t seed) : features(of), packed(has(kPackedSelf)) {
    batch = packed ? 1 : 2, q_len = packed ? 12 : 7, kv_len = packed ? 12 : 9;
    Random random(seed);
    const auto add = [&](const char* name, std::int64_t count) {
      parameters[name] = normal_values<T>(random, count, 0.5);
    };
    add("q", kWidth * kHeads * kHeadDim), add("k", kWidth * 2 * kHeadDim), add("v", kWidth * 2 * kValueDim);
    add("out", kHeads * kValueDim * kWidth);
    if (has(kExtras)) add("bias_k", 2 * kHeadDim), add("bias_v", 2 * kValueDim);
    query = normal_values<T>(random, batch * q_len * kWidth), key = normal_values<T>(random, batch * kv_len * kWidth);
    value = normal_values<T>(random, batch * kv_len * kWidth);
    d_output = normal_values<T>(random, batch * q_len * kWidth);
    bias = normal_values<T>(random, batch * kHeads * q_len * kv_len),
    table = normal_values<T>(random, kBuckets * kHeads);
    spec.heads = kHeads, spec.kv_heads = 2, spec.order = WeightOrder::in_out;
    spec.add_zero_attn = has(kExtras);
    set_options();
  }
  OptionProblem(const OptionProblem&) = delete;
  bool has(Feature feature) const { return features & feature; }

  View4<const T> whole_bias() const { return {bias.data(), {batch, kHeads, q_len, kv_len}}; }
  View3<const T> repeated_bias() const { return {bias.data(), {kHeads, 1, kv_len}}; }
  void set_options() {
    AttentionOptions& a = options.attention;
    if (has(kCausalWindow) || has(kSlopes) || has(kTable)) a.alignment = Alignment::bottom_right();
    if (has(kCausalWindow)) a.causal = true, a.window = Window{.left = 4, .right = 0};
    if (has(kLengthsOf)) a.lengths = packed ? whole_lengths : lengths;
    if (has(kWholeBias)) a.bias = Bias(whole_bias());
    if (has(kRepeatedBias)) a.bias = Bias(repeated_bias());
    if (has(kSlopes)) a.alibi_slopes = slopes;
    if (has(kTable)) a.relative_bias = RelativeBias(MatrixView<const T>(table, {kBuckets, kHeads}), true, 16);
    if (has(kSinksOf)) a.sinks = sinks;
    if (has(kCap)) a.softcap = 1.5;
    if (has(kDropped) && !has(kExtras)) a.dropout = {0.3, 11, 2};
    if (has(kGated)) options.gates = gates;
    if (packed) a.cu_seqlens_q = a.cu_seqlens_k = cu_seqlens;
  }

  MultiHeadWeights<T> weights() const {
    const auto& p = parameters;
    MultiHeadWeights<T> w;
    w.q = {p.at("q").data(), {kWidth, kHeads * kHeadDim}}, w.k = {p.at("k").data(), {kWidth, 2 * kHeadDim}};
    w.v = {p.at("v").data(), {kWidth, 2 * kValueDim}}, w.out = {p.at("out").data(), {kHeads * kValueDim, kWidth}};
    if (has(kExtras)) w.bias_k = p.at("bias_k"), w.bias_v = p.at("bias_v");
    return w;
  }
  View3<const T> input(const std::vector<T>& values, std::int64_t length) const {
    return {values.data(), {batch, length, kWidth}};
  }
  View3<const T> queries() const { return input(query, q_len); }
  View3<const T> keys() const { return packed ? queries() : input(key, kv_len); }
  View3<const T> values() const { return packed ? queries() : input(value, kv_len); }
  double loss(MultiHeadTraining<T>& layer) const {
    std::vector<T> output(d_output.size());
    layer.forward(queries(), keys(), values(), View3<T>(output.data(), {batch, q_len, kWidth}), options);
    return weighted_sum(output, d_output);
  }

  struct Gradients {
    LayerGradients<T> layer;
    std::vector<T> bias, table;
    std::vector<double> slopes, sinks;
    bool operator==(const Gradients&) const = default;
  };
  Gradients backward(MultiHeadTraining<T>& layer) const {
    loss(layer);
    Gradients g;
    MultiHeadGradients<T> to = g.layer.parameter_views(weights(), kHeads);
    g.bias.assign(bias.size(), T(77)), g.table.assign(table.size(), T(77));
    g.slopes.assign(4, 77), g.sinks.assign(4, 77);
    if (has(kWholeBias)) to.attention_bias = {g.bias.data(), {batch, kHeads, q_len, kv_len}};
    if (has(kRepeatedBias)) to.attention_bias = {g.bias.data(), {1, kHeads, 1, kv_len}};
    if (has(kSlopes)) to.alibi_slopes = g.slopes;
    if (has(kTable)) to.relative_bias = {g.table.data(), {kBuckets, kHeads}};
    if (has(kSinksOf)) to.sinks = g.sinks;
    layer.backward(View3<const T>(d_output.data(), {batch, q_len, kWidth}),
                   g.layer.input_views(queries(), keys(), values(), packed), to);
    return g;
  }
};

std::vector<unsigned> combinations() {
  std::vector<unsigned> all;
  for (unsigned base : {0u, unsigned{kExtras}, unsigned{kPackedSelf}, unsigned{kExtras | kPackedSelf}}) {
    all.push_back(base);
    for (unsigned feature = 1; feature < kExtras; feature *= 2) all.push_back(base | feature);
  }
  Random random(3);
  for (int i = 0; i < (quick_share() ? 4 : 60); ++i) {
    unsigned features = static_cast<unsigned>(random.bits()) & (kEnd - 1);
    if (features & kWholeBias) features &= ~static_cast<unsigned>(kRepeatedBias);
    all.push_back(features);
  }
  return all;
}

TEST(TrainingOptions, GradientsAreThoseOfFiniteDifferences) {
  for (unsigned features : combinations()) {
    OptionProblem<double> p(features, features);
    MultiHeadTraining<double> layer(p.spec, p.weights());
    const auto g = p.backward(layer);
    const std::string what = " with features " + std::to_string(features);
    const auto check = [&](const std::string& name, std::span<double> values, std::span<const double> gradient) {
      expect_gradient(
          name + what, values, gradient, [&] { return p.loss(layer); }, 6);
    };
    for (const auto& [name, gradient] : g.layer.parameters) check(name, p.parameters[name], gradient);
    check("query", p.query, g.layer.inputs.at("query"));
    if (!p.packed) check("key", p.key, g.layer.inputs.at("key")), check("value", p.value, g.layer.inputs.at("value"));
    if (p.has(kWholeBias)) check("bias", p.bias, g.bias);
    const auto repeated = static_cast<std::size_t>(OptionProblem<double>::kHeads * p.kv_len);
    if (p.has(kRepeatedBias)) check("bias", std::span(p.bias).first(repeated), std::span(g.bias).first(repeated));
    if (p.has(kTable)) check("table", p.table, g.table);
    if (p.has(kSlopes)) check("slopes", p.slopes, g.slopes);
    if (p.has(kSinksOf)) check("sinks", p.sinks, g.sinks);
    if (p.has(kGated)) check("gates", p.gates, g.layer.gates);
    if (HasFatalFailure()) return;
  }
}

// A gate that is not given is 1: its gradient is what a change of it would do.
TEST(TrainingOptions, GatesOfOneHaveGradientsToo) {
  OptionProblem<double> plain(0, 5), gated(kGated, 5);
  gated.gates.assign(4, 1);
  gated.options.gates = gated.gates;
  MultiHeadTraining<double> a(plain.spec, plain.weights()), b(gated.spec, gated.weights());
  EXPECT_EQ(plain.backward(a), gated.backward(b));
}

TEST(TrainingOptions, BitsDoNotDependOnThreads) {
  for (unsigned features : combinations()) {
    OptionProblem<float> p(features, features);
    MultiHeadTraining<float> layer(p.spec, p.weights());
    const auto one = p.backward(layer);
    for (int threads : {2, 3}) {
      p.options.attention.threads = threads;
      EXPECT_EQ(p.backward(layer), one) << threads << " threads, features " << features;
    }
  }
}

TEST(TrainingOptions, AllocateNothingAfterTheFirstCalls) {
  for (unsigned features : {0u, unsigned{kEnd - 1 - kRepeatedBias}}) {
    OptionProblem<float> p(features, 1);
    MultiHeadTraining<float> layer(p.spec, p.weights());
    std::vector<float> output(p.d_output.size()), d_query(p.query.size()), d_q(p.parameters["q"].size());
    const auto step = [&] {
      layer.forward(p.queries(), p.keys(), p.values(),
                    View3<float>(output.data(), {p.batch, p.q_len, OptionProblem<float>::kWidth}), p.options);
      MultiHeadGradients<float> to;
      to.q = {d_q.data(), p.weights().q.extents()};
      layer.backward(View3<const float>(p.d_output.data(), {p.batch, p.q_len, OptionProblem<float>::kWidth}),
                     {View3<float>(d_query.data(), p.queries().extents()), {}, {}}, to);
    };
    step(), step();
    const std::int64_t before = allocations;
    step();
    EXPECT_EQ(allocations, before) << features;
  }
}

}  // namespace
}  // namespace multihead::testing
