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
  Causal causal;
  std::vector<std::int64_t> lengths;
  double input_scale;
  std::uint64_t fma, baseline;  // avx2, avx512 and neon; baseline
};

const Golden kGolden[] = {
#include "golden.inc"
};
constexpr std::uint64_t kLayerF32Fma = 0xeff42a5735a65d9a, kLayerF32Baseline = 0x786e01448084f73c;
constexpr std::uint64_t kLayerF64Fma = 0x600252aa0c1ec5a4, kLayerF64Baseline = 0x26c3708e7fceedce;

template <class T>
std::uint64_t run(const Golden& golden, Target target) {
  const AttentionShape& s = golden.shape;
  Tensor<T> q({s.batch, s.heads, s.q_len, s.head_dim}), k({s.batch, s.kv_heads, s.kv_len, s.head_dim}),
      v({s.batch, s.kv_heads, s.kv_len, s.value_dim}), out({s.batch, s.heads, s.q_len, s.value_dim});
  Random random(2026);
  for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random, golden.input_scale);
  std::vector<T> lse(static_cast<std::size_t>(s.batch * s.heads * s.q_len));
  const View3<T> lse_view(lse.data(), {s.batch, s.heads, s.q_len});
  attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, lse_view,
            {.causal = golden.causal, .lengths = golden.lengths, .target = target});
  return hash_bits<T>(lse_view, hash_bits<T>(out.view));
}

TEST(Golden, AttentionHasTheseBits) {
  for (const Golden& golden : kGolden)
    for (Target target : available_targets()) {
      const std::uint64_t wanted = target == Target::baseline ? golden.baseline : golden.fma;
      const std::uint64_t got =
          golden.shape.type == Type::float32 ? run<float>(golden, target) : run<double>(golden, target);
      EXPECT_EQ(got, wanted) << golden.name << " on " << target_name(target) << ": 0x" << std::hex << got;
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
    EXPECT_EQ(f32, baseline ? kLayerF32Baseline : kLayerF32Fma) << target_name(target) << ": 0x" << std::hex << f32;
    EXPECT_EQ(f64, baseline ? kLayerF64Baseline : kLayerF64Fma) << target_name(target) << ": 0x" << std::hex << f64;
  }
}

}  // namespace
}  // namespace multihead::testing
