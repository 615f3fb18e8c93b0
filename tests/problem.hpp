// SPDX-License-Identifier: Apache-2.0
// Random attention problems, the oracle that judges them, and the bound of the error.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "multihead/multihead.hpp"
#include "multihead/reference.hpp"

namespace multihead::testing {

// MULTIHEAD_TEST_SHARE=quick: fewer and smaller problems, for sanitizers and emulators.
inline bool quick_share() {
  const char* share = std::getenv("MULTIHEAD_TEST_SHARE");
  return share && std::string(share) == "quick";
}

// The same numbers from every compiler and library: splitmix64, and normal values as a sum of twelve uniform ones.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return between(1, 100) <= percent; }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return *(choices.begin() + between(0, static_cast<std::int64_t>(choices.size()) - 1));
  }

 private:
  std::uint64_t state_;
};

// A tensor (batch, heads, length, width) with room for strides of its own.
template <class T>
struct Tensor {
  std::vector<T> values;
  View4<T> view;

  // heads_inside: (batch, length, heads, width) in memory; padding: elements that no view reaches, after each row.
  Tensor(std::array<std::int64_t, 4> extents, bool heads_inside = false, std::int64_t padding = 0) {
    const auto [b, h, n, d] = extents;
    const std::int64_t row = d + padding;
    values.assign(static_cast<std::size_t>(std::max<std::int64_t>(b * h * n * row, 1)), T(77));
    const std::array<std::int64_t, 4> strides = heads_inside ? std::array{h * n * row, row, h * row, std::int64_t{1}}
                                                             : std::array{h * n * row, n * row, row, std::int64_t{1}};
    view = View4<T>(values.data(), extents, strides);
  }
  Tensor(const Tensor&) = delete;

  template <class Function>
  void each(const Function& function) {
    for (std::int64_t b = 0; b < view.extent(0); ++b)
      for (std::int64_t h = 0; h < view.extent(1); ++h)
        for (std::int64_t i = 0; i < view.extent(2); ++i)
          for (std::int64_t c = 0; c < view.extent(3); ++c) function(view(b, h, i, c));
  }
  void fill_normal(Random& random, double scale = 1) {
    each([&](T& x) { x = static_cast<T>(random.normal() * scale); });
  }
};

// One problem: extents, options and what it exercises, by name.
struct Problem {
  AttentionShape shape;
  AttentionOptions options;
  std::vector<std::int64_t> lengths;  // what options.lengths points to
  bool heads_inside = false;
  std::int64_t padding = 0;
  double input_scale = 1;
  std::uint64_t seed = 0;
  std::set<std::string> tags;

  std::string describe() const {
    std::string text = "batch " + std::to_string(shape.batch) + " heads " + std::to_string(shape.heads) + "/" +
                       std::to_string(shape.kv_heads) + " q_len " + std::to_string(shape.q_len) + " kv_len " +
                       std::to_string(shape.kv_len) + " head_dim " + std::to_string(shape.head_dim) + " value_dim " +
                       std::to_string(shape.value_dim) + " seed " + std::to_string(seed);
    for (const std::string& tag : tags) text += " " + tag;
    return text;
  }
};

// Draws a problem. Lengths and widths are 0, 1, near multiples of every register width and block, or prime.
Problem draw_problem(std::uint64_t seed);
// Every tag that draw_problem can give.
std::set<std::string> all_tags();

// The keys [0, visible) that row i of sequence b sees.
inline std::int64_t visible_keys(const AttentionOptions& options, std::int64_t q_len, std::int64_t kv_len,
                                 std::int64_t b, std::int64_t i) {
  using Kind = Causal::Kind;
  const std::int64_t length = options.lengths.empty() ? kv_len : options.lengths[static_cast<std::size_t>(b)];
  const Kind kind = options.causal.kind();
  if (kind == Kind::none) return length;
  const std::int64_t offset = kind == Kind::bottom_right ? length - q_len : options.causal.query_offset();
  return std::clamp<std::int64_t>(i + offset + 1, 0, length);
}

