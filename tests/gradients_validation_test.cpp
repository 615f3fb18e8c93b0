// SPDX-License-Identifier: Apache-2.0
// Every rule of linear(), activate(), row_norm_backward(), embedding(), cross_entropy(), drop_elements() and their
// gradients.
#include "multihead/gradients.hpp"

#include <cmath>

#include "refusals.hpp"

namespace multihead::testing {
namespace {

template <class T>
std::span<T> vector_of(const Layout& at, std::vector<std::remove_const_t<T>>& arena) {
  return {at.null ? nullptr : arena.data() + at.place, static_cast<std::size_t>(at.extents[0])};
}

template <class Call, class Door>
void expect_both(const char* function, const Case<Call>& c, const Door& door) {
  expect_refused<float>(function, c, Call(), door);
  expect_refused<double>(function, c, Call(), door);
}

// ---- linear ----

struct LinearCall {
  Layout x{0, {3, 5}}, weight{1, {5, 7}}, bias{2, {7}}, y{3, {3, 7}};
  WeightOrder order = WeightOrder::in_out;
  LayerOptions options;

  template <class T>
  void run(std::vector<T>& arena) const {
    linear<T>(x.view<const T, 2>(arena), weight.view<const T, 2>(arena), order, vector_of<const T>(bias, arena),
              y.view<T, 2>(arena), options);
  }
};
using L = LinearCall;

template <class Call>
void add_weight_rules(std::vector<Case<Call>>& cases) {
  cases.push_back({"order",
                   [](Call& c) { c.order = static_cast<WeightOrder>(7); },
                   kOption,
                   {"order is neither in_out nor out_in"}});
  cases.push_back({"weight_none",
                   [](Call& c) {
                     c.weight = Layout(0, {0, 0}), c.weight.null = true;
                   },
                   kShape,
                   {"weight is not given"}});
  cases.push_back({"weight_strides",
                   [](Call& c) {
                     c.weight.strides = {14, 2};
                   },
                   kShape,
                   {"weight has strides 14 and 2", "one of them must be 1"}});
}

std::vector<Case<L>> linear_cases() {
  std::vector<Case<L>> cases{
      longer(&L::x, 1, "x has width", "the weight's in is"),
      longer(&L::y, 1, "y has width", "the weight's out is"),
      longer(&L::y, 0, "y has rows", "x has"),
      longer(&L::bias, 0, "bias has", "out is"),
      {"bias_null", [](L& c) { c.bias.null = true; }, kShape, {"bias is null"}},
      foreign_target<L>(),
  };
  add_weight_rules(cases);
  add_view_rules<L>(cases, {{"x", &L::x}, {"weight", &L::weight}, {"y", &L::y}}, false);
  add_last_axis_rules<L>(cases, {{"x", &L::x}, {"y", &L::y}});
  add_overlap_rules<L>(cases, {"y", &L::y}, {{"x", &L::x}, {"weight", &L::weight}, {"bias", &L::bias}});
  add_thread_rules(cases);
  return cases;
}
class AtLinearFunction : public ::testing::TestWithParam<Case<L>> {};
TEST_P(AtLinearFunction, Refused) {
  expect_both("linear", GetParam(), [](const L& call, auto& arena) { call.run(arena); });
}
INSTANTIATE_TEST_SUITE_P(Rules, AtLinearFunction, ::testing::ValuesIn(linear_cases()), name_of);

struct LinearBackwardCall {
  Layout x{0, {3, 5}}, weight{1, {5, 7}}, d_y{2, {3, 7}};
  Layout to_x{3, {3, 5}}, to_weight{4, {5, 7}}, to_bias{5, {7}};
  WeightOrder order = WeightOrder::in_out;
  LayerOptions options;

