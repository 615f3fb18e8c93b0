// SPDX-License-Identifier: Apache-2.0
// Statistics of a layer's heads against those of the weights that it hands out.
#include <gtest/gtest.h>

#include "module_problem.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

// Both distributions of a call's heads; what goes by position where positions are those of the tensors.
template <class S>
struct LayerStatistics {
  std::vector<std::vector<S>> kept;
  std::vector<std::vector<std::int64_t>> kept_keys;
  std::vector<std::int64_t> offsets{-1, 0, 2}, keys{0, 3}, tokens = std::vector<std::int64_t>(4096);
  StatisticsRequest<S> request;

  LayerStatistics(std::int64_t b, std::int64_t h, std::int64_t q, std::int64_t k) {
    const auto room = [&](std::int64_t count) {
      return kept.emplace_back(static_cast<std::size_t>(count) + 1, S(77)).data();
    };
    request.bin = 16;
    for (RowStatistics<S>* to : {&request.plain, &request.norm_weighted}) {
      to->entropy = {room(b * h * q), {b, h, q}};
      to->sum_squares = {room(b * h * q), {b, h, q}};
      to->received = {room(b * h * k), {b, h, k}};
      to->top_weights = {room(b * h * q * 2), {b, h, q, 2}};
      kept_keys.emplace_back(static_cast<std::size_t>(b * h * q * 2) + 1);
      to->top_keys = {kept_keys.back().data(), {b, h, q, 2}};
    }
  }
  void ask_positions(std::int64_t b, std::int64_t h, std::int64_t q, std::int64_t k) {
    const auto room = [&](std::int64_t count) {
      return kept.emplace_back(static_cast<std::size_t>(count) + 1, S(77)).data();
    };
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int64_t>(i * i % 5);
    request.offsets = offsets, request.keys = keys;
    request.q_tokens = {tokens.data(), {b, q}}, request.kv_tokens = {tokens.data(), {b, k}};
    for (RowStatistics<S>* to : {&request.plain, &request.norm_weighted}) {
      to->distance = {room(b * h * q), {b, h, q}};
      to->duplicate_mass = {room(b * h * q), {b, h, q}};
      to->induction_mass = {room(b * h * q), {b, h, q}};
      to->offset_mass = {room(b * h * q * 3), {b, h, q, 3}};
      to->key_mass = {room(b * h * q * 2), {b, h, q, 2}};
    }
  }
  void ask_map(std::int64_t b, std::int64_t h, std::int64_t q, std::int64_t k) {
    const std::int64_t r = (q + 15) / 16, c = (k + 15) / 16;
    for (RowStatistics<S>* to : {&request.plain, &request.norm_weighted})
      to->map = {kept.emplace_back(static_cast<std::size_t>(b * h * r * c) + 1).data(), {b, h, r, c}};
  }
  LayerStatistics(const LayerStatistics&) = delete;
};

// The worst distance of head h of got from head 0 of wanted.
template <class S>
double worst(const RowStatistics<S>& got, const RowStatistics<double>& wanted, std::int64_t h) {
  double most = 0;
  const auto rank3 = [&](const View3<S>& a, const View3<double>& w) {
    for (std::int64_t b = 0; b < a.extent(0); ++b)
      for (std::int64_t i = 0; i < a.extent(2); ++i)
        most =
            std::max(most, distance(a(b, h, i), w(b, 0, i)) / (1 + std::fabs(std::isnan(w(b, 0, i)) ? 0 : w(b, 0, i))));
  };
  const auto rank4 = [&](const View4<S>& a, const View4<double>& w) {
    for (std::int64_t b = 0; b < a.extent(0); ++b)
      for (std::int64_t i = 0; i < a.extent(2); ++i)
        for (std::int64_t c = 0; c < a.extent(3); ++c) most = std::max(most, distance(a(b, h, i, c), w(b, 0, i, c)));
  };
  rank3(got.entropy, wanted.entropy), rank3(got.sum_squares, wanted.sum_squares), rank3(got.received, wanted.received);
  rank3(got.distance, wanted.distance), rank3(got.duplicate_mass, wanted.duplicate_mass);
  rank3(got.induction_mass, wanted.induction_mass);
  rank4(got.offset_mass, wanted.offset_mass), rank4(got.key_mass, wanted.key_mass);
  rank4(got.top_weights, wanted.top_weights), rank4(got.map, wanted.map);
  return most;
}

// One head's weights, and those times norms as a distribution, in float64.
template <class T>
struct Dense {
  std::vector<Sum<T>> norms;
  std::vector<double> plain, weighted;
  View4<const double> plain_view, weighted_view;

