// SPDX-License-Identifier: Apache-2.0
// Weights on request: each point of a score's way against the oracle, over every option; no bit of out or lse changes.
#include <gtest/gtest.h>

#include <numeric>

#include "multihead/attention.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

constexpr WeightsPoint kPoints[] = {WeightsPoint::scaled, WeightsPoint::capped, WeightsPoint::biased,
                                    WeightsPoint::normalised};

// Some of the numbers below count, in any order; or none, which asks for all.
std::vector<std::int64_t> draw_some(Random& random, std::int64_t count) {
  std::vector<std::int64_t> some(static_cast<std::size_t>(count));
  std::iota(some.begin(), some.end(), 0);
  for (std::int64_t at = count; at > 1; --at)
    std::swap(some[static_cast<std::size_t>(at - 1)], some[static_cast<std::size_t>(random.between(0, at - 1))]);
  some.resize(static_cast<std::size_t>(random.chance(30) ? 0 : random.between(0, count)));
  return some;
}

// What is asked for of a problem, with room for the answer.
template <class T>
struct Asked {
  using Real = Sum<T>;
  const Problem& p;
  std::vector<std::int64_t> chosen_heads, chosen_rows, heads, rows;  // chosen: as asked; then all of them
  std::vector<Real> per_head, mean, norm_weighted, norms;
  WeightsRequest<Real> request;

  Asked(const Problem& problem, WeightsPoint point) : p(problem) {
    Random random(p.seed + 2);
    chosen_heads = draw_some(random, p.shape.heads), chosen_rows = draw_some(random, p.shape.q_len);
    const auto all = [](std::vector<std::int64_t> chosen, std::int64_t count) {
      if (!chosen.empty()) return chosen;
      chosen.resize(static_cast<std::size_t>(count));
      std::iota(chosen.begin(), chosen.end(), 0);
      return chosen;
    };
    heads = all(chosen_heads, p.shape.heads), rows = all(chosen_rows, p.shape.q_len);
    request.point = point, request.heads = chosen_heads, request.rows = chosen_rows;
    const std::int64_t b = p.shape.batch, h = size(heads), i = size(rows), j = p.shape.kv_len;
    const auto room = [](std::vector<Real>& values, std::int64_t count) {
      values.assign(static_cast<std::size_t>(count) + 1, Real(77));
      return values.data();
    };
    const int wanted = static_cast<int>(random.between(1, 7));
    // Keys outermost, and in order.
    if (wanted & 1) request.per_head = {room(per_head, b * h * i * j), {b, h, i, j}, {1, b, b * h, b * h * i}};
    if (wanted & 2) request.mean = {room(mean, b * i * j), {b, i, j}};
    if (!(wanted & 4) || point != WeightsPoint::normalised) return;
    request.norm_weighted = {room(norm_weighted, b * i * j), {b, i, j}};
    request.norms = View3<const Real>(room(norms, b * p.shape.heads * j), {b, p.shape.heads, j});
    for (Real& norm : norms) norm = static_cast<Real>(random.uniform() * 3);
  }
  static std::int64_t size(const std::vector<std::int64_t>& list) { return static_cast<std::int64_t>(list.size()); }
};

// A weight, the plain implementation's, the true one, and how far it may be off.
struct Weight {
  long double plain = 0, truth = 0, wobble = 0;
  void add(const Weight& other, long double factor) {
    plain += other.plain * factor, truth += other.truth * factor, wobble += other.wobble * factor;
  }
};

// The weights of a row by key. One that is off by an error in each score is off, to first order, by itself times that
// error and the mean of all; and it rounds itself some 16 times (2^x, sums, quotient).
template <class T>
std::vector<Weight> weights_of(const Problem& p, Tensors<T>& in, std::array<std::int64_t, 3> row, WeightsPoint point) {
  constexpr long double kEpsilon = std::numeric_limits<Sum<T>>::epsilon();
  const Row<long double> exact(p, in.q.view, in.k.view, row, true);
  const Row<Sum<T>> plain(p, in.q.view, in.k.view, row, true);
  std::vector<Weight> weights(exact.keys.size());
  long double mean = exact.sink_weight > 0 ? exact.sink_weight * std::fabs(exact.sink) : 0;
  for (std::size_t j = 0; j < weights.size(); ++j) mean += exact.weights[j] * exact.biased.magnitudes[j];
  const auto of = [point](const auto& r) -> const auto& {
    return point == WeightsPoint::scaled ? r.scaled : point == WeightsPoint::capped ? r.capped : r.biased;
  };
  for (std::size_t j = 0; j < weights.size(); ++j) {
    const bool softmax = point == WeightsPoint::normalised;
    weights[j] = {softmax ? plain.weights[j] : of(plain).values[j], softmax ? exact.weights[j] : of(exact).values[j],
                  softmax ? exact.weights[j] * (2 * (exact.biased.magnitudes[j] + mean) + 8) * kEpsilon
                          : of(exact).magnitudes[j] * 2 * kEpsilon};
  }
  return weights;
}

// By batch entry, row asked and head asked, in this order.
template <class T>
std::vector<std::vector<Weight>> weights_of(Tensors<T>& in, const Asked<T>& asked) {
  std::vector<std::vector<Weight>> all;
  for (std::int64_t b = 0; b < asked.p.shape.batch; ++b)
    for (std::int64_t i : asked.rows)
      for (std::int64_t h : asked.heads) all.push_back(weights_of(asked.p, in, {b, h, i}, asked.request.point));
  return all;
}

