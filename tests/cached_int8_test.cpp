// SPDX-License-Identifier: Apache-2.0
// Attention over keys and values that are cached as int8: the same bits for any schedule and target, and what the
// quantisation costs.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "cached_pages.hpp"

namespace multihead::testing {
namespace {

struct Extents {
  std::int64_t heads, kv_heads, head_dim, length;
  bool outliers = false;
};

Extents drawn_extents(Random& random) {
  return {.heads = 8,
          .kv_heads = random.pick({1, 2, 8}),
          .head_dim = random.pick({16, 33, 64}),
          .length = random.between(150, 400)};
}

// One sequence of keys and values, quantised, and queries for all of its positions.
template <class T>
struct Quantised {
  Random random;
  Extents extents;
  std::int64_t heads, kv_heads, head_dim, value_dim, length;
  Tensor<T> q;
  Tensor<double> k, v;            // as they were
  Tensor<double> k_held, v_held;  // as they are held
  CachedPages pages;
  double k_step = 0, v_step = 0;  // the largest scales

  Quantised(std::uint64_t seed, bool by_channel, std::optional<Extents> given = {})
      : random(seed),
        extents(given ? *given : drawn_extents(random)),
        heads(extents.heads),
        kv_heads(extents.kv_heads),
        head_dim(extents.head_dim),
        value_dim(given ? extents.head_dim : random.pick({16, 40})),
        length(extents.length),
        q({1, heads, length, head_dim}),
        k({1, kv_heads, length, head_dim}),
        v({1, kv_heads, length, value_dim}),
        k_held({1, kv_heads, length, head_dim}),
        v_held({1, kv_heads, length, value_dim}),
        pages(layout(by_channel), 3 * length / 32, random) {
    q.each([&](T& x) { x = static_cast<T>(static_cast<float>(random.normal())); });
    k.fill_normal(random), v.fill_normal(random);
    for (std::int64_t p = 0; extents.outliers && p < length; ++p)
      for (std::int64_t c : {1, 9}) {
        for (std::int64_t h = 0; h < kv_heads; ++h) k.view(0, h, p, c) *= 16;
        for (std::int64_t h = 0; h < heads; ++h)
          q.view(0, h, p, c) = static_cast<T>(static_cast<float>(widen(q.view(0, h, p, c))) / 16);
      }
    pages.add(length);
    for (std::int64_t h = 0; h < kv_heads; ++h) {
      if (by_channel) find_channels(h);
      for (std::int64_t p = 0; p < length; ++p) write(h, p);
    }
  }

  PageLayout layout(bool by_channel) {
    return {.element = CachedRows::Element::int8,
            .blocked = true,
            .by_channel = by_channel,
            .page_len = random.pick({32, 64, 160}),
            .kv_heads = kv_heads,
            .head_dim = head_dim,
            .value_dim = value_dim};
  }

  void find_channels(std::int64_t h) {
    for (const auto& [from, list, dim] :
         {std::tuple{&k, &pages.k_channels, head_dim}, {&v, &pages.v_channels, value_dim}})
      for (std::int64_t c = 0; c < dim; ++c) {
        double largest = 0;
        for (std::int64_t p = 0; p < length; ++p) largest = std::max(largest, std::fabs(from->view(0, h, p, c)));
        (*list)[static_cast<std::size_t>(h * dim + c)] = static_cast<float>(largest / 127);
      }
  }

  void write(std::int64_t h, std::int64_t p) {
    std::vector<float> keys, values;
    for (std::int64_t c = 0; c < head_dim; ++c) keys.push_back(static_cast<float>(k.view(0, h, p, c)));
    for (std::int64_t c = 0; c < value_dim; ++c) values.push_back(static_cast<float>(v.view(0, h, p, c)));
    const auto largest = [](const std::vector<float>& x) {
      float most = 0;
      for (float each : x) most = std::max(most, std::fabs(each));
      return most;
    };
    pages.write_scales(0, h, p, largest(keys) / 127, largest(values) / 127);
    pages.write(0, h, p, keys.data(), values.data());
    const auto held = [](float x, float scale) {
      return static_cast<double>(std::clamp(std::nearbyint(x / scale), -127.0f, 127.0f)) * static_cast<double>(scale);
    };
    for (std::int64_t c = 0; c < head_dim; ++c) {
      const float scale = pages.k_scale(0, h, p, c);
      k_step = std::max<double>(k_step, scale);
      k_held.view(0, h, p, c) = held(keys[static_cast<std::size_t>(c)], scale);
    }
    for (std::int64_t c = 0; c < value_dim; ++c) {
      const float scale = pages.v_scale(0, h, p, c);
      v_step = std::max<double>(v_step, scale);
      v_held.view(0, h, p, c) = held(values[static_cast<std::size_t>(c)], scale);
    }
  }

