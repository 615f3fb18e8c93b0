// SPDX-License-Identifier: Apache-2.0
// What only C can get wrong: sizes of structs, NULL, ranks, types, addresses, numbers of enumerations. Each is refused
// by its status and a sentence with argument, value and rule, and nothing is written.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "bindings/c/structs.hpp"
#include "c_face.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

// A legal call of mh_attention, all of whose parts a case may change.
struct CCall {
  std::array<float, 24> q{}, k{}, v{}, bias{};
  alignas(8) std::array<float, 25> out{}, lse{}, weights{};
  std::array<std::int64_t, 8> ints{2, 2};
  std::array<double, 2> doubles{0.5, 0.5};
  std::array<std::uint8_t, 16> bytes{};
  std::array<std::byte, 8> scratch{};
  mh_tensor q_t, k_t, v_t, out_t, lse_t, weights_t, list_t, ints_t, doubles_t, mask_t, bias_t;
  mh_run_options run;
  mh_attention_options options;
  mh_weights_request request;
  const mh_tensor *q_p = &q_t, *k_p = &k_t, *v_p = &v_t, *out_p = &out_t, *lse_p = &lse_t;

  CCall() {
    out.fill(77), lse.fill(77), weights.fill(77), bytes.fill(1);
    const auto made = [](void* data, mh_type type, std::initializer_list<std::int64_t> shape) {
      mh_tensor tensor;
      EXPECT_EQ(mh_tensor_init(&tensor, data, type, static_cast<int32_t>(shape.size()), shape.begin()), MH_OK);
      return tensor;
    };
    for (auto [tensor, data] : {std::pair{&q_t, q.data()}, {&k_t, k.data()}, {&v_t, v.data()}, {&out_t, out.data()}})
      *tensor = made(data, MH_FLOAT32, {2, 2, 2, 3});
    lse_t = made(lse.data(), MH_FLOAT32, {2, 2, 2}), weights_t = made(weights.data(), MH_FLOAT32, {2, 2, 2, 2});
    list_t = made(ints.data(), MH_INT64, {2}), ints_t = made(ints.data(), MH_INT64, {2, 2});
    doubles_t = made(doubles.data(), MH_FLOAT64, {2});
    mask_t = made(bytes.data(), MH_BOOL, {2, 2}), bias_t = made(bias.data(), MH_FLOAT32, {2, 2});
    mh_run_options_init(&run, sizeof run);
    mh_attention_options_init(&options, sizeof options);
    mh_weights_request_init(&request, sizeof request);
    options.run = &run, request.per_head = &weights_t;
  }
  CCall(const CCall&) = delete;
  mh_status call() const { return mh_attention(q_p, k_p, v_p, out_p, lse_p, &request, &options); }
  bool untouched() const {
    const auto all = [](const auto& values) {
      return std::all_of(values.begin(), values.end(), [](float x) { return x == 77; });
    };
    return all(out) && all(lse) && all(weights);
  }
};

struct CCase {
  const char* name;
  std::function<void(CCall&)> change;
  mh_status status;
  std::string sentence;

  friend void PrintTo(const CCase& c, std::ostream* to) { *to << c.name; }
};

std::string size_of_options(const char* given) {
  return "mh_attention_options has struct_size " + std::string(given) + "; it must be " +
         std::to_string(sizeof(mh_attention_options)) + ", as mh_attention_options_init sets it";
}

