// SPDX-License-Identifier: Apache-2.0
// Every rule of attention(), its questions and its reference, of views, matrices and targets.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "attention_call.hpp"

namespace multihead::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Target kEveryTarget[] = {Target::baseline,   Target::avx2, Target::avx512,
                                   Target::avx512bf16, Target::amx,  Target::neon};

// attention() and its questions ---------------------------------------------------------------------------------------

using A = AttentionCall;
using AttentionCases = std::vector<Case<A>>;

constexpr std::int64_t one_length[] = {1}, negative_length[] = {3, -1}, long_length[] = {4, 3};

// What the views of a call and the extents of a question have in common.
AttentionCases extents_and_options() {
  AttentionCases cases{
      {"heads_0", [](A& c) { c.shape.heads = 0; }, kOption, {"heads is 0", "must be 1 to"}},
      {"kv_heads_0", [](A& c) { c.shape.kv_heads = 0; }, kOption, {"kv_heads is 0", "must be 1 to"}},
      {"heads_3_of_2", [](A& c) { c.shape.heads = 3; }, kShape, {"heads is 3", "kv_heads is 2", "multiple"}},
      {"heads_4_of_8", [](A& c) { c.shape.kv_heads = 8; }, kShape, {"heads is 4", "kv_heads is 8", "multiple"}},
      {"head_dim_0", [](A& c) { c.shape.head_dim = 0; }, kOption, {"head_dim is 0", "be 1 to 1024"}},
      {"head_dim_1025", [](A& c) { c.shape.head_dim = 1025; }, kOption, {"head_dim is 1025", "be 1 to 1024"}},
      {"value_dim_0", [](A& c) { c.shape.value_dim = 0; }, kOption, {"value_dim is 0", "be 1 to 1024"}},
      {"value_dim_1025", [](A& c) { c.shape.value_dim = 1025; }, kOption, {"value_dim is 1025", "be 1 to 1024"}},
      {"rows_far", [](A& c) { c.shape.batch = c.shape.heads = kHuge, c.shape.q_len = 0; }, kShape, {"heads x q_len"}},
      {"scale_nan", [](A& c) { c.options.scale = std::nan(""); }, kOption, {"scale", "finite"}},
      {"scale_inf", [](A& c) { c.options.scale = kInfinity; }, kOption, {"scale", "finite"}},
      {"scale_minus_inf", [](A& c) { c.options.scale = -kInfinity; }, kOption, {"scale", "finite"}},
      {"causal",
       [](A& c) { c.options.causal = true, c.shape.kv_len = 7; },
       kOption,
       {"q_len 3", "kv_len 7", "top_left"}},
      {"offset_far",
       [](A& c) { c.options.alignment = Alignment::at(kHuge << 20); },
       kOption,
       {"query offset is 11529215"}},
      {"offset_low",
       [](A& c) { c.options.alignment = Alignment::at(-(kHuge << 10)); },
       kOption,
       {"query offset is -11258"}},
      {"lengths_count", [](A& c) { c.options.lengths = one_length; }, kShape, {"lengths has 1", "batch is 2", "equal"}},
      {"lengths_minus", [](A& c) { c.options.lengths = negative_length; }, kOption, {"length is -1", "be 0 to 3"}},
      {"lengths_long", [](A& c) { c.options.lengths = long_length; }, kOption, {"length is 4", "be 0 to 3"}},
  };
  for (Case<A>& c : cases) c.change = [change = c.change](A& call) { change(call), call.lay_out(); };
  return cases;
}

