// SPDX-License-Identifier: Apache-2.0
// Every rule of weights on request, of attention_weights() and of merge().
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "c_face.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

// A request within a call. Extents as the heads and rows that are asked for: 2 of 4 heads, 2 of 3 rows, 5 keys.
struct WeightsCall {
  std::vector<std::int64_t> heads{3, 1}, rows{0, 2};
  AttentionOptions options = {};
  WeightsPoint point = WeightsPoint::normalised;
  Layout q{0, {2, 4, 3, 6}}, k{1, {2, 2, 5, 6}}, v{2, {2, 2, 5, 7}}, out{3, {2, 4, 3, 7}}, lse{4, {2, 4, 3}};
  Layout per_head{5, {2, 2, 2, 5}}, mean{6, {2, 2, 5}}, norm_weighted{7, {2, 2, 5}}, norms{8, {2, 4, 5}};

  template <class T>
  WeightsRequest<T> request(std::vector<T>& arena) const {
    WeightsRequest<T> weights;
    weights.point = point, weights.heads = heads, weights.rows = rows;
    weights.per_head = per_head.view<T, 4>(arena), weights.mean = mean.view<T, 3>(arena);
    if (!norm_weighted.extents.empty()) weights.norm_weighted = norm_weighted.view<T, 3>(arena);
    if (!norms.extents.empty()) weights.norms = norms.view<const T, 3>(arena);
    return weights;
  }
  template <class T>
  void run(std::vector<T>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 4>(arena); };
    attention(in(q), in(k), in(v), out.view<T, 4>(arena), lse.view<T, 3>(arena), request(arena), options);
  }
  template <class T>
  void run_alone(std::vector<T>& arena) const {
    attention_weights(q.view<const T, 4>(arena), k.view<const T, 4>(arena), lse.view<const T, 3>(arena), request(arena),
                      options);
  }
  template <class T>
  void run_in_c(std::vector<T>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 4>(arena); };
    c_face::attention<T>(in(q), in(k), in(v), out.view<T, 4>(arena), lse.view<T, 3>(arena), request(arena), options);
  }
  template <class T>
  void run_alone_in_c(std::vector<T>& arena) const {
    c_face::attention_weights<T>(q.view<const T, 4>(arena), k.view<const T, 4>(arena), lse.view<const T, 3>(arena),
                                 request(arena), options);
  }
};
using W = WeightsCall;
using Cases = std::vector<Case<W>>;

const std::vector<Operand<W>> kOutputs{
    {"weights.per_head", &W::per_head}, {"weights.mean", &W::mean}, {"weights.norm_weighted", &W::norm_weighted}};

Cases lists() {
  Cases cases{
      {"head_4",
       [](W& c) {
         c.heads = {3, 4};
       },
       kOption,
       {"head of weights.heads is 4", "be 0 to 3"}},
      {"head_minus",
       [](W& c) {
         c.heads = {-1, 0};
       },
       kOption,
       {"head of weights.heads is -1", "be 0 to 3"}},
      {"head_twice",
       [](W& c) {
         c.heads = {2, 2};
       },
       kOption,
       {"weights.heads names head 2 twice"}},
      {"row_3",
       [](W& c) {
         c.rows = {0, 3};
       },
       kOption,
       {"row of weights.rows is 3", "be 0 to 2"}},
      {"row_minus",
       [](W& c) {
         c.rows = {-1, 0};
       },
       kOption,
       {"row of weights.rows is -1", "be 0 to 2"}},
      {"all_heads", [](W& c) { c.heads.clear(); }, kShape, {"per_head has heads 2", "asked for are 4", "equal"}},
      {"all_rows", [](W& c) { c.rows.clear(); }, kShape, {"per_head has rows 2", "asked for are 3", "equal"}},
      {"norms_missing", [](W& c) { c.norms.extents.clear(); }, kOption, {"weights.norms is missing"}},
      {"norms_alone",
       [](W& c) { c.norm_weighted.extents.clear(); },
       kOption,
       {"weights.norms is given without weights.norm_weighted"}},
  };
  for (auto [name, point] : {std::pair{"scaled", WeightsPoint::scaled},
                             {"capped", WeightsPoint::capped},
                             {"biased", WeightsPoint::biased}}) {
    cases.push_back({std::string("norm_weighted_at_") + name,
                     [p = point](W& c) { c.point = p; },
                     kOption,
                     {"weights.norm_weighted", "not normalised"}});
  }
  return cases;
}

