// SPDX-License-Identifier: Apache-2.0
// Every rule of MultiHeadAttention: its parameters, and what a call may ask.
#include <gtest/gtest.h>

#include <cmath>

#include "c_face.hpp"
#include "multihead/multi_head_attention.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

constexpr const char* kName = "MultiHeadAttention";

// ---- parameters: 4 heads on 2 kv heads, head_dim 3, value_dim 5 ----

struct Parameters {
  MultiHeadSpec spec{.heads = 4, .kv_heads = 2, .order = WeightOrder::in_out};
  Layout q{0, {7, 12}}, k{1, {8, 6}}, v{2, {9, 10}}, out{3, {20, 11}};
  Layout qkv{4, {7, 28}};
  bool separate = true;
  std::vector<std::int64_t> sizes = std::vector<std::int64_t>(11, 0);  // of the vectors below
  bool null_bias = false;

  template <class T>
  MultiHeadWeights<T> weights(std::vector<T>& arena) const {
    MultiHeadWeights<T> w;
    if (separate) {
      w.q = q.view<const T, 2>(arena), w.k = k.view<const T, 2>(arena), w.v = v.view<const T, 2>(arena);
    }
    if (qkv.place >= 0 && !separate) w.qkv = qkv.view<const T, 2>(arena);
    w.out = out.view<const T, 2>(arena);
    std::span<const T>* const vectors[] = {&w.q_bias, &w.k_bias, &w.v_bias, &w.qkv_bias,    &w.out_bias,   &w.bias_k,
                                           &w.bias_v, &w.q_norm, &w.k_norm, &w.q_norm_bias, &w.k_norm_bias};
    for (std::size_t i = 0; i < sizes.size(); ++i)
      *vectors[i] = {null_bias ? nullptr : arena.data(), static_cast<std::size_t>(sizes[i])};
    return w;
  }
  template <class T>
  void run(std::vector<T>& arena) const {
    MultiHeadAttention<T>(spec, weights(arena));
  }
};
using P = Parameters;
using ParameterCases = std::vector<Case<P>>;

enum { kQBias, kKBias, kVBias, kQkvBias, kOutBias, kBiasK, kBiasV, kQNorm, kKNorm, kQNormBias, kKNormBias };

Case<P> vector_size(const char* name, std::size_t which, std::int64_t wanted) {
  return {std::string(name) + "_size",
          [=](P& p) {
            p.sizes[which] = wanted + 1;
            p.spec.q_norm.kind = p.spec.k_norm.kind = HeadNorm::Kind::layer;
          },
          kShape,
          {std::string(name) + " has " + std::to_string(wanted + 1), std::to_string(wanted), "must be equal"}};
}

HeadNorm rms(double eps) { return {HeadNorm::Kind::rms, eps}; }

