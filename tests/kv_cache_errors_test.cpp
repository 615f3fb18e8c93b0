// SPDX-License-Identifier: Apache-2.0
// What int8 costs: the output over a quantised cache against float64 over the keys and values as they were. The table
// of docs/numerics.md, whose numbers --gtest_output=xml has as properties.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "multihead/kv_cache.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kHeads = 4, kQueries = 32, kKeys = 1024, kDim = 64;

// Normal numbers times a scale; of keys some channels are larger, as those of language models are.
struct Inputs {
  Tensor<float> q{{1, kHeads, kQueries, kDim}}, k{{1, kHeads, kKeys, kDim}}, v{{1, kHeads, kKeys, kDim}};
  std::vector<float> k_scales, v_scales;  // by channel

  Inputs(double scale, double outlier) {
    Random random(1);
    for (Tensor<float>* tensor : {&q, &k, &v}) tensor->fill_normal(random, scale);
    for (std::int64_t h = 0; h < kHeads; ++h)
      for (std::int64_t j = 0; j < kKeys; ++j)
        for (std::int64_t c = 5; c < kDim; c += 31) k.view(0, h, j, c) *= static_cast<float>(outlier);
    for (const auto& [tensor, scales] : {std::pair{&k, &k_scales}, {&v, &v_scales}})
      for (std::int64_t h = 0; h < kHeads; ++h)
        for (std::int64_t c = 0; c < kDim; ++c) {
          float largest = 0;
          for (std::int64_t j = 0; j < kKeys; ++j) largest = std::max(largest, std::fabs(tensor->view(0, h, j, c)));
          scales->push_back(largest / 127);
        }
  }

  // As a share of the largest |v|: root of the mean square, and the worst.
  std::pair<double, double> errors(KvScales scales) {
    KvCacheSpec spec{.storage = KvStorage::int8, .kv_heads = kHeads, .head_dim = kDim, .pages = 1, .page_len = kKeys};
    spec.scales = scales;
    if (scales == KvScales::per_channel)
      spec.k_scales = {k_scales.data(), {1, kHeads, kDim}}, spec.v_scales = {v_scales.data(), {1, kHeads, kDim}};
    KvCache cache(spec);
    const KvSequence sequence = cache.add();
    cache.append(0, {&sequence, 1}, View4<const float>(k.view), View4<const float>(v.view));
    Tensor<float> out({1, kHeads, kQueries, kDim});
    attention(View4<const float>(q.view), cache, 0, {&sequence, 1}, out.view);
    Tensor<double> wide_q({1, kHeads, kQueries, kDim}), wide_k({1, kHeads, kKeys, kDim}),
        wide_v({1, kHeads, kKeys, kDim}), truth({1, kHeads, kQueries, kDim});
    for (const auto& [to, from] : {std::pair{&wide_q, &q}, {&wide_k, &k}, {&wide_v, &v}})
      for (std::size_t at = 0; at < from->values.size(); ++at) to->values[at] = static_cast<double>(from->values[at]);
    attention(View4<const double>(wide_q.view), View4<const double>(wide_k.view), View4<const double>(wide_v.view),
              truth.view);
    double largest = 0, squares = 0, worst = 0;
    wide_v.each([&](double& x) { largest = std::max(largest, std::fabs(x)); });
    auto next = truth.values.begin();
    out.each([&](float& x) {
      const double error = std::fabs(static_cast<double>(x) - *next++) / largest;
      squares += error * error, worst = std::max(worst, error);
    });
    return {std::sqrt(squares / static_cast<double>(kHeads * kQueries * kDim)), worst};
  }
};

struct Row {
  double scale, outlier;
  // Root of the mean square and worst, twice what was measured.
  double token_rms, token_worst, channel_rms, channel_worst;
};
constexpr Row kRows[] = {
    {1, 1, 2.2e-4, 1.2e-3, 2.8e-4, 1.3e-3},
    {10, 1, 0.022, 0.44, 0.04, 0.58},
    {100, 1, 0.05, 1.6, 0.112, 2.0},
    {1, 10, 5.4e-3, 0.068, 1.8e-3, 0.022},
};

TEST(KvCacheErrors, OfInt8) {
  for (const Row& row : kRows) {
    Inputs inputs(row.scale, row.outlier);
    for (const KvScales scales : {KvScales::per_token, KvScales::per_channel}) {
      const bool token = scales == KvScales::per_token;
      const auto [rms, worst] = inputs.errors(scales);
      char name[64], value[64];
      std::snprintf(name, sizeof name, "%s_scale_%g_outlier_%g", token ? "token" : "channel", row.scale, row.outlier);
      std::snprintf(value, sizeof value, "%.2g, %.2g", rms, worst);
      RecordProperty(name, value);
      EXPECT_LE(rms, token ? row.token_rms : row.channel_rms) << name << " " << value;
      EXPECT_LE(worst, token ? row.token_worst : row.channel_worst) << name << " " << value;
      EXPECT_GT(rms, 0) << name;
    }
  }
}

}  // namespace
}  // namespace multihead::testing