  template <class T>
  void run(std::vector<T>& arena) const {
    linear_backward<T>(x.view<const T, 2>(arena), weight.view<const T, 2>(arena), order, d_y.view<const T, 2>(arena),
                       {to_x.view<T, 2>(arena), to_weight.view<T, 2>(arena), vector_of<T>(to_bias, arena)}, options);
  }
};
using LB = LinearBackwardCall;

std::vector<Case<LB>> linear_backward_cases() {
  std::vector<Case<LB>> cases{
      longer(&LB::x, 1, "x has width", "the weight's in is"),
      longer(&LB::d_y, 1, "d_y has width", "the weight's out is"),
      longer(&LB::d_y, 0, "d_y has rows", "x has"),
      longer(&LB::to_x, 0, "gradients.x has rows", "x has"),
      longer(&LB::to_x, 1, "gradients.x has width", "x has"),
      longer(&LB::to_weight, 0, "gradients.weight has rows", "weight has"),
      longer(&LB::to_weight, 1, "gradients.weight has width", "weight has"),
      longer(&LB::to_bias, 0, "gradients.bias has", "out is"),
      {"to_bias_null", [](LB& c) { c.to_bias.null = true; }, kShape, {"gradients.bias is null"}},
      {"to_weight_strides",
       [](LB& c) {
         c.to_weight.strides = {14, 2};
       },
       kShape,
       {"gradients.weight has strides 14 and 2", "one of them must be 1"}},
      foreign_target<LB>(),
  };
  for (Case<LB>& c : cases) c.name += c.words[0].starts_with("gradients.") ? "_gradient" : "";
  add_weight_rules(cases);
  add_view_rules<LB>(cases, {{"x", &LB::x}, {"weight", &LB::weight}, {"d_y", &LB::d_y}}, false);
  add_last_axis_rules<LB>(cases, {{"x", &LB::x}, {"d_y", &LB::d_y}});
  std::vector<Case<LB>> written;
  add_overlap_rules<LB>(written, {"gradients.x", &LB::to_x},
                        {{"x", &LB::x}, {"weight", &LB::weight}, {"d_y", &LB::d_y}});
  add_overlap_rules<LB>(written, {"gradients.weight", &LB::to_weight},
                        {{"x", &LB::x}, {"weight", &LB::weight}, {"d_y", &LB::d_y}, {"gradients.x", &LB::to_x}});
  for (Case<LB>& c : written) c.name = "gradient_" + c.name;
  // Two gradients' words of one name: as they are told apart in the list of tests.
  for (std::size_t i = 0; i < written.size(); ++i) written[i].name += "_" + std::to_string(i);
  cases.insert(cases.end(), written.begin(), written.end());
  cases.push_back({"to_bias_on_to_weight",
                   [](LB& c) { c.to_bias.place = c.to_weight.place + 3; },
                   kShape,
                   {"gradients.bias overlaps gradients.weight"}});
  cases.push_back({"to_bias_on_d_y", [](LB& c) { c.to_bias.place = c.d_y.place; }, kShape, {"overlaps d_y"}});
  add_thread_rules(cases);
  return cases;
}
class AtLinearBackward : public ::testing::TestWithParam<Case<LB>> {};
TEST_P(AtLinearBackward, Refused) {
  expect_both("linear_backward", GetParam(), [](const LB& call, auto& arena) { call.run(arena); });
}
INSTANTIATE_TEST_SUITE_P(Rules, AtLinearBackward, ::testing::ValuesIn(linear_backward_cases()), name_of);

// ---- activations ----

struct ActivateCall {
  Layout x{0, {3, 5}}, y{1, {3, 5}};
  Activation activation = Activation::gelu;
  LayerOptions options;
};
using A = ActivateCall;

template <class Call>
Case<Call> unknown_activation() {
  return {"activation",
          [](Call& c) { c.activation = static_cast<Activation>(9); },
          kOption,
          {"activation is none of", "gelu_tanh"}};
}

std::vector<Case<A>> activate_cases() {
  std::vector<Case<A>> cases{unknown_activation<A>(), longer(&A::y, 0, "y has rows", "x has"),
                             longer(&A::y, 1, "y has width", "x has"), foreign_target<A>()};
  add_view_rules<A>(cases, {{"x", &A::x}, {"y", &A::y}}, false);
  add_last_axis_rules<A>(cases, {{"x", &A::x}, {"y", &A::y}});
  add_overlap_rules<A>(cases, {"y", &A::y}, {{"x", &A::x}});
  add_thread_rules(cases);
  return cases;
}
class AtActivate : public ::testing::TestWithParam<Case<A>> {};
TEST_P(AtActivate, Refused) {
  expect_both("activate", GetParam(), []<class T>(const A& c, std::vector<T>& arena) {
    activate<T>(c.activation, c.x.view<const T, 2>(arena), c.y.view<T, 2>(arena), c.options);
  });
}
INSTANTIATE_TEST_SUITE_P(Rules, AtActivate, ::testing::ValuesIn(activate_cases()), name_of);

struct ActivationBackwardCall {
  Layout x{0, {3, 5}}, d_y{1, {3, 5}}, d_x{2, {3, 5}};
  Activation activation = Activation::gelu;
  LayerOptions options;
};
using AB = ActivationBackwardCall;

std::vector<Case<AB>> activation_backward_cases() {
  std::vector<Case<AB>> cases{unknown_activation<AB>(),
                              longer(&AB::d_y, 0, "d_y has rows", "x has"),
                              longer(&AB::d_y, 1, "d_y has width", "x has"),
                              longer(&AB::d_x, 0, "d_x has rows", "x has"),
                              longer(&AB::d_x, 1, "d_x has width", "x has"),
                              foreign_target<AB>()};
  add_view_rules<AB>(cases, {{"x", &AB::x}, {"d_y", &AB::d_y}, {"d_x", &AB::d_x}}, false);
  add_last_axis_rules<AB>(cases, {{"x", &AB::x}, {"d_y", &AB::d_y}, {"d_x", &AB::d_x}});
  add_overlap_rules<AB>(cases, {"d_x", &AB::d_x}, {{"x", &AB::x}, {"d_y", &AB::d_y}});
  cases.push_back({"d_x_is_x", [](AB& c) { c.d_x.place = c.x.place; }, kShape, {"d_x overlaps x"}});
  add_thread_rules(cases);
  return cases;
}
class AtActivationBackward : public ::testing::TestWithParam<Case<AB>> {};
TEST_P(AtActivationBackward, Refused) {
  expect_both("activation_backward", GetParam(), []<class T>(const AB& c, std::vector<T>& arena) {
    activation_backward<T>(c.activation, c.x.view<const T, 2>(arena), c.d_y.view<const T, 2>(arena),
                           c.d_x.view<T, 2>(arena), c.options);
  });
}
INSTANTIATE_TEST_SUITE_P(Rules, AtActivationBackward, ::testing::ValuesIn(activation_backward_cases()), name_of);

// ---- norms ----

struct NormCall {
  Layout x{0, {4, 6}}, d_y{1, {4, 6}}, weight{2, {6}}, bias{3, {6}};
  Layout to_x{4, {4, 6}}, to_weight{5, {6}}, to_bias{6, {6}};
  HeadNorm norm{HeadNorm::Kind::layer};
  bool biased = true;
  LayerOptions options;

