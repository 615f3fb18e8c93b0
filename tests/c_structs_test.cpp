// SPDX-License-Identifier: Apache-2.0
// Structs of other releases: fewer fields mean defaults, more must be 0; init, tensors, statuses and sentences.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <thread>

#include "bindings/c/structs.hpp"
#include "bindings/c/tensors.hpp"

// A struct as its third release has it; the first ended before second, the second before third.
struct mh_grown {
  uint32_t struct_size;
  int32_t first;
  int64_t second;
  double third;
};

namespace multihead::c {
template <>
struct StructOf<mh_grown> : Described<mh_grown> {
  static constexpr const char* kName = "mh_grown";
  static constexpr std::array<std::size_t, 2> kEarlierSizes{8, 16};
  static void set(mh_grown& made) { made.first = 1, made.second = 2, made.third = 3; }
};
}  // namespace multihead::c

namespace multihead::testing {
namespace {

using c::guarded;
using c::init_struct;
using c::read_struct;
using c::write_struct;

TEST(CStructs, AnOlderCallersStructHasTheDefaultsOfWhatItLacks) {
  mh_grown given{16, 10, 20, 30};
  const mh_grown read = read_struct("f", &given);
  EXPECT_EQ(read.first, 10);
  EXPECT_EQ(read.second, 20);
  EXPECT_EQ(read.third, 3);
  given.struct_size = 8;
  EXPECT_EQ(read_struct("f", &given).second, 2);
  given.struct_size = 24;
  EXPECT_EQ(read_struct("f", &given).third, 30);
  const mh_grown* const null = nullptr;
  EXPECT_EQ(read_struct("f", null).first, 1);
  for (std::uint32_t size : {0u, 4u, 7u, 12u, 17u, 23u, 4097u}) {
    given.struct_size = size;
    EXPECT_EQ(guarded([&] { read_struct("f", &given); }), MH_BAD_ARGUMENT) << size;
    EXPECT_EQ(mh_last_error_message(),
              "f: mh_grown has struct_size " + std::to_string(size) + "; it must be 24, as mh_grown_init sets it");
  }
}

struct Newer {
  mh_grown known;
  std::int64_t unknown;
};

TEST(CStructs, ANewerCallersFieldsMustBeZero) {
  Newer given{{sizeof(Newer), 10, 20, 30}, 0};
  EXPECT_EQ(read_struct("f", &given.known).third, 30);
  given.unknown = std::int64_t{1} << 56;
  EXPECT_EQ(guarded([&] { read_struct("f", &given.known); }), MH_BAD_ARGUMENT);
  EXPECT_EQ(mh_last_error_message(),
            std::string("f: mh_grown has fields that this library does not know; they must be 0"));
}

TEST(CStructs, AnAnswerIsAsLongAsTheCallersStruct) {
  mh_grown room{16, 0, 0, 77};
  write_struct("f", mh_grown{24, 10, 20, 30}, &room);
  EXPECT_EQ(room.struct_size, 16u);
  EXPECT_EQ(room.second, 20);
  EXPECT_EQ(room.third, 77);
}

TEST(CStructs, InitSetsWhatFits) {
  Newer room{{}, 77};
  std::memset(&room.known, 0x55, sizeof room.known);
  init_struct(&room.known, 16);
  EXPECT_EQ(room.known.struct_size, 16u);
  EXPECT_EQ(room.known.second, 2);
  EXPECT_NE(room.known.third, 3);
  EXPECT_EQ(room.unknown, 77);
  init_struct(&room.known, sizeof room);
  EXPECT_EQ(room.known.struct_size, sizeof room);
  EXPECT_EQ(room.known.third, 3);
  EXPECT_EQ(room.unknown, 0);
  room.known.struct_size = 5;
  init_struct(&room.known, 3);
  EXPECT_EQ(room.known.struct_size, 5u);
  init_struct(static_cast<mh_grown*>(nullptr), 24);
}

// A field at the end may not begin inside what an older struct_size counts.
TEST(CStructs, HaveNoPaddingAtTheirEnds) {
#define MULTIHEAD_ENDS_WITH(type, field) \
  EXPECT_EQ(offsetof(type, field) + sizeof(type::field), sizeof(type)) << #type " ends after " #field
  MULTIHEAD_ENDS_WITH(mh_info, models);
  MULTIHEAD_ENDS_WITH(mh_run_options, scratch_bytes);
  MULTIHEAD_ENDS_WITH(mh_attention_options, window_first);
  MULTIHEAD_ENDS_WITH(mh_paged_keys, lengths);
  MULTIHEAD_ENDS_WITH(mh_kv_cache_spec, v_scales);
  MULTIHEAD_ENDS_WITH(mh_attention_gradients, scale);
  MULTIHEAD_ENDS_WITH(mh_weights_request, norms);
  MULTIHEAD_ENDS_WITH(mh_row_statistics, map);
  MULTIHEAD_ENDS_WITH(mh_statistics_request, norm_weighted);
  MULTIHEAD_ENDS_WITH(mh_attention_shape, value_dim);
  MULTIHEAD_ENDS_WITH(mh_attention_plan, terms);
  MULTIHEAD_ENDS_WITH(mh_layer_spec, max_positions);
  MULTIHEAD_ENDS_WITH(mh_layer_weights, k_norm_bias);
  MULTIHEAD_ENDS_WITH(mh_layer_extents, extra_keys);
  MULTIHEAD_ENDS_WITH(mh_layer_options, gates);
  MULTIHEAD_ENDS_WITH(mh_layer_requests, norms);
  MULTIHEAD_ENDS_WITH(mh_encoder_extents, max_tokens);
  MULTIHEAD_ENDS_WITH(mh_encoder_options, reserved);
  MULTIHEAD_ENDS_WITH(mh_encoder_call, norms);
#undef MULTIHEAD_ENDS_WITH
}

TEST(CStructs, Tensors) {
  float data[24];
  const std::int64_t shape[] = {2, 3, 4}, minus[] = {2, -1}, none[] = {5, 0, 4},
                     far[] = {std::int64_t{1} << 40, 1 << 21};
  mh_tensor tensor{};
  ASSERT_EQ(mh_tensor_init(&tensor, data, MH_FLOAT32, 3, shape), MH_OK);
  EXPECT_EQ(tensor.data, data);
  EXPECT_EQ(tensor.type, MH_FLOAT32);
  EXPECT_EQ(tensor.rank, 3);
  EXPECT_TRUE(std::equal(shape, shape + 3, tensor.shape));
  EXPECT_EQ(tensor.strides[0], 12);
  EXPECT_EQ(tensor.strides[1], 4);
  EXPECT_EQ(tensor.strides[2], 1);
  EXPECT_EQ(mh_tensor_init(&tensor, nullptr, MH_BOOL, 3, none), MH_OK);
  const auto refused = [&](mh_status got, mh_status wanted, const char* sentence) {
    EXPECT_EQ(got, wanted);
    EXPECT_EQ(mh_last_error_message(), std::string("mh_tensor_init: ") + sentence);
    EXPECT_EQ(tensor.rank, 3);
  };
  refused(mh_tensor_init(nullptr, data, MH_FLOAT32, 3, shape), MH_BAD_ARGUMENT, "tensor is NULL; it must be given");
  refused(mh_tensor_init(&tensor, data, MH_FLOAT32, 3, nullptr), MH_BAD_ARGUMENT, "shape is NULL; it must be given");
  refused(mh_tensor_init(&tensor, data, 0, 3, shape), MH_BAD_ARGUMENT,
          "type is 0, which is none; it must be one of mh_type");
  refused(mh_tensor_init(&tensor, data, MH_FLOAT32, 5, shape), MH_BAD_ARGUMENT, "rank is 5; it must be 1 to 4");
  refused(mh_tensor_init(&tensor, data, MH_FLOAT32, 0, shape), MH_BAD_ARGUMENT, "rank is 0; it must be 1 to 4");
  refused(mh_tensor_init(&tensor, data, MH_FLOAT32, 2, minus), MH_SHAPE_MISMATCH,
          "the tensor has extent -1 on axis 1; it may not be negative");
  refused(mh_tensor_init(&tensor, data, MH_FLOAT32, 2, far), MH_SHAPE_MISMATCH,
          "the tensor has more bytes than 63 bits count");
}

TEST(CStructs, WordsOfStatuses) {
  const char* const words[] = {"ok",           "shape_mismatch", "bad_option",    "unsupported",
                               "file_missing", "file_malformed", "out_of_memory", "bad_type",
                               "bad_argument", "internal_error", "non_finite"};
  for (mh_status status = MH_OK; status <= MH_NON_FINITE; ++status)
    EXPECT_EQ(mh_status_string(status), std::string(words[status]));
  for (mh_status status : {-1, 11, INT32_MIN, INT32_MAX}) EXPECT_EQ(mh_status_string(status), std::string("unknown"));
  for (int code = 0; code <= static_cast<int>(ErrorCode::out_of_memory); ++code) {
    const auto error = static_cast<ErrorCode>(code);
    EXPECT_EQ(mh_status_string(guarded([&] { throw Error(error, "x"); })), error_name(error));
  }
}

TEST(CStructs, NothingIsThrownPastTheFace) {
  EXPECT_EQ(guarded([] { throw std::bad_alloc(); }), MH_OUT_OF_MEMORY);
  EXPECT_EQ(mh_last_error_message(), std::string("an allocation failed"));
  EXPECT_EQ(guarded([] { throw std::logic_error("a fault"); }), MH_INTERNAL_ERROR);
  EXPECT_EQ(mh_last_error_message(), std::string("a fault"));
  EXPECT_EQ(guarded([] { throw 7; }), MH_INTERNAL_ERROR);
  std::string vast;
  for (int i = 0; i < 2000; ++i) vast += "\xC3\xA9";  // cut off between letters
  EXPECT_EQ(guarded([&] { throw Error(ErrorCode::bad_option, "x" + vast); }), MH_BAD_OPTION);
  const std::string kept = mh_last_error_message();
  EXPECT_EQ(kept, ("x" + vast).substr(0, kept.size()));
  EXPECT_EQ(kept.size(), 2047u);
  std::thread([] {
    EXPECT_EQ(mh_last_error_message(), std::string());
    EXPECT_EQ(guarded([] { throw Error(ErrorCode::bad_option, "of this thread"); }), MH_BAD_OPTION);
    EXPECT_EQ(mh_last_error_message(), std::string("of this thread"));
  }).join();
  EXPECT_EQ(mh_last_error_message(), kept);
}

// Pointers that must be given, in every function that has one.
TEST(CStructs, NullIsRefused) {
  mh_tensor tensor{};
  mh_layer* layer = nullptr;
  mh_layer_spec spec;
  mh_layer_spec_init(&spec, sizeof spec);
  mh_layer_weights weights;
  mh_layer_weights_init(&weights, sizeof weights);
  mh_attention_shape shape;
  mh_attention_shape_init(&shape, sizeof shape);
  mh_attention_plan plan;
  mh_attention_plan_init(&plan, sizeof plan);
  std::size_t bytes = 0;
  const mh_status found[] = {
      mh_get_info(nullptr),
      mh_target_from_name(nullptr, nullptr),
      mh_target_from_name("avx2", nullptr),
      mh_tasks_run(MH_TARGET_AVX2, nullptr),
      mh_attention(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr),
      mh_attention_statistics(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr),
      mh_statistics_of_weights(nullptr, nullptr, 0),
      mh_attention_weights(nullptr, nullptr, nullptr, nullptr, nullptr),
      mh_merge(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr),
      mh_attention_scratch_bytes(nullptr, nullptr, 0, &bytes),
      mh_attention_scratch_bytes(&shape, nullptr, 0, nullptr),
      mh_attention_statistics_scratch_bytes(nullptr, nullptr, 0, nullptr, &bytes),
      mh_attention_statistics_scratch_bytes(&shape, nullptr, 0, nullptr, nullptr),
      mh_attention_backward(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr),
      mh_attention_backward_scratch_bytes(nullptr, nullptr, &bytes),
      mh_attention_backward_scratch_bytes(&shape, nullptr, nullptr),
      mh_explain(nullptr, nullptr, &plan),
      mh_explain(&shape, nullptr, nullptr),
      mh_self_attention(&tensor, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr),
      mh_multi_head_attention(nullptr, nullptr, nullptr, nullptr, nullptr, 1, nullptr, nullptr, nullptr, nullptr),
      mh_multi_head_attention_scratch_bytes(nullptr, nullptr, nullptr, nullptr, nullptr, 1, nullptr, 0, &bytes),
      mh_layer_create(nullptr, &weights, &layer),
      mh_layer_create(&spec, nullptr, &layer),
      mh_layer_create(&spec, &weights, nullptr),
      mh_layer_load(nullptr, nullptr, 0, nullptr, &spec, &layer),
      mh_layer_load("bert", nullptr, 1, nullptr, &spec, &layer),
      mh_layer_load("bert", nullptr, 0, nullptr, nullptr, &layer),
      mh_layer_get_extents(nullptr, nullptr),
      mh_layer_forward(nullptr, &tensor, nullptr, nullptr, &tensor, nullptr, nullptr),
      mh_layer_scratch_bytes(nullptr, 1, 1, 1, 1, nullptr, nullptr, &bytes),
  };
  for (std::size_t i = 0; i < std::size(found); ++i) EXPECT_EQ(found[i], MH_BAD_ARGUMENT) << i;
  EXPECT_EQ(layer, nullptr);
  EXPECT_EQ(mh_layer_create(&spec, &weights, &layer), MH_BAD_TYPE);  // of the weights: must be named
  EXPECT_EQ(mh_last_error_message(), std::string("MultiHeadAttention: the layer has type 0, which is none; it must be "
                                                 "float32, float64, bfloat16 or float16"));
  mh_target target = 77;
  EXPECT_EQ(mh_target_from_name("sse", &target), MH_BAD_OPTION);
  EXPECT_EQ(target, 77);
  for (mh_target none : {-1, 0, 5}) EXPECT_EQ(mh_tasks_run(none, nullptr), MH_BAD_ARGUMENT);
}

}  // namespace
}  // namespace multihead::testing
