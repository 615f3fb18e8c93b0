// SPDX-License-Identifier: Apache-2.0
// Every rule of attention()'s options, at every door that takes them.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "attention_call.hpp"

namespace multihead::testing {
namespace {

using A = AttentionCall;
using Ints = std::vector<std::int64_t>;
constexpr double kInfinity = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

// Options whose elements live as long as the process: cases are made once.
std::span<const std::int64_t> kept(Ints values) {
  static std::vector<std::unique_ptr<Ints>> all;
  all.push_back(std::make_unique<Ints>(std::move(values)));
  return *all.back();
}
std::span<const double> kept_reals(std::vector<double> values) {
  static std::vector<std::unique_ptr<std::vector<double>>> all;
  all.push_back(std::make_unique<std::vector<double>>(std::move(values)));
  return *all.back();
}
MatrixView<const std::int64_t> kept_ids(std::int64_t rows, Ints values) {
  const std::span<const std::int64_t> ids = kept(std::move(values));
  return {ids.data(), {rows, static_cast<std::int64_t>(ids.size()) / rows}};
}

const bool kTruths[1000] = {};
const float kFloats[1000] = {};
const double kDoubles[1000] = {};

using Cases = std::vector<Case<A>>;
using Change = std::function<void(AttentionOptions&)>;

Case<A> bad(const char* name, Change change, Words words, ErrorCode code = kOption) {
  return {name, [=](A& c) { change(c.options); }, code, std::move(words)};
}

Cases counts() {
  return {
      bad("prefixes_alone",
          [](auto& o) {
            o.prefixes = kept({1, 1});
          },
          {"prefixes", "causal"}),
      bad(
          "prefixes_count", [](auto& o) { o.causal = true, o.prefixes = kept({1}); },
          {"prefixes has 1", "batch is 2", "equal"}, kShape),
      bad("prefix_minus",
          [](auto& o) {
            o.causal = true, o.prefixes = kept({3, -1});
          },
          {"prefix is -1", "be 0 to 3"}),
      bad("prefix_long",
          [](auto& o) {
            o.causal = true, o.prefixes = kept({4, 0});
          },
          {"prefix is 4", "be 0 to 3"}),
      bad(
          "offsets_count",
          [](auto& o) {
            o.alignment = Alignment::at(kept({0, 1, 2}));
          },
          {"query offsets has 3", "batch is 2", "equal"}, kShape),
      bad("offsets_far",
          [](auto& o) {
            o.alignment = Alignment::at(kept({0, kHuge << 20}));
          },
          {"query offset is 11529215"}),
      bad(
          "slopes_count",
          [](auto& o) {
            o.alibi_slopes = kept_reals({1, 2, 3});
          },
          {"alibi_slopes has 3", "heads is 4", "equal"}, kShape),
      bad(
          "sinks_count",
          [](auto& o) {
            o.sinks = kept_reals({1, 2, 3, 4, 5});
          },
          {"sinks has 5", "heads is 4", "equal"}, kShape),
  };
}

Cases numbers() {
  Cases cases;
  for (auto [name, value] : {std::pair{"nan", kNaN}, {"inf", kInfinity}, {"minus_inf", -kInfinity}}) {
    const double x = value;
    cases.push_back({std::string("slopes_") + name,
                     [=](A& c) {
                       c.options.alibi_slopes = kept_reals({1, 1, x, 1});
                     },
                     kOption,
                     {"alibi_slopes", "finite"}});
    cases.push_back({std::string("sinks_") + name,
                     [=](A& c) {
                       c.options.sinks = kept_reals({1, 1, 1, x});
                     },
                     kOption,
                     {"sinks", "finite"}});
  }
  for (auto [name, value] :
       {std::pair{"minus", -1.0}, {"nan", kNaN}, {"inf", kInfinity}, {"tiny", 1e-30}, {"vast", 1e30}})
    cases.push_back({std::string("softcap_") + name,
                     [x = value](A& c) { c.options.softcap = x; },
                     kOption,
                     {"softcap is ", "must be 0 or from"}});
  cases.push_back(bad("window_first", [](auto& o) { o.window.first = -1; }, {"first is -1", "must be at least 0"}));
  for (auto [name, value] : {std::pair{"minus", -0.1},
                             {"one", 1.0},
                             {"nan", kNaN},
                             {"inf", kInfinity},
                             {"two", 2.0},
                             {"minus_inf", -kInfinity}})
    cases.push_back({std::string("dropout_") + name,
                     [x = value](A& c) { c.options.dropout.probability = x; },
                     kOption,
                     {"the dropout probability is ", "must be from 0 to below 1"}});
  return cases;
}

// What goes by position wants an alignment where queries and keys differ in number.
Cases unnamed_alignments() {
  Cases cases{
      bad("causal", [](auto& o) { o.causal = true; }, {"causal"}),
      bad("window_left", [](auto& o) { o.window.left = 1; }, {"window"}),
      bad("window_right", [](auto& o) { o.window.right = 0; }, {"window"}),
      bad("alibi",
          [](auto& o) {
            o.alibi_slopes = kept_reals({1, 1, 1, 1});
          },
          {"alibi_slopes"}),
      bad("relative",
          [](auto& o) {
            o.relative_bias = {MatrixView<const float>(kFloats, {32, 4}), true};
          },
          {"relative_bias"}),
  };
  for (Case<A>& c : cases) {
    c.name = "unnamed_" + c.name;
    c.change = [change = c.change](A& call) { change(call), call.shape.kv_len = 7, call.lay_out(); };
    for (const char* word : {"q_len 3", "kv_len 7", "must name its alignment", "top_left", "bottom_right"})
      c.words.push_back(word);
  }
  return cases;
}

Case<A> packed(const char* name, Ints q, Ints k, Words words, ErrorCode code = kOption, Change more = {}) {
  return {name,
          [q = kept(std::move(q)), k = kept(std::move(k)), more](A& c) {
            c.shape.batch = 1, c.lay_out();
            c.options.cu_seqlens_q = q, c.options.cu_seqlens_k = k;
            if (more) more(c.options);
          },
          code, std::move(words)};
}

Cases packing() {
  Cases cases{
      packed("cu_q_alone", {0, 3}, {}, {"cu_seqlens_k is missing", "together"}),
      packed("cu_k_alone", {}, {0, 3}, {"cu_seqlens_q is missing", "together"}),
      packed("cu_counts", {0, 1, 3}, {0, 3}, {"cu_seqlens_k has 2", "cu_seqlens_q has 3", "equal"}, kShape),
      packed("cu_q_begins", {1, 3}, {0, 3}, {"cu_seqlens_q begins with 1", "begin with 0"}),
      packed("cu_k_begins", {0, 3}, {-1, 3}, {"cu_seqlens_k begins with -1", "begin with 0"}),
      packed("cu_q_falls", {0, 2, 1, 3}, {0, 1, 2, 3}, {"cu_seqlens_q falls from 2 to 1", "never fall"}),
      packed("cu_k_falls", {0, 1, 2, 3}, {0, 4, 2, 3}, {"cu_seqlens_k falls from 4 to 2", "never fall"}),
      packed("cu_q_ends", {0, 1, 2}, {0, 1, 3}, {"cu_seqlens_q ends at 2", "q_len is 3", "equal"}),
      packed("cu_k_ends", {0, 1, 3}, {0, 1, 4}, {"cu_seqlens_k ends at 4", "kv_len is 3", "equal"}),
      packed("cu_just_0", {0}, {0}, {"cu_seqlens_q ends at 0", "q_len is 3"}),
      packed("cu_unnamed", {0, 1, 3}, {0, 2, 3}, {"causal with q_len 1 and kv_len 2", "alignment"}, kOption,
             [](auto& o) { o.causal = true; }),
      packed("cu_lengths", {0, 1, 3}, {0, 2, 3}, {"lengths has 1", "sequences is 2", "equal"}, kShape,
             [](auto& o) { o.lengths = kept({1}); }),
      packed("cu_length_long", {0, 1, 3}, {0, 2, 3}, {"length is 2", "be 0 to 1"}, kOption,
             [](auto& o) {
               o.lengths = kept({2, 2});
             }),
      packed("cu_prefixes", {0, 1, 3}, {0, 1, 3}, {"prefixes has 1", "sequences is 2", "equal"}, kShape,
             [](auto& o) { o.causal = true, o.prefixes = kept({1}); }),
      packed("cu_offsets", {0, 1, 3}, {0, 1, 3}, {"query offsets has 1", "sequences is 2", "equal"}, kShape,
             [](auto& o) { o.alignment = Alignment::at(kept({1})); }),
      packed("cu_with_q_segments", {0, 3}, {0, 3}, {"cu_seqlens and segments"}, kOption,
             [](auto& o) {
               o.q_segments = kept_ids(1, {1, 1, 1});
             }),
      packed("cu_with_kv_segments", {0, 3}, {0, 3}, {"cu_seqlens and segments"}, kOption,
             [](auto& o) {
               o.kv_segments = kept_ids(1, {1, 1, 1});
             }),
  };
  cases.push_back(bad("cu_batch",
                      [](auto& o) {
                        o.cu_seqlens_q = o.cu_seqlens_k = kept({0, 3});
                      },
                      {"batch is 2", "must be 1", "cu_seqlens"}));
  return cases;
}

Case<A> ids(const char* name, MatrixView<const std::int64_t> q, MatrixView<const std::int64_t> k, Words words,
            ErrorCode code = kOption, bool causal = false) {
  return {name, [=](A& c) { c.options.q_segments = q, c.options.kv_segments = k, c.options.causal = causal; }, code,
          std::move(words)};
}

Cases segments() {
  const auto six = kept_ids(2, {1, 1, 2, 7, 8, 9});
  const MatrixView<const std::int64_t> none, null(nullptr, {2, 3}), negative(six.data(), {2, -3});
  return {
      ids("kv_segments_missing", six, none, {"kv_segments is missing", "together"}),
      ids("q_segments_missing", none, six, {"q_segments is missing", "together"}),
      ids("q_segments_batch", kept_ids(1, {1, 1, 2}), six, {"q_segments has batch 1", "batch is 2", "equal"}, kShape),
      ids("kv_segments_batch", six, kept_ids(3, {1, 1, 1, 1, 1, 1, 1, 1, 1}),
          {"kv_segments has batch 3", "batch is 2", "equal"}, kShape),
      ids("q_segments_length", kept_ids(2, {1, 1, 2, 2}), six, {"q_segments has length 2", "q_len is 3"}, kShape),
      ids("kv_segments_length", six, kept_ids(2, {1, 1, 2, 2, 3, 3, 4, 4}), {"kv_segments has length 4", "kv_len is 3"},
          kShape),
      ids("q_segments_null", null, six, {"q_segments is null", "must point"}, kShape),
      ids("kv_segments_null", six, null, {"kv_segments is null", "must point"}, kShape),
      ids("q_segments_negative", negative, six, {"q_segments has extent -3 on axis 1", "not be negative"}, kShape),
      ids("q_segments_twice", kept_ids(2, {1, 1, 1, 7, 8, 7}), six, {"q_segments has id 7 in two runs", "together"}),
      ids("kv_segments_twice", six, kept_ids(2, {-4, 1, -4, 7, 8, 9}),
          {"kv_segments has id -4 in two runs", "together"}),
      ids("segments_unnamed", six, kept_ids(2, {1, 2, 2, 7, 8, 9}), {"causal with q_len 2 and kv_len 1", "alignment"},
          kOption, true),
  };
}

// Extents that do not broadcast, and views that are no views, of each of the three options.
void add_spreads(Cases& cases, const char* option,
                 const std::function<void(AttentionOptions&, const BroadcastView&)>& set) {
  const std::string name(option);
  const auto add = [&](const std::string& what, const BroadcastView& view, Words words) {
    cases.push_back({name + "_" + what, [=](A& c) { set(c.options, view); }, kShape, std::move(words)});
  };
  const auto view = [](std::array<std::int64_t, 4> extents) {
    return BroadcastView(View4<const bool>(kTruths, extents));
  };
  add("batch", view({3, 4, 3, 3}), {name + " has batch 3", "have 2", "or 1"});
  add("heads", view({2, 2, 3, 3}), {name + " has heads 2", "have 4", "or 1"});
  add("q_len", view({1, 1, 2, 3}), {name + " has q_len 2", "have 3", "or 1"});
  add("kv_len", view({1, 1, 1, 4}), {name + " has kv_len 4", "have 3", "or 1"});
  add("rank_1", BroadcastView(View<const bool, 1>(kTruths, {2})), {name + " has kv_len 2", "have 3", "or 1"});
  add("rank_3", BroadcastView(View3<const bool>(kTruths, {2, 3, 3})), {name + " has heads 2", "have 4", "or 1"});
  add("zero", view({2, 4, 3, 0}), {name + " has kv_len 0", "have 3", "or 1"});
  add("negative", view({1, 1, -3, 3}), {name + " has extent -3", "not be negative"});
  add("null", BroadcastView(View<const bool, 2>(nullptr, {3, 3})), {name + " is null", "must point"});
  add("far", BroadcastView(View<const bool, 2>(kTruths, {3, 3}, {kHuge << 22, 1})), {name, "beyond the address space"});
}

Cases spreads() {
  Cases cases;
  add_spreads(cases, "keep_mask", [](auto& o, const BroadcastView& view) { o.keep_mask.view = view; });
  add_spreads(cases, "drop_mask", [](auto& o, const BroadcastView& view) { o.drop_mask.view = view; });
  add_spreads(cases, "bias", [](auto& o, const BroadcastView& view) { o.bias.view = view; });
  return cases;
}

Cases relative_biases() {
  const auto table = [](std::int64_t buckets, std::int64_t heads, bool both, std::int64_t distance) {
    return [=](AttentionOptions& o) {
      o.relative_bias = {MatrixView<const float>(kFloats, {buckets, heads}), both, distance};
    };
  };
  const Change null = [](auto& o) { o.relative_bias = {MatrixView<const float>(nullptr, {32, 4}), true}; };
  return {
      bad("relative_heads", table(32, 3, true, 128), {"relative_bias has heads 3", "heads is 4", "equal"}, kShape),
      bad("relative_buckets_both", table(3, 4, true, 128), {"relative_bias buckets is 3", "be 4 to"}),
      bad("relative_buckets_one", table(1, 4, false, 128), {"relative_bias buckets is 1", "be 2 to"}),
      bad("relative_distance_both", table(32, 4, true, 8), {"relative_bias max_distance is 8", "be 9 to"}),
      bad("relative_distance_one", table(32, 4, false, 16), {"relative_bias max_distance is 16", "be 17 to"}),
      bad("relative_distance_minus", table(32, 4, true, -1), {"relative_bias max_distance is -1"}),
      bad("relative_distance_far", table(32, 4, true, kHuge), {"relative_bias max_distance is 1099511627776"}),
      bad("relative_null", null, {"relative_bias is null", "must point"}, kShape),
      bad("relative_negative", table(-32, 4, true, 128), {"relative_bias has extent -32", "not be negative"}, kShape),
  };
}

// Nothing is summed in double there.
Cases doubles() {
  return {bad(
              "bias_of_double",
              [](auto& o) {
                o.bias = View<const double, 2>(kDoubles, {3, 3});
              },
              {"bias is float64", "float64 must meet float64"}, ErrorCode::unsupported),
          bad(
              "relative_of_double",
              [](auto& o) {
                o.relative_bias = {MatrixView<const double>(kDoubles, {32, 4}), true};
              },
              {"relative_bias is float64", "float64 must meet float64"}, ErrorCode::unsupported)};
}

struct OptionRules : ::testing::TestWithParam<Case<A>> {};
TEST_P(OptionRules, RefusedByAttention) { expect_attention_refuses(GetParam()); }
TEST_P(OptionRules, RefusedWithLse) { expect_attention_refuses_with_lse(GetParam()); }
TEST_P(OptionRules, RefusedByTheReference) { expect_reference_refuses(GetParam()); }
TEST_P(OptionRules, RefusedByQuestions) { expect_questions_refuse(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Counts, OptionRules, ::testing::ValuesIn(counts()), name_of);
INSTANTIATE_TEST_SUITE_P(Numbers, OptionRules, ::testing::ValuesIn(numbers()), name_of);
INSTANTIATE_TEST_SUITE_P(Alignments, OptionRules, ::testing::ValuesIn(unnamed_alignments()), name_of);
INSTANTIATE_TEST_SUITE_P(Packing, OptionRules, ::testing::ValuesIn(packing()), name_of);
INSTANTIATE_TEST_SUITE_P(Segments, OptionRules, ::testing::ValuesIn(segments()), name_of);
INSTANTIATE_TEST_SUITE_P(Spreads, OptionRules, ::testing::ValuesIn(spreads()), name_of);
INSTANTIATE_TEST_SUITE_P(Relative, OptionRules, ::testing::ValuesIn(relative_biases()), name_of);

struct DoubleRules : ::testing::TestWithParam<Case<A>> {};
TEST_P(DoubleRules, RefusedWhereSumsAreFloat) {
  for (Type type : {Type::float32, Type::bfloat16, Type::float16}) {
    Case<A> c = GetParam();
    c.words.push_back("q is " + std::string(type_name(type)));
    if (type == Type::float32) expect_attention_refuses_of<float>(c);
    if (type == Type::bfloat16) expect_attention_refuses_of<BFloat16>(c);
    if (type == Type::float16) expect_attention_refuses_of<Float16>(c);
    c.change = [change = c.change, type](A& call) { change(call), call.shape.type = type; };
    expect_questions_refuse(c);
  }
  A call;
  GetParam().change(call);
  std::vector<double> arena(kArena, 0.5);
  EXPECT_NO_THROW(call.run(arena));
}
INSTANTIATE_TEST_SUITE_P(Biases, DoubleRules, ::testing::ValuesIn(doubles()), name_of);

// Outputs may not lie on what the options read.
TEST(OptionsValidation, OutputsApartFromMasksAndBiases) {
  std::vector<float> arena(kArena, 0.5f);
  const auto words = [](const char* output, const char* option) {
    return Words{std::string(output) + " overlaps " + option, "must be apart"};
  };
  for (const auto& [name, layout] : {std::pair{"out", &A::out}, {"lse", &A::lse}}) {
    const char* const output = name;
    A call;
    const Layout& to = call.*layout;
    const float* const on = arena.data() + to.place + to.count() - 1;
    const auto refused = [&](const char* option, const Change& change) {
      AttentionCall bad_call = call;
      change(bad_call.options);
      expect_error("attention", kShape, words(output, option), [&] { bad_call.run_with_lse(arena); });
    };
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(on);
    refused("keep_mask", [&](auto& o) { o.keep_mask = View<const std::uint8_t, 2>(bytes + 3, {3, 3}); });
    refused("drop_mask", [&](auto& o) { o.drop_mask = View<const std::uint8_t, 2>(bytes + 3, {3, 3}); });
    refused("bias", [&](auto& o) { o.bias = View<const float, 2>(on, {3, 3}); });
    refused("relative_bias", [&](auto& o) { o.relative_bias = {MatrixView<const float>(on, {32, 4}), true}; });
  }
}

// What comes close to a rule and breaks none.
TEST(OptionsValidation, LegalAtTheEdge) {
  std::vector<float> arena(kArena, 0.5f);
  const auto runs = [&](const std::function<void(A&)>& change) {
    A call;
    change(call), call.lay_out(), call.run_with_lse(arena);
    explain(call.shape, call.options);
  };
  const auto one = [](A& c) { c.shape.batch = 1; };
  EXPECT_NO_THROW(runs([](A& c) { c.options.causal = true, c.options.prefixes = kept({0, 3}); }));
  EXPECT_NO_THROW(runs([](A& c) { c.options.window = {0, 0}; }));
  EXPECT_NO_THROW(runs([](A& c) { c.options.window = {kHuge << 22, kHuge << 22}; }));
  EXPECT_NO_THROW(runs([](A& c) { c.options.causal = true, c.options.alignment = Alignment::at(kHuge); }));
  EXPECT_NO_THROW(runs([](A& c) { c.options.keep_mask = View<const bool, 1>(kTruths, {1}); }));
  EXPECT_NO_THROW(runs([](A& c) { c.options.bias = View4<const float>(kFloats, {2, 4, 3, 3}, {0, 0, 0, 0}); }));
  EXPECT_NO_THROW(runs([](A& c) { c.options.relative_bias = {MatrixView<const float>(kFloats, {4, 4}), true, 2}; }));
  EXPECT_NO_THROW(runs([](A& c) { c.options.relative_bias = {MatrixView<const float>(kFloats, {2, 4}), false, 2}; }));
  EXPECT_NO_THROW(runs([&](A& c) { one(c), c.options.cu_seqlens_q = c.options.cu_seqlens_k = kept({0, 0, 3, 3}); }));
  EXPECT_NO_THROW(runs([&](A& c) {
    one(c), c.shape.q_len = c.shape.kv_len = 0, c.options.cu_seqlens_q = c.options.cu_seqlens_k = kept({0});
  }));
  EXPECT_NO_THROW(runs([](A& c) {
    c.shape.kv_len = 0, c.options.q_segments = kept_ids(2, {1, 1, 1, 1, 1, 1}), c.options.causal = true;
  }));
}

// Sizes that no integer holds, with what the options add to them.
TEST(OptionsValidation, SizesThatNoMachineHas) {
  const auto answered = [](const AttentionShape& shape, const AttentionOptions& options, bool weights, double least) {
    try {
      EXPECT_GE(static_cast<double>(attention_scratch_bytes(shape, options, weights)), least);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == kShape || error.code() == ErrorCode::out_of_memory) << error.what();
    }
  };
  const AttentionShape rows{
      .batch = std::int64_t{1} << 46, .q_len = 1 << 15, .kv_len = 1, .head_dim = 1, .value_dim = 1};
  answered(rows, {}, true, 0x1p63);
  const std::int64_t heads = std::int64_t{1} << 46;
  const AttentionShape wide{.heads = heads, .kv_heads = heads, .q_len = 1, .kv_len = 1, .head_dim = 1, .value_dim = 1};
  const RelativeBias table(MatrixView<const float>(kFloats, {32, heads}, {0, 0}), true, 1 << 20);
  answered(wide, {.relative_bias = table}, false, 0x1p66);
  EXPECT_THROW(explain(wide, {.relative_bias = table}), Error);
}

}  // namespace
}  // namespace multihead::testing