  template <class T>
  void run(std::vector<T>& arena) const {
    row_norm_backward<T>(x.view<const T, 2>(arena),
                         RowNorm<T>{norm, vector_of<const T>(weight, arena),
                                    biased ? vector_of<const T>(bias, arena) : std::span<const T>()},
                         d_y.view<const T, 2>(arena),
                         {to_x.view<T, 2>(arena), vector_of<T>(to_weight, arena), vector_of<T>(to_bias, arena)},
                         options);
  }
};
using N = NormCall;

std::vector<Case<N>> norm_cases() {
  using Kind = HeadNorm::Kind;
  std::vector<Case<N>> cases{
      {"kind", [](N& c) { c.norm.kind = static_cast<Kind>(9); }, kOption, {"kind is none of", "rms_plus_1"}},
      {"kind_none",
       [](N& c) { c.norm.kind = Kind::none, c.weight = c.bias = Layout(0, {0}); },
       kOption,
       {"kind is none; it must be rms, rms_plus_1 or layer"}},
      {"bias_of_rms", [](N& c) { c.norm.kind = Kind::rms; }, kOption, {"bias is given; only a layer norm has one"}},
      {"bias_gradient_of_rms",
       [](N& c) { c.norm.kind = Kind::rms, c.biased = false; },
       kOption,
       {"gradients.bias is given; only a layer norm has a bias"}},
      {"eps_minus", [](N& c) { c.norm.eps = -1; }, kOption, {"eps is -1", "must be 0 to 1"}},
      {"eps_nan", [](N& c) { c.norm.eps = NAN; }, kOption, {"eps is", "must be 0 to 1"}},
      {"weight_null", [](N& c) { c.weight.null = true; }, kShape, {"weight is null"}},
      {"to_weight_null", [](N& c) { c.to_weight.null = true; }, kShape, {"gradients.weight is null"}},
      {"to_weight_on_x", [](N& c) { c.to_weight.place = c.x.place + 7; }, kShape, {"gradients.weight overlaps x"}},
      {"to_bias_on_d_y", [](N& c) { c.to_bias.place = c.d_y.place + 7; }, kShape, {"gradients.bias overlaps d_y"}},
      {"to_bias_on_to_weight",
       [](N& c) { c.to_bias.place = c.to_weight.place + 1; },
       kShape,
       {"gradients.bias overlaps gradients.weight"}},
      longer(&N::d_y, 0, "d_y has rows", "x has"),
      longer(&N::d_y, 1, "d_y has width", "x has"),
      foreign_target<N>(),
  };
  const std::pair<const char*, Layout N::*> vectors[] = {
      {"weight", &N::weight}, {"bias", &N::bias}, {"gradients.weight", &N::to_weight}, {"gradients.bias", &N::to_bias}};
  for (const auto& [name, vector] : vectors) {
    cases.push_back(longer(vector, 0, std::string(name) + " has", "the width is"));
    if (std::string(name).starts_with("gradients")) cases.back().name += "_gradient";
  }
  std::vector<Case<N>> of_x{longer(&N::to_x, 0, "gradients.x has rows", "x has"),
                            longer(&N::to_x, 1, "gradients.x has width", "x has")};
  add_last_axis_rules<N>(of_x, {{"gradients.x", &N::to_x}});
  add_overlap_rules<N>(of_x, {"gradients.x", &N::to_x}, {{"x", &N::x}, {"d_y", &N::d_y}, {"weight", &N::weight}});
  for (std::size_t i = 0; i < of_x.size(); ++i) of_x[i].name = "to_x_" + std::to_string(i);
  cases.insert(cases.end(), of_x.begin(), of_x.end());
  add_view_rules<N>(cases, {{"x", &N::x}, {"d_y", &N::d_y}}, false);
  add_last_axis_rules<N>(cases, {{"x", &N::x}, {"d_y", &N::d_y}});
  add_thread_rules(cases);
  return cases;
}
class AtRowNormBackward : public ::testing::TestWithParam<Case<N>> {};
TEST_P(AtRowNormBackward, Refused) {
  expect_both("row_norm_backward", GetParam(), [](const N& call, auto& arena) { call.run(arena); });
}
INSTANTIATE_TEST_SUITE_P(Rules, AtRowNormBackward, ::testing::ValuesIn(norm_cases()), name_of);

// ---- embeddings ----

struct EmbeddingCall {
  Layout table{0, {4, 3}}, y{1, {2, 3}};
  std::vector<std::int64_t> ids{3, -1};
};
using E = EmbeddingCall;

// table and y by the names they have at a door; which of them is written.
std::vector<Case<E>> embedding_cases(const char* table, const char* y, bool into_table) {
  std::vector<Case<E>> cases{
      {"id_large", [](E& c) { c.ids[1] = 4; }, kOption, {"an id is 4", "must be -1 to 3"}},
      {"id_minus", [](E& c) { c.ids[1] = -2; }, kOption, {"an id is -2", "must be -1 to 3"}},
      {"ids_many", [](E& c) { c.ids.push_back(0); }, kShape, {"has rows 2", "the number of ids is 3"}},
      longer(&E::y, 1, std::string(y) + " has width", "the table has"),
  };
  add_view_rules<E>(cases, {{table, &E::table}, {y, &E::y}}, false);
  add_last_axis_rules<E>(cases, {{table, &E::table}, {y, &E::y}});
  if (into_table)
    add_overlap_rules<E>(cases, {table, &E::table}, {{y, &E::y}});
  else
    add_overlap_rules<E>(cases, {y, &E::y}, {{table, &E::table}});
  return cases;
}
class AtEmbedding : public ::testing::TestWithParam<Case<E>> {};
TEST_P(AtEmbedding, Refused) {
  expect_both("embedding", GetParam(), []<class T>(const E& c, std::vector<T>& arena) {
    embedding<T>(c.table.view<const T, 2>(arena), c.ids, c.y.view<T, 2>(arena));
  });
}
INSTANTIATE_TEST_SUITE_P(Rules, AtEmbedding, ::testing::ValuesIn(embedding_cases("table", "y", false)), name_of);

class AtEmbeddingBackward : public ::testing::TestWithParam<Case<E>> {};
TEST_P(AtEmbeddingBackward, Refused) {
  expect_both("embedding_backward", GetParam(), []<class T>(const E& c, std::vector<T>& arena) {
    embedding_backward<T>(c.ids, c.y.view<const T, 2>(arena), c.table.view<T, 2>(arena));
  });
}
INSTANTIATE_TEST_SUITE_P(Rules, AtEmbeddingBackward, ::testing::ValuesIn(embedding_cases("d_table", "d_y", true)),
                         name_of);

// ---- the loss ----

struct LossCall {
  Layout logits{0, {3, 5}}, d_logits{1, {3, 5}};
  std::vector<std::int64_t> targets{4, -1, 0};
  double smoothing = 0.1, factor = 1;
};
using C = LossCall;

std::vector<Case<C>> loss_cases() {
  std::vector<Case<C>> cases{
      {"target_large", [](C& c) { c.targets[0] = 5; }, kOption, {"a target is 5", "must be -1 to 4"}},
      {"target_minus", [](C& c) { c.targets[0] = -2; }, kOption, {"a target is -2", "must be -1 to 4"}},
      {"targets_many", [](C& c) { c.targets.push_back(0); }, kShape, {"targets has 4", "logits has rows 3"}},
      {"smoothing_minus", [](C& c) { c.smoothing = -0.5; }, kOption, {"smoothing is -0.5", "must be 0 to 1"}},
      {"smoothing_large", [](C& c) { c.smoothing = 1.5; }, kOption, {"smoothing is 1.5", "must be 0 to 1"}},
      {"smoothing_nan", [](C& c) { c.smoothing = NAN; }, kOption, {"smoothing is", "must be 0 to 1"}},
      {"factor_nan", [](C& c) { c.factor = NAN; }, kOption, {"factor is not finite"}},
      {"factor_vast", [](C& c) { c.factor = INFINITY; }, kOption, {"factor is not finite"}},
      longer(&C::d_logits, 0, "d_logits has rows", "logits has"),
      longer(&C::d_logits, 1, "d_logits has width", "logits has"),
  };
  add_view_rules<C>(cases, {{"logits", &C::logits}, {"d_logits", &C::d_logits}}, false);
  add_last_axis_rules<C>(cases, {{"logits", &C::logits}, {"d_logits", &C::d_logits}});
  add_overlap_rules<C>(cases, {"d_logits", &C::d_logits}, {{"logits", &C::logits}});
  return cases;
}
class AtCrossEntropy : public ::testing::TestWithParam<Case<C>> {};
TEST_P(AtCrossEntropy, Refused) {
  expect_both("cross_entropy", GetParam(), []<class T>(const C& c, std::vector<T>& arena) {
    cross_entropy<T>(c.logits.view<const T, 2>(arena), c.targets, c.smoothing, c.d_logits.view<T, 2>(arena), c.factor);
  });
}
INSTANTIATE_TEST_SUITE_P(Rules, AtCrossEntropy, ::testing::ValuesIn(loss_cases()), name_of);

// ---- dropout ----

struct DropCall {
  Layout x{0, {3, 5}}, y{1, {3, 5}};
  Dropout dropout{0.5, 1, 2};
};
using D = DropCall;

std::vector<Case<D>> drop_cases() {
  std::vector<Case<D>> cases{
      {"one", [](D& c) { c.dropout.probability = 1; }, kOption, {"probability is 1", "must be 0 to below 1"}},
      {"minus", [](D& c) { c.dropout.probability = -0.1; }, kOption, {"probability is -0.1"}},
      {"nan", [](D& c) { c.dropout.probability = NAN; }, kOption, {"probability is", "must be 0 to below 1"}},
      longer(&D::y, 0, "y has rows", "x has"),
      longer(&D::y, 1, "y has width", "x has"),
  };
  add_view_rules<D>(cases, {{"x", &D::x}, {"y", &D::y}}, false);
  add_last_axis_rules<D>(cases, {{"x", &D::x}, {"y", &D::y}});
  add_overlap_rules<D>(cases, {"y", &D::y}, {{"x", &D::x}});
  return cases;
}
class AtDropElements : public ::testing::TestWithParam<Case<D>> {};
TEST_P(AtDropElements, Refused) {
  expect_both("drop_elements", GetParam(), []<class T>(const D& c, std::vector<T>& arena) {
    drop_elements<T>(c.dropout, c.x.view<const T, 2>(arena), c.y.view<T, 2>(arena));
  });
}
INSTANTIATE_TEST_SUITE_P(Rules, AtDropElements, ::testing::ValuesIn(drop_cases()), name_of);

}  // namespace
}  // namespace multihead::testing
