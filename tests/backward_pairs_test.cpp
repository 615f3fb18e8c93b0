// SPDX-License-Identifier: Apache-2.0
// Gradients of bfloat16 where products are those of pairs or tiles (docs/kernels_passes.md): what rounding the factors
// moves, and that an element's partners in a pair or tile, hidden or missing, are nobody's business.
#include <gtest/gtest.h>

#include <functional>

#include "backward_oracle.hpp"

namespace multihead::testing {
namespace {

using T = BFloat16;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

std::vector<Target> targets() {
  std::vector<Target> found;
  for (Target target : available_targets())
    if (rounds_factors(target, Type::bfloat16)) found.push_back(target);
  return found;
}

// skips where no target of this machine, or of this program, multiplies pairs
class BackwardPairs : public ::testing::Test {
 protected:
  void SetUp() override {
    if (targets().empty()) GTEST_SKIP() << "no target multiplies pairs here";
  }
};

Problem problem(std::int64_t q_len, std::int64_t kv_len, std::int64_t head_dim, std::int64_t value_dim) {
  Problem p;
  p.shape = {Type::bfloat16, 1, 2, 1, q_len, kv_len, head_dim, value_dim};
  p.seed = 3;  // with d_lse
  return p;
}

struct Solution : Gradients<T> {
  Solution(const Pass<T>& pass, const AttentionOptions& options) : Gradients<T>(pass.p, {}) {
    attention_backward(pass.forward(), asked(), options);
  }
};

std::uint64_t row_bits(const Tensor<T>& of, std::int64_t h, std::int64_t i) {
  return hash_bits(View<T, 1>(&of.view(0, h, i, 0), {of.view.extent(3)}));
}

double share_of_rms(Tensor<T>& got, Tensor<double>& wanted) {
  std::vector<double> found;
  got.each([&](T& x) { found.push_back(static_cast<double>(widen(x))); });
  double errors = 0, squares = 0;
  std::size_t n = 0;
  wanted.each([&](double& x) { errors += (found[n] - x) * (found[n] - x), squares += x * x, ++n; });
  return std::sqrt(errors / squares);
}

// Root of the mean square of the errors as a share of that of the gradient. Storage alone gives 1.7e-3, and a factor's
// rounding as much again where a sum's terms are of either sign: together 2.3e-3. docs/numerics.md has what is
// measured.
TEST_F(BackwardPairs, RoundingFactorsCostsWhatStorageCosts) {
  for (Target target : targets())
    for (std::int64_t width : {64, 128})
      for (double scale : {1.0, 3.0})
        for (bool causal : {false, true}) {
          Problem p = problem(300, 300, width, width);
          p.plain.causal = causal, p.input_scale = scale, p.seed = 2;
          Pass<T> pass(p);
          AttentionOptions options = p.options();
          options.target = target;
          pass.attend(options);
          Truth<T> truth(pass, options, {});
          Solution got(pass, options);
          const std::array<double, 3> errors{share_of_rms(got.q, truth.value.q), share_of_rms(got.k, truth.value.k),
                                             share_of_rms(got.v, truth.value.v)};
          for (std::size_t i = 0; i < 3; ++i) {
            const std::string name = std::string(target_name(target)) + "_" + std::to_string(width) + "_scale_" +
                                     std::to_string(static_cast<int>(scale)) + (causal ? "_causal_" : "_") + "qkv"[i];
            RecordProperty(name, std::to_string(errors[i]));
            EXPECT_LE(errors[i], 3e-3) << name;
            EXPECT_GE(errors[i], 1e-3) << name;
          }
        }
}

// The sum of an element as it is defined on target amx: in each block by 32, the even elements a chain and the odd ones
// another, their sum added; and on avx512bf16: a chain a block, pairs from its first element on, the odd one first.
// Blocks ascending. factor(i), x(i): what is multiplied.
template <class Factor, class X>
float sum_of_tiles(std::int64_t count, std::int64_t block, const Factor& factor, const X& x) {
  float sum = 0;
  for (std::int64_t begin = 0; begin < count; begin += block)
    for (std::int64_t end = std::min(begin + block, count), step = begin; step < end; step += 32) {
      float chains[2] = {0, 0};
      for (std::int64_t i = step; i < std::min(step + 32, end); ++i)
        chains[i % 2] = std::fma(factor(i), x(i), chains[i % 2]);
      sum += chains[0] + chains[1];
    }
  return sum;
}
template <class Factor, class X>
float sum_in_order(Target target, std::int64_t count, std::int64_t block, const Factor& factor, const X& x) {
  if (target == Target::amx) return sum_of_tiles(count, block, factor, x);
  float sum = 0;
  for (std::int64_t begin = 0; begin < count; begin += block) {
    const std::int64_t end = std::min(begin + block, count);
    float chain = 0;
    for (std::int64_t i = begin; i < end; i += 2) {
      if (i + 1 < end) chain = std::fma(factor(i + 1), x(i + 1), chain);
      chain = std::fma(factor(i), x(i), chain);
    }
    sum += chain;
  }
  return sum;
}

// Large numbers that meet their negatives from the other end, so that the order of a sum shows.
void fill_cancelling(Tensor<T>& tensor, Random& random) {
  const std::int64_t rows = tensor.view.extent(2);
  for (std::int64_t c = 0; c < tensor.view.extent(3); ++c) {
    for (std::int64_t i = 0; i < rows; ++i) tensor.view(0, 0, i, c) = T(static_cast<float>(random.normal()));
    for (std::int64_t i = 0; i < rows - 1 - i; i += 4) {
      const T large(static_cast<float>(random.normal() * 65536));
      tensor.view(0, 0, i, c) = large, tensor.view(0, 0, rows - 1 - i, c) = T(-widen(large));
    }
  }
}

void expect_elements(Tensor<T>& got, const char* name, const std::function<float(std::int64_t, std::int64_t)>& wanted) {
  for (std::int64_t i = 0; i < got.view.extent(2); ++i)
    for (std::int64_t c = 0; c < got.view.extent(3); ++c)
      ASSERT_EQ(widen(got.view(0, 0, i, c)), widen(T(wanted(i, c)))) << name << " " << i << " " << c;
}

// Queries, or keys, and values of zeros: every weight is 1/256 to 22 digits, dS is that times the gradient of lse.
TEST_F(BackwardPairs, AnElementIsItsChain) {
  constexpr std::int64_t kRows = 99, kKeys = 256;
  for (Target target : targets())
    for (bool no_queries : {true, false}) {
      Problem p = problem(kRows, kKeys, 21, 19);
      p.shape.heads = p.shape.kv_heads = 1, p.plain.scale = 1;
      AttentionOptions options = p.options();
      options.target = target;
      Pass<T> pass(p);
      Random random(5);
      (no_queries ? pass.q : pass.k).each([](T& x) { x = T(0); });
      pass.v.each([](T& x) { x = T(0); });
      fill_cancelling(no_queries ? pass.k : pass.q, random), fill_cancelling(pass.d_out, random);
      for (float& x : pass.d_lse) x = widen(T(x));
      pass.attend(options);
      Solution got(pass, options);
      const auto dx = [&](std::int64_t row) { return pass.d_lse[static_cast<std::size_t>(row)] / kKeys; };
      expect_elements(got.v, "v", [&](std::int64_t, std::int64_t c) {
        return sum_in_order(
            target, kRows, 48, [](std::int64_t) { return 1.0f / kKeys; },
            [&](std::int64_t i) { return widen(pass.d_out.view(0, 0, i, c)); });
      });
      expect_elements(got.k, "k", [&](std::int64_t, std::int64_t c) {
        return sum_in_order(target, kRows, 48, dx, [&](std::int64_t i) { return widen(pass.q.view(0, 0, i, c)); });
      });
      expect_elements(got.q, "q", [&](std::int64_t row, std::int64_t c) {
        return sum_in_order(
            target, kKeys, 128, [&](std::int64_t) { return dx(row); },
            [&](std::int64_t j) { return widen(pass.k.view(0, 0, j, c)); });
      });
    }
}

// One key of each place is NaN or infinite, in a band of odd width: rows that do not see it keep their bits, keys that
// no row sees beside it too.
TEST_F(BackwardPairs, AHiddenPartnerOfAKeyChangesNoBit) {
  for (Target target : targets())
    for (const auto& [head_dim, value_dim] : {std::pair{5, 16}, {16, 7}}) {
      Problem p = problem(53, 53, head_dim, value_dim);
      constexpr std::int64_t kBand = 4;
      p.plain.causal = true, p.plain.window.left = kBand;
      AttentionOptions options = p.options();
      options.target = target;
      Pass<T> pass(p);
      pass.attend(options);
      Solution clean(pass, options);
      for (std::int64_t j = 0; j < 53; ++j) {
        Pass<T> bad(p);
        for (std::int64_t c = 0; c < head_dim; ++c) bad.k.view(0, 0, j, c) = T(j % 2 ? kInf : kNaN);
        bad.attend(options);
        Solution got(bad, options);
        for (std::int64_t i = 0; i < 53; ++i) {
          for (std::int64_t h = 0; h < 2; ++h) {
            if (i < j || i > j + kBand)
              EXPECT_EQ(row_bits(got.q, h, i), row_bits(clean.q, h, i)) << j << " " << i;
            else
              EXPECT_TRUE(std::isnan(widen(got.q.view(0, h, i, 0)))) << j << " " << i;
          }
          if (i >= j - kBand && i <= j + kBand) continue;
          EXPECT_EQ(row_bits(got.k, 0, i), row_bits(clean.k, 0, i)) << j << " " << i;
          EXPECT_EQ(row_bits(got.v, 0, i), row_bits(clean.v, 0, i)) << j << " " << i;
        }
      }
    }
}

// The same of rows: their queries, and what comes from above.
TEST_F(BackwardPairs, AHiddenPartnerOfARowChangesNoBit) {
  for (Target target : targets())
    for (bool above : {false, true}) {
      Problem p = problem(51, 140, 7, 9);
      constexpr std::int64_t kBand = 4;
      p.plain.causal = true, p.plain.alignment = Alignment::top_left(), p.plain.window.left = kBand;
      AttentionOptions options = p.options();
      options.target = target;
      Pass<T> pass(p);
      pass.attend(options);
      Solution clean(pass, options);
      for (std::int64_t i = 0; i < 51; ++i) {
        Pass<T> bad(p);
        Tensor<T>& tensor = above ? bad.d_out : bad.q;
        for (std::int64_t c = 0; c < tensor.view.extent(3); ++c) tensor.view(0, 1, i, c) = T(i % 2 ? kInf : kNaN);
        bad.attend(options);
        Solution got(bad, options);
        for (std::int64_t row = 0; row < 51; ++row)
          for (std::int64_t h = 0; h < 2; ++h) {
            if (row == i && h == 1) continue;
            EXPECT_EQ(row_bits(got.q, h, row), row_bits(clean.q, h, row)) << i << " " << row;
          }
        for (std::int64_t j = 0; j < 140; ++j) {
          if (j >= i - kBand && j <= i) {
            EXPECT_FALSE(std::isfinite(widen(got.k.view(0, 0, j, 0)))) << i << " " << j;
            continue;
          }
          EXPECT_EQ(row_bits(got.k, 0, j), row_bits(clean.k, 0, j)) << i << " " << j;
          EXPECT_EQ(row_bits(got.v, 0, j), row_bits(clean.v, 0, j)) << i << " " << j;
        }
      }
    }
}

// Keys that no row sees stand beside the first and the last that all see: their partners in a pair, and not finite.
// Hidden by the sequence's length, by a mask, by a window of one row, in which nothing else is hidden, and by a bias of
// an odd number of rows, which the lane after them does not have: of values alone, since keys that are not finite are
// multiplied with care.
TEST_F(BackwardPairs, APartnerThatNoRowSeesChangesNoBit) {
  for (Target target : targets())
    for (int way = 0; way < 4; ++way) {
      Problem p = problem(way < 2 ? 48 : way == 2 ? 1 : 47, 6, 6, 6);
      std::vector<bool> seen{true, true, true, false, false, false};
      if (way == 0) p.lengths = {3};
      if (way == 1) {
        seen = {false, true, true, false, true, false};
        p.keep_mask.rank = 1, p.keep_mask.extents = {1, 1, 1, 6}, p.keep_mask.strides = {0, 0, 0, 1};
        for (bool keeps : seen) p.keep_mask.values.push_back(keeps), p.keep_mask.stored.push_back(std::byte{keeps});
      }
      if (way == 2) {
        seen = {false, true, true, false, false, false};
        p.plain.causal = true, p.plain.alignment = Alignment::at(2), p.plain.window.left = 1;
      }
      AttentionOptions options = p.options();
      options.target = target;
      std::vector<float> bias;
      for (int i = 0; i < 47 * 6; ++i) bias.push_back(i % 6 < 3 ? 0.5f : -kInf);
      if (way == 3) options.bias = Bias(View4<const float>(bias.data(), {1, 1, 47, 6}));
      Pass<T> pass(p), bad(p);
      for (std::int64_t j = 0; j < 6; ++j)
        for (std::int64_t c = 0; c < 6 && !seen[static_cast<std::size_t>(j)]; ++c)
          bad.k.view(0, 0, j, c) = T(way == 3 ? 1 : kNaN), bad.v.view(0, 0, j, c) = T(-kInf);
      pass.attend(options), bad.attend(options);
      EXPECT_EQ(Solution(bad, options).bits(), Solution(pass, options).bits()) << way;
    }
}

// Sequences packed one behind another, at odd places, have the bits that each has alone.
TEST_F(BackwardPairs, APlaceInAPackedCallChangesNoBit) {
  const std::vector<std::int64_t> ends{0, 37, 138, 139, 201};
  for (Target target : targets())
    for (std::int64_t width : {8, 13}) {
      Problem p = problem(201, 201, width, width + 4);
      p.plain.causal = true, p.cu_seqlens_q = ends, p.cu_seqlens_k = ends;
      AttentionOptions options = p.options();
      options.target = target;
      Pass<T> pass(p);
      pass.attend(options);
      Solution packed(pass, options);
      for (std::size_t s = 0; s + 1 < ends.size(); ++s) {
        const std::int64_t begin = ends[s], length = ends[s + 1] - begin;
        Problem one = problem(length, length, width, width + 4);
        one.plain.causal = true;
        AttentionOptions alone_options = one.options();
        alone_options.target = target;
        Pass<T> alone(one);
        const auto copy = [&](Tensor<T>& from, Tensor<T>& to) {
          for (std::int64_t h = 0; h < to.view.extent(1); ++h)
            for (std::int64_t i = 0; i < length; ++i)
              for (std::int64_t c = 0; c < to.view.extent(3); ++c) to.view(0, h, i, c) = from.view(0, h, begin + i, c);
        };
        copy(pass.q, alone.q), copy(pass.k, alone.k), copy(pass.v, alone.v), copy(pass.d_out, alone.d_out);
        for (std::int64_t h = 0; h < 2; ++h)
          for (std::int64_t i = 0; i < length; ++i)
            alone.d_lse[static_cast<std::size_t>(h * length + i)] =
                pass.d_lse[static_cast<std::size_t>(h * 201 + begin + i)];
        alone.attend(alone_options);
        Solution got(alone, alone_options);
        for (std::int64_t i = 0; i < length; ++i) {
          for (std::int64_t h = 0; h < 2; ++h)
            EXPECT_EQ(row_bits(got.q, h, i), row_bits(packed.q, h, begin + i)) << s << " " << i;
          EXPECT_EQ(row_bits(got.k, 0, i), row_bits(packed.k, 0, begin + i)) << s << " " << i;
          EXPECT_EQ(row_bits(got.v, 0, i), row_bits(packed.v, 0, begin + i)) << s << " " << i;
        }
      }
    }
}

// Threads, and what stands in the scratch, which has the size that is asked for.
TEST_F(BackwardPairs, ThreadsAndWhatScratchHoldsChangeNoBit) {
  for (Target target : targets())
    for (const auto& [q_len, head_dim, value_dim] : {std::array{131, 37, 53}, {97, 64, 16}, {33, 15, 100}}) {
      Problem p = problem(q_len, 203, head_dim, value_dim);
      p.plain.causal = true, p.plain.alignment = Alignment::bottom_right(), p.plain.window.left = 150;
      AttentionOptions options = p.options();
      options.target = target;
      Pass<T> pass(p);
      pass.attend(options);
      const std::uint64_t one = Solution(pass, options).bits();
      for (int threads : {1, 3}) {
        options.threads = threads;
        const std::size_t bytes = attention_backward_scratch_bytes(p.shape, options);
        std::vector<std::byte> memory(bytes, std::byte{0xFF});  // numbers that are none
        options.scratch = memory;
        EXPECT_EQ(Solution(pass, options).bits(), one) << q_len << " with " << threads << " threads";
        options.scratch = {};
      }
    }
}

// Each gradient alone has the bits that it has among all: that of v takes products of its own.
TEST_F(BackwardPairs, WhatElseIsAskedForChangesNoBit) {
  for (Target target : targets()) {
    Problem p = problem(113, 203, 40, 72);
    p.plain.causal = true, p.plain.alignment = Alignment::bottom_right();
    AttentionOptions options = p.options();
    options.target = target;
    Pass<T> pass(p);
    pass.attend(options);
    Solution all(pass, options);
    Gradients<T> alone(p, {});
    const AttentionGradients<T> asked = alone.asked();
    AttentionGradients<T> q, k, v, scale;
    q.q = asked.q, k.k = asked.k, v.v = asked.v, scale.scale = asked.scale;
    for (const auto* one : {&q, &k, &v, &scale}) attention_backward(pass.forward(), *one, options);
    EXPECT_EQ(alone.bits(), all.bits()) << target_name(target);
  }
}

// A window, and the mask that says the same: where products are those of tiles the one goes 16 keys at a time, the
// other product by product.
TEST_F(BackwardPairs, AMaskHasTheBitsOfTheRangeThatSaysTheSame) {
  for (Target target : targets())
    for (const auto& [q_len, kv_len, left, right] :
         {std::array{1, 1, 0, 0}, {17, 33, 8, 3}, {48, 128, 127, 127}, {113, 203, 40, 0}, {100, 300, 70, 90}}) {
      Problem p = problem(q_len, kv_len, 40, 72);
      AttentionOptions ranges = p.options(), masked = ranges;
      ranges.target = masked.target = target;
      ranges.window.left = left, ranges.window.right = right, ranges.alignment = Alignment::top_left();
      std::vector<std::uint8_t> keep;
      for (std::int64_t i = 0; i < q_len; ++i)
        for (std::int64_t j = 0; j < kv_len; ++j) keep.push_back(j >= i - left && j <= i + right);
      masked.keep_mask = Mask(View4<const std::uint8_t>(keep.data(), {1, 1, q_len, kv_len}));
      Pass<T> pass(p);
      pass.attend(ranges);
      EXPECT_EQ(Solution(pass, masked).bits(), Solution(pass, ranges).bits()) << q_len << " " << kv_len;
    }
}

// Keys and rows that some tile holds and nobody sees, in every place of it.
TEST_F(BackwardPairs, WhatStandsBesideASequenceChangesNoBit) {
  for (Target target : targets())
    for (std::int64_t length : {1, 15, 16, 17, 31, 32, 33, 47, 48, 49}) {
      const std::int64_t all = length + 140;
      Problem p = problem(length, all, 18, 34);
      p.lengths = {length};
      AttentionOptions options = p.options();
      options.target = target;
      Pass<T> pass(p), bad(p);
      for (std::int64_t j = length; j < all; ++j) {
        for (std::int64_t c = 0; c < 18; ++c) bad.k.view(0, 0, j, c) = T(j % 2 ? kNaN : kInf);
        for (std::int64_t c = 0; c < 34; ++c) bad.v.view(0, 0, j, c) = T(j % 2 ? -kInf : kNaN);
      }
      pass.attend(options), bad.attend(options);
      EXPECT_EQ(Solution(bad, options).bits(), Solution(pass, options).bits()) << length;
    }
}

}  // namespace
}  // namespace multihead::testing