  Dense(const MultiHeadAttention<T>& layer, const ModuleProblem<T>& p, std::int64_t h) {
    using S = Sum<T>;
    const std::int64_t b = p.batch, q = p.q_len, k = p.kv_len;
    std::vector<S> per_head(static_cast<std::size_t>(b * q * k) + 1), products(per_head.size());
    const std::vector<std::int64_t> heads{h};
    norms.assign(static_cast<std::size_t>(b * p.e.heads * k) + 1, S(77));
    MultiHeadRequests<T> asked;
    asked.norms = {norms.data(), {b, p.e.heads, k}};
    asked.weights.heads = heads;
    asked.weights.per_head = {per_head.data(), {b, 1, q, k}};
    asked.weights.norm_weighted = {products.data(), {b, q, k}};
    ModuleResults<T> results;
    layer.forward(p.query.view, p.keys(), p.values(), results.output_view(p), p.options, asked);
    for (std::int64_t at = 0; at < b * q * k; ++at) {
      const auto place = static_cast<std::size_t>(at);
      EXPECT_EQ(products[place], per_head[place] * asked.norms(at / (q * k), h, at % k)) << p.describe();
    }
    plain.assign(per_head.begin(), per_head.end()), weighted.assign(products.begin(), products.end());
    for (std::int64_t row = 0; row < b * q; ++row) {
      double sum = 0;
      for (std::int64_t j = 0; j < k; ++j) sum += weighted[static_cast<std::size_t>(row * k + j)];
      for (std::int64_t j = 0; j < k && sum != 0; ++j) weighted[static_cast<std::size_t>(row * k + j)] /= sum;
    }
    plain_view = {plain.data(), {b, 1, q, k}}, weighted_view = {weighted.data(), {b, 1, q, k}};
  }
};

// Each key that is listed has the weight that stands beside it.
template <class S>
void expect_top_keys(const RowStatistics<S>& got, const View4<const double>& weights, std::int64_t h, double bound) {
  for (std::int64_t b = 0; b < got.top_keys.extent(0); ++b)
    for (std::int64_t i = 0; i < got.top_keys.extent(2); ++i)
      for (std::int64_t place = 0; place < 2; ++place) {
        const std::int64_t key = got.top_keys(b, h, i, place);
        const double weight = got.top_weights(b, h, i, place);
        EXPECT_LE(distance(weight, key < 0 ? 0 : weights(b, 0, i, key)), bound) << key;
      }
}

template <class T>
class LayerStatisticsOf : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16>;
TYPED_TEST_SUITE(LayerStatisticsOf, Types);

TYPED_TEST(LayerStatisticsOf, AreThoseOfItsWeights) {
  using T = TypeParam;
  using S = Sum<T>;
  int met = 0, gated_off = 0, placed = 0;
  for (std::uint64_t seed = 1; seed <= (quick_share() ? 15 : 60) && !this->HasFailure(); ++seed) {
    ModuleProblem<T> p(seed);
    const MultiHeadAttention<T> layer = p.layer();
    const std::int64_t b = p.batch, h = p.e.heads, q = p.q_len, k = p.kv_len;
    LayerStatistics<S> got(b, h, q, k);
    MultiHeadOptions options = p.options;
    const bool packed = !options.attention.cu_seqlens_q.empty() || options.attention.q_segments.data();
    const auto kind = options.attention.alignment.kind();
    const bool at_place = !packed && (kind == Alignment::Kind::unnamed || kind == Alignment::Kind::top_left);
    if (!packed) got.ask_map(b, h, q, k);
    if (at_place) got.ask_positions(b, h, q, k);
    placed += at_place && p.e.extra_keys == 0 ? 1 : 0;
    if (!p.gates.empty()) p.gates[0] = 0, ++gated_off;
    MultiHeadRequests<T> asked;
    asked.statistics = got.request;
    ModuleResults<T> plain, with;
    if (p.e.extra_keys > 0) {
      expect_error("MultiHeadAttention", ErrorCode::unsupported, {"statistics", "extra keys"},
                   [&] { layer.forward(p.query.view, p.keys(), p.values(), with.output_view(p), options, asked); });
      continue;
    }
    ++met;
    layer.forward(p.query.view, p.keys(), p.values(), plain.output_view(p), options);
    std::vector<std::byte> scratch(layer.scratch_bytes(b, q, k, p.self, options, asked));
    options.attention.scratch = scratch;
    layer.forward(p.query.view, p.keys(), p.values(), with.output_view(p), options, asked);
    EXPECT_TRUE(std::ranges::equal(plain.output, with.output, [](T x, T y) { return widen(x) == widen(y); }))
        << p.describe();
    for (std::int64_t head = 0; head < h; ++head) {
      const Dense<T> dense(layer, p, head);
      LayerStatistics<double> wanted(b, 1, q, k), weighted(b, 1, q, k);
      for (LayerStatistics<double>* to : {&wanted, &weighted}) {
        if (!packed) to->ask_map(b, 1, q, k);
        if (at_place) to->ask_positions(b, 1, q, k);
        to->request.norm_weighted = {};
      }
      statistics_of_weights(dense.plain_view, wanted.request);
      statistics_of_weights(dense.weighted_view, weighted.request);
      const double bound = sizeof(S) == 4 ? 2e-5 : 1e-13;
      EXPECT_LE(worst(got.request.plain, wanted.request.plain, head), bound) << p.describe();
      EXPECT_LE(worst(got.request.norm_weighted, weighted.request.plain, head), bound) << p.describe();
      expect_top_keys(got.request.plain, dense.plain_view, head, bound);
      expect_top_keys(got.request.norm_weighted, dense.weighted_view, head, bound);
    }
  }
  EXPECT_GT(met, 3);
  EXPECT_GT(gated_off, 0);
  EXPECT_GT(placed, 2);
}

}  // namespace
}  // namespace multihead::testing
