// SPDX-License-Identifier: Apache-2.0
// The bits themselves: hashes of fixed problems, the same from every compiler and on every target of a family. A hash
// here changes only with a decision to change the library's results, and then in CHANGELOG.md too.
#include <gtest/gtest.h>

#include "multihead/multihead.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

struct Golden {
  const char* name;
  AttentionShape shape;
  bool causal;
  Alignment alignment;
  std::vector<std::int64_t> lengths;
  double input_scale;
  std::uint64_t fma, baseline;  // avx2, avx512 and neon; baseline
  unsigned extras = 0;          // of Extra
};

enum Extra : unsigned {
  kWindow = 1,
  kPacked = 2,
  kSegments = 4,
  kPrefixes = 8,
  kMasks = 16,
  kBias = 32,
  kAlibi = 64,
  kRelative = 128,
  kSoftcap = 256,
  kSinks = 512
};

const Golden kGolden[] = {
#include "golden.inc"
};
// Of targets that multiply pairs or tiles.
struct OwnBits {
  const char* name;
  Target target;
  std::uint64_t bits;
};
constexpr OwnBits kOwnBits[] = {
    {"plain bf16", Target::avx512bf16, 0x49c74747c0e745f9},
    {"bias, softcap bf16", Target::avx512bf16, 0x9838aeb2d7d28828},
    {"everything bf16", Target::avx512bf16, 0x92f161ad465047a0},
#include "golden_amx.inc"
};

std::uint64_t bits_wanted(const Golden& golden, Target target) {
  if (target == Target::baseline) return golden.baseline;
  if (!has_own_bits(target, golden.shape.type)) return golden.fma;
  for (const OwnBits& of : kOwnBits)
    if (std::string(of.name) == golden.name && of.target == target) return of.bits;
  return 0;
}

constexpr std::uint64_t kLayerF32Fma = 0xeff42a5735a65d9a, kLayerF32Baseline = 0x786e01448084f73c;
constexpr std::uint64_t kLayerF32Amx = 0x4e9cbe3a7d3a5999;
constexpr std::uint64_t kLayerF64Fma = 0x600252aa0c1ec5a4, kLayerF64Baseline = 0x26c3708e7fceedce;

constexpr std::uint64_t kLinearF32Fma = 0xfdd4c60df53bd334, kLinearF32Baseline = 0xc426c2ba8715f85b;
constexpr std::uint64_t kLinearF64Fma = 0x76da94681614a9cf, kLinearF64Baseline = 0x268fe230a06ece67;

// What the extras point to: fixed patterns over (heads, q_len, kv_len) and by head.
struct Patterns {
  std::vector<std::int64_t> prefixes, starts, ids;
  std::vector<std::uint8_t> keep, drop;
  std::vector<BFloat16> bias;
  std::vector<float> table;
  std::vector<double> slopes, sinks;

  explicit Patterns(const AttentionShape& s) : prefixes(static_cast<std::size_t>(s.batch), 9) {
    starts = {0, s.q_len / 3, s.q_len / 3, s.q_len};
    for (std::int64_t i = 0; i < s.batch * s.q_len; ++i) ids.push_back(i % s.q_len < s.q_len / 2 ? 4 : 2);
    Random random(5);
    for (std::int64_t i = 0; i < s.q_len * s.kv_len; ++i) {
      keep.push_back(random.chance(80)), drop.push_back(random.chance(10));
      bias.push_back(random.chance(5) ? BFloat16(-std::numeric_limits<float>::infinity())
                                      : BFloat16(static_cast<float>(random.normal())));
    }
    for (std::int64_t i = 0; i < 32 * s.heads; ++i) table.push_back(static_cast<float>(random.normal()));
    for (std::int64_t h = 0; h < s.heads; ++h)
      slopes.push_back(1 / static_cast<double>(h + 3)), sinks.push_back(static_cast<double>(h) - 1);
  }
  AttentionOptions options(const Golden& golden) const {
    const AttentionShape& s = golden.shape;
    const auto has = [&](Extra extra) { return (golden.extras & extra) != 0; };
    AttentionOptions options{.causal = golden.causal, .alignment = golden.alignment, .lengths = golden.lengths};
    if (has(kWindow)) options.window = {40, 3};
    if (has(kPacked)) options.cu_seqlens_q = options.cu_seqlens_k = starts;
    if (has(kSegments)) options.q_segments = options.kv_segments = {ids.data(), {s.batch, s.q_len}};
    if (has(kPrefixes)) options.prefixes = prefixes;
    if (has(kMasks)) options.keep_mask = MatrixView<const std::uint8_t>(keep.data(), {s.q_len, s.kv_len});
    if (has(kMasks)) options.drop_mask = MatrixView<const std::uint8_t>(drop.data(), {s.q_len, s.kv_len});
    if (has(kBias)) options.bias = MatrixView<const BFloat16>(bias.data(), {s.q_len, s.kv_len});
    if (has(kAlibi)) options.alibi_slopes = slopes;
    if (has(kRelative)) options.relative_bias = {MatrixView<const float>(table.data(), {32, s.heads}), true, 100};
    if (has(kSoftcap)) options.softcap = 3;
    if (has(kSinks)) options.sinks = sinks;
    return options;
  }
};