// What the spec says.
ParameterCases spec_cases() {
  return {
      {"order_unnamed", [](P& p) { p.spec.order.reset(); }, kOption, {"order of the weights is not named"}},
      {"order_unknown",
       [](P& p) { p.spec.order = static_cast<WeightOrder>(9); },
       kOption,
       {"neither in_out nor out_in"}},
      {"fused_unknown",
       [](P& p) { p.spec.fused_order = static_cast<FusedOrder>(9); },
       kOption,
       {"fused_order is neither"}},
      {"heads_0", [](P& p) { p.spec.heads = 0; }, kOption, {"heads is 0"}},
      {"heads_minus", [](P& p) { p.spec.heads = -4; }, kOption, {"heads is -4"}},
      {"heads_far", [](P& p) { p.spec.heads = kHuge << 20; }, kOption, {"heads is "}},
      {"kv_heads_0", [](P& p) { p.spec.kv_heads = 0; }, kOption, {"kv_heads is 0"}},
      {"kv_heads_5", [](P& p) { p.spec.kv_heads = 5; }, kOption, {"kv_heads is 5", "1 to 4"}},
      {"kv_heads_3", [](P& p) { p.spec.kv_heads = 3; }, kShape, {"heads is 4", "kv_heads is 3", "multiple"}},
      {"heads_divide",
       [](P& p) { p.spec.heads = 8, p.spec.kv_heads = 2; },
       kShape,
       {"q has output width 12", "8 must divide"}},
      {"head_dim_0", [](P& p) { p.q.extents[1] = 0; }, kOption, {"head_dim is 0"}},
      {"head_dim_1025",
       [](P& p) {
         p.q = Layout(0, {7, 4100});
       },
       kOption,
       {"head_dim is 1025"}},
      {"value_dim_1025",
       [](P& p) {
         p.v = Layout(2, {9, 2050});
       },
       kOption,
       {"value_dim is 1025"}},
      {"value_dim_spec", [](P& p) { p.spec.value_dim = 4; }, kShape, {"v has value_dim 5", "the spec has 4"}},
      {"eps_minus", [](P& p) { p.spec.q_norm = rms(-1e-9); }, kOption, {"q_norm has eps"}},
      {"eps_nan", [](P& p) { p.spec.k_norm = rms(NAN); }, kOption, {"k_norm has eps"}},
      {"scale_nan", [](P& p) { p.spec.scale = NAN; }, kOption, {"scale is not finite"}},
      {"bias_null", [](P& p) { p.sizes[kQBias] = 12, p.null_bias = true; }, kShape, {"q_bias is null"}},
      {"rotary_odd", [](P& p) { p.spec.rotary = RotaryOptions{}; }, kOption, {"rotary_dim is 3", "even"}},
      {"rotary_wide",
       [](P& p) { p.spec.rotary = RotaryOptions{.rotary_dim = 4}; },
       kOption,
       {"rotary_dim is 4", "2 to 3"}},
      {"rotary_scaling",
       [](P& p) { p.spec.rotary = RotaryOptions{.rotary_dim = 2, .scaling = {.type = "yarn"}}; },
       kOption,
       {"'yarn' is not known", "default, linear, llama3"}},
      {"positions_0",
       [](P& p) { p.spec.rotary = RotaryOptions{.rotary_dim = 2}, p.spec.max_positions = 0; },
       kOption,
       {"max_positions is 0"}},
      {"positions_far",
       [](P& p) { p.spec.rotary = RotaryOptions{.rotary_dim = 2}, p.spec.max_positions = (1 << 20) + 2; },
       kOption,
       {"max_positions is 1048578"}},
  };
}

// What the weights say.
ParameterCases weight_cases() {
  ParameterCases cases{
      {"k_missing",
       [](P& p) {
         p.k = Layout(), p.k.null = true, p.k.extents = p.k.strides = {0, 0};
       },
       kShape,
       {"k is not given; it must be"}},
      {"out_missing",
       [](P& p) {
         p.out.null = true, p.out.extents = {0, 0};
       },
       kShape,
       {"out is not given; it must be"}},
      {"vast",
       [](P& p) {
         p.q.extents[0] = kHuge << 2, p.q.strides = {0, 1};
       },
       kShape,
       {"beyond what can be packed"}},
      {"only_bias_k", [](P& p) { p.sizes[kBiasK] = 6; }, kOption, {"only one of bias_k and bias_v"}},
      {"two_biases",
       [](P& p) { p.sizes[kQkvBias] = 28, p.sizes[kKBias] = 6; },
       kOption,
       {"qkv_bias is given, and one of"}},
      {"norm_unasked", [](P& p) { p.sizes[kQNorm] = 3; }, kOption, {"q_norm is given", "name its kind"}},
      {"norm_bias_rms",
       [](P& p) { p.sizes[kKNormBias] = 3, p.spec.k_norm.kind = HeadNorm::Kind::rms; },
       kOption,
       {"k_norm_bias is given", "layer norm"}},
      {"fused_width", [](P& p) { p.separate = false; }, kShape, {"qkv has output width 28", "8 must divide it"}},
      {"fused_value_dim",
       [](P& p) { p.separate = false, p.spec.value_dim = 15; },
       kOption,
       {"the output width of qkv is 28"}},
      {"fused_value_0", [](P& p) { p.separate = false, p.spec.value_dim = 0; }, kOption, {"value_dim is 0"}},
  };
  add_view_rules<P>(cases, {{"q", &P::q}, {"k", &P::k}, {"v", &P::v}, {"out", &P::out}}, false);
  return cases;
}

