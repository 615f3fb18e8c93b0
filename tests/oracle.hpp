// SPDX-License-Identifier: Apache-2.0
// The oracle: attention as it is defined, dense, key by key, in long double, and the bound that its answer sets.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "draw.hpp"

namespace multihead::testing {

// Where row i of batch entry b stands: the runs of queries and keys of its sequence, and what goes by position there.
struct Stand {
  std::int64_t q_first = 0, k_first = 0, k_end = 0;  // k_end: of the keys that are valid
  std::int64_t offset = 0, prefix = 0;

  Stand(const Problem& p, std::int64_t b, std::int64_t i);
};

// T5's bucket of r = j - p. A boundary between buckets is a whole number of the logarithm's scale only where it is one
// exactly.
std::int64_t bucket_of(std::int64_t r, std::int64_t buckets, bool both_directions, std::int64_t max_distance);

// Whether row (b, h, i) sees key j: every option has to let it.
bool sees(const Problem& p, const Stand& stand, std::array<std::int64_t, 3> row, std::int64_t j);

// What dropout takes the weight of (b, h, i, j) times.
long double factor_of(const Problem& p, std::array<std::int64_t, 4> place);

// The definition of one row with Real sums: the judge in long double, the plain implementation in float or double.
// One element a key of the batch entry, or of the keys that the row sees.
//   scaled, capped, biased: the score on its way (biased is -inf where the key is not seen), and the magnitudes that
//   its rounding errors grow with: each term's absolute value; of the dot product the sum of |q k| scale, through
//   softcap by its slope
//   weights: softmax of biased; together with sink_weight they add up to 1
template <class Real>
struct Row {
  static constexpr Real kNothing = -std::numeric_limits<Real>::infinity();
  struct Scores {
    std::vector<Real> values, magnitudes;
    void add(Real value, Real magnitude) { values.push_back(value), magnitudes.push_back(magnitude); }
  };
  std::vector<std::int64_t> keys;
  Scores scaled, capped, biased;
  std::vector<Real> weights;
  Real lse = kNothing, sink = kNothing, sink_weight = 0;

  template <class T>
  Row(const Problem& p, const View4<T>& q, const View4<T>& k, std::array<std::int64_t, 3> row, bool every_key = false) {
    const Stand stand(p, row[0], row[2]);
    for (std::int64_t j = 0; j < k.extent(2); ++j) {
      const bool seen = sees(p, stand, row, j);
      if (!seen && !every_key) continue;
      add_key(p, q, k, stand, row, j);
      if (!seen) biased.values.back() = kNothing, biased.magnitudes.back() = 0;
    }
    if (!p.sinks.empty()) sink = static_cast<Real>(p.sinks[static_cast<std::size_t>(row[1])]);
    Real largest = sink;
    for (Real s : biased.values) largest = s > largest ? s : largest;
    weights.assign(keys.size(), Real(0));
    if (largest == kNothing) return;
    Real sum = sink_weight = sink == kNothing ? Real(0) : std::exp(sink - largest);
    for (std::size_t at = 0; at < weights.size(); ++at) sum += weights[at] = std::exp(biased.values[at] - largest);
    for (Real& w : weights) w /= sum;
    sink_weight /= sum;
    lse = largest + std::log(sum);
  }

  template <class T>
  void add_key(const Problem& p, const View4<T>& q, const View4<T>& k, const Stand& stand,
               std::array<std::int64_t, 3> row, std::int64_t j) {
    const auto [b, h, i] = row;
    const std::int64_t kv = h / (q.extent(1) / k.extent(1));
    const Real scale = static_cast<Real>(p.plain.scale.value_or(1 / std::sqrt(static_cast<double>(q.extent(3)))));
    Real dot = 0, magnitude = 0;
    for (std::int64_t c = 0; c < q.extent(3); ++c) {
      const Real term = static_cast<Real>(widen(q(b, h, i, c))) * static_cast<Real>(widen(k(b, kv, j, c)));
      dot += term, magnitude += std::fabs(term);
    }
    Real score = dot * scale;
    magnitude *= std::fabs(scale);
    keys.push_back(j), scaled.add(score, magnitude);
    if (p.plain.softcap > 0) {
      const Real cap = static_cast<Real>(p.plain.softcap), t = std::tanh(score / cap);
      score = cap * t;
      magnitude = magnitude * (1 - t * t) + std::fabs(score);
    }
    capped.add(score, magnitude);
    const auto add = [&](Real term) { score += term, magnitude += std::fabs(term); };
    const std::int64_t distance = j - stand.k_first - (i - stand.q_first + stand.offset);
    if (p.bias.rank) add(static_cast<Real>(p.bias(b, h, i, j)));
    if (!p.alibi_slopes.empty())
      add(-static_cast<Real>(p.alibi_slopes[static_cast<std::size_t>(h)]) * static_cast<Real>(std::abs(distance)));
    if (p.table.rank) {
      const std::int64_t bucket = bucket_of(distance, p.table.extents[2], p.bidirectional, p.max_distance);
      add(static_cast<Real>(p.table(0, 0, bucket, h)));
    }
    biased.add(score, magnitude);
  }
};

// Inputs, our answer, the true one in long double, and the plain implementation's with sums of T's kind. wobble is how
// far an element may move, to first order, when every score and the sink are off by 4 roundings of their magnitude:
// sum of p |v - out| 4 u magnitude. What is stored in 16 bits is rounded once more, by half a unit at most. Where pairs
// are multiplied weights are rounded to bfloat16, by 1 / 257 of themselves at most, and divided by the sum of those
// (with dropout by that of the weights before): rounded_weights is how far that may move an element.
template <class T>
struct Solved {
  using Real = Sum<T>;
  static constexpr long double kFourRoundings = 2 * static_cast<long double>(std::numeric_limits<Real>::epsilon());
  const Problem& p;
  Tensor<T> q, k, v, out;
  Tensor<Real> plain;
  Tensor<long double> truth, wobble, rounded_weights;
  std::vector<Real> lse, plain_lse;
  std::vector<long double> true_lse, lse_wobble;
  View3<Real> lse_view;