template <class T>
std::uint64_t run(const Golden& golden, Target target) {
  const AttentionShape& s = golden.shape;
  Tensor<T> q({s.batch, s.heads, s.q_len, s.head_dim}), k({s.batch, s.kv_heads, s.kv_len, s.head_dim}),
      v({s.batch, s.kv_heads, s.kv_len, s.value_dim}), out({s.batch, s.heads, s.q_len, s.value_dim});
  Random random(2026);
  for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random, golden.input_scale);
  std::vector<Sum<T>> lse(static_cast<std::size_t>(s.batch * s.heads * s.q_len));
  const View3<Sum<T>> lse_view(lse.data(), {s.batch, s.heads, s.q_len});
  const Patterns patterns(s);
  AttentionOptions options = patterns.options(golden);
  options.target = target;
  attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, lse_view, options);
  return hash_bits(lse_view, hash_bits(out.view));
}

std::uint64_t run(const Golden& golden, Target target) {
  switch (golden.shape.type) {
    case Type::float32:
      return run<float>(golden, target);
    case Type::float64:
      return run<double>(golden, target);
    case Type::bfloat16:
      return run<BFloat16>(golden, target);
    case Type::float16:
      return run<Float16>(golden, target);
  }
  return 0;
}

TEST(Golden, AttentionHasTheseBits) {
  for (const Golden& golden : kGolden)
    for (Target target : available_targets()) {
      const std::uint64_t got = run(golden, target);
      EXPECT_EQ(got, bits_wanted(golden, target))
          << golden.name << " on " << target_name(target) << ": 0x" << std::hex << got;
    }
}

// The layer: projections of several inner blocks, heads, output projection.
template <class T>
std::uint64_t run_layer(Target target) {
  Random random(17);
  const auto normal = [&](std::int64_t rows, std::int64_t columns) {
    Matrix<T> matrix(rows, columns);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j) matrix(i, j) = static_cast<T>(random.normal() / 16);
    return matrix;
  };
  const Matrix<T> X = normal(70, 530), Wq = normal(530, 60), Wk = normal(530, 60), Wv = normal(530, 36);
  const Matrix<T> Wo = normal(36, 50);
  const Matrix<T> output = multi_head_attention(X, Wq, Wk, Wv, Wo, 3, {.target = target});
  return hash_bits<const T>(MatrixView<const T>(output));
}

TEST(Golden, MultiHeadAttentionHasTheseBits) {
  for (Target target : available_targets()) {
    const bool baseline = target == Target::baseline;
    const std::uint64_t f32 = run_layer<float>(target), f64 = run_layer<double>(target);
    const std::uint64_t of_family = target == Target::amx ? kLayerF32Amx : kLayerF32Fma;
    EXPECT_EQ(f32, baseline ? kLayerF32Baseline : of_family) << target_name(target) << ": 0x" << std::hex << f32;
    EXPECT_EQ(f64, baseline ? kLayerF64Baseline : kLayerF64Fma) << target_name(target) << ": 0x" << std::hex << f64;
  }
}

// What stands around attention: a product with each activation, each followed by a norm of its sum with a residual.
template <class T>
std::uint64_t run_linear(Target target) {
  Random random(18);
  const auto normal = [&](std::int64_t rows, std::int64_t columns, double scale) {
    Matrix<T> matrix(rows, columns);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j) matrix(i, j) = static_cast<T>(random.normal() * scale);
    return matrix;
  };
  const Matrix<T> x = normal(70, 530, 1), W = normal(530, 53, 0.05), vectors = normal(3, 53, 1);
  const Matrix<T> residual = normal(70, 53, 1);
  const auto vector = [&](std::int64_t row) { return std::span<const T>(&vectors(row, 0), 53); };
  const Linear<T> linear(W, WeightOrder::in_out, vector(0));
  std::uint64_t hash = 0xCBF29CE484222325u;
  Matrix<T> y(70, 53);
  for (Activation activation :
       {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh, Activation::silu}) {
    linear.forward(x, y, activation, {.target = target});
    hash = hash_bits<const T>(MatrixView<const T>(y), hash);
    const MatrixView<const T> before = y;
    row_norm(before, residual, {{HeadNorm::Kind::layer, 1e-12}, vector(1), vector(2)}, y, {.target = target});
    hash = hash_bits<const T>(MatrixView<const T>(y), hash);
    row_norm(before, {}, {{HeadNorm::Kind::rms_plus_1, 1e-6}, vector(1)}, y, {.target = target});
    hash = hash_bits<const T>(MatrixView<const T>(y), hash);
  }
  return hash;
}

TEST(Golden, LinearAndRowNormHaveTheseBits) {
  for (Target target : available_targets()) {
    const bool baseline = target == Target::baseline;
    const std::uint64_t f32 = run_linear<float>(target), f64 = run_linear<double>(target);
    EXPECT_EQ(f32, baseline ? kLinearF32Baseline : kLinearF32Fma) << target_name(target) << ": 0x" << std::hex << f32;
    EXPECT_EQ(f64, baseline ? kLinearF64Baseline : kLinearF64Fma) << target_name(target) << ": 0x" << std::hex << f64;
  }
}

}  // namespace
}  // namespace multihead::testing