// The definition of one row, dense, with Real sums: the judge in long double, the plain implementation in T itself.
//   weights (visible), magnitudes (visible): sum over channels of |q k| scale, what a score's rounding errors grow with
template <class Real>
struct Row {
  std::vector<Real> weights, magnitudes;
  Real lse = -std::numeric_limits<Real>::infinity();

  template <class T>
  Row(const View4<T>& q, const View4<T>& k, std::array<std::int64_t, 3> row, std::int64_t visible, Real scale) {
    const auto [b, h, i] = row;
    const std::int64_t kv = h / (q.extent(1) / k.extent(1));
    Real largest = lse, sum = 0;
    for (std::int64_t j = 0; j < visible; ++j) {
      Real dot = 0, magnitude = 0;
      for (std::int64_t c = 0; c < q.extent(3); ++c) {
        const Real term = static_cast<Real>(q(b, h, i, c)) * static_cast<Real>(k(b, kv, j, c));
        dot += term, magnitude += std::fabs(term);
      }
      weights.push_back(dot * scale), magnitudes.push_back(magnitude * std::fabs(scale));
      largest = weights.back() > largest ? weights.back() : largest;
    }
    for (Real& w : weights) sum += w = std::exp(w - largest);
    for (Real& w : weights) w /= sum;
    if (visible > 0) lse = largest + std::log(sum);
  }
};

// Inputs, our answer, the true one in long double, and the plain implementation's in T. wobble is how far an element
// may move, to first order, when every score is off by 4 roundings of its magnitude: sum of p |v - out| 4 u magnitude.
template <class T>
struct Solved {
  Tensor<T> q, k, v, out, plain;
  Tensor<long double> truth, wobble;
  std::vector<T> lse, plain_lse;
  std::vector<long double> true_lse, lse_wobble;
  View3<T> lse_view;

  explicit Solved(const Problem& p)
      : q({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.head_dim}, p.heads_inside, p.padding),
        k({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.head_dim}, p.heads_inside, p.padding),
        v({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.value_dim}, p.heads_inside, p.padding),
        out({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.value_dim}, p.heads_inside, p.padding),
        plain(out.view.extents()),
        truth(out.view.extents()),
        wobble(out.view.extents()) {
    Random random(p.seed + 1);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random, p.input_scale);
    const double scale = p.options.scale.value_or(1 / std::sqrt(static_cast<double>(p.shape.head_dim)));
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.heads; ++h)
        for (std::int64_t i = 0; i < p.shape.q_len; ++i) solve_row(p, b, h, i, scale);
    lse.resize(std::max<std::size_t>(true_lse.size(), 1));
    lse_view = View3<T>(lse.data(), {p.shape.batch, p.shape.heads, p.shape.q_len});
  }

  void solve_row(const Problem& p, std::int64_t b, std::int64_t h, std::int64_t i, double scale) {
    const std::int64_t visible = visible_keys(p.options, p.shape.q_len, p.shape.kv_len, b, i);
    const std::int64_t kv = h / (p.shape.heads / p.shape.kv_heads);
    const Row<long double> exact(q.view, k.view, {b, h, i}, visible, static_cast<long double>(scale));
    const Row<T> simple(q.view, k.view, {b, h, i}, visible, static_cast<T>(scale));
    const long double four_roundings = 2 * static_cast<long double>(std::numeric_limits<T>::epsilon());
    true_lse.push_back(exact.lse), plain_lse.push_back(simple.lse), lse_wobble.push_back(0);
    for (std::size_t j = 0; j < exact.weights.size(); ++j)
      lse_wobble.back() += exact.weights[j] * exact.magnitudes[j] * four_roundings;
    for (std::int64_t c = 0; c < p.shape.value_dim; ++c) {
      long double mean = 0, away = 0;
      T total = 0;
      const auto value = [&](std::size_t j) { return v.view(b, kv, static_cast<std::int64_t>(j), c); };
      for (std::size_t j = 0; j < exact.weights.size(); ++j) {
        mean += exact.weights[j] * value(j);
        total += simple.weights[j] * value(j);
      }
      for (std::size_t j = 0; j < exact.weights.size(); ++j)
        away += exact.weights[j] * std::fabs(value(j) - mean) * exact.magnitudes[j] * four_roundings;
      truth.view(b, h, i, c) = mean, plain.view(b, h, i, c) = total, wobble.view(b, h, i, c) = away;
    }
  }

  void run(const AttentionOptions& options) {
    attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, lse_view, options);
  }

  double largest_value() {
    double largest = 0;
    v.each([&](T x) { largest = std::max(largest, std::fabs(static_cast<double>(x))); });
    return largest;
  }
};

