// SPDX-License-Identifier: Apache-2.0
// What holds for attention() whatever the numbers: convexity, permutation, shift, repeated heads, scaling, layouts.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <memory>
#include <numeric>

#include "multihead/attention.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

template <class T>
std::int64_t between(T low, T high) {
  return *rc::gen::inRange<std::int64_t>(low, high + 1);
}

enum class Mask { any, none };

// Extents, options and a seed for the numbers, drawn by RapidCheck so that it can make them smaller.
Problem draw(Mask mask) {
  Problem p;
  const std::int64_t long_side = quick_share() ? 150 : 300;
  p.shape.batch = between(1, 2), p.shape.kv_heads = between(1, 2);
  p.shape.heads = p.shape.kv_heads * between(1, 3);
  p.shape.q_len = between<std::int64_t>(1, long_side / 4), p.shape.kv_len = between<std::int64_t>(1, long_side);
  p.shape.head_dim = between(1, 70), p.shape.value_dim = between(1, 40);
  p.options.target = *rc::gen::elementOf(available_targets());
  p.options.threads = static_cast<int>(between(1, 2));
  p.seed = static_cast<std::uint64_t>(between(0, 1 << 30));
  if (mask == Mask::none) return p;
  const std::int64_t offset = between(-p.shape.q_len, p.shape.kv_len);
  p.options.causal = *rc::gen::element(Causal(), Causal::top_left(), Causal::bottom_right(), Causal::at(offset));
  if (*rc::gen::arbitrary<bool>())
    for (std::int64_t b = 0; b < p.shape.batch; ++b) p.lengths.push_back(between<std::int64_t>(0, p.shape.kv_len));
  return p;
}

template <class T>
struct Run {
  const Problem& p;
  Tensor<T> q, k, v, out;
  std::vector<T> lse;

  explicit Run(const Problem& problem)
      : p(problem),
        q({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.head_dim}),
        k({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.head_dim}),
        v({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.value_dim}),
        out({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.value_dim}),
        lse(static_cast<std::size_t>(p.shape.batch * p.shape.heads * p.shape.q_len)) {
    Random random(p.seed);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random, tensor == &k ? 2 : 1);
  }
  AttentionOptions options() const {
    AttentionOptions all = p.options;
    all.lengths = p.lengths;
    return all;
  }
  const std::vector<T>& attend(View4<const T> keys, View4<const T> values) {
    attention(View4<const T>(q.view), keys, values, out.view, View3<T>(lse.data(), lse_extents()), options());
    return out.values;
  }
  const std::vector<T>& attend() { return attend(k.view, v.view); }
  std::array<std::int64_t, 3> lse_extents() const { return {p.shape.batch, p.shape.heads, p.shape.q_len}; }

  template <class Function>
  void each_row(const Function& function) const {
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.heads; ++h)
        for (std::int64_t i = 0; i < p.shape.q_len; ++i)
          function(b, h, i, visible_keys(options(), p.shape.q_len, p.shape.kv_len, b, i));
  }
  T lse_of(std::int64_t b, std::int64_t h, std::int64_t i) const {
    return lse[static_cast<std::size_t>((b * p.shape.heads + h) * p.shape.q_len + i)];
  }
  std::int64_t kv_head(std::int64_t h) const { return h / (p.shape.heads / p.shape.kv_heads); }

  // The largest sum over channels of |q k|, scaled: no score is larger.
  double largest_score() const {
    double largest = 0;
    each_row([&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t) {
      for (std::int64_t j = 0; j < p.shape.kv_len; ++j) {
        double sum = 0;
        for (std::int64_t c = 0; c < p.shape.head_dim; ++c)
          sum += std::fabs(static_cast<double>(q.view(b, h, i, c)) * k.view(b, kv_head(h), j, c));
        largest = std::max(largest, sum);
      }
    });
    return largest / std::sqrt(static_cast<double>(p.shape.head_dim));
  }
};

template <class T>
double largest_of(const std::vector<T>& values) {
  double largest = 0;
  for (T x : values) largest = std::max(largest, std::fabs(static_cast<double>(x)));
  return largest;
}

