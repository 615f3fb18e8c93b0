// SPDX-License-Identifier: Apache-2.0
// Every rule of self_attention(), multi_head_attention() and its scratch, in C++ and through C.
#include <gtest/gtest.h>

#include "c_face.hpp"
#include "multihead/layer.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

struct LayerCall {
  LayerOptions options = {};
  int num_heads = 2;
  Layout X{0, {3, 4}}, Wq{1, {4, 6}}, Wk{2, {4, 6}}, Wv{3, {4, 8}}, Wo{4, {8, 5}}, output{5, {3, 5}};
  Layout per_head{6, {2, 3, 3}}, mean{7, {3, 3}};

  template <class T>
  void run_self(std::vector<T>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 2>(arena); };
    self_attention(in(X), in(Wq), in(Wk), in(Wv), options);
  }
  template <class T>
  void run_returning(std::vector<T>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 2>(arena); };
    multi_head_attention(in(X), in(Wq), in(Wk), in(Wv), in(Wo), num_heads, options);
  }
  template <class T>
  void run_writing(std::vector<T>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 2>(arena); };
    multi_head_attention(in(X), in(Wq), in(Wk), in(Wv), in(Wo), num_heads, output.view<T, 2>(arena), options,
                         HeadWeights<T>{per_head.view<T, 3>(arena), mean.view<T, 2>(arena)});
  }
  template <class T>
  void run_in_c(std::vector<T>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 2>(arena); };
    c_face::multi_head_attention<T>(in(X), in(Wq), in(Wk), in(Wv), in(Wo), num_heads, output.view<T, 2>(arena), options,
                                    {per_head.view<T, 3>(arena), mean.view<T, 2>(arena)});
  }
  // One head: its output stands where Wo's rows end, its weights are mean.
  template <class T>
  void run_self_writing(std::vector<T>& arena, bool in_c) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 2>(arena); };
    const auto run = [&](const auto& door) {
      door(in(X), in(Wq), in(Wk), in(Wv), output.view<T, 2>(arena), options, mean.view<T, 2>(arena));
    };
    in_c ? run([](const auto&... x) { c_face::self_attention<T>(x...); })
         : run([](const auto&... x) { self_attention(x...); });
  }
};
using L = LayerCall;
using LayerCases = std::vector<Case<L>>;

void add_unit_stride_rule(LayerCases& cases, const std::vector<Operand<L>>& weights) {
  for (const auto& [name, weight] : weights)
    cases.push_back({std::string(name) + "_no_unit_stride",
                     [member = weight](L& c) {
                       (c.*member).strides = {20, 2};
                     },
                     kShape,
                     {std::string(name) + " has strides 20 and 2", "one of them must be 1"}});
}

void set_widths(std::int64_t width, Layout& a, Layout& b) { a.extents[1] = b.extents[1] = width; }

// What both functions ask of X, Wq, Wk and Wv.
LayerCases projections() {
  LayerCases cases{
      longer(&L::Wq, 0, "Wq has input width", "X has model_dim"),
      longer(&L::Wk, 0, "Wk has input width", "X has model_dim"),
      longer(&L::Wv, 0, "Wv has input width", "X has model_dim"),
      longer(&L::Wk, 1, "Wk has output width", "Wq has"),
      {"qk_0", [](L& c) { set_widths(0, c.Wq, c.Wk); }, kOption, {"head_dim is 0", "be 1 to 1024"}},
      {"v_0", [](L& c) { set_widths(0, c.Wv, c.Wv); }, kOption, {"value_dim is 0", "be 1 to 1024"}},
      {"qk_1025",
       [](L& c) { set_widths(1025 * c.num_heads, c.Wq, c.Wk); },
       kOption,
       {"head_dim is 1025", "be 1 to 1024"}},
      {"v_1025",
       [](L& c) { set_widths(1025 * c.num_heads, c.Wv, c.Wv); },
       kOption,
       {"value_dim is 1025", "be 1 to 1024"}},
      {"X_endless", [](L& c) { c.X.extents[0] = kHuge << 5, c.X.strides[0] = 0; }, kOption, {"rows is 351843720"}},
      small_scratch<L>(),
      foreign_target<L>(),
  };
  const std::vector<Operand<L>> weights{{"Wq", &L::Wq}, {"Wk", &L::Wk}, {"Wv", &L::Wv}};
  add_view_rules<L>(cases, {{"X", &L::X}}, false);
  add_view_rules<L>(cases, weights, false);
  add_last_axis_rules<L>(cases, {{"X", &L::X}});
  add_unit_stride_rule(cases, weights);
  add_thread_rules(cases);
  return cases;
}

// What multi_head_attention asks of num_heads and Wo.
LayerCases heads() {
  LayerCases cases{
      longer(&L::Wo, 0, "Wo has input width", "Wv has output width"),
      {"num_heads_0", [](L& c) { c.num_heads = 0; }, kOption, {"num_heads is 0", "must be 1 to"}},
      {"num_heads_minus_2", [](L& c) { c.num_heads = -2; }, kOption, {"num_heads is -2", "must be 1 to"}},
      {"num_heads_4", [](L& c) { c.num_heads = 4; }, kShape, {"Wq has output width 6", "num_heads is 4", "divide"}},
      {"num_heads_3", [](L& c) { c.num_heads = 3; }, kShape, {"Wv has output width 8", "num_heads is 3", "divide"}},
  };
  add_view_rules<L>(cases, {{"Wo", &L::Wo}}, false);
  add_unit_stride_rule(cases, {{"Wo", &L::Wo}});
  return cases;
}