// What only questions can be asked: no view has these extents.
AttentionCases extents_of_questions() {
  return {
      {"batch_minus", [](A& c) { c.shape.batch = -1; }, kOption, {"batch is -1", "must be 0 to"}},
      {"heads_minus", [](A& c) { c.shape.heads = -1; }, kOption, {"heads is -1", "must be 1 to"}},
      {"kv_heads_minus", [](A& c) { c.shape.kv_heads = -1; }, kOption, {"kv_heads is -1", "must be 1 to"}},
      {"q_len_minus", [](A& c) { c.shape.q_len = -1; }, kOption, {"q_len is -1", "must be 0 to"}},
      {"kv_len_minus", [](A& c) { c.shape.kv_len = -1; }, kOption, {"kv_len is -1", "must be 0 to"}},
      {"head_dim_minus", [](A& c) { c.shape.head_dim = -1; }, kOption, {"head_dim is -1", "must be 1 to"}},
      {"value_dim_minus", [](A& c) { c.shape.value_dim = -1; }, kOption, {"value_dim is -1", "must be 1 to"}},
      {"q_len_far", [](A& c) { c.shape.q_len = kHuge << 20; }, kOption, {"q_len is 11529215", "must be 0 to"}},
      {"kv_len_far", [](A& c) { c.shape.kv_len = kHuge << 20; }, kOption, {"kv_len is 11529215", "must be 0 to"}},
      {"rows_far", [](A& c) { c.shape.q_len = c.shape.heads = kHuge; }, kShape, {"batch x heads x q_len"}},
      {"dropout_queries",
       [](A& c) { c.options.dropout.probability = 0.1, c.shape.q_len = (std::int64_t{1} << 32) + 1; },
       kOption,
       {"q_len with dropout is 4294967297", "be 0 to 4294967296"}},
      {"dropout_keys",
       [](A& c) { c.options.dropout.probability = 0.1, c.shape.kv_len = (std::int64_t{1} << 32) + 1; },
       kOption,
       {"kv_len with dropout is 4294967297"}},
      {"dropout_heads",
       [](A& c) { c.options.dropout.probability = 0.1, c.shape.batch = (std::int64_t{1} << 30) + 1; },
       kOption,
       {"batch x heads with dropout is 4294967300"}},
  };
}

AttentionCases layouts(bool of_lse) {
  const std::vector<Operand<A>> inputs{{"q", &A::q}, {"k", &A::k}, {"v", &A::v}};
  std::vector<Operand<A>> all = inputs;
  all.emplace_back("out", &A::out);
  AttentionCases cases;
  if (of_lse) {
    cases = {longer(&A::lse, 0, "lse has batch", "q has"), longer(&A::lse, 1, "lse has heads", "q has"),
             longer(&A::lse, 2, "lse has q_len", "q has")};
    add_view_rules<A>(cases, {{"lse", &A::lse}}, false);
    add_overlap_rules<A>(cases, {"lse", &A::lse}, all);
    return cases;
  }
  cases = {longer(&A::k, 0, "k has batch", "q has"),        longer(&A::v, 0, "v has batch", "q has"),
           longer(&A::k, 3, "k has head_dim", "q has"),     longer(&A::v, 1, "v has kv_heads", "k has"),
           longer(&A::v, 2, "v has kv_len", "k has"),       longer(&A::out, 0, "out has batch", "q has"),
           longer(&A::out, 1, "out has heads", "q has"),    longer(&A::out, 2, "out has q_len", "q has"),
           longer(&A::out, 3, "out has value_dim", "v has")};
  add_view_rules<A>(cases, all, false);
  add_last_axis_rules<A>(cases, all);
  add_overlap_rules<A>(cases, {"out", &A::out}, inputs);
  const auto reversed = [](A& c) { c.out.strides[0] = -60, c.out.place = c.k.place + 100; };
  cases.push_back({"out_reversed", reversed, kShape, {"out overlaps k", "must be apart"}});
  const auto endless = [](A& c) { c.q.extents[2] = c.out.extents[2] = kHuge, c.q.strides[2] = c.out.strides[2] = 0; };
  cases.push_back({"out_endless", endless, kShape, {"out has strides", "two elements in one place"}});
  return cases;
}

AttentionCases running(bool at_attention) {
  AttentionCases cases;
  if (at_attention) cases.push_back(small_scratch<A>()), cases.push_back(foreign_target<A>());
  add_thread_rules(cases);
  return cases;
}

using AttentionRules = ::testing::TestWithParam<Case<A>>;

