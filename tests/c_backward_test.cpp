// SPDX-License-Identifier: Apache-2.0
// The C face of the gradients gives what C++ gives, bit for bit, and what only C can get wrong of them is refused.
#include <gtest/gtest.h>

#include "c_face.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

// Memory for every gradient that a problem has, or for some of them.
template <class T>
struct Asked {
  Tensor<T> q, k, v;
  Tensor<Sum<T>> bias;
  std::vector<double> slopes, sinks;
  std::vector<Sum<T>> table;
  double scale = 77;
  AttentionGradients<T> gradients;

  explicit Asked(const Problem& p)
      : q({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.head_dim}),
        k({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.head_dim}),
        v({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.value_dim}),
        bias(p.bias.extents),
        slopes(p.alibi_slopes),
        sinks(p.sinks) {
    Random random(p.seed + 7);
    if (random.chance(80)) gradients.q = q.view;
    if (random.chance(80)) gradients.k = k.view;
    if (random.chance(80)) gradients.v = v.view;
    if (p.bias.rank && random.chance(80)) gradients.bias = bias.view;
    gradients.alibi_slopes = slopes, gradients.sinks = sinks;
    table.assign(static_cast<std::size_t>(p.table.extents[2] * p.table.extents[3]), 77);
    if (p.table.rank) gradients.relative_bias = {table.data(), {p.table.extents[2], p.table.extents[3]}};
    if (random.chance(80)) gradients.scale = &scale;
  }
  std::uint64_t bits() const {
    const View<const double, 1> one(&scale, {1});
    std::uint64_t hash = hash_bits(q.view, hash_bits(k.view, hash_bits(v.view, hash_bits(bias.view))));
    for (const std::vector<double>* list : {&slopes, &sinks})
      hash = hash_bits(View<const double, 1>(list->data(), {static_cast<std::int64_t>(list->size())}), hash);
    return hash_bits(one, hash_bits(gradients.relative_bias, hash));
  }
};

template <class T>
class CBackward : public ::testing::Test {};
using AllTypes = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(CBackward, AllTypes);

TYPED_TEST(CBackward, HasTheBitsOfCpp) {
  using T = TypeParam;
  for (int seed = 0; seed < (quick_share() ? 25 : 120); ++seed) {
    const Problem p = draw_problem(static_cast<std::uint64_t>(seed) + 9600, kTypeOf<T>);
    Tensors<T> in(p);
    Answer<T> forward(in, p.options());
    Tensor<T> d_out(forward.out.view.extents());
    std::vector<Sum<T>> d_lse(forward.lse_values);
    Random random(p.seed + 3);
    d_out.fill_normal(random);
    for (Sum<T>& x : d_lse) x = static_cast<Sum<T>>(random.normal());
    AttentionForward<T> given{in.q.view, in.k.view, in.v.view, forward.out.view, forward.lse, d_out.view, {}};
    if (seed % 2) given.d_lse = {d_lse.data(), forward.lse.extents()};
    const auto bits = [&](const auto& door) {
      const Asked<T> asked(p);
      door(given, asked.gradients, p.options());
      return asked.bits();
    };
    EXPECT_EQ(bits([](const auto&... x) { c_face::attention_backward<T>(x...); }),
              bits([](const auto&... x) { attention_backward(x...); }))
        << p.describe();
    EXPECT_EQ(c_face::attention_backward_scratch_bytes(p.shape, p.options()),
              attention_backward_scratch_bytes(p.shape, p.options()));
  }
}

// A legal call, parts of which are changed.
struct Backward {
  std::array<float, 24> values{}, gradients{};
  std::array<double, 4> doubles{77, 77, 77, 77};
  mh_tensor read{}, rows{}, to{}, list{}, bias{};
  mh_attention_gradients asked;
  mh_attention_options options;
  const mh_tensor *lse = &rows, *d_out = &read, *d_lse = nullptr;

  Backward() {
    gradients.fill(77);
    const auto made = [](void* data, mh_type type, std::initializer_list<std::int64_t> shape) {
      mh_tensor tensor;
      EXPECT_EQ(mh_tensor_init(&tensor, data, type, static_cast<int32_t>(shape.size()), shape.begin()), MH_OK);
      return tensor;
    };
    read = made(values.data(), MH_FLOAT32, {2, 2, 2, 3}), to = made(gradients.data(), MH_FLOAT32, {2, 2, 2, 3});
    rows = made(values.data(), MH_FLOAT32, {2, 2, 2}), list = made(doubles.data(), MH_FLOAT64, {2});
    bias = made(gradients.data(), MH_FLOAT32, {2, 2});
    mh_attention_gradients_init(&asked, sizeof asked);
    mh_attention_options_init(&options, sizeof options);
    asked.q = &to;
  }
  Backward(const Backward&) = delete;
  mh_status call() const {
    return mh_attention_backward(&read, &read, &read, &read, lse, d_out, d_lse, &asked, &options);
  }
};