  explicit Solved(const Problem& problem)
      : p(problem),
        q({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.head_dim}, p.heads_inside, p.padding),
        k({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.head_dim}, p.heads_inside, p.padding),
        v({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.value_dim}, p.heads_inside, p.padding),
        out({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.value_dim}, p.heads_inside, p.padding),
        plain(out.view.extents()),
        truth(out.view.extents()),
        wobble(out.view.extents()),
        rounded_weights(out.view.extents()) {
    Random random(p.seed + 1);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random, p.input_scale);
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.heads; ++h)
        for (std::int64_t i = 0; i < p.shape.q_len; ++i) solve_row(b, h, i);
    lse.resize(std::max<std::size_t>(true_lse.size(), 1));
    lse_view = View3<Real>(lse.data(), {p.shape.batch, p.shape.heads, p.shape.q_len});
  }

  void solve_row(std::int64_t b, std::int64_t h, std::int64_t i) {
    const std::int64_t kv = h / (p.shape.heads / p.shape.kv_heads);
    const Row<long double> exact(p, q.view, k.view, {b, h, i});
    const Row<Real> simple(p, q.view, k.view, {b, h, i});
    const long double of_sink = exact.sink_weight > 0 ? exact.sink_weight * std::fabs(exact.sink) * kFourRoundings : 0;
    true_lse.push_back(exact.lse), plain_lse.push_back(simple.lse), lse_wobble.push_back(of_sink);
    for (std::size_t j = 0; j < exact.weights.size(); ++j)
      lse_wobble.back() += exact.weights[j] * exact.biased.magnitudes[j] * kFourRoundings;
    for (std::int64_t c = 0; c < p.shape.value_dim; ++c) {
      long double mean = 0;
      Real total = 0;
      // The value times the factor of dropout, which is the weight's.
      const auto value = [&](std::size_t j) {
        return widen(v.view(b, kv, exact.keys[j], c)) * factor_of(p, {b, h, i, exact.keys[j]});
      };
      for (std::size_t j = 0; j < exact.weights.size(); ++j) {
        mean += exact.weights[j] * value(j);
        total += simple.weights[j] * static_cast<Real>(value(j));
      }
      long double away = std::fabs(mean) * of_sink;
      for (std::size_t j = 0; j < exact.weights.size(); ++j)
        away += exact.weights[j] * std::fabs(value(j) - mean) * exact.biased.magnitudes[j] * kFourRoundings;
      rounded_weights.view(b, h, i, c) = of_rounded(p, exact.weights, mean, value);
      truth.view(b, h, i, c) = mean, plain.view(b, h, i, c) = total, wobble.view(b, h, i, c) = away;
    }
  }

  // sum of p |v - out| d / (1 - d) with d = 1 / 257, or of p |v| where the divisor is not rounded with them.
  template <class Value>
  static long double of_rounded(const Problem& p, const std::vector<long double>& weights, long double mean,
                                const Value& value) {
    const long double from = p.plain.dropout.probability > 0 ? 0 : mean;
    long double sum = 0;
    for (std::size_t j = 0; j < weights.size(); ++j) sum += weights[j] * std::fabs(value(j) - from);
    return sum / 256;
  }

  void run(const AttentionOptions& options) {
    attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, lse_view, options);
  }

  double largest_value() {
    double largest = 0;
    v.each([&](T x) { largest = std::max(largest, std::fabs(static_cast<double>(widen(x)))); });
    return largest / (1 - p.plain.dropout.probability);
  }
};

// How far the worst element of out or lse lies outside its bound. Negative or 0: none does. pairs: whether the target
// multiplies them.
template <class T>
double output_excess(Solved<T>& s, bool pairs = false) {
  Judge<Sum<T>> judge(s.largest_value());
  for (std::int64_t b = 0; b < s.out.view.extent(0); ++b)
    for (std::int64_t h = 0; h < s.out.view.extent(1); ++h)
      for (std::int64_t i = 0; i < s.out.view.extent(2); ++i)
        for (std::int64_t c = 0; c < s.out.view.extent(3); ++c) {
          const long double truth = s.truth.view(b, h, i, c);
          const long double wobble = s.wobble.view(b, h, i, c) + (pairs ? s.rounded_weights.view(b, h, i, c) : 0);
          const double stored = half_ulp<T>(std::fabs(truth) + wobble);
          judge.meet(widen(s.out.view(b, h, i, c)), s.plain.view(b, h, i, c), truth, wobble + stored);
        }
  return judge.excess();
}

template <class T>
double lse_excess(const Solved<T>& s) {
  double largest = 1;
  for (long double x : s.true_lse)
    if (std::isfinite(x)) largest = std::max(largest, static_cast<double>(std::fabs(x)));
  Judge<Sum<T>> judge(largest);
  for (std::size_t i = 0; i < s.true_lse.size(); ++i)
    judge.meet(s.lse[i], s.plain_lse[i], s.true_lse[i], s.lse_wobble[i]);
  return judge.excess();
}

}  // namespace multihead::testing