struct AtAttention : AttentionRules {};
TEST_P(AtAttention, Refused) { expect_attention_refuses(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Extents, AtAttention, ::testing::ValuesIn(extents_and_options()), name_of);
INSTANTIATE_TEST_SUITE_P(Running, AtAttention, ::testing::ValuesIn(running(true)), name_of);
INSTANTIATE_TEST_SUITE_P(Layouts, AtAttention, ::testing::ValuesIn(layouts(false)), name_of);

struct AtAttentionWithLse : AttentionRules {};
TEST_P(AtAttentionWithLse, Refused) { expect_attention_refuses_with_lse(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Extents, AtAttentionWithLse, ::testing::ValuesIn(extents_and_options()), name_of);
INSTANTIATE_TEST_SUITE_P(Running, AtAttentionWithLse, ::testing::ValuesIn(running(true)), name_of);
INSTANTIATE_TEST_SUITE_P(Layouts, AtAttentionWithLse, ::testing::ValuesIn(layouts(false)), name_of);
INSTANTIATE_TEST_SUITE_P(Lse, AtAttentionWithLse, ::testing::ValuesIn(layouts(true)), name_of);

struct AtReference : AttentionRules {};
TEST_P(AtReference, Refused) { expect_reference_refuses(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Extents, AtReference, ::testing::ValuesIn(extents_and_options()), name_of);
INSTANTIATE_TEST_SUITE_P(Layouts, AtReference, ::testing::ValuesIn(layouts(false)), name_of);
INSTANTIATE_TEST_SUITE_P(Lse, AtReference, ::testing::ValuesIn(layouts(true)), name_of);

struct AtQuestions : AttentionRules {};
TEST_P(AtQuestions, Refused) { expect_questions_refuse(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Extents, AtQuestions, ::testing::ValuesIn(extents_and_options()), name_of);
INSTANTIATE_TEST_SUITE_P(Questions, AtQuestions, ::testing::ValuesIn(extents_of_questions()), name_of);
INSTANTIATE_TEST_SUITE_P(Threads, AtQuestions, ::testing::ValuesIn(running(false)), name_of);

// Counts that no integer holds, and a batch that nobody could walk through.
TEST(Validation, ExplainsWhatIsLarge) {
  const AttentionPlan large = explain({.q_len = kHuge, .kv_len = kHuge, .head_dim = 1, .value_dim = 1});
  EXPECT_EQ(large.visible_pairs, 0x1p80);
  EXPECT_EQ(large.flops, 0x1p82);
}

// What comes close to a rule and breaks none.
TEST(Validation, LegalAtTheEdge) {
  std::vector<float> arena(kArena, 0.5f);
  const auto runs = [&](auto change) {
    A call;
    change(call), call.run_with_lse(arena);
  };
  const auto reshaped = [](auto change) { return [=](A& c) { change(c), c.lay_out(); }; };
  EXPECT_NO_THROW(runs(reshaped([](A& c) { c.shape.batch = 0; })));
  EXPECT_NO_THROW(runs(reshaped([](A& c) { c.shape.q_len = 0; })));
  EXPECT_NO_THROW(runs(reshaped([](A& c) { c.shape.kv_len = 0; })));
  EXPECT_NO_THROW(runs(reshaped([](A& c) { c.shape.head_dim = c.shape.value_dim = 1024; })));
  EXPECT_NO_THROW(runs([](A& c) { c.options.threads = 65536; }));
  EXPECT_NO_THROW(runs([](A& c) { c.options.scale = 0; }));
  EXPECT_NO_THROW(runs([](A& c) { c.k.strides[0] = c.v.strides[0] = c.q.strides[1] = 0; }));  // inputs may repeat
  EXPECT_NO_THROW(runs([](A& c) { c.out.place = c.q.place + 96; }));                          // side by side
  EXPECT_NO_THROW(runs([](A& c) { c.out.place += 60, c.out.strides[0] = -60; }));             // backwards
  EXPECT_NO_THROW(runs([](A& c) { c.out.strides = {5, 30, 10, 1}; }));  // batches inside rows inside heads
  EXPECT_NO_THROW(runs([](A& c) { c.k.null = c.v.null = true, c.k.extents[2] = c.v.extents[2] = 0; }));
}

// Views, matrices, targets
// ---------------------------------------------------------------------------------------------

TEST(Validation, FlatContainersOfAnotherSize) {
  std::vector<float> values(6);
  const Words words{"holds 6", "extents"};
  expect_error("view", kShape, words, [&] { MatrixView<float>(values, {2, 4}); });
  expect_error("view", kShape, words, [&] { MatrixView<const float>(values, {2, 2}); });
  expect_error("view", kShape, words, [&] { MatrixView<float>(values, {-2, -3}); });
  expect_error("view", kShape, words, [&] { MatrixView<float>(values, {0, 3}); });
  expect_error("view", kShape, words, [&] { View3<float>(values, {1, 2, 4}); });
  expect_error("view", kShape, words, [&] { View4<float>(std::span(values), {1, 2, 4, 1}); });
  expect_error("view", kShape, words, [&] { MatrixView<float>(values, {kHuge, kHuge}); });
  expect_error("view", kShape, words, [&] { View4<float>(values, {kHuge, kHuge, kHuge, kHuge}); });
  EXPECT_EQ(MatrixView<float>(values, {3, 2})(2, 1), 0);
}

TEST(Validation, Matrices) {
  const Rows<double> ragged{{1, 2, 3}, {4, 5}};
  const Words words{"row 1 has 2 values", "have 3"};
  expect_error("matrix", kShape, words, [&] { Matrix<double>{ragged}; });
  expect_error("matrix", kShape, words, [&] { Matrix<float>{{1, 2, 3}, {4, 5}}; });
  expect_error("matrix", kShape, {"row 1 has 1 values", "have 0"}, [&] { Matrix<float>{{}, {4}}; });
  expect_error("matrix", kShape, {"-1 x 2", "negative"}, [&] { Matrix<float>(-1, 2); });
  expect_error("matrix", kShape, {"2 x -1", "negative"}, [&] { Matrix<float>(2, -1); });
  expect_error("matrix", ErrorCode::out_of_memory, {"1099511627776 x", "cannot be allocated"},
               [&] { Matrix<float>(kHuge, kHuge); });
  expect_error("matrix", ErrorCode::out_of_memory, {"1099511627776 x 2097152", "cannot be allocated"},
               [&] { Matrix<float>(kHuge, 1 << 21); });
  EXPECT_EQ(Matrix<float>(2, 0).columns(), 0);
}

TEST(Validation, TargetNames) {
  for (const char* name : {"", "AVX2", "avx", "avx2 ", "avx512f", "best"})
    expect_error("target", kOption, {"'" + std::string(name) + "'", "baseline, avx2, avx512, avx512bf16, amx, neon"},
                 [&] { target_from_name(name); });
  for (Target target : kEveryTarget) EXPECT_EQ(target_from_name(target_name(target)), target);
}

TEST(Validation, TargetsThatCannotRun) {
  const std::vector<Target> found = available_targets();
  for (Target target : kEveryTarget) {
    if (std::find(found.begin(), found.end(), target) != found.end()) {
      EXPECT_EQ(chosen_target(target), target);
      continue;
    }
    const std::string name(target_name(target));
    const Words words{name + " cannot run on this machine", std::string(target_name(found.front())), "baseline"};
    expect_error("target", ErrorCode::unsupported, words, [&] { chosen_target(target); });
    expect_error("target", ErrorCode::unsupported, words, [&] { explain(A().shape, {.target = target}); });
    expect_error("target", ErrorCode::unsupported, words,
                 [&] { attention_scratch_bytes(A().shape, {.target = target}); });
  }
}

// Questions about calls that nobody could make are answered all the same, and at once.
TEST(Validation, QuestionsAboutVastShapes) {
  const AttentionShape vast{Type::float32, std::int64_t{1} << 46, 1, 1, 1, 1, 1, 1};
  EXPECT_EQ(explain(vast).visible_pairs, 0x1p46);
  const AttentionShape wide{Type::float32, 1, 1, 1, std::int64_t{4000000000}, std::int64_t{4000000000}, 64, 64};
  EXPECT_EQ(explain(wide).visible_pairs, 1.6e19);
}

TEST(Validation, EveryCodeHasAWord) {
  for (ErrorCode code : {kShape, kOption, ErrorCode::unsupported, ErrorCode::file_missing, ErrorCode::file_malformed,
                         ErrorCode::out_of_memory})
    EXPECT_EQ(std::string(error_name(code)).find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), std::string::npos);
  EXPECT_EQ(error_name(kShape), "shape_mismatch");
  EXPECT_EQ(error_name(ErrorCode::out_of_memory), "out_of_memory");
}

}  // namespace
}  // namespace multihead::testing