template <class T>
double difference(const std::vector<T>& a, const std::vector<T>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, distance(a[i], b[i]));
  return worst;
}

// What rounding may do to a weighted mean of n values up to largest, given its scores: each term of the sums passes at
// most n additions, and each weight and each merge some 60 roundings more (2^x, differences of scores, factors).
template <class T>
double rounding(std::int64_t n, double largest) {
  return static_cast<double>(n + 64) * static_cast<double>(std::numeric_limits<T>::epsilon()) * largest;
}

template <class T>
void stays_within_visible_values() {
  const Problem p = draw(Mask::any);
  Run<T> run(p);
  run.attend();
  run.each_row([&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t visible) {
    for (std::int64_t c = 0; c < p.shape.value_dim; ++c) {
      double low = visible ? 1e300 : 0, high = visible ? -1e300 : 0;
      for (std::int64_t j = 0; j < visible; ++j) {
        const double x = run.v.view(b, run.kv_head(h), j, c);
        low = std::min(low, x), high = std::max(high, x);
      }
      const double slack = rounding<T>(visible, std::max(std::fabs(low), std::fabs(high)));
      RC_ASSERT(run.out.view(b, h, i, c) >= low - slack);
      RC_ASSERT(run.out.view(b, h, i, c) <= high + slack);
    }
  });
}
RC_GTEST_PROP(AttentionProperty, OutputStaysWithinTheVisibleValues, (bool wide)) {
  wide ? stays_within_visible_values<double>() : stays_within_visible_values<float>();
}

template <class T>
void permutation_is_rounding() {
  const Problem p = draw(Mask::none);
  Run<T> run(p);
  const std::vector<T> before = run.attend(), lse = run.lse;
  std::vector<std::int64_t> order(static_cast<std::size_t>(p.shape.kv_len));
  std::iota(order.begin(), order.end(), 0);
  Random random(p.seed + 1);
  for (std::int64_t j = p.shape.kv_len - 1; j > 0; --j)
    std::swap(order[static_cast<std::size_t>(j)], order[static_cast<std::size_t>(random.between(0, j))]);
  const auto permuted = [&](const Tensor<T>& from) {
    auto to = std::make_unique<Tensor<T>>(from.view.extents());
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.kv_heads; ++h)
        for (std::int64_t j = 0; j < p.shape.kv_len; ++j)
          std::copy_n(&from.view(b, h, order[static_cast<std::size_t>(j)], 0), from.view.extent(3),
                      &to->view(b, h, j, 0));
    return to;
  };
  const auto k = permuted(run.k), v = permuted(run.v);
  RC_ASSERT(difference(before, run.attend(k->view, v->view)) <=
            2 * rounding<T>(p.shape.kv_len, largest_of(run.v.values)));
  RC_ASSERT(difference(lse, run.lse) <= 2 * rounding<T>(p.shape.kv_len, 1 + largest_of(lse)));
}
RC_GTEST_PROP(AttentionProperty, PermutingKeysAndValuesIsRounding, (bool wide)) {
  wide ? permutation_is_rounding<double>() : permutation_is_rounding<float>();
}

