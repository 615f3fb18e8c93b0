// SPDX-License-Identifier: Apache-2.0
// Every rule of statistics on request, of attention() and of statistics_of_weights().
#include <gtest/gtest.h>

#include "refusals.hpp"

namespace multihead::testing {
namespace {

// A request within a call: 2 batch entries, 4 heads, 3 queries, 5 keys.
struct StatisticsCall {
  std::vector<std::int64_t> offsets{-1, 0}, keys{0, 4};
  std::vector<std::int64_t> tokens = std::vector<std::int64_t>(16, 1);
  std::vector<std::uint32_t> classes = std::vector<std::uint32_t>(16, 1);
  std::array<std::int64_t, 2> of_classes{2, 5}, of_queries{2, 3}, of_keys{2, 5};
  bool classes_given = true, tokens_given = true, packed = false, with_map = false;
  std::int64_t bin = 16;
  AttentionOptions options = {};
  Layout q{0, {2, 4, 3, 6}}, k{1, {2, 2, 5, 6}}, v{2, {2, 2, 5, 7}}, out{3, {2, 4, 3, 7}}, lse{4, {2, 4, 3}};
  // Of the arena's own rooms: extents of rank 0 ask for nothing.
  Layout entropy{5, {2, 4, 3}}, offset_mass{6, {2, 4, 3, 2}}, key_mass{7, {2, 4, 3, 2}}, class_mass{8, {2, 4, 3, 3}};
  Layout duplicate_mass = at(8, 2000, {2, 4, 3}), top_weights = at(8, 4000, {2, 4, 3, 2});
  Layout sum_squares = at(8, 6000, {2, 4, 3}), induction_mass = at(8, 8000, {2, 4, 3}), norms{0, {}};
  std::int64_t top_places = 2;
  Layout weights{0, {}};

  static Layout at(int room, std::int64_t further, const std::vector<std::int64_t>& extents) {
    Layout layout(room, extents);
    layout.place += further;
    return layout;
  }

