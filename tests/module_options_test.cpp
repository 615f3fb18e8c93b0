// SPDX-License-Identifier: Apache-2.0
// Every option of attention() at a layer's call: a layer of identity weights is attention() itself, bit for bit.
#include <gtest/gtest.h>

#include <numeric>

#include "module_problem.hpp"

namespace multihead::testing {
namespace {

template <class T>
class ModuleOptions : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ModuleOptions, Types);

template <class T>
Matrix<T> identity(std::int64_t n) {
  Matrix<T> matrix(n, n);
  for (std::int64_t i = 0; i < n; ++i) matrix(i, i) = 1;
  return matrix;
}

// Inputs (batch, length, heads side by side) of a layer that changes nothing on the way.
template <class T>
struct Passing {
  std::int64_t batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim;
  std::vector<T> q, k, v;
  std::vector<T> bias_k, bias_v;

  Passing(Random& random, std::int64_t batches, std::int64_t queries, std::int64_t keys)
      : batch(batches), q_len(queries), kv_len(keys) {
    kv_heads = random.between(1, 2), heads = kv_heads * random.between(1, 2);
    head_dim = random.between(1, 12), value_dim = random.between(1, 12);
    const auto fill = [&](std::int64_t count) { return Values<T>::normal(random, count, 1).all; };
    q = fill(batch * q_len * heads * head_dim), k = fill(batch * kv_len * kv_heads * head_dim);
    v = fill(batch * kv_len * kv_heads * value_dim);
    bias_k = fill(kv_heads * head_dim), bias_v = fill(kv_heads * value_dim);
  }
  MultiHeadAttention<T> layer(bool extras) const {
    const Matrix<T> Wq = identity<T>(heads * head_dim), Wk = identity<T>(kv_heads * head_dim);
    const Matrix<T> Wv = identity<T>(kv_heads * value_dim), Wo = identity<T>(heads * value_dim);
    MultiHeadWeights<T> weights{.q = Wq, .k = Wk, .v = Wv, .out = Wo};
    if (extras) weights.bias_k = bias_k, weights.bias_v = bias_v;
    return MultiHeadAttention<T>(
        {.heads = heads, .kv_heads = kv_heads, .order = WeightOrder::in_out, .add_zero_attn = extras}, weights);
  }
  static View3<const T> sequence(const std::vector<T>& x, std::int64_t batch, std::int64_t length) {
    return {x.data(), {batch, length, static_cast<std::int64_t>(x.size()) / (batch * length)}};
  }
  template <class E>
  static View4<E> split(E* x, std::array<std::int64_t, 4> e) {
    return {x, e, {e[2] * e[1] * e[3], e[3], e[1] * e[3], 1}};
  }
};

// Options at random, and what they point to.
template <class T>
struct RandomOptions {
  AttentionOptions options;
  std::vector<std::int64_t> lengths, prefixes, cu_q, cu_k, q_ids, k_ids, offsets;
  std::vector<std::uint8_t> keep, drop;
  std::vector<T> bias, table;
  std::vector<double> slopes, sinks;
  std::set<std::string> tags;