// What must agree in size.
ParameterCases size_cases() {
  return {
      vector_size("q_bias", kQBias, 12),
      vector_size("k_bias", kKBias, 6),
      vector_size("v_bias", kVBias, 10),
      vector_size("qkv_bias", kQkvBias, 28),
      vector_size("out_bias", kOutBias, 11),
      vector_size("q_norm", kQNorm, 3),
      vector_size("k_norm", kKNorm, 3),
      vector_size("q_norm_bias", kQNormBias, 3),
      vector_size("k_norm_bias", kKNormBias, 3),
      longer(&P::k, 1, "k has output width", "kv_heads * head_dim is"),
      longer(&P::out, 0, "out has input width", "heads * value_dim is"),
  };
}

struct AtConstructor : ::testing::TestWithParam<Case<P>> {};
TEST_P(AtConstructor, Refused) {
  const auto door = [](const P& p, auto& arena) { p.run(arena); };
  expect_refused<float>(kName, GetParam(), P(), door);
  expect_refused<double>(kName, GetParam(), P(), door);
  // What C cannot say: its enumerations are checked by itself, and 0 of a width or of kv_heads is a default.
  const std::string& name = GetParam().name;
  if (name.ends_with("_unknown") || name == "kv_heads_0" || name == "fused_value_0") return;
  expect_refused<float>(kName, GetParam(), P(),
                        [](const P& p, auto& arena) { c_face::Layer(p.spec, p.weights(arena)); });
}
INSTANTIATE_TEST_SUITE_P(Spec, AtConstructor, ::testing::ValuesIn(spec_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Weights, AtConstructor, ::testing::ValuesIn(weight_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Sizes, AtConstructor, ::testing::ValuesIn(size_cases()), name_of);

TEST(ModuleValidation, FusedAndSeparateExclude) {
  const std::vector<float> x(1000, 0.5f);
  const MatrixView<const float> some(x.data(), {4, 4});
  expect_error(kName, kOption, {"qkv is given, and one of q, k and v"}, [&] {
    MultiHeadAttention<float>({.heads = 1, .order = WeightOrder::in_out}, {.q = some, .qkv = some, .out = some});
  });
}

// ---- a call of that layer, with rotary and one extra key ----

struct Call {
  MultiHeadOptions options = {};
  bool rotary = true, ask_norms = false;
  std::vector<double> gates;
  std::vector<std::int64_t> lengths, q_places = std::vector<std::int64_t>(6, 0),
                                     k_places = std::vector<std::int64_t>(8, 1);
  std::int64_t q_columns = 3, k_columns = 4;
  bool q_given = true, k_given = true;
  Layout query{0, {2, 3, 7}}, key{1, {2, 4, 8}}, value{2, {2, 4, 9}}, output{3, {2, 3, 11}};
  Layout lse{4, {2, 4, 3}}, heads{5, {2, 4, 3, 5}}, per_head{6, {2, 4, 3, 5}}, mean{7, {2, 3, 5}},
      weighted{8, {2, 3, 5}}, norms{9, {2, 4, 5}};

  template <class T, class Layer = MultiHeadAttention<T>>
  static Layer layer(bool rotary) {
    const std::vector<T> x(1000, T(0.25f));
    const auto weight = [&](std::int64_t in, std::int64_t out) { return MatrixView<const T>(x.data(), {in, out}); };
    MultiHeadSpec spec{.heads = 4, .kv_heads = 2, .order = WeightOrder::in_out};
    if (rotary) spec.rotary = RotaryOptions{.rotary_dim = 2};
    spec.max_positions = 10, spec.add_zero_attn = true;
    return Layer(spec,
                 MultiHeadWeights<T>{.q = weight(7, 12), .k = weight(8, 6), .v = weight(9, 10), .out = weight(20, 11)});
  }
  template <class T, class Layer = MultiHeadAttention<T>>
  void run(std::vector<T>& arena) const {
    MultiHeadOptions o = options;
    o.gates = gates;
    if (!lengths.empty()) o.attention.lengths = lengths;
    if (q_given) o.q_positions = {q_places.data(), {2, q_columns}};
    if (k_given) o.k_positions = {k_places.data(), {2, k_columns}};
    MultiHeadRequests<T> r{
        .lse = lse.view<T, 3>(arena), .heads = heads.view<T, 4>(arena), .norms = norms.view<T, 3>(arena)};
    r.weights = {.per_head = per_head.view<T, 4>(arena),
                 .mean = mean.view<T, 3>(arena),
                 .norm_weighted = weighted.view<T, 3>(arena)};
    if (ask_norms) r.weights.norms = View3<const T>(arena.data(), {2, 4, 5});
    layer<T, Layer>(rotary).forward(query.view<const T, 3>(arena), key.view<const T, 3>(arena),
                                    value.view<const T, 3>(arena), output.view<T, 3>(arena), o, r);
  }
};
using C = Call;

Case<C> small_scratch_of_attention() {
  return {"scratch_small",
          [](C& c) { c.options.attention.scratch = one_byte; },
          ErrorCode::out_of_memory,
          {"scratch has 1 bytes", "takes"}};
}

// Extents of the operands.
std::vector<Case<C>> extent_cases() {
  return {
      longer(&C::query, 2, "query has width", "model_dim is"),
      longer(&C::key, 2, "key has width", "kdim is"),
      longer(&C::value, 2, "value has width", "vdim is"),
      longer(&C::key, 0, "key has batch", "query has"),
      longer(&C::value, 0, "value has batch", "query has"),
      longer(&C::value, 1, "value has kv_len", "key has"),
      longer(&C::output, 0, "output has batch", "the call has"),
      longer(&C::output, 1, "output has q_len", "the call has"),
      longer(&C::output, 2, "output has out_dim", "the call has"),
      longer(&C::lse, 1, "lse has heads", "the call has"),
      longer(&C::heads, 3, "heads has value_dim", "the call has"),
      longer(&C::norms, 2, "norms has kv_len", "the call has"),
      longer(&C::per_head, 3, "weights.per_head has kv_len", "the call has"),
      longer(&C::per_head, 2, "weights.per_head has rows", "asked for are"),
      longer(&C::mean, 2, "weights.mean has kv_len", "the call has"),
      {"weighted_kv_len",
       [](C& c) {
         c.weighted = Layout(8, {2, 3, 6});
       },
       kShape,
       {"weights.norm_weighted has kv_len 6"}},
  };
}

// Options.
std::vector<Case<C>> option_cases() {
  std::vector<Case<C>> cases{
      {"norms_given", [](C& c) { c.ask_norms = true; }, kOption, {"weights.norms is given"}},
      {"gates_3", [](C& c) { c.gates.assign(3, 1); }, kShape, {"gates has 3", "heads is 4"}},
      {"gates_nan", [](C& c) { c.gates.assign(4, NAN); }, kOption, {"a gate is not finite"}},
      {"positions_end", [](C& c) { c.q_places[5] = 10; }, kOption, {"q_positions is 10", "0 to 9"}},
      {"positions_minus", [](C& c) { c.k_places[7] = -1; }, kOption, {"k_positions is -1", "0 to 9"}},
      {"positions_length", [](C& c) { c.q_columns = 2; }, kShape, {"q_positions has length 2", "the call has 3"}},
      {"positions_one", [](C& c) { c.k_given = false; }, kOption, {"only one of q_positions and k_positions"}},
      {"positions_none",
       [](C& c) { c.q_given = c.k_given = false; },
       kOption,
       {"are not given", "with rotary they must be"}},
      {"positions_unasked", [](C& c) { c.rotary = false; }, kOption, {"the layer has no rotary embedding"}},
      {"lengths_5",
       [](C& c) {
         c.lengths = {4, 5};
       },
       kOption,
       {"length"}},
      {"scale_nan", [](C& c) { c.options.attention.scale = NAN; }, kOption, {"scale"}},
      {"causal_unnamed", [](C& c) { c.options.attention.causal = true; }, kOption, {"alignment"}},
      {"query_endless",
       [](C& c) {
         c.query.extents[1] = kHuge << 8, c.query.strides = {0, 0, 1};
       },
       kOption,
       {"q_len is"}},
      {"batch_endless",
       [](C& c) {
         for (Layout* x : {&c.query, &c.key, &c.value}) x->extents[0] = kHuge << 8, x->strides[0] = 0;
       },
       kOption,
       {"batch is"}},
      small_scratch_of_attention(),
      {"target",
       [](C& c) { c.options.attention.target = missing_target(); },
       ErrorCode::unsupported,
       {"cannot run on this machine"}},
  };
  for (int threads : {0, -1, 70000})
    cases.push_back({"threads_" + std::string(threads < 0 ? "minus" : std::to_string(threads)),
                     [=](C& c) { c.options.attention.threads = threads; },
                     kOption,
                     {"threads is " + std::to_string(threads)}});
  return cases;
}

// Memory.
std::vector<Case<C>> view_cases() {
  std::vector<Case<C>> cases;
  const std::vector<Operand<C>> inputs{{"query", &C::query}, {"key", &C::key}, {"value", &C::value}};
  add_view_rules<C>(cases, inputs, false);
  add_last_axis_rules<C>(cases, inputs);
  std::vector<Operand<C>> others = inputs;
  for (const Operand<C>& output : {Operand<C>{"output", &C::output},
                                   {"lse", &C::lse},
                                   {"heads", &C::heads},
                                   {"norms", &C::norms},
                                   {"weights.per_head", &C::per_head},
                                   {"weights.mean", &C::mean},
                                   {"weights.norm_weighted", &C::weighted}}) {
    add_view_rules<C>(cases, {output}, false);
    add_overlap_rules<C>(cases, output, others);
    others.push_back(output);
  }
  add_last_axis_rules<C>(cases, {{"output", &C::output}, {"heads", &C::heads}});
  return cases;
}

struct AtForward : ::testing::TestWithParam<Case<C>> {};
TEST_P(AtForward, Refused) {
  const auto door = [](const C& c, auto& arena) { c.run(arena); };
  expect_refused<float>(kName, GetParam(), C(), door);
  expect_refused<double>(kName, GetParam(), C(), door);
  const auto in_c = [](const C& c, auto& arena) { c.run<float, c_face::Layer>(arena); };
  expect_refused<float>(kName, GetParam(), C(), in_c);
}
INSTANTIATE_TEST_SUITE_P(Extents, AtForward, ::testing::ValuesIn(extent_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Options, AtForward, ::testing::ValuesIn(option_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Views, AtForward, ::testing::ValuesIn(view_cases()), name_of);

// The rules of a request that attention() has, in the layer's name and before anything is written.
TEST(ModuleValidation, RequestsKeepToTheRulesOfAttention) {
  const MultiHeadAttention<float> layer = Call::layer<float>(false);
  const std::vector<float> x(100, 0.5f);
  std::vector<float> out(66, 77), weights(1000, 77), lse(24, 77);
  const std::vector<std::int64_t> twice{1, 1}, far{9};
  const auto refused = [&](std::span<const std::int64_t> heads, const AttentionOptions& options, const Words& words) {
    MultiHeadRequests<float> requests{.lse = {lse.data(), {2, 4, 3}}};
    const auto count = heads.empty() ? 4 : static_cast<std::int64_t>(heads.size());
    requests.weights = {.heads = heads, .per_head = {weights.data(), {2, count, 3, 5}}};
    expect_error(kName, words.size() > 1 ? kShape : kOption, words, [&] {
      layer.forward(View3<const float>(x.data(), {2, 3, 7}), View3<const float>(x.data(), {2, 4, 8}),
                    View3<const float>(x.data(), {2, 4, 9}), View3<float>(out.data(), {2, 3, 11}),
                    {.attention = options}, requests);
    });
    EXPECT_EQ(out, std::vector<float>(66, 77));
    EXPECT_EQ(lse, std::vector<float>(24, 77));
    EXPECT_EQ(weights, std::vector<float>(1000, 77));
  };
  refused(twice, {}, {"names head 1 twice"});
  refused(far, {}, {"a head of weights.heads is 9"});
  refused({}, {.bias = MatrixView<const float>(weights.data() + 100, {3, 4})}, {"weights.per_head", "overlaps bias"});
  refused({}, {.bias = MatrixView<const float>(out.data() + 60, {1, 4})}, {"output", "overlaps bias"});
}

TEST(ModuleValidation, ScratchBytesRefuse) {
  const MultiHeadAttention<float> layer = Call::layer<float>(false);
  EXPECT_NO_THROW(layer.scratch_bytes(0, 0, 0, false));
  expect_error(kName, kOption, {"q_len is -1"}, [&] { layer.scratch_bytes(1, -1, 1, false); });
  expect_error(kName, kOption, {"batch is -1"}, [&] { layer.scratch_bytes(-1, 1, 1, false); });
  expect_error(kName, kOption, {"kv_len is"}, [&] { layer.scratch_bytes(1, 1, kHuge << 20, false); });
  expect_error(kName, kOption, {"threads is 0"},
               [&] { layer.scratch_bytes(1, 1, 1, false, {.attention = {.threads = 0}}); });
}

}  // namespace
}  // namespace multihead::testing