  // Rows [begin, end) over the positions before end.
  void attend(std::int64_t begin, std::int64_t end, const AttentionOptions& options, View4<T> out) const {
    const CachedPages::Chosen chosen{&pages, {0}, {end}};
    const View4<const T> rows(&q.view(0, 0, begin, 0), {1, heads, end - begin, head_dim}, q.view.strides());
    cached_attention<T>("attention", {rows, out, {}}, CachedPages::keys(chosen), options);
  }

  // What float64 makes of the rows.
  std::unique_ptr<Tensor<double>> truth(const Tensor<double>& keys, const Tensor<double>& values) const {
    Tensor<double> wide({1, heads, length, head_dim});
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < length; ++i)
        for (std::int64_t c = 0; c < head_dim; ++c)
          wide.view(0, h, i, c) = static_cast<double>(widen(q.view(0, h, i, c)));
    auto out = std::make_unique<Tensor<double>>(std::array{std::int64_t{1}, heads, length, value_dim});
    attention(View4<const double>(wide.view), View4<const double>(keys.view), View4<const double>(values.view),
              out->view, {.causal = true});
    return out;
  }
};

template <class T>
class CachedInt8 : public ::testing::Test {};
using Types = ::testing::Types<float, BFloat16, Float16>;
TYPED_TEST_SUITE(CachedInt8, Types);

TYPED_TEST(CachedInt8, BitsDoNotDependOnScheduleNorTarget) {
  using T = TypeParam;
  for (std::uint64_t seed = 1; seed <= (quick_share() ? 4u : 16u); ++seed) {
    Quantised<T> x(seed, seed % 2 == 0);
    std::vector<std::pair<Target, std::uint64_t>> hashes;
    for (Target target : available_targets()) {
      AttentionOptions options{.causal = true, .target = target};
      options.alignment = Alignment::bottom_right();
      if (seed % 3 == 0) options.window.left = 100, options.softcap = 4;
      Tensor<T> at_once({1, x.heads, x.length, x.value_dim}), in_parts({1, x.heads, x.length, x.value_dim});
      x.attend(0, x.length, options, at_once.view);
      for (std::int64_t begin = 0, end; begin < x.length; begin = end) {
        end = std::min(x.length, begin + (x.random.chance(70) ? x.random.between(1, 4) : x.random.between(40, 90)));
        options.threads = static_cast<int>(x.random.between(1, 3));
        x.attend(
            begin, end, options,
            View4<T>(&in_parts.view(0, 0, begin, 0), {1, x.heads, end - begin, x.value_dim}, in_parts.view.strides()));
      }
      const std::uint64_t wanted = hash_bits(at_once.view);
      EXPECT_EQ(hash_bits(in_parts.view), wanted) << "seed " << seed << " " << target_name(target);
      if (target != Target::baseline) hashes.emplace_back(target, wanted);
    }
    for (const auto& [target, hash] : hashes)
      EXPECT_EQ(hash, hashes[0].second) << "seed " << seed << " " << target_name(target);
  }
}

// Against float64 over what is held: an error of float32's. Against float64 over what was appended: a score moves by at
// most e = scale sum |q| k_step / 2, a weight by the factor exp(2 e) at most, and a value by v_step / 2.
TYPED_TEST(CachedInt8, ErrorsStayInTheirBounds) {
  using T = TypeParam;
  for (std::uint64_t seed = 1; seed <= (quick_share() ? 4u : 12u); ++seed) {
    Quantised<T> x(seed, seed % 2 == 0);
    const auto held = x.truth(x.k_held, x.v_held), appended = x.truth(x.k, x.v);
    double largest = 0;
    x.v.each([&](double& value) { largest = std::max(largest, std::fabs(value)); });
    for (Target target : available_targets()) {
      Tensor<T> out({1, x.heads, x.length, x.value_dim});
      x.attend(0, x.length, {.causal = true, .target = target}, out.view);
      double worst = 0, excess = 0;
      for (std::int64_t h = 0; h < x.heads; ++h)
        for (std::int64_t i = 0; i < x.length; ++i) {
          double sum = 0;
          for (std::int64_t c = 0; c < x.head_dim; ++c)
            sum += std::fabs(static_cast<double>(widen(x.q.view(0, h, i, c))));
          const double e = sum * x.k_step / 2 / std::sqrt(static_cast<double>(x.head_dim));
          for (std::int64_t c = 0; c < x.value_dim; ++c) {
            const double got = static_cast<double>(widen(out.view(0, h, i, c)));
            const double exact = held->view(0, h, i, c), rounding = half_ulp<T>(exact) * 1.001;
            worst = std::max(worst, std::fabs(got - exact) - rounding);
            const double bound = x.v_step / 2 + largest * std::expm1(2 * e) + rounding + 4e-6 * largest;
            excess = std::max(excess, std::fabs(got - appended->view(0, h, i, c)) - bound);
          }
        }
      EXPECT_LE(worst, 4e-6 * largest) << "seed " << seed << " " << target_name(target);
      EXPECT_LE(excess, 0) << "seed " << seed << " " << target_name(target);
    }
  }
}

// What docs/numerics.md states: outputs of 256 rows over 1,024 normal keys and values against float64 over what was
// appended, as shares of the outputs' size and of the largest value. outliers: two channels of the keys are 16 times
// larger, those of the queries smaller, as some models have them.
struct Measured {
  const char* name;
  std::int64_t head_dim;
  bool by_channel, outliers;
  double rms, worst;  // bounds
};
std::ostream& operator<<(std::ostream& out, const Measured& measured) { return out << measured.name; }
std::string measured_name(const ::testing::TestParamInfo<Measured>& info) { return info.param.name; }

class CachedInt8Errors : public ::testing::TestWithParam<Measured> {};
TEST_P(CachedInt8Errors, AreThoseOfThePage) {
  const Measured& m = GetParam();
  const Extents extents{.heads = 4, .kv_heads = 2, .head_dim = m.head_dim, .length = 1024, .outliers = m.outliers};
  Quantised<float> x(11, m.by_channel, extents);
  const auto appended = x.truth(x.k, x.v);
  double largest = 0;
  x.v.each([&](double& value) { largest = std::max(largest, std::fabs(value)); });
  for (Target target : available_targets()) {
    Tensor<float> out({1, x.heads, x.length, x.value_dim});
    x.attend(0, x.length, {.causal = true, .target = target}, out.view);
    double squares = 0, size = 0, worst = 0;
    for (std::int64_t h = 0; h < x.heads; ++h)
      for (std::int64_t i = x.length - 256; i < x.length; ++i)
        for (std::int64_t c = 0; c < x.value_dim; ++c) {
          const double exact = appended->view(0, h, i, c), error = static_cast<double>(out.view(0, h, i, c)) - exact;
          squares += error * error, size += exact * exact, worst = std::max(worst, std::fabs(error));
        }
    const double rms = std::sqrt(squares / size);
    std::printf("%s %s: %.2g, %.2g\n", m.name, std::string(target_name(target)).c_str(), rms, worst / largest);
    EXPECT_LE(rms, m.rms) << target_name(target);
    EXPECT_LE(worst / largest, m.worst) << target_name(target);
  }
}
INSTANTIATE_TEST_SUITE_P(Page, CachedInt8Errors,
                         ::testing::Values(Measured{"token_64", 64, false, false, 0.015, 1.5e-3},
                                           Measured{"channel_64", 64, true, false, 0.02, 2.5e-3},
                                           Measured{"token_128", 128, false, false, 0.015, 1.5e-3},
                                           Measured{"channel_128", 128, true, false, 0.02, 2.5e-3},
                                           Measured{"token_64_outliers", 64, false, true, 0.08, 0.01},
                                           Measured{"channel_64_outliers", 64, true, true, 0.02, 2.5e-3}),
                         measured_name);

}  // namespace
}  // namespace multihead::testing
