// SPDX-License-Identifier: Apache-2.0
// Statistics of p_ij n_j / sum p n over every option against the plain definition, and what zeros and NaN among the
// norms do.
#include <gtest/gtest.h>

#include "multihead/attention.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Everything of the norm-weighted distribution, with memory of its own.
template <class Real>
struct Everything {
  static constexpr std::int64_t kTop = 3;
  std::vector<std::vector<Real>> kept;
  std::vector<std::int64_t> kept_keys, offsets{-1, 0, 2}, keys{0, 5}, q_tokens, kv_tokens;
  std::vector<std::uint32_t> classes;
  std::vector<Real> norms;
  StatisticsRequest<Real> request;

  Everything(const Problem& p, std::int64_t bin) {
    const AttentionShape& s = p.shape;
    const std::int64_t b = s.batch, h = s.heads, q = s.q_len, k = s.kv_len;
    Random random(p.seed + 5);
    const auto room = [&](std::int64_t count) {
      return kept.emplace_back(static_cast<std::size_t>(count) + 1, Real(77)).data();
    };
    RowStatistics<Real>& to = request.norm_weighted;
    for (View3<Real>* view :
         {&to.visible, &to.entropy, &to.sum_squares, &to.distance, &to.duplicate_mass, &to.induction_mass})
      *view = {room(b * h * q), {b, h, q}};
    to.received = {room(b * h * k), {b, h, k}};
    to.offset_mass = {room(b * h * q * 3), {b, h, q, 3}};
    to.key_mass = {room(b * h * q * 2), {b, h, q, 2}};
    to.class_mass = {room(b * h * q * 2), {b, h, q, 2}};
    to.top_weights = {room(b * h * q * kTop), {b, h, q, kTop}};
    kept_keys.assign(static_cast<std::size_t>(b * h * q * kTop) + 1, 77);
    to.top_keys = {kept_keys.data(), {b, h, q, kTop}};
    request.offsets = offsets, request.keys = keys;
    const auto draw = [&](auto& list, std::int64_t count, std::int64_t most) {
      for (std::int64_t i = 0; i <= count; ++i)
        list.push_back(
            static_cast<typename std::remove_reference_t<decltype(list)>::value_type>(random.between(0, most)));
    };
    draw(q_tokens, b * q, 9), draw(kv_tokens, b * k, 9), draw(classes, b * k, 3);
    request.q_tokens = {q_tokens.data(), {b, q}}, request.kv_tokens = {kv_tokens.data(), {b, k}};
    request.key_classes = {classes.data(), {b, k}};
    for (std::int64_t i = 0; i <= b * h * k; ++i)
      norms.push_back(random.chance(20) ? Real(0) : static_cast<Real>(random.uniform() * 3));
    request.norms = {norms.data(), {b, h, k}};
    if (bin == 0) return;
    const std::int64_t r = (q + bin - 1) / bin, c = (k + bin - 1) / bin;
    request.bin = bin, to.map = {room(b * h * r * c), {b, h, r, c}};
  }
  Everything(const Everything&) = delete;
};

template <class T>
std::uint64_t ask(Tensors<T>& in, const StatisticsRequest<Sum<T>>& request, const AttentionOptions& options) {
  const auto& q = in.q.view;
  Tensor<T> out({q.extent(0), q.extent(1), q.extent(2), in.v.view.extent(3)});
  std::vector<Sum<T>> values(static_cast<std::size_t>(q.extent(0) * q.extent(1) * q.extent(2)) + 1);
  const View3<Sum<T>> lse(values.data(), {q.extent(0), q.extent(1), q.extent(2)});
  attention(View4<const T>(q), View4<const T>(in.k.view), View4<const T>(in.v.view), out.view, lse, {}, request,
            options);
  return hash_bits(lse, hash_bits(out.view));
}

// The distribution itself, in the range of logarithms, and how far a row's may be off relative to itself.
struct Truth {
  std::vector<double> weights, slack;