  template <class T>
  StatisticsRequest<T> request(std::vector<T>& arena, std::vector<std::int64_t>& top_keys) const {
    StatisticsRequest<T> r;
    r.offsets = offsets, r.keys = keys, r.bin = bin;
    if (classes_given) r.key_classes = {classes.data(), of_classes};
    if (tokens_given) r.q_tokens = {tokens.data(), of_queries}, r.kv_tokens = {tokens.data(), of_keys};
    RowStatistics<T>& to = r.plain;
    to.entropy = entropy.view<T, 3>(arena), to.sum_squares = sum_squares.view<T, 3>(arena);
    to.offset_mass = offset_mass.view<T, 4>(arena), to.key_mass = key_mass.view<T, 4>(arena);
    to.class_mass = class_mass.view<T, 4>(arena), to.top_weights = top_weights.view<T, 4>(arena);
    to.duplicate_mass = duplicate_mass.view<T, 3>(arena), to.induction_mass = induction_mass.view<T, 3>(arena);
    top_keys.resize(static_cast<std::size_t>(24 * std::max<std::int64_t>(top_places, 1)));
    to.top_keys = {top_keys.data(), {2, 4, 3, top_places}};
    if (with_map) to.map = {arena.data(), {2, 4, 1, 1}};
    if (!norms.extents.empty()) r.norms = norms.view<const T, 3>(arena);
    return r;
  }
  template <class T>
  void run(std::vector<T>& arena) const {
    const auto in = [&](const Layout& layout) { return layout.view<const T, 4>(arena); };
    std::vector<std::int64_t> top_keys;
    WeightsRequest<T> wanted;
    if (!weights.extents.empty()) wanted.per_head = weights.view<T, 4>(arena);
    attention(in(q), in(k), in(v), out.view<T, 4>(arena), lse.view<T, 3>(arena), wanted, request(arena, top_keys),
              options);
  }
  template <class T>
  void run_of_weights(std::vector<T>& arena) const {
    std::vector<std::int64_t> top_keys;
    statistics_of_weights(Layout(0, {2, 4, 3, 5}).view<const T, 4>(arena), request(arena, top_keys));
  }
};
using S = StatisticsCall;
using Cases = std::vector<Case<S>>;

// What both doors refuse of the lists.
Cases lists() {
  constexpr std::int64_t kFar = (std::int64_t{1} << 40) + 1;
  Cases cases{
      {"offset_far", [](S& c) { c.offsets[0] = kFar; }, kOption, {"offset of statistics.offsets is 1099511627777"}},
      {"offset_far_back", [](S& c) { c.offsets[1] = -kFar; }, kOption, {"offset of statistics.offsets is -10995116"}},
      {"key_minus", [](S& c) { c.keys[0] = -1; }, kOption, {"key of statistics.keys is -1", "be 0 to"}},
      {"key_far", [](S& c) { c.keys[1] = kFar; }, kOption, {"key of statistics.keys is 1099511627777"}},
      {"token_minus", [](S& c) { c.tokens[2] = -1; }, kOption, {"token of the statistics is -1", "0 to 16777215"}},
      {"token_large", [](S& c) { c.tokens[2] = 1 << 24; }, kOption, {"token of the statistics is 16777216"}},
      {"classes_missing", [](S& c) { c.classes_given = false; }, kOption, {"class_mass", "without", "key_classes"}},
      {"tokens_missing", [](S& c) { c.tokens_given = false; }, kOption, {"duplicate_mass", "without", "q_tokens"}},
      {"induction_tokens",
       [](S& c) {
         c.tokens_given = false, c.duplicate_mass.extents = {0, 0, 0}, c.duplicate_mass.null = true;
       },
       kOption,
       {"induction_mass", "without", "q_tokens"}},
      {"key_classes_keys",
       [](S& c) {
         c.of_classes = {2, 4};
       },
       kShape,
       {"key_classes on axis 1 has extent 4", "wanted is 5"}},
      {"key_classes_batch",
       [](S& c) {
         c.of_classes = {3, 5};
       },
       kShape,
       {"key_classes on axis 0 has extent 3", "is 2"}},
      {"q_tokens_rows",
       [](S& c) {
         c.of_queries = {2, 5};
       },
       kShape,
       {"q_tokens on axis 1 has extent 5", "wanted is 3"}},
      {"kv_tokens_keys",
       [](S& c) {
         c.of_keys = {2, 3};
       },
       kShape,
       {"kv_tokens on axis 1 has extent 3", "wanted is 5"}},
      {"offsets_more",
       [](S& c) { c.offsets.push_back(3); },
       kShape,
       {"offset_mass on axis 3 has extent 2", "wanted is 3"}},
      {"keys_more", [](S& c) { c.keys.push_back(3); }, kShape, {"key_mass on axis 3 has extent 2", "wanted is 3"}},
  };
  return cases;
}

// And of how many there are.
Cases counts() {
  Cases cases{
      {"classes_0",
       [](S& c) {
         c.class_mass = Layout(8, {2, 4, 3, 0});
       },
       kOption,
       {"class_mass is 0", "1 to 32"}},
      {"classes_33",
       [](S& c) {
         c.class_mass = Layout(8, {2, 4, 3, 33});
       },
       kOption,
       {"class_mass is 33", "1 to 32"}},
      {"top_0", [](S& c) { c.top_places = 0; }, kOption, {"places of statistics.top_keys", "is 0", "1 to 64"}},
      {"top_65", [](S& c) { c.top_places = 65; }, kOption, {"places of statistics.top_keys", "is 65", "1 to 64"}},
      {"top_unlike", [](S& c) { c.top_places = 3; }, kShape, {"top_keys has places 3", "top_weights has 2"}},
      {"bin_0", [](S& c) { c.with_map = true, c.bin = 0; }, kOption, {"statistics.bin is 0", "16, 32, 64"}},
      {"bin_vast",
       [](S& c) { c.with_map = true, c.bin = std::numeric_limits<std::int64_t>::max() - 127; },
       kOption,
       {"statistics.bin is 9223372036854775680", "up to 1099511627776"}},
      {"bin_96", [](S& c) { c.with_map = true, c.bin = 96; }, kOption, {"statistics.bin is 96", "multiple of 128"}},
      {"norms_alone",
       [](S& c) {
         c.norms = S::at(8, 10000, {2, 4, 5});
       },
       kOption,
       {"norms is given without statistics.norm_weighted"}},
  };
  return cases;
}

// What both doors refuse of the outputs.
Cases outputs() {
  Cases cases;
  const std::pair<const char*, Layout S::*> all[] = {{"statistics.entropy", &S::entropy},
                                                     {"statistics.sum_squares", &S::sum_squares},
                                                     {"statistics.offset_mass", &S::offset_mass},
                                                     {"statistics.key_mass", &S::key_mass},
                                                     {"statistics.class_mass", &S::class_mass},
                                                     {"statistics.duplicate_mass", &S::duplicate_mass},
                                                     {"statistics.induction_mass", &S::induction_mass},
                                                     {"statistics.top_weights", &S::top_weights}};
  std::vector<Operand<S>> before;
  for (const auto& [name, member] : all) {
    for (std::size_t axis = 0; axis < 3; ++axis)
      cases.push_back(
          longer(member, axis, name + std::string(" on axis ") + std::to_string(axis) + " has extent", "wanted is"));
    add_view_rules<S>(cases, {{name, member}}, false);
    add_overlap_rules<S>(cases, {name, member}, before);
    before.push_back({name, member});
  }
  return cases;
}

// What attention alone can refuse.
Cases of_attention() {
  Cases cases;
  for (const auto& [name, output] :
       {Operand<S>{"statistics.entropy", &S::entropy}, {"statistics.top_weights", &S::top_weights}})
    add_overlap_rules<S>(cases, {name, output},
                         {{"q", &S::q}, {"k", &S::k}, {"v", &S::v}, {"out", &S::out}, {"lse", &S::lse}});
  cases.push_back({"on_the_weights",
                   [](S& c) {
                     c.weights = S::at(8, 12000, {2, 4, 3, 5});
                     c.entropy.place = c.weights.place + 7;
                   },
                   kShape,
                   {"statistics.entropy overlaps weights.per_head"}});
  cases.push_back(small_scratch<S>());
  cases.push_back(foreign_target<S>());
  add_thread_rules(cases);
  return cases;
}

struct StatisticsRules : ::testing::TestWithParam<Case<S>> {};
TEST_P(StatisticsRules, RefusedByAttention) {
  const auto door = [](const S& call, auto& arena) { call.run(arena); };
  expect_refused<float>("attention", GetParam(), S(), door);
  expect_refused<double>("attention", GetParam(), S(), door);
}
struct StatisticsOfWeightsRules : ::testing::TestWithParam<Case<S>> {};
TEST_P(StatisticsOfWeightsRules, Refused) {
  const auto door = [](const S& call, auto& arena) { call.run_of_weights(arena); };
  expect_refused<float>("statistics_of_weights", GetParam(), S(), door);
  expect_refused<double>("statistics_of_weights", GetParam(), S(), door);
}
INSTANTIATE_TEST_SUITE_P(Lists, StatisticsRules, ::testing::ValuesIn(lists()), name_of);
INSTANTIATE_TEST_SUITE_P(Counts, StatisticsRules, ::testing::ValuesIn(counts()), name_of);
INSTANTIATE_TEST_SUITE_P(Outputs, StatisticsRules, ::testing::ValuesIn(outputs()), name_of);
INSTANTIATE_TEST_SUITE_P(Attention, StatisticsRules, ::testing::ValuesIn(of_attention()), name_of);
INSTANTIATE_TEST_SUITE_P(Lists, StatisticsOfWeightsRules, ::testing::ValuesIn(lists()), name_of);
INSTANTIATE_TEST_SUITE_P(Counts, StatisticsOfWeightsRules, ::testing::ValuesIn(counts()), name_of);
INSTANTIATE_TEST_SUITE_P(Outputs, StatisticsOfWeightsRules, ::testing::ValuesIn(outputs()), name_of);

// What attention writes may not lie on what the statistics read, nor may they.
TEST(StatisticsValidation, OutputsOnWhatIsRead) {
  std::vector<double> arena(kArena, 0.5);
  const S call;
  const auto in = [&](const Layout& layout) { return layout.view<const double, 4>(arena); };
  const auto out = call.out.view<double, 4>(arena);
  std::vector<std::int64_t> top_keys;
  const auto expect_overlap = [&](const StatisticsRequest<double>& request, const Words& words) {
    expect_error("attention", kShape, words, [&] {
      attention(in(call.q), in(call.k), in(call.v), out, call.lse.view<double, 3>(arena), {}, request, {});
    });
  };
  for (double* place : {out.data(), arena.data() + call.entropy.place}) {
    const std::string name = place == out.data() ? "out" : "statistics.entropy";
    std::fill_n(place, 10, 0.0);  // a legal list of integers
    const auto* ints = reinterpret_cast<const std::int64_t*>(place);
    StatisticsRequest<double> request = call.request(arena, top_keys);
    request.offsets = {ints, 2};
    expect_overlap(request, {name + " overlaps statistics.offsets"});
    request = call.request(arena, top_keys), request.keys = {ints, 2};
    expect_overlap(request, {name + " overlaps statistics.keys"});
    request = call.request(arena, top_keys), request.q_tokens = {ints, {2, 3}};
    expect_overlap(request, {name + " overlaps statistics.q_tokens"});
    request = call.request(arena, top_keys), request.kv_tokens = {ints, {2, 5}};
    expect_overlap(request, {name + " overlaps statistics.kv_tokens"});
    request = call.request(arena, top_keys);
    request.key_classes = {reinterpret_cast<const std::uint32_t*>(place), {2, 5}};
    expect_overlap(request, {name + " overlaps statistics.key_classes"});
  }
}

TEST(StatisticsValidation, MapOfPackedSequences) {
  S call;
  const std::vector<std::int64_t> bounds{0, 1, 3};
  std::vector<float> arena(kArena, 0.5f);
  std::vector<float> map(4);
  StatisticsRequest<float> request;
  request.bin = 16, request.plain.map = {map.data(), {1, 4, 1, 1}};
  AttentionOptions options;
  options.cu_seqlens_q = options.cu_seqlens_k = bounds;
  const View4<float> x(arena.data(), {1, 4, 3, 6}), y(arena.data() + 100, {1, 4, 3, 6});
  expect_error("attention", ErrorCode::unsupported, {"statistics.map", "packed sequences"}, [&] {
    attention(View4<const float>(x), View4<const float>(x), View4<const float>(x), y, {}, {}, request, options);
  });
}

TEST(StatisticsValidation, OfWeightsAlone) {
  std::vector<double> weights{0.5, 0.5, 0.25, 0.75}, visible(4), norms{0, 2};
  StatisticsRequest<double> request;
  request.plain.visible = {visible.data(), {1, 1, 2}};
  request.norm_weighted.visible = {visible.data() + 2, {1, 1, 2}}, request.norms = {norms.data(), {1, 1, 2}};
  const auto run = [&](std::int64_t offset) {
    statistics_of_weights(View4<const double>(weights.data(), {1, 1, 2, 2}), request, offset);
  };
  run(0);
  EXPECT_EQ(visible, std::vector<double>(4, 2)) << "of norm_weighted as well, whatever the norm";
  for (std::int64_t offset : {kMostStatisticsReach + 1, -kMostStatisticsReach - 1})
    expect_error("statistics_of_weights", kOption, {"query_offset is"}, [&] { run(offset); });
  EXPECT_NO_THROW(run(kMostStatisticsReach));
  weights[2] = -0.25;
  expect_error("statistics_of_weights", kOption, {"a weight is -0.25", "at least 0"}, [&] { run(0); });
  weights[2] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NO_THROW(run(0));
  EXPECT_EQ(visible, std::vector<double>(4, 2)) << "a weight that is NaN is one";
}

// What attention() refuses of counts and bins, its scratch is not told for.
TEST(StatisticsValidation, ScratchOfWhatIsRefused) {
  const AttentionShape shape{.heads = 4, .kv_heads = 4, .q_len = 3, .kv_len = 5, .head_dim = 4, .value_dim = 4};
  float* const none = nullptr;
  std::int64_t* const no_keys = nullptr;
  const auto refused = [&](ErrorCode code, const Words& words, const auto& change) {
    for (auto member : {&StatisticsRequest<float>::plain, &StatisticsRequest<float>::norm_weighted}) {
      StatisticsRequest<float> request;
      request.bin = 16;
      change(request, request.*member);
      expect_error("attention_scratch_bytes", code, words, [&] { attention_scratch_bytes(shape, {}, false, request); });
    }
  };
  using R = StatisticsRequest<float>;
  using To = RowStatistics<float>;
  refused(kOption, {"classes of statistics.class_mass is 33"}, [&](R&, To& to) {
    to.class_mass = {none, {1, 4, 3, 33}};
  });
  refused(kOption, {"places of statistics.top_keys"}, [&](R&, To& to) { to.top_keys = {no_keys, {1, 4, 3, 65}}; });
  refused(kShape, {"top_keys has places 2"}, [&](R&, To& to) {
    to.top_keys = {no_keys, {1, 4, 3, 2}}, to.top_weights = {none, {1, 4, 3, 3}};
  });
  for (std::int64_t bin : {std::int64_t{-1}, std::int64_t{100}, std::numeric_limits<std::int64_t>::max() - 127})
    refused(kOption, {"statistics.bin is " + std::to_string(bin)}, [&](R& request, To& to) {
      request.bin = bin, to.map = {none, {1, 4, 1, 1}};
    });
}

TEST(StatisticsValidation, ScratchOfAnotherType) {
  const AttentionShape shape{.type = Type::float64, .q_len = 3, .kv_len = 3, .head_dim = 4, .value_dim = 4};
  expect_error("attention_scratch_bytes", kOption, {"statistics are of float32", "type is float64"},
               [&] { attention_scratch_bytes(shape, {}, false, StatisticsRequest<float>{}); });
}

}  // namespace
}  // namespace multihead::testing
