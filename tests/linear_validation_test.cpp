// SPDX-License-Identifier: Apache-2.0
// Every rule of Linear and row_norm.
#include "multihead/linear.hpp"

#include <cmath>

#include "refusals.hpp"

namespace multihead::testing {
namespace {

// A layer of 5 inputs and 7 outputs, on 3 rows.
struct LinearCall {
  Layout weight{0, {5, 7}}, x{1, {3, 5}}, y{2, {3, 7}};
  std::int64_t bias = 7;
  bool null_bias = false;
  WeightOrder order = WeightOrder::in_out;
  Activation activation = Activation::gelu;
  LayerOptions options;

  template <class T>
  void run(std::vector<T>& arena) const {
    const std::span<const T> biases(null_bias ? nullptr : arena.data(), static_cast<std::size_t>(bias));
    const Linear<T> layer(weight.view<const T, 2>(arena), order, biases);
    layer.forward(x.view<const T, 2>(arena), y.view<T, 2>(arena), activation, options);
  }
};
using L = LinearCall;

std::vector<Case<L>> linear_cases() {
  std::vector<Case<L>> cases{
      {"order", [](L& c) { c.order = static_cast<WeightOrder>(7); }, kOption, {"order is neither in_out nor out_in"}},
      {"weight_none",
       [](L& c) {
         c.weight = Layout(0, {0, 0}), c.weight.null = true;
       },
       kShape,
       {"weight is not given"}},
      {"weight_strides",
       [](L& c) {
         c.weight.strides = {14, 2};
       },
       kShape,
       {"weight has strides 14 and 2", "one of them must be 1"}},
      {"weight_vast",
       [](L& c) {
         c.weight.extents = {std::int64_t{1} << 25, std::int64_t{1} << 25}, c.weight.strides = {0, 1};
       },
       kShape,
       {"beyond what can be packed"}},
      {"bias_long", [](L& c) { c.bias = 8; }, kShape, {"bias has 8", "out is 7", "must be equal"}},
      {"bias_null", [](L& c) { c.null_bias = true; }, kShape, {"bias is null"}},
      {"activation",
       [](L& c) { c.activation = static_cast<Activation>(9); },
       kOption,
       {"activation is none of", "gelu_tanh"}},
      longer(&L::x, 1, "x has width", "in is"),
      longer(&L::y, 1, "y has width", "out is"),
      longer(&L::y, 0, "y has rows", "x has"),
      foreign_target<L>(),
  };
  add_view_rules<L>(cases, {{"weight", &L::weight}, {"x", &L::x}, {"y", &L::y}}, false);
  add_last_axis_rules<L>(cases, {{"x", &L::x}, {"y", &L::y}});
  add_overlap_rules<L>(cases, {"y", &L::y}, {{"x", &L::x}});
  add_thread_rules(cases);
  return cases;
}

class AtLinear : public ::testing::TestWithParam<Case<L>> {};
TEST_P(AtLinear, Refused) {
  const auto door = [](const L& call, auto& arena) { call.run(arena); };
  expect_refused<float>("Linear", GetParam(), L(), door);
  expect_refused<double>("Linear", GetParam(), L(), door);
}
INSTANTIATE_TEST_SUITE_P(Rules, AtLinear, ::testing::ValuesIn(linear_cases()), name_of);

struct RowNormCall {
  Layout x{0, {4, 6}}, residual{1, {4, 6}}, y{2, {4, 6}};
  Layout weight{3, {6}}, bias{4, {6}};
  bool weighted = true, biased = true;
  HeadNorm norm{HeadNorm::Kind::layer};
  LayerOptions options;

  template <class T>
  void run(std::vector<T>& arena) const {
    const auto span = [&](const Layout& at, bool given) {
      return given ? std::span<const T>(at.null ? nullptr : arena.data() + at.place,
                                        static_cast<std::size_t>(at.extents[0]))
                   : std::span<const T>();
    };
    row_norm(x.view<const T, 2>(arena), residual.view<const T, 2>(arena),
             RowNorm<T>{norm, span(weight, weighted), span(bias, biased)}, y.view<T, 2>(arena), options);
  }
};
using N = RowNormCall;

std::vector<Case<N>> norm_cases() {
  using Kind = HeadNorm::Kind;
  const auto vast = [](N& c) { c.norm.eps = 2; };
  std::vector<Case<N>> cases{
      {"kind", [](N& c) { c.norm.kind = static_cast<Kind>(9); }, kOption, {"kind is none of", "rms_plus_1"}},
      {"weight_alone",
       [](N& c) { c.norm.kind = Kind::none, c.biased = false; },
       kOption,
       {"weight or bias is given, and no norm"}},
      {"bias_alone",
       [](N& c) { c.norm.kind = Kind::none, c.weighted = false; },
       kOption,
       {"weight or bias is given, and no norm"}},
      {"bias_of_rms", [](N& c) { c.norm.kind = Kind::rms; }, kOption, {"bias is given; only a layer norm has one"}},
      {"eps_minus", [](N& c) { c.norm.eps = -1; }, kOption, {"eps is -1", "must be 0 to 1"}},
      {"eps_large", vast, kOption, {"eps is 2", "must be 0 to 1"}},
      {"eps_nan", [](N& c) { c.norm.eps = NAN; }, kOption, {"eps is", "must be 0 to 1"}},
      {"weight_long", [](N& c) { c.weight.extents[0] = 7; }, kShape, {"weight has 7", "the width is 6"}},
      {"bias_long", [](N& c) { c.bias.extents[0] = 7; }, kShape, {"bias has 7", "the width is 6"}},
      {"weight_null", [](N& c) { c.weight.null = true; }, kShape, {"weight is null"}},
      {"bias_null", [](N& c) { c.bias.null = true; }, kShape, {"bias is null"}},
      {"weight_in_y", [](N& c) { c.weight.place = c.y.place + 3; }, kShape, {"y overlaps weight"}},
      {"x_shifted", [](N& c) { c.x.place = c.y.place + 6; }, kShape, {"y overlaps x", "must be apart"}},
      longer(&N::x, 0, "x has rows", "y has"),
      longer(&N::x, 1, "x has width", "y has"),
      longer(&N::residual, 0, "residual has rows", "y has"),
      longer(&N::residual, 1, "residual has width", "y has"),
      foreign_target<N>(),
  };
  add_view_rules<N>(cases, {{"x", &N::x}, {"residual", &N::residual}, {"y", &N::y}}, false);
  add_last_axis_rules<N>(cases, {{"x", &N::x}, {"residual", &N::residual}, {"y", &N::y}});
  add_overlap_rules<N>(cases, {"y", &N::y}, {{"x", &N::x}, {"residual", &N::residual}});
  add_thread_rules(cases);
  return cases;
}

class AtRowNorm : public ::testing::TestWithParam<Case<N>> {};
TEST_P(AtRowNorm, Refused) {
  const auto door = [](const N& call, auto& arena) { call.run(arena); };
  expect_refused<float>("row_norm", GetParam(), N(), door);
  expect_refused<double>("row_norm", GetParam(), N(), door);
}
INSTANTIATE_TEST_SUITE_P(Rules, AtRowNorm, ::testing::ValuesIn(norm_cases()), name_of);

}  // namespace
}  // namespace multihead::testing