// What the writing overloads ask of what they write to.
LayerCases outputs() {
  const std::vector<Operand<L>> inputs{{"X", &L::X}, {"Wq", &L::Wq}, {"Wk", &L::Wk}, {"Wv", &L::Wv}, {"Wo", &L::Wo}};
  const Operand<L> output{"output", &L::output}, per_head{"weights.per_head", &L::per_head},
      mean{"weights.mean", &L::mean};
  LayerCases cases{
      longer(&L::output, 0, "output has rows", "X has"),
      longer(&L::output, 1, "output has columns", "Wo has"),
      longer(&L::per_head, 0, "weights.per_head has heads", "num_heads is"),
      longer(&L::per_head, 1, "weights.per_head has q_len", "X has"),
      longer(&L::per_head, 2, "weights.per_head has kv_len", "X has"),
      longer(&L::mean, 0, "weights.mean has q_len", "X has"),
      longer(&L::mean, 1, "weights.mean has kv_len", "X has"),
  };
  add_view_rules<L>(cases, {output, per_head, mean}, false);
  add_last_axis_rules<L>(cases, {output});
  add_overlap_rules(cases, output, inputs);
  std::vector<Operand<L>> others = inputs;
  others.push_back(output);
  add_overlap_rules(cases, per_head, others);
  others.push_back(per_head);
  add_overlap_rules(cases, mean, others);
  return cases;
}

using LayerRules = ::testing::TestWithParam<Case<L>>;

struct AtSelfAttention : LayerRules {};
TEST_P(AtSelfAttention, Refused) {
  L call;
  call.num_heads = 1;
  const auto door = [](const L& c, auto& arena) { c.run_self(arena); };
  expect_refused<float>("self_attention", GetParam(), call, door);
  expect_refused<double>("self_attention", GetParam(), call, door);
}
INSTANTIATE_TEST_SUITE_P(Projections, AtSelfAttention, ::testing::ValuesIn(projections()), name_of);

// One head, 8 values wide, into memory of the caller's.
LayerCases outputs_of_one_head() {
  LayerCases cases{
      longer(&L::output, 0, "output has rows", "X has"),
      {"output_columns",
       [](L& c) { c.output.extents[1] = 5; },
       kShape,
       {"output has columns 5", "Wv has 8", "be equal"}},
      longer(&L::mean, 0, "weights has q_len", "X has"),
      longer(&L::mean, 1, "weights has kv_len", "X has"),
      small_scratch<L>(),
  };
  cases[0].words = {"output has rows 4", "X has 3"};
  const std::vector<Operand<L>> inputs{{"X", &L::X}, {"Wq", &L::Wq}, {"Wk", &L::Wk}, {"Wv", &L::Wv}};
  add_view_rules<L>(cases, {{"output", &L::output}, {"weights", &L::mean}}, false);
  add_last_axis_rules<L>(cases, {{"output", &L::output}});
  add_overlap_rules<L>(cases, {"output", &L::output}, inputs);
  add_overlap_rules<L>(cases, {"weights", &L::mean}, inputs);
  return cases;
}

struct AtSelfAttentionWriting : LayerRules {};
TEST_P(AtSelfAttentionWriting, Refused) {
  L call;
  call.num_heads = 1;
  call.output = Layout(5, {3, 8});
  for (bool in_c : {false, true}) {
    const auto door = [in_c](const L& c, auto& arena) { c.run_self_writing(arena, in_c); };
    expect_refused<float>("self_attention", GetParam(), call, door);
    expect_refused<double>("self_attention", GetParam(), call, door);
  }
}
INSTANTIATE_TEST_SUITE_P(Projections, AtSelfAttentionWriting, ::testing::ValuesIn(projections()), name_of);
INSTANTIATE_TEST_SUITE_P(Outputs, AtSelfAttentionWriting, ::testing::ValuesIn(outputs_of_one_head()), name_of);

struct AtMultiHeadReturning : LayerRules {};
TEST_P(AtMultiHeadReturning, Refused) {
  const auto door = [](const L& c, auto& arena) { c.run_returning(arena); };
  expect_refused<float>("multi_head_attention", GetParam(), L(), door);
  expect_refused<double>("multi_head_attention", GetParam(), L(), door);
}
INSTANTIATE_TEST_SUITE_P(Projections, AtMultiHeadReturning, ::testing::ValuesIn(projections()), name_of);
INSTANTIATE_TEST_SUITE_P(Heads, AtMultiHeadReturning, ::testing::ValuesIn(heads()), name_of);