  template <class T>
  Truth(const Problem& p, Tensors<T>& in, const View3<const Sum<T>>& norms) {
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.heads; ++h)
        for (std::int64_t i = 0; i < p.shape.q_len; ++i) {
          const Row<long double> row(p, in.q.view, in.k.view, {b, h, i}, true);
          std::vector<long double> scores;
          long double largest = -std::numeric_limits<long double>::infinity(), sum = 0, worst = 0;
          for (std::size_t j = 0; j < row.keys.size(); ++j) {
            scores.push_back(row.biased.values[j] +
                             std::log(static_cast<long double>(norms(b, h, static_cast<std::int64_t>(j)))));
            largest = std::max(largest, scores.back());
          }
          for (long double& x : scores) sum += x = std::isinf(largest) ? 0 : std::exp(x - largest);
          for (std::size_t j = 0; j < scores.size(); ++j) {
            weights.push_back(static_cast<double>(sum == 0 ? 0 : scores[j] / sum));
            if (weights.back() > 0) worst = std::max(worst, row.biased.magnitudes[j]);
          }
          slack.push_back(static_cast<double>(12 * worst + 64) * std::numeric_limits<Sum<T>>::epsilon());
        }
    weights.push_back(0), slack.push_back(0);
  }
};

template <class T>
class NormWeighted : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(NormWeighted, Types);

// How far the worst number lies outside its bound. Negative or 0: none does.
template <class Real>
double excess(const RowStatistics<Real>& a, const RowStatistics<double>& w, const std::vector<double>& slacks) {
  double worst = 0;
  const double most = slacks.empty() ? 0 : *std::max_element(slacks.begin(), slacks.end());
  const auto meet = [&](double x, double y, double slack) {
    worst = std::max(worst, distance(x, y) - (std::isnan(slack) ? 0 : slack) - 1e-36);
  };
  const std::int64_t heads = a.entropy.extent(1), rows = a.entropy.extent(2), keys = a.received.extent(2);
  for (std::int64_t b = 0; b < a.entropy.extent(0); ++b)
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t i = 0; i < rows; ++i) {
        const double slack = slacks[static_cast<std::size_t>((b * heads + h) * rows + i)];
        const auto one = [&](const auto& mine, const auto& theirs, double more) {
          meet(mine(b, h, i), theirs(b, h, i), slack * (2 * theirs(b, h, i) + more));
        };
        one(a.entropy, w.entropy, 4), one(a.distance, w.distance, 2 * static_cast<double>(keys + rows));
        one(a.sum_squares, w.sum_squares, 0);
        one(a.duplicate_mass, w.duplicate_mass, 0), one(a.induction_mass, w.induction_mass, 0);
        const auto each = [&](const auto& mine, const auto& theirs) {
          for (std::int64_t c = 0; c < mine.extent(3); ++c)
            meet(mine(b, h, i, c), theirs(b, h, i, c), 2 * slack * theirs(b, h, i, c));
        };
        each(a.offset_mass, w.offset_mass), each(a.key_mass, w.key_mass), each(a.class_mass, w.class_mass);
        each(a.top_weights, w.top_weights);
      }
      for (std::int64_t j = 0; j < keys; ++j)
        meet(a.received(b, h, j), w.received(b, h, j), 2 * most * w.received(b, h, j));
      for (std::int64_t r = 0; r < a.map.extent(2); ++r)
        for (std::int64_t c = 0; c < a.map.extent(3); ++c)
          meet(a.map(b, h, r, c), w.map(b, h, r, c), 2 * most * w.map(b, h, r, c));
    }
  return worst;
}

// The plain definition knows one offset of queries and no packing.
bool is_one_offset(const Problem& p) {
  return p.cu_seqlens_q.empty() && p.q_segments.empty() && p.offsets.empty() &&
         p.options().alignment.kind() != Alignment::Kind::bottom_right;
}