  RandomOptions(Random& random, const Passing<T>& p) {
    const auto tag = [&](const char* name, int percent) {
      const bool yes = random.chance(percent);
      if (yes) tags.insert(name);
      return yes;
    };
    options.alignment = Alignment::bottom_right();
    if (tag("softcap", 40)) options.softcap = 2;
    if (tag("scale", 30)) options.scale = 0.3;
    if (tag("causal", 40)) options.causal = true;
    if (tag("window", 30)) options.window = {random.between(0, 9), random.between(-1, 9)};
    if (p.batch == 1 && tag("packed", 60)) {
      cu_q = {0, p.q_len / 3, p.q_len}, cu_k = {0, p.kv_len / 2, p.kv_len};
      options.cu_seqlens_q = cu_q, options.cu_seqlens_k = cu_k;
    } else if (tag("segments", 30)) {
      for (std::int64_t i = 0; i < p.batch * p.q_len; ++i) q_ids.push_back(i % p.q_len * 3 / p.q_len);
      for (std::int64_t i = 0; i < p.batch * p.kv_len; ++i) k_ids.push_back(i % p.kv_len * 3 / p.kv_len);
      options.q_segments = {q_ids.data(), {p.batch, p.q_len}},
      options.kv_segments = {k_ids.data(), {p.batch, p.kv_len}};
    } else if (tag("lengths", 30)) {
      for (std::int64_t b = 0; b < p.batch; ++b) lengths.push_back(random.between(0, p.kv_len));
      options.lengths = lengths;
    }
    const std::int64_t pairs = p.batch * p.heads * p.q_len * p.kv_len;
    const std::array<std::int64_t, 4> all{p.batch, p.heads, p.q_len, p.kv_len};
    for (std::int64_t i = 0; i < pairs; ++i) {
      keep.push_back(random.chance(70)), drop.push_back(random.chance(20));
      bias.push_back(static_cast<T>(random.normal()));
    }
    if (tag("keep_mask", 30)) options.keep_mask = View4<const std::uint8_t>(keep.data(), all);
    if (tag("drop_mask", 30)) options.drop_mask = View4<const std::uint8_t>(drop.data(), all);
    if (tag("bias", 30)) options.bias = View4<const T>(bias.data(), all);
    for (std::int64_t h = 0; h < p.heads; ++h)
      slopes.push_back(0.1 * static_cast<double>(h + 1)), sinks.push_back(random.normal());
    if (tag("alibi", 30)) options.alibi_slopes = slopes;
    if (tag("sinks", 30)) options.sinks = sinks;
    table = Values<T>::normal(random, 8 * p.heads, 1).all;
    if (tag("dropout", 30)) options.dropout = {0.3, random.bits(), 5};
    if (tag("relative", 30))
      options.relative_bias = RelativeBias(View<const T, 2>(table.data(), {8, p.heads}), true, 20);
  }
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

TYPED_TEST(ModuleOptions, ReachAttentionUnchangedBits) {
  using T = TypeParam;
  std::map<std::string, int> counts;
  for (std::uint64_t seed = 0; seed < (quick_share() ? 20u : 160u); ++seed) {
    Random random(seed);
    const std::int64_t batch = random.between(1, 2), q_len = random.between(3, 60), kv_len = random.between(3, 140);
    const Passing<T> p(random, batch, q_len, kv_len);
    const RandomOptions<T> o(random, p);
    for (const std::string& tag : o.tags) ++counts[tag];
    const auto size = [](std::int64_t count) { return static_cast<std::size_t>(count); };
    const std::vector<std::int64_t> some_heads{p.heads - 1}, some_rows{2, 0};
    const std::int64_t asked_heads = 1, asked_rows = 2;
    std::vector<T> out(size(p.batch * p.q_len * p.heads * p.value_dim)), wanted = out;
    std::vector<T> lse(size(p.batch * p.heads * p.q_len)), wanted_lse = lse;
    std::vector<T> weights(size(p.batch * asked_heads * asked_rows * p.kv_len)), wanted_weights = weights;
    const auto request = [&](std::vector<T>& to) {
      return WeightsRequest<T>{.point = seed % 3 == 0 ? WeightsPoint::biased : WeightsPoint::normalised,
                               .heads = some_heads,
                               .rows = some_rows,
                               .per_head = {to.data(), {p.batch, asked_heads, asked_rows, p.kv_len}}};
    };
    attention(p.split(p.q.data(), {p.batch, p.heads, p.q_len, p.head_dim}),
              p.split(p.k.data(), {p.batch, p.kv_heads, p.kv_len, p.head_dim}),
              p.split(p.v.data(), {p.batch, p.kv_heads, p.kv_len, p.value_dim}),
              p.split(wanted.data(), {p.batch, p.heads, p.q_len, p.value_dim}),
              View3<T>(wanted_lse.data(), {p.batch, p.heads, p.q_len}), request(wanted_weights), o.options);
    const MultiHeadRequests<T> asked{.lse = {lse.data(), {p.batch, p.heads, p.q_len}}, .weights = request(weights)};
    p.layer(false).forward(
        p.sequence(p.q, p.batch, p.q_len), p.sequence(p.k, p.batch, p.kv_len), p.sequence(p.v, p.batch, p.kv_len),
        View3<T>(out.data(), {p.batch, p.q_len, p.heads * p.value_dim}), {.attention = o.options}, asked);
    EXPECT_TRUE(same_bits(out, wanted)) << seed;
    EXPECT_TRUE(same_bits(lse, wanted_lse)) << seed;
    EXPECT_TRUE(same_bits(weights, wanted_weights)) << seed;
  }
  if (quick_share()) return;
  for (const char* tag : {"softcap", "scale", "causal", "window", "packed", "segments", "lengths", "keep_mask",
                          "drop_mask", "bias", "alibi", "sinks", "relative", "dropout"})
    EXPECT_GE(counts[tag], 20) << tag;
}

TYPED_TEST(ModuleOptions, DropoutWantsNoExtraKeys) {
  using T = TypeParam;
  Random random(1);
  const Passing<T> p(random, 1, 3, 3);
  std::vector<T> out(static_cast<std::size_t>(3 * p.heads * p.value_dim));
  const auto run = [&](bool extras, double probability) {
    MultiHeadOptions options;
    options.attention.dropout.probability = probability;
    p.layer(extras).forward(p.sequence(p.q, 1, 3), p.sequence(p.k, 1, 3), p.sequence(p.v, 1, 3),
                            View3<T>(out.data(), {1, 3, p.heads * p.value_dim}), options, {});
  };
  run(false, 0.5), run(true, 0);
  try {
    run(true, 0.5);
    FAIL() << "dropout over extra keys was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("dropout is given to a layer with extra keys"), std::string::npos);
  }
}

// The extra keys at the end, seen by every row: attention() over all keys at once, its masks padded with "seen" and its
// biases with 0. Equal up to rounding: the layer joins the two parts with merge().
TYPED_TEST(ModuleOptions, ExtraKeysAreKeysOfTheirOwn) {
  using T = TypeParam;
  for (std::uint64_t seed = 0; seed < (quick_share() ? 8u : 40u); ++seed) {
    Random random(seed);
    const std::int64_t batch = random.between(1, 2), q_len = random.between(1, 20), kv_len = random.between(1, 140);
    const Passing<T> p(random, batch, q_len, kv_len);
    const std::int64_t all = p.kv_len + 2, pairs = p.batch * p.heads * p.q_len * all;
    const auto size = [](std::int64_t count) { return static_cast<std::size_t>(count); };
    std::vector<std::uint8_t> keep;
    std::vector<T> bias;
    std::vector<double> sinks;
    for (std::int64_t i = 0; i < pairs; ++i) {
      const bool extra = i % all >= p.kv_len;
      keep.push_back(extra || random.chance(seed % 4 == 0 ? 0 : 60));  // every fourth: no row sees a key of the call
      bias.push_back(extra ? T(0) : static_cast<T>(random.normal()));
    }
    for (std::int64_t h = 0; h < p.heads; ++h) sinks.push_back(random.normal());
    const std::array<std::int64_t, 4> strides{p.heads * p.q_len * all, p.q_len * all, all, 1};
    const auto options = [&](std::int64_t keys) {
      AttentionOptions o{.softcap = seed % 2 ? 3.0 : 0.0};
      const std::array<std::int64_t, 4> extents{p.batch, p.heads, p.q_len, keys};
      o.keep_mask = View4<const std::uint8_t>(keep.data(), extents, strides);
      o.bias = View4<const T>(bias.data(), extents, strides);
      if (seed % 3) o.sinks = sinks;
      return o;
    };
    const auto extended = [&](const std::vector<T>& x, const std::vector<T>& extra, std::int64_t width) {
      std::vector<T> longer;
      for (std::int64_t b = 0; b < p.batch; ++b) {
        longer.insert(longer.end(), x.begin() + b * p.kv_len * width, x.begin() + (b + 1) * p.kv_len * width);
        longer.insert(longer.end(), extra.begin(), extra.end());
        longer.insert(longer.end(), size(width), T(0));
      }
      return longer;
    };
    const std::vector<T> k = extended(p.k, p.bias_k, p.kv_heads * p.head_dim);
    const std::vector<T> v = extended(p.v, p.bias_v, p.kv_heads * p.value_dim);
    std::vector<T> out(size(p.batch * p.q_len * p.heads * p.value_dim)), wanted = out;
    std::vector<T> lse(size(p.batch * p.heads * p.q_len)), wanted_lse = lse;
    std::vector<T> mean(size(p.batch * p.q_len * all)), wanted_mean = mean;
    WeightsRequest<T> weights{.mean = {wanted_mean.data(), {p.batch, p.q_len, all}}};
    attention(p.split(p.q.data(), {p.batch, p.heads, p.q_len, p.head_dim}),
              p.split(k.data(), {p.batch, p.kv_heads, all, p.head_dim}),
              p.split(v.data(), {p.batch, p.kv_heads, all, p.value_dim}),
              p.split(wanted.data(), {p.batch, p.heads, p.q_len, p.value_dim}),
              View3<T>(wanted_lse.data(), {p.batch, p.heads, p.q_len}), weights, options(all));
    weights.mean = {mean.data(), {p.batch, p.q_len, all}};
    const MultiHeadRequests<T> asked{.lse = {lse.data(), {p.batch, p.heads, p.q_len}}, .weights = weights};
    p.layer(true).forward(
        p.sequence(p.q, p.batch, p.q_len), p.sequence(p.k, p.batch, p.kv_len), p.sequence(p.v, p.batch, p.kv_len),
        View3<T>(out.data(), {p.batch, p.q_len, p.heads * p.value_dim}), {.attention = options(p.kv_len)}, asked);
    // Scores here are below 30 in magnitude: a weight may move by that many roundings, twice.
    const double bound = 64 * static_cast<double>(std::numeric_limits<T>::epsilon());
    for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], wanted[i], 4 * bound) << seed;
    for (std::size_t i = 0; i < lse.size(); ++i) EXPECT_NEAR(lse[i], wanted_lse[i], bound) << seed;
    for (std::size_t i = 0; i < mean.size(); ++i) EXPECT_NEAR(mean[i], wanted_mean[i], bound) << seed;
  }
}