// Tensors and lists.
std::vector<CCase> tensor_cases() {
  using C = CCall;
  return {
      {"q_missing", [](C& c) { c.q_p = nullptr; }, MH_BAD_ARGUMENT, "q is missing; it must be given"},
      {"out_missing", [](C& c) { c.out_t.rank = 0; }, MH_BAD_ARGUMENT, "out is missing; it must be given"},
      {"k_null", [](C& c) { c.k_t.data = nullptr; }, MH_BAD_ARGUMENT, "k is null; it must point to its elements"},
      {"lse_null", [](C& c) { c.lse_t.data = nullptr; }, MH_BAD_ARGUMENT, "lse is null; it must point to its elements"},
      {"q_rank", [](C& c) { c.q_t.rank = 3; }, MH_BAD_ARGUMENT, "q has rank 3; it must be 4"},
      {"v_rank_minus", [](C& c) { c.v_t.rank = -1; }, MH_BAD_ARGUMENT, "v has rank -1; it must be 4"},
      {"lse_rank", [](C& c) { c.lse_t.rank = 4; }, MH_BAD_ARGUMENT, "lse has rank 4; it must be 3"},
      {"mask_rank", [](C& c) { c.mask_t.rank = 5, c.options.keep_mask = &c.mask_t; }, MH_BAD_ARGUMENT,
       "keep_mask has rank 5; it must be 1 to 4"},
      {"q_type_none", [](C& c) { c.q_t.type = 42; }, MH_BAD_TYPE,
       "q has type 42, which is none; it must be float32, float64, bfloat16 or float16"},
      {"q_type_int", [](C& c) { c.q_t.type = MH_INT64; }, MH_BAD_TYPE,
       "q has type int64; it must be float32, float64, bfloat16 or float16"},
      {"k_type", [](C& c) { c.k_t.type = MH_FLOAT16; }, MH_BAD_TYPE, "k has type float16; it must be float32"},
      {"out_type", [](C& c) { c.out_t.type = MH_BFLOAT16; }, MH_BAD_TYPE, "out has type bfloat16; it must be float32"},
      {"lse_type", [](C& c) { c.lse_t.type = MH_FLOAT64; }, MH_BAD_TYPE, "lse has type float64; it must be float32"},
      {"weights_type", [](C& c) { c.weights_t.type = MH_FLOAT16; }, MH_BAD_TYPE,
       "weights.per_head has type float16; it must be float32"},
      {"mask_type", [](C& c) { c.options.drop_mask = &c.bias_t; }, MH_BAD_TYPE,
       "drop_mask has type float32; it must be bool"},
      {"bias_type", [](C& c) { c.options.bias = &c.mask_t; }, MH_BAD_TYPE,
       "bias has type bool; it must be float32, float64, bfloat16 or float16"},
      {"lengths_type", [](C& c) { c.options.lengths = &c.doubles_t; }, MH_BAD_TYPE,
       "lengths has type float64; it must be int64"},
      {"sinks_type", [](C& c) { c.options.sinks = &c.list_t; }, MH_BAD_TYPE,
       "sinks has type int64; it must be float64"},
      {"q_address", [](C& c) { c.q_t.data = reinterpret_cast<char*>(c.q.data()) + 2; }, MH_BAD_ARGUMENT,
       "q is at an address that is no multiple of 4; elements of float32 must be"},
      {"lengths_stride", [](C& c) { c.list_t.strides[0] = 2, c.options.lengths = &c.list_t; }, MH_SHAPE_MISMATCH,
       "lengths has stride 2; it must be 1"},
      {"lengths_minus", [](C& c) { c.list_t.shape[0] = -2, c.options.lengths = &c.list_t; }, MH_SHAPE_MISMATCH,
       "lengths has extent -2; it may not be negative"},
      {"lengths_far", [](C& c) { c.list_t.shape[0] = INT64_MAX, c.options.lengths = &c.list_t; }, MH_SHAPE_MISMATCH,
       "lengths has extents and strides beyond the address space"},
      {"out_on_lengths", [](C& c) { c.list_t.data = c.out.data(), c.options.lengths = &c.list_t; }, MH_SHAPE_MISMATCH,
       "out overlaps lengths; they must be apart"},
      {"lse_on_sinks", [](C& c) { c.doubles_t.data = c.lse.data(), c.options.sinks = &c.doubles_t; }, MH_SHAPE_MISMATCH,
       "lse overlaps sinks; they must be apart"},
      {"out_on_segments",
       [](C& c) { c.ints_t.data = c.out.data(), c.options.q_segments = c.options.kv_segments = &c.ints_t; },
       MH_SHAPE_MISMATCH, "out overlaps q_segments; they must be apart"},
      {"lengths_none", [](C& c) { c.list_t.shape[0] = 0, c.options.lengths = &c.list_t; }, MH_SHAPE_MISMATCH,
       "lengths has 0, the number of sequences is 2; they must be equal"},
      {"sinks_none", [](C& c) { c.doubles_t.shape[0] = 0, c.options.sinks = &c.doubles_t; }, MH_SHAPE_MISMATCH,
       "sinks has no elements; it must have some, or not be given"},
      {"heads_none", [](C& c) { c.list_t.shape[0] = 0, c.request.heads = &c.list_t; }, MH_SHAPE_MISMATCH,
       "weights.heads has no elements; it must have some, or not be given"},
      {"table_none", [](C& c) { c.bias_t.shape[0] = 0, c.options.relative_bias = &c.bias_t; }, MH_SHAPE_MISMATCH,
       "relative_bias has no elements; it must have some, or not be given"},
  };
}