// One more channel, the same in every key, adds one number to all scores of a row. Scores move by their own rounding,
// so an output moves by that times the spread of the values.
template <class T>
void shift_is_rounding() {
  Problem p = draw(Mask::any);
  Run<T> run(p);
  p.options.scale = 1 / std::sqrt(static_cast<double>(p.shape.head_dim));
  const std::vector<T> before = run.attend(), lse = run.lse;
  Problem wider = p;
  ++wider.shape.head_dim;
  Run<T> shifted(wider);
  const T in_query = static_cast<T>(between(-20, 20)), in_key = T(0.5);
  for (auto [to, from, extra] : {std::tuple{&shifted.q, &run.q, in_query}, {&shifted.k, &run.k, in_key}}) {
    T* next = from->values.data();
    std::int64_t channel = 0;
    to->each([&, last = p.shape.head_dim, added = extra](T& x) {
      x = channel == last ? added : *next++;
      channel = channel == last ? 0 : channel + 1;
    });
  }
  const double shift = static_cast<double>(in_query * in_key) * *p.options.scale;
  const double scores = 2 * run.largest_score() + std::fabs(shift);
  const double moved = 4 * static_cast<double>(std::numeric_limits<T>::epsilon()) * scores;
  const double largest = largest_of(run.v.values);
  RC_ASSERT(difference(before, shifted.attend(View4<const T>(shifted.k.view), run.v.view)) <=
            2 * moved * largest + 2 * rounding<T>(p.shape.kv_len, largest));
  for (std::size_t i = 0; i < lse.size(); ++i)
    RC_ASSERT(distance(lse[i] + shift, shifted.lse[i]) <= moved + 2 * rounding<T>(p.shape.kv_len, 1 + scores));
}
RC_GTEST_PROP(AttentionProperty, OneNumberOnAllScoresIsRounding, (bool wide)) {
  wide ? shift_is_rounding<double>() : shift_is_rounding<float>();
}

template <class T>
void groups_are_repeated_heads() {
  const Problem p = draw(Mask::any);
  Run<T> run(p);
  const std::vector<T> before = run.attend(), lse = run.lse;
  const auto repeated = [&](const Tensor<T>& from) {
    const std::int64_t width = from.view.extent(3);
    auto to = std::make_unique<Tensor<T>>(std::array{p.shape.batch, p.shape.heads, p.shape.kv_len, width});
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.heads; ++h)
        std::copy_n(&from.view(b, run.kv_head(h), 0, 0), p.shape.kv_len * width, &to->view(b, h, 0, 0));
    return to;
  };
  const auto k = repeated(run.k), v = repeated(run.v);
  RC_ASSERT(run.attend(k->view, v->view) == before);
  RC_ASSERT(run.lse == lse);
}
RC_GTEST_PROP(AttentionProperty, GroupedHeadsAreRepeatedHeadsBitForBit, (bool wide)) {
  wide ? groups_are_repeated_heads<double>() : groups_are_repeated_heads<float>();
}

// A power of two goes through every product and sum unrounded, a sign too.
template <class T>
void values_scale() {
  const Problem p = draw(Mask::any);
  Run<T> run(p);
  std::vector<T> wanted = run.attend();
  const std::vector<T> lse = run.lse;
  const T factor = static_cast<T>(std::ldexp(*rc::gen::element(1, -1), static_cast<int>(between(-20, 20))));
  for (T& x : wanted) x *= factor;
  run.v.each([&](T& x) { x *= factor; });
  RC_ASSERT(run.attend() == wanted);
  RC_ASSERT(run.lse == lse);
}
RC_GTEST_PROP(AttentionProperty, ScalingTheValuesScalesTheOutput, (bool wide)) {
  wide ? values_scale<double>() : values_scale<float>();
}

template <class T>
void one_key_is_its_value() {
  Problem p = draw(Mask::none);
  p.options.causal = Causal::at(-between<std::int64_t>(0, p.shape.q_len - 1));  // some row sees just the first key
  if (*rc::gen::arbitrary<bool>()) p.lengths.assign(static_cast<std::size_t>(p.shape.batch), 1);
  Run<T> run(p);
  run.attend();
  run.each_row([&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t visible) {
    if (visible != 1) return;
    for (std::int64_t c = 0; c < p.shape.value_dim; ++c)
      RC_ASSERT(run.out.view(b, h, i, c) == run.v.view(b, run.kv_head(h), 0, c));
  });
}
RC_GTEST_PROP(AttentionProperty, ASingleVisibleKeyGivesItsValueExactly, (bool wide)) {
  wide ? one_key_is_its_value<double>() : one_key_is_its_value<float>();
}