// A key that no row sees may hold anything, also where the layer projects, norms and turns it.
TYPED_TEST(ModuleOptions, WhatIsHiddenNeverReachesARow) {
  using T = TypeParam;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    ModuleProblem<T> p(seed + 4000);
    if (p.self || p.kv_len < 2) continue;
    p.lengths.assign(static_cast<std::size_t>(p.batch), p.kv_len - 1);
    p.options.attention.lengths = p.lengths;
    const MultiHeadAttention<T> layer = p.layer();
    ModuleResults<T> wanted, got;
    wanted.run(layer, p, p.options, false);
    for (std::int64_t b = 0; b < p.batch; ++b)
      for (const Sequence<T>* x : {&p.key, &p.value})
        for (std::int64_t c = 0; c < x->view.extent(2); ++c)
          const_cast<T&>(x->view(b, p.kv_len - 1, c)) = c % 2 ? std::numeric_limits<T>::infinity() : T(NAN);
    got.run(layer, p, p.options, false);
    EXPECT_TRUE(same_bits(got.output, wanted.output)) << p.describe();
  }
}

// Nothing at all, in every place where that is legal.
TEST(ModuleOptionsOfOne, NothingIsLegal) {
  const std::vector<float> x(300, 0.5f);
  const auto weight = [&](std::int64_t in, std::int64_t out) { return MatrixView<const float>(x.data(), {in, out}); };
  const MultiHeadAttention<float> layer(
      {.heads = 4, .kv_heads = 2, .order = WeightOrder::in_out, .add_zero_attn = true},
      {.q = weight(7, 12), .k = weight(8, 6), .v = weight(9, 10), .out = weight(20, 11)});
  std::vector<float> out(33, 77);
  EXPECT_NO_THROW(
      layer.forward({nullptr, {0, 3, 7}}, {nullptr, {0, 4, 8}}, {nullptr, {0, 4, 9}}, {nullptr, {0, 3, 11}}));
  EXPECT_NO_THROW(
      layer.forward({nullptr, {1, 0, 7}}, {x.data(), {1, 4, 8}}, {x.data(), {1, 4, 9}}, {nullptr, {1, 0, 11}}));
  EXPECT_NO_THROW(
      layer.forward({x.data(), {1, 3, 7}}, {nullptr, {1, 0, 8}}, {nullptr, {1, 0, 9}}, {out.data(), {1, 3, 11}}));
  EXPECT_EQ(out, std::vector<float>(33, 0)) << "no key but the zero one";
}

}  // namespace
}  // namespace multihead::testing