Cases extents() {
  Cases cases;
  cases.push_back(longer(&W::per_head, 0, "weights.per_head has batch", "the call has"));
  cases.push_back(longer(&W::per_head, 1, "weights.per_head has heads", "asked for are"));
  cases.push_back(longer(&W::per_head, 2, "weights.per_head has rows", "asked for are"));
  cases.push_back(longer(&W::per_head, 3, "weights.per_head has kv_len", "the call has"));
  for (const auto& [name, operand] : {kOutputs[1], kOutputs[2]}) {
    cases.push_back(longer(operand, 0, name + std::string(" has batch"), "the call has"));
    cases.push_back(longer(operand, 1, name + std::string(" has rows"), "asked for are"));
    cases.push_back(longer(operand, 2, name + std::string(" has kv_len"), "the call has"));
  }
  cases.push_back(longer(&W::norms, 0, "weights.norms has batch", "q has"));
  cases.push_back(longer(&W::norms, 1, "weights.norms has heads", "q has"));
  cases.push_back(longer(&W::norms, 2, "weights.norms has kv_len", "k has"));
  return cases;
}

Cases views(bool alone) {
  Cases cases;
  std::vector<Operand<W>> inputs{{"q", &W::q}, {"k", &W::k}, {"lse", &W::lse}};
  if (!alone) inputs.emplace_back("v", &W::v), inputs.emplace_back("out", &W::out);
  std::vector<Operand<W>> before;
  for (const Operand<W>& output : kOutputs) {
    add_view_rules<W>(cases, {output}, false);
    std::vector<Operand<W>> others = inputs;
    others.insert(others.end(), before.begin(), before.end());
    others.emplace_back("weights.norms", &W::norms);
    add_overlap_rules<W>(cases, output, others);
    before.push_back(output);
  }
  cases.push_back(small_scratch<W>());
  cases.push_back(foreign_target<W>());
  add_thread_rules(cases);
  return cases;
}

Cases of_lse() {
  Cases cases{longer(&W::lse, 0, "lse has batch", "q has"), longer(&W::lse, 1, "lse has heads", "q has"),
              longer(&W::lse, 2, "lse has q_len", "q has"), longer(&W::k, 0, "k has batch", "q has"),
              longer(&W::k, 3, "k has head_dim", "q has")};
  add_view_rules<W>(cases, {{"lse", &W::lse}, {"q", &W::q}, {"k", &W::k}}, false);
  return cases;
}

struct WeightsRules : ::testing::TestWithParam<Case<W>> {};
TEST_P(WeightsRules, RefusedByAttention) {
  const auto door = [](const W& call, auto& arena) { call.run(arena); };
  expect_refused<float>("attention", GetParam(), W(), door);
  expect_refused<double>("attention", GetParam(), W(), door);
  expect_refused<double>("attention", GetParam(), W(), [](const W& call, auto& arena) { call.run_in_c(arena); });
}
struct WeightsAloneRules : ::testing::TestWithParam<Case<W>> {};
TEST_P(WeightsAloneRules, RefusedByAttentionWeights) {
  const auto door = [](const W& call, auto& arena) { call.run_alone(arena); };
  expect_refused<float>("attention_weights", GetParam(), W(), door);
  expect_refused<double>("attention_weights", GetParam(), W(), door);
  const auto in_c = [](const W& call, auto& arena) { call.run_alone_in_c(arena); };
  expect_refused<double>("attention_weights", GetParam(), W(), in_c);
}
INSTANTIATE_TEST_SUITE_P(Lists, WeightsRules, ::testing::ValuesIn(lists()), name_of);
INSTANTIATE_TEST_SUITE_P(Extents, WeightsRules, ::testing::ValuesIn(extents()), name_of);
INSTANTIATE_TEST_SUITE_P(Views, WeightsRules, ::testing::ValuesIn(views(false)), name_of);
INSTANTIATE_TEST_SUITE_P(Lists, WeightsAloneRules, ::testing::ValuesIn(lists()), name_of);
INSTANTIATE_TEST_SUITE_P(Extents, WeightsAloneRules, ::testing::ValuesIn(extents()), name_of);
INSTANTIATE_TEST_SUITE_P(Views, WeightsAloneRules, ::testing::ValuesIn(views(true)), name_of);
INSTANTIATE_TEST_SUITE_P(Lse, WeightsAloneRules, ::testing::ValuesIn(of_lse()), name_of);

// merge() -------------------------------------------------------------------------------------------------------------