TEST(CBackward, WhatOnlyCCanGetWrong) {
  const auto refused = [](const char* sentence, mh_status status, const std::function<void(Backward&)>& change) {
    Backward call;
    change(call);
    EXPECT_EQ(call.call(), status) << sentence;
    EXPECT_EQ(mh_last_error_message(), "attention_backward: " + std::string(sentence));
    for (float x : call.gradients) EXPECT_EQ(x, 77) << sentence;
    for (double x : call.doubles) EXPECT_EQ(x, 77) << sentence;
  };
  EXPECT_EQ(Backward().call(), MH_OK);
  using B = Backward;
  refused("lse is missing; it must be given", MH_BAD_ARGUMENT, [](B& b) { b.lse = nullptr; });
  refused("d_out is missing; it must be given", MH_BAD_ARGUMENT, [](B& b) { b.d_out = nullptr; });
  refused("d_lse has rank 4; it must be 3", MH_BAD_ARGUMENT, [](B& b) { b.d_lse = &b.read; });
  refused("gradients.v has type int64; it must be float32", MH_BAD_TYPE,
          [](B& b) { b.to.type = MH_INT64, b.asked.q = nullptr, b.asked.v = &b.to; });
  refused("gradients.scale has 2 elements; it must have 1", MH_SHAPE_MISMATCH, [](B& b) { b.asked.scale = &b.list; });
  refused("gradients.scale has type float32; it must be float64", MH_BAD_TYPE,
          [](B& b) { b.bias.rank = 1, b.bias.shape[0] = 1, b.asked.scale = &b.bias; });
  refused("gradients.sinks has no elements; it must have some, or not be given", MH_SHAPE_MISMATCH,
          [](B& b) { b.list.shape[0] = 0, b.asked.sinks = &b.list; });
  refused("gradients.bias has type float64; it must be float32", MH_BAD_TYPE,
          [](B& b) { b.bias.type = MH_FLOAT64, b.bias.data = b.doubles.data(), b.asked.bias = &b.bias; });
  refused("gradients.bias has rank 5; it must be 1 to 4", MH_BAD_ARGUMENT,
          [](B& b) { b.bias.rank = 5, b.asked.bias = &b.bias; });
  refused("mh_attention_gradients.reserved is 3; it must be 0", MH_BAD_ARGUMENT, [](B& b) { b.asked.reserved = 3; });
  refused("the dropout probability is 1.000000; it must be from 0 to below 1", MH_BAD_OPTION,
          [](B& b) { b.options.dropout = 1; });
  Backward call;
  EXPECT_EQ(mh_attention_backward(&call.read, &call.read, &call.read, &call.read, &call.rows, &call.read, nullptr,
                                  nullptr, nullptr),
            MH_BAD_ARGUMENT);
  EXPECT_EQ(mh_last_error_message(), std::string("attention_backward: gradients is NULL; it must be given"));
}

// A bias of two axes has a gradient of two: the sum over batch and heads.
TEST(CBackward, AGradientOfFewerAxesIsSummed) {
  Random random(5);
  std::array<double, 2 * 3 * 4 * 5> values{};
  for (double& x : values) x = random.normal();
  std::array<double, 2 * 3 * 4 * 4> whole{};
  std::array<double, 4 * 4> summed{}, biased{};
  const auto made = [](void* data, std::initializer_list<std::int64_t> shape) {
    mh_tensor tensor;
    EXPECT_EQ(mh_tensor_init(&tensor, data, MH_FLOAT64, static_cast<int32_t>(shape.size()), shape.begin()), MH_OK);
    return tensor;
  };
  std::array<double, 2 * 3 * 4 * 5> results{};
  std::array<double, 2 * 3 * 4> logs{};
  const mh_tensor x = made(values.data(), {2, 3, 4, 5}), out = made(results.data(), {2, 3, 4, 5}),
                  lse = made(logs.data(), {2, 3, 4}), all = made(whole.data(), {2, 3, 4, 4}),
                  few = made(summed.data(), {4, 4}), bias = made(biased.data(), {4, 4});
  std::array<double, 2 * 3 * 4 * 4> expanded{};
  const mh_tensor full = made(expanded.data(), {2, 3, 4, 4});
  mh_attention_options options;
  mh_attention_options_init(&options, sizeof options);
  ASSERT_EQ(mh_attention(&x, &x, &x, &out, &lse, nullptr, &options), MH_OK);
  mh_attention_gradients asked;
  mh_attention_gradients_init(&asked, sizeof asked);
  options.bias = &full, asked.bias = &all;
  ASSERT_EQ(mh_attention_backward(&x, &x, &x, &out, &lse, &x, nullptr, &asked, &options), MH_OK);
  options.bias = &bias, asked.bias = &few;
  ASSERT_EQ(mh_attention_backward(&x, &x, &x, &out, &lse, &x, nullptr, &asked, &options), MH_OK);
  for (std::size_t at = 0; at < 16; ++at) {
    double sum = 0;
    for (std::size_t head = 0; head < 6; ++head) sum += whole[head * 16 + at];
    EXPECT_NEAR(summed[at], sum, 1e-14);
    EXPECT_NE(summed[at], 0);
  }
}

}  // namespace
}  // namespace multihead::testing