TYPED_TEST(NormWeighted, EveryOptionIsTheDefinition) {
  using T = TypeParam;
  Plan plan(kTypeOf<T>, 1);
  int met = 0;
  for (int left = quick_share() ? 60 : 100000; left > 0 && !plan.done() && !this->HasFailure(); --left) {
    const Problem p = plan.next();
    const auto& s = p.shape;
    if (!is_one_offset(p)) continue;
    ++met;
    const bool moved = p.options().alignment.kind() == Alignment::Kind::offset;
    const std::int64_t offset = moved ? p.options().alignment.offset() : 0;
    Tensors<T> in(p);
    Everything<double> wanted(p, 64);
    Everything<Sum<T>> got(p, 64);
    const Truth truth(p, in, got.request.norms);
    std::swap(wanted.request.plain, wanted.request.norm_weighted);
    wanted.request.norms = {};
    statistics_of_weights(View4<const double>(truth.weights.data(), {s.batch, s.heads, s.q_len, s.kv_len}),
                          wanted.request, offset);
    for (Target target : available_targets()) {
      AttentionOptions options = p.options();
      options.target = target;
      EXPECT_EQ(ask(in, got.request, options), Answer<T>(in, options).bits()) << p.describe();
      EXPECT_LE(excess(got.request.norm_weighted, wanted.request.plain, truth.slack), 0)
          << target_name(target) << " " << p.describe();
    }
  }
  EXPECT_GT(met, quick_share() ? 5 : 10);
}

// Ten rows and six keys.
struct Small {
  Problem p;
  Tensors<float> in;
  Everything<float> all;
  std::vector<float> norms{1, 0, 2, 0, 3, 1};

  static Problem problem() {
    Problem p;
    p.shape = {Type::float32, 1, 1, 1, 6, 6, 8, 4};
    p.plain.causal = true, p.seed = 3;
    return p;
  }
  Small() : p(problem()), in(p), all(p, 16) {}
  const RowStatistics<float>& run() {
    all.request.norms = {norms.data(), {1, 1, 6}};
    ask(in, all.request, p.options());
    return all.request.norm_weighted;
  }
};

TEST(NormWeightedNorms, ZerosWeighNothing) {
  Small small;
  small.norms[0] = 0;
  const auto& to = small.run();
  for (std::int64_t i : {0, 1}) {  // rows that see nothing but keys of no length
    EXPECT_TRUE(std::isnan(to.entropy(0, 0, i)) && std::isnan(to.distance(0, 0, i)));
    EXPECT_EQ(to.sum_squares(0, 0, i), 0);
    EXPECT_EQ(to.top_keys(0, 0, i, 0), -1);
    EXPECT_EQ(to.key_mass(0, 0, i, 0), 0);
  }
  EXPECT_EQ(to.top_keys(0, 0, 2, 0), 2);
  EXPECT_EQ(to.sum_squares(0, 0, 2), 1);
  EXPECT_EQ(to.top_keys(0, 0, 3, 1), -1);
  for (std::int64_t j : {0, 1, 3}) EXPECT_EQ(to.received(0, 0, j), 0);
  EXPECT_EQ(to.visible(0, 0, 5), 6) << "visible counts keys that are seen, whatever their norm";
  for (float& norm : small.norms) norm = 0;  // as a gate of 0 makes them
  small.run();
  for (std::int64_t j = 0; j < 6; ++j) EXPECT_EQ(to.received(0, 0, j), 0);
  EXPECT_EQ(to.map(0, 0, 0, 0), 0);
}

TEST(NormWeightedNorms, NegativeOnesAndNaNShowWhereTheyAreSeen) {
  for (float bad : {-1.0f, static_cast<float>(kNaN)}) {
    Small small;
    small.norms[4] = bad;
    const auto& to = small.run();
    for (std::int64_t i = 0; i < 6; ++i) EXPECT_EQ(std::isnan(to.sum_squares(0, 0, i)), i >= 4) << i;
    for (std::int64_t j = 0; j < 6; ++j) EXPECT_TRUE(std::isnan(to.received(0, 0, j))) << j;
  }
}

}  // namespace
}  // namespace multihead::testing