template <class T>
void equal_keys_add_their_log() {
  const Problem p = draw(Mask::any);
  Run<T> run(p);
  const auto width = static_cast<std::size_t>(p.shape.head_dim);
  for (std::size_t at = width; at < run.k.values.size(); ++at) run.k.values[at] = run.k.values[at - width];
  run.attend();
  const double epsilon = std::numeric_limits<T>::epsilon(), largest = run.largest_score();
  run.each_row([&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t visible) {
    double score = 0;
    for (std::int64_t c = 0; c < p.shape.head_dim; ++c)
      score += static_cast<double>(run.q.view(b, h, i, c)) * run.k.values[static_cast<std::size_t>(c)];
    const double wanted =
        score / std::sqrt(static_cast<double>(p.shape.head_dim)) + std::log(static_cast<double>(visible));
    // A score is one chain over head_dim; its change of units, the log and their sum round a few times.
    const double slack = epsilon * (static_cast<double>(p.shape.head_dim + 4) * largest + 40);
    RC_ASSERT(distance(run.lse_of(b, h, i), wanted) <= slack);
  });
}
RC_GTEST_PROP(AttentionProperty, EqualKeysAddTheLogOfTheirNumber, (bool wide)) {
  wide ? equal_keys_add_their_log<double>() : equal_keys_add_their_log<float>();
}

// A tensor's elements with the outer axes in any order, padding after each, and some of them backwards.
template <class T>
struct Scattered {
  std::vector<T> values;
  View4<T> view;

  explicit Scattered(const Tensor<T>& from) {
    const auto extents = from.view.extents();
    const auto order = *rc::gen::element(std::array{2, 1, 0}, std::array{1, 2, 0}, std::array{0, 1, 2},
                                         std::array{2, 0, 1}, std::array{0, 2, 1}, std::array{1, 0, 2});
    std::array<std::int64_t, 4> strides{0, 0, 0, 1};
    std::int64_t step = extents[3] + between(0, 5), first = between(0, 7);
    for (int axis : order) {
      const auto at = static_cast<std::size_t>(axis);
      const bool reversed = *rc::gen::arbitrary<bool>();
      strides[at] = reversed ? -step : step;
      if (reversed) first += (extents[at] - 1) * step;
      step = step * extents[at] + between(0, 9);
    }
    values.assign(static_cast<std::size_t>(step + 7), std::numeric_limits<T>::quiet_NaN());
    view = View4<T>(values.data() + first, extents, strides);
    copy(from.view, view);
  }
  static void copy(const View4<T>& from, const View4<T>& to) {
    for (std::int64_t b = 0; b < from.extent(0); ++b)
      for (std::int64_t h = 0; h < from.extent(1); ++h)
        for (std::int64_t i = 0; i < from.extent(2); ++i)
          for (std::int64_t c = 0; c < from.extent(3); ++c) to(b, h, i, c) = from(b, h, i, c);
  }
};

template <class T>
void layouts_do_not_matter() {
  const Problem p = draw(Mask::any);
  Run<T> run(p);
  run.attend();
  const Scattered<T> q(run.q), k(run.k), v(run.v);
  Scattered<T> out(run.out);
  const std::int64_t skip = between(1, 3);
  std::vector<T> lse(run.lse.size() * static_cast<std::size_t>(skip), T(77));
  const auto [b, h, n] = run.lse_extents();
  const View3<T> lse_view(lse.data(), {b, h, n}, {skip, skip * b, skip * b * h});  // the other way round
  const std::uint64_t wanted = hash_bits(run.out.view);
  out.view(0, 0, 0, 0) = 77;
  attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, lse_view, run.options());
  RC_ASSERT(hash_bits(out.view) == wanted);
  RC_ASSERT(hash_bits(lse_view) == hash_bits(View3<T>(run.lse.data(), {b, h, n})));
  const auto written = std::count_if(out.values.begin(), out.values.end(), [](T x) { return !std::isnan(x); });
  RC_ASSERT(written == b * h * n * p.shape.value_dim);  // and nothing between the rows
}
RC_GTEST_PROP(AttentionProperty, LayoutsChangeNoBit, (bool wide)) {
  wide ? layouts_do_not_matter<double>() : layouts_do_not_matter<float>();
}

}  // namespace
}  // namespace multihead::testing