struct MergeCall {
  AttentionOptions options = {};  // of which the target is read
  Layout out_a{0, {2, 3, 4, 5}}, lse_a{1, {2, 3, 4}}, out_b{2, {2, 3, 4, 5}}, lse_b{3, {2, 3, 4}};
  Layout out{4, {2, 3, 4, 5}}, lse{5, {2, 3, 4}};

  template <class T>
  void run(std::vector<T>& arena) const {
    merge(out_a.view<const T, 4>(arena), lse_a.view<const T, 3>(arena), out_b.view<const T, 4>(arena),
          lse_b.view<const T, 3>(arena), out.view<T, 4>(arena), lse.view<T, 3>(arena), options.target);
  }
  template <class T>
  void run_in_c(std::vector<T>& arena) const {
    c_face::merge<T>(out_a.view<const T, 4>(arena), lse_a.view<const T, 3>(arena), out_b.view<const T, 4>(arena),
                     lse_b.view<const T, 3>(arena), out.view<T, 4>(arena), lse.view<T, 3>(arena), options.target);
  }
};
using M = MergeCall;

std::vector<Case<M>> merges() {
  std::vector<Case<M>> cases;
  const std::vector<Operand<M>> four{{"out_a", &M::out_a}, {"out_b", &M::out_b}, {"out", &M::out}};
  const std::vector<Operand<M>> three{{"lse_a", &M::lse_a}, {"lse_b", &M::lse_b}, {"lse", &M::lse}};
  const char* axes[] = {" has batch", " has heads", " has q_len", " has value_dim"};
  for (const auto& [name, operand] : {four[0], four[1]})
    for (std::size_t axis = 0; axis < 4; ++axis)
      cases.push_back(longer(operand, axis, name + std::string(axes[axis]), "out has"));
  for (const auto& [name, operand] : three)
    for (std::size_t axis = 0; axis < 3; ++axis)
      cases.push_back(longer(operand, axis, name + std::string(axes[axis]), "out has"));
  for (const auto* operands : {&four, &three}) add_view_rules<M>(cases, *operands, false);
  add_last_axis_rules<M>(cases, four);
  add_overlap_rules<M>(cases, {"out", &M::out}, {four[0], four[1], three[0], three[1]});
  add_overlap_rules<M>(cases, {"lse", &M::lse}, {four[0], four[1], three[0], three[1]});
  cases.push_back(foreign_target<M>());
  const auto turned = [](M& c) { c.out.place = c.out_a.place, c.out.strides = {20, 40, 5, 1}; };
  cases.push_back({"in_place_turned", turned, kShape, {"out overlaps out_a", "must be apart"}});
  const auto on_b = [](M& c) { c.out.place = c.out_b.place; };
  cases.push_back({"in_place_of_b", on_b, kShape, {"out overlaps out_b", "must be apart"}});
  return cases;
}

struct MergeRules : ::testing::TestWithParam<Case<M>> {};
TEST_P(MergeRules, Refused) {
  const auto door = [](const M& call, auto& arena) { call.run(arena); };
  expect_refused<float>("merge", GetParam(), M(), door);
  expect_refused<double>("merge", GetParam(), M(), door);
  expect_refused<float>("merge", GetParam(), M(), [](const M& call, auto& arena) { call.run_in_c(arena); });
}
INSTANTIATE_TEST_SUITE_P(All, MergeRules, ::testing::ValuesIn(merges()), name_of);

TEST(WeightsValidation, LegalAtTheEdge) {
  std::vector<float> arena(kArena, 0.5f);
  const auto runs = [&](const std::function<void(W&)>& change) {
    W call;
    change(call), call.run(arena), call.run_alone(arena);
  };
  EXPECT_NO_THROW(runs([](W& c) { c.rows = {1, 1}; }));  // rows may come twice
  EXPECT_NO_THROW(runs([](W& c) { c.per_head.strides = {1, 2, 4, 8}; }));
  EXPECT_NO_THROW(
      runs([](W& c) { c.norm_weighted.extents.clear(), c.norms.extents.clear(), c.point = WeightsPoint::scaled; }));
  W scaled;
  scaled.norm_weighted.extents.clear(), scaled.norms.extents.clear(), scaled.point = WeightsPoint::biased;
  scaled.lse = Layout(4, {0, 0, 0});
  EXPECT_NO_THROW(scaled.run_alone(arena));  // lse is not read
  M in_place;
  in_place.out.place = in_place.out_a.place, in_place.lse.place = in_place.lse_a.place;
  EXPECT_NO_THROW(in_place.run(arena));
}

}  // namespace
}  // namespace multihead::testing