struct AtMultiHeadWriting : LayerRules {};
TEST_P(AtMultiHeadWriting, Refused) {
  const auto door = [](const L& c, auto& arena) { c.run_writing(arena); };
  expect_refused<float>("multi_head_attention", GetParam(), L(), door);
  expect_refused<double>("multi_head_attention", GetParam(), L(), door);
  const auto in_c = [](const L& c, auto& arena) { c.run_in_c(arena); };
  expect_refused<float>("multi_head_attention", GetParam(), L(), in_c);
}
INSTANTIATE_TEST_SUITE_P(Projections, AtMultiHeadWriting, ::testing::ValuesIn(projections()), name_of);
INSTANTIATE_TEST_SUITE_P(Heads, AtMultiHeadWriting, ::testing::ValuesIn(heads()), name_of);
INSTANTIATE_TEST_SUITE_P(Outputs, AtMultiHeadWriting, ::testing::ValuesIn(outputs()), name_of);

TEST(LayerValidation, RaggedRows) {
  const Rows<double> X{{1, 2}, {3, 4}}, W{{1, 2}, {3, 4}}, ragged{{1, 2}, {3}};
  const Words words{"row 1 has 1 values", "have 2"};
  for (int place = 0; place < 5; ++place) {
    const auto at = [&](int i) -> const Rows<double>& { return i == place ? ragged : i == 0 ? X : W; };
    expect_error("matrix", kShape, words, [&] { multi_head_attention(at(0), at(1), at(2), at(3), at(4), 1); });
    if (place < 4) expect_error("matrix", kShape, words, [&] { self_attention(at(0), at(1), at(2), at(3)); });
  }
}

// What comes close to a rule and breaks none.
TEST(LayerValidation, LegalAtTheEdge) {
  std::vector<float> arena(kArena, 0.5f);
  const auto runs = [&](auto change) {
    L call;
    change(call), call.run_writing(arena);
  };
  EXPECT_NO_THROW(runs([](L& c) {
    c.per_head.null = c.mean.null = true, c.per_head.extents = {0, 0, 0}, c.mean.extents = {0, 0};
  }));
  EXPECT_NO_THROW(runs([](L& c) { c.Wq.strides = {1, 4}, c.Wo.strides = {1, 8}; }));
  EXPECT_NO_THROW(runs([](L& c) { c.X.strides = {0, 1}, c.Wv.strides = {0, 1}; }));
  EXPECT_NO_THROW(runs([](L& c) { c.output.place = c.X.place + 12, c.mean.place = c.output.place + 15; }));
  EXPECT_NO_THROW(runs([](L& c) { c.output.place += 10, c.output.strides[0] = -5; }));
  EXPECT_NO_THROW(runs([](L& c) { c.per_head.strides = {1, 18, 6}, c.mean.strides = {1, 3}; }));
}

// The question asks for what the call asks for.
TEST(LayerValidation, ScratchBytes) {
  const auto bytes = [](std::size_t element, std::int64_t n, std::int64_t model_dim, std::int64_t qk, std::int64_t v,
                        std::int64_t out, int heads, int threads = 1) {
    return [=] {
      multi_head_attention_scratch_bytes(element, n, model_dim, qk, v, out, heads, {.threads = threads}, true);
    };
  };
  const char* const name = "multi_head_attention_scratch_bytes";
  EXPECT_NO_THROW(bytes(4, 3, 4, 6, 8, 5, 2)());
  EXPECT_NO_THROW(bytes(8, 0, 0, 6, 8, 0, 2)());
  EXPECT_EQ(multi_head_attention_scratch_bytes(4, 3, 4, 6, 8, 5, 2, {.threads = 65536}),
            multi_head_attention_scratch_bytes(4, 3, 4, 6, 8, 5, 2, {.threads = 3}))
      << "more threads than there is work for take no more";
  expect_error(name, kOption, {"element_size", "2"}, bytes(2, 3, 4, 6, 8, 5, 2));
  expect_error(name, kOption, {"threads is 0"}, bytes(4, 3, 4, 6, 8, 5, 2, 0));
  expect_error(name, kOption, {"threads is 70000"}, bytes(4, 3, 4, 6, 8, 5, 2, 70000));
  expect_error(name, kOption, {"-1"}, bytes(4, -1, 4, 6, 8, 5, 2));
  expect_error(name, kOption, {"-1"}, bytes(4, 3, -1, 6, 8, 5, 2));
  expect_error(name, kOption, {"-1"}, bytes(4, 3, 4, 6, 8, -1, 2));
  expect_error(name, kOption, {"rows"}, bytes(4, kHuge << 5, 4, 6, 8, 5, 2));
  expect_error(name, kOption, {"head_dim is 0"}, bytes(4, 3, 4, 0, 8, 5, 2));
  expect_error(name, kOption, {"value_dim is 1025"}, bytes(4, 3, 4, 6, 2050, 5, 2));
  expect_error(name, kShape, {"num_heads is 4", "divide"}, bytes(4, 3, 4, 6, 8, 5, 4));
  expect_error(name, kOption, {"num_heads is -2"}, bytes(4, 3, 4, 6, 8, 5, -2));
  expect_error(name, kOption, {"num_heads is 0"}, bytes(4, 3, 4, 6, 8, 5, 0));
}

}  // namespace
}  // namespace multihead::testing