// Numbers and structs.
std::vector<CCase> number_cases() {
  using C = CCall;
  return {
      {"causal_2", [](C& c) { c.options.causal = 2; }, MH_BAD_ARGUMENT, "causal is 2; it must be 0 or 1"},
      {"bidirectional_minus", [](C& c) { c.options.relative_bidirectional = -1; }, MH_BAD_ARGUMENT,
       "relative_bidirectional is -1; it must be 0 or 1"},
      {"has_scale", [](C& c) { c.options.has_scale = 7; }, MH_BAD_ARGUMENT, "has_scale is 7; it must be 0 or 1"},
      {"scale_alone", [](C& c) { c.options.scale = 0.5; }, MH_BAD_OPTION,
       "scale is given and has_scale is 0; they must come together"},
      {"alignment", [](C& c) { c.options.alignment = 5; }, MH_BAD_ARGUMENT, "alignment is 5; it must be 0 to 4"},
      {"offset_alone", [](C& c) { c.options.query_offset = 3; }, MH_BAD_OPTION,
       "query_offset is 3 and alignment is not MH_ALIGN_OFFSET; they must come together"},
      {"offsets_alone", [](C& c) { c.options.query_offsets = &c.list_t; }, MH_BAD_OPTION,
       "query_offsets and alignment MH_ALIGN_OFFSETS must come together"},
      {"offsets_missing", [](C& c) { c.options.alignment = MH_ALIGN_OFFSETS; }, MH_BAD_OPTION,
       "query_offsets and alignment MH_ALIGN_OFFSETS must come together"},
      {"dropout_1", [](C& c) { c.options.dropout = 1; }, MH_BAD_OPTION,
       "the dropout probability is 1.000000; it must be from 0 to below 1"},
      {"reserved_2", [](C& c) { c.options.reserved_2 = 1; }, MH_BAD_ARGUMENT,
       "mh_attention_options.reserved_2 is 1; it must be 0"},
      {"point", [](C& c) { c.request.point = 4; }, MH_BAD_ARGUMENT, "weights.point is 4; it must be 0 to 3"},
      {"window_left", [](C& c) { c.options.window_left = -2; }, MH_BAD_OPTION,
       "window_left is -2; it must be at least 0, or -1 for no bound"},
      {"window_right", [](C& c) { c.options.window_right = INT64_MIN; }, MH_BAD_OPTION,
       "window_right is -9223372036854775808; it must be at least 0, or -1 for no bound"},
      {"one_way_alone", [](C& c) { c.options.relative_bidirectional = 0; }, MH_BAD_OPTION,
       "relative_bidirectional is 0; without relative_bias it must be 1"},
      {"max_distance_alone", [](C& c) { c.options.relative_max_distance = 64; }, MH_BAD_OPTION,
       "relative_max_distance is 64; without relative_bias it must be 128"},
      {"point_alone", [](C& c) { c.request.point = MH_WEIGHTS_SCALED, c.request.per_head = nullptr; }, MH_BAD_OPTION,
       "weights.point is 1; without an output it must be 0"},
      {"heads_alone", [](C& c) { c.request.heads = &c.list_t, c.request.per_head = nullptr; }, MH_BAD_OPTION,
       "weights.heads is given; without an output it must be NULL"},
      {"rows_alone", [](C& c) { c.request.rows = &c.list_t, c.request.per_head = nullptr; }, MH_BAD_OPTION,
       "weights.rows is given; without an output it must be NULL"},
      {"norms_alone", [](C& c) { c.request.norms = &c.lse_t, c.request.per_head = nullptr; }, MH_BAD_OPTION,
       "weights.norms is given; without an output it must be NULL"},
      {"target", [](C& c) { c.run.target = 9; }, MH_BAD_ARGUMENT, "target is 9; it must be 0 to 6"},
      {"threads", [](C& c) { c.run.threads = 0; }, MH_BAD_OPTION, "threads is 0; it must be 1 to 65536"},
      {"reserved", [](C& c) { c.options.reserved = 1; }, MH_BAD_ARGUMENT,
       "mh_attention_options.reserved is 1; it must be 0"},
      {"run_reserved", [](C& c) { c.run.reserved = 1; }, MH_BAD_ARGUMENT, "mh_run_options.reserved is 1; it must be 0"},
      {"scratch_alone", [](C& c) { c.run.scratch = c.scratch.data(); }, MH_BAD_ARGUMENT,
       "scratch is given and scratch_bytes is 0; they must come together"},
      {"scratch_null", [](C& c) { c.run.scratch_bytes = 8; }, MH_BAD_ARGUMENT,
       "scratch is NULL and scratch_bytes is 8; they must come together"},
      {"context_alone", [](C& c) { c.run.parallel_context = &c; }, MH_BAD_ARGUMENT,
       "parallel_context is given without parallel_for; it must come with it"},
      {"size_0", [](C& c) { c.options.struct_size = 0; }, MH_BAD_ARGUMENT, size_of_options("0")},
      {"size_8", [](C& c) { c.options.struct_size = 8; }, MH_BAD_ARGUMENT, size_of_options("8")},
      {"size_far", [](C& c) { c.options.struct_size = 4000000000u; }, MH_BAD_ARGUMENT, size_of_options("4000000000")},
      {"request_size", [](C& c) { c.request.struct_size = 4; }, MH_BAD_ARGUMENT,
       "mh_weights_request has struct_size 4; it must be " + std::to_string(sizeof(mh_weights_request)) +
           ", as mh_weights_request_init sets it"},
      {"run_size", [](C& c) { c.run.struct_size = 1; }, MH_BAD_ARGUMENT,
       "mh_run_options has struct_size 1; it must be " + std::to_string(sizeof(mh_run_options)) +
           ", as mh_run_options_init sets it"},
  };
}

const auto kNameOf = [](const auto& info) { return info.param.name; };
struct CRules : ::testing::TestWithParam<CCase> {};
TEST_P(CRules, Refused) {
  const CCase& c = GetParam();
  CCall call;
  c.change(call);
  EXPECT_EQ(mh_status_string(call.call()), std::string(mh_status_string(c.status)));
  EXPECT_EQ(mh_last_error_message(), "attention: " + c.sentence);
  EXPECT_TRUE(call.untouched());
  const CCall legal;
  EXPECT_EQ(legal.call(), MH_OK) << mh_last_error_message();
  EXPECT_FALSE(legal.untouched());
}
INSTANTIATE_TEST_SUITE_P(Tensors, CRules, ::testing::ValuesIn(tensor_cases()), kNameOf);
INSTANTIATE_TEST_SUITE_P(Numbers, CRules, ::testing::ValuesIn(number_cases()), kNameOf);

}  // namespace
}  // namespace multihead::testing