template <class T>
void expect_weights(const Asked<T>& asked, const std::vector<std::vector<Weight>>& wanted, Target target) {
  using Real = Sum<T>;
  const Problem& p = asked.p;
  const auto n = static_cast<std::size_t>(p.shape.kv_len);
  const WeightsRequest<Real>& request = asked.request;
  Judge<Real> per_head(0), mean(0), norm_weighted(0);
  double largest = 0;
  auto next = wanted.begin();
  for (std::int64_t b = 0; b < p.shape.batch; ++b)
    for (std::int64_t r = 0; r < Asked<T>::size(asked.rows); ++r) {
      std::vector<Weight> average(n), weighted(n);
      for (std::int64_t a = 0; a < Asked<T>::size(asked.heads); ++a) {
        const std::int64_t h = asked.heads[static_cast<std::size_t>(a)];
        const std::vector<Weight>& weights = *next++;
        for (std::size_t at = 0; at < n; ++at) {
          const auto j = static_cast<std::int64_t>(at);
          const Weight& w = weights[at];
          if (std::isfinite(w.truth)) largest = std::max(largest, static_cast<double>(std::fabs(w.truth)));
          if (request.per_head.data()) per_head.meet(request.per_head(b, a, r, j), w.plain, w.truth, w.wobble);
          average[at].add(w, 1.0L / static_cast<long double>(asked.heads.size()));
          if (request.norms.data()) weighted[at].add(w, request.norms(b, h, j));
        }
      }
      for (std::size_t at = 0; at < n; ++at) {
        const auto j = static_cast<std::int64_t>(at);
        const auto meet = [&](Judge<Real>& judge, Real got, const Weight& w) {
          judge.meet(got, w.plain, w.truth, w.wobble);
        };
        if (request.mean.data()) meet(mean, request.mean(b, r, j), average[at]);
        if (request.norm_weighted.data()) meet(norm_weighted, request.norm_weighted(b, r, j), weighted[at]);
      }
    }
  // A mean and a sum over heads round once a head.
  const double rounding = static_cast<double>(4 + asked.heads.size()) * std::numeric_limits<Real>::epsilon() * largest;
  EXPECT_LE(per_head.excess(), rounding) << target_name(target) << " " << p.describe();
  EXPECT_LE(mean.excess(), rounding) << target_name(target) << " " << p.describe();
  EXPECT_LE(norm_weighted.excess(), 3 * rounding) << target_name(target) << " " << p.describe();
}

template <class T>
class Weights : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(Weights, Types);

TYPED_TEST(Weights, EveryPointOverAllOptions) {
  using T = TypeParam;
  Plan plan(kTypeOf<T>, quick_share() ? 1 : 6);
  std::map<WeightsPoint, int> met;
  for (std::size_t problems = 0; !plan.done() && !this->HasFailure(); ++problems) {
    const Problem p = plan.next();
    const WeightsPoint point = kPoints[problems % 4];
    Tensors<T> in(p);
    AttentionOptions options = p.options();
    const Asked<T> asked(p, point);
    const auto wanted = weights_of(in, asked);
    for (Target target : available_targets()) {
      options.target = target;
      const Answer<T> without(in, options);
      Tensor<T> out(without.out.view.extents());
      std::vector<Sum<T>> lse(without.lse_values.size());
      const View3<Sum<T>> lse_view(lse.data(), without.lse.extents());
      attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), out.view, lse_view,
                asked.request, options);
      EXPECT_EQ(hash_bits(lse_view, hash_bits(out.view)), without.bits()) << p.describe();
      expect_weights(asked, wanted, target);
    }
    ++met[point];
  }
  for (WeightsPoint point : kPoints) EXPECT_GE(met[point], 5);
}

// Rows of the softmax and the sink's share add up to 1; rows that see nothing weigh nothing.
TYPED_TEST(Weights, RowsAddUpToOneButForTheSink) {
  using T = TypeParam;
  using Real = Sum<T>;
  Plan plan(kTypeOf<T>, 1);
  while (!plan.done() && !this->HasFailure()) {
    const Problem p = plan.next();
    const auto [type, batch, heads, kv_heads, q_len, kv_len, d, dv] = p.shape;
    Tensors<T> in(p);
    std::vector<Real> values(static_cast<std::size_t>(batch * heads * q_len * kv_len) + 1);
    Tensor<T> out({batch, heads, q_len, dv});
    std::vector<Real> lse(static_cast<std::size_t>(batch * heads * q_len) + 1);
    const View4<Real> weights(values.data(), {batch, heads, q_len, kv_len});
    const View3<Real> lse_view(lse.data(), {batch, heads, q_len});
    WeightsRequest<Real> request;
    request.per_head = weights;
    attention(View4<const T>(in.q.view), View4<const T>(in.k.view), View4<const T>(in.v.view), out.view, lse_view,
              request, p.options());
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < q_len; ++i) {
          long double sum = 0;
          for (std::int64_t j = 0; j < kv_len; ++j) sum += weights(b, h, i, j);
          const long double s = lse_view(b, h, i);
          const bool empty = std::isinf(s), sink = !p.sinks.empty();
          if (sink) sum += std::exp(static_cast<long double>(p.sinks[static_cast<std::size_t>(h)]) - s);
          // Each weight and the sum they are divided by: some 16 roundings, and as many as keys; the sink's: its own.
          const long double slack = static_cast<long double>(kv_len + 16) + (sink ? 4 * std::fabs(s) : 0);
          EXPECT_LE(std::fabs(sum - (empty ? 0 : 1)), slack * std::numeric_limits<Real>::epsilon()) << p.describe();
        }
  }
}

}  // namespace
}  // namespace multihead::testing