// |got - wanted|; equal infinities and two NaNs are no distance, one NaN is an infinite one.
inline double distance(long double got, long double wanted) {
  if (got == wanted || (std::isnan(got) && std::isnan(wanted))) return 0;
  const double away = static_cast<double>(std::fabs(got - wanted));
  return std::isnan(away) ? std::numeric_limits<double>::infinity() : away;
}

// How far the worst element of got lies outside its bound: at most twice the plain implementation's worst error, four
// epsilons of the largest magnitude, and the element's wobble. Negative: all lie inside.
template <class T>
class Judge {
 public:
  explicit Judge(double magnitude)
      : rounding_(4 * static_cast<double>(std::numeric_limits<T>::epsilon()) * magnitude) {}
  void meet(long double got, long double plain, long double truth, long double wobble) {
    plain_worst_ = std::max(plain_worst_, distance(plain, truth));
    excess_ = std::max(excess_, distance(got, truth) - static_cast<double>(wobble));
  }
  double excess() const { return excess_ - 2 * plain_worst_ - rounding_; }

 private:
  double rounding_, plain_worst_ = 0, excess_ = 0;
};

template <class T>
double output_excess(Solved<T>& s) {
  Judge<T> judge(s.largest_value());
  for (std::int64_t b = 0; b < s.out.view.extent(0); ++b)
    for (std::int64_t h = 0; h < s.out.view.extent(1); ++h)
      for (std::int64_t i = 0; i < s.out.view.extent(2); ++i)
        for (std::int64_t c = 0; c < s.out.view.extent(3); ++c)
          judge.meet(s.out.view(b, h, i, c), s.plain.view(b, h, i, c), s.truth.view(b, h, i, c),
                     s.wobble.view(b, h, i, c));
  return judge.excess();
}

template <class T>
double lse_excess(const Solved<T>& s) {
  double largest = 1;
  for (long double x : s.true_lse)
    if (std::isfinite(x)) largest = std::max(largest, static_cast<double>(std::fabs(x)));
  Judge<T> judge(largest);
  for (std::size_t i = 0; i < s.true_lse.size(); ++i)
    judge.meet(s.lse[i], s.plain_lse[i], s.true_lse[i], s.lse_wobble[i]);
  return judge.excess();
}

// The bits of what a view holds, in order, NaNs made alike: FNV-1a.
template <class T, int Rank>
std::uint64_t hash_bits(const View<T, Rank>& view, std::uint64_t hash = 0xCBF29CE484222325u) {
  std::array<std::int64_t, Rank> at{};
  if (view.empty()) return hash;
  for (;;) {
    std::int64_t offset = 0;
    for (int axis = 0; axis < Rank; ++axis) offset += at[axis] * view.stride(axis);
    std::remove_const_t<T> value = view.data()[offset];
    if (std::isnan(value)) value = std::numeric_limits<T>::quiet_NaN();
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof value);
    for (unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001B3u;
    int axis = Rank - 1;
    while (axis >= 0 && ++at[axis] == view.extent(axis)) at[axis--] = 0;
    if (axis < 0) return hash;
  }
}

}  // namespace multihead::testing
