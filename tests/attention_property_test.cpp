// SPDX-License-Identifier: Apache-2.0
// What holds for attention() whatever the numbers and options: convexity, permutation, shift, repeated heads, scaling,
// composition.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <numeric>

#include "multihead/attention.hpp"
#include "property.hpp"

namespace multihead::testing {
namespace {

template <class T>
struct Run {
  const Problem& p;
  Tensors<T> in;
  std::vector<T> out;
  std::vector<Sum<T>> lse;

  explicit Run(const Problem& problem) : p(problem), in(problem) {}
  const std::vector<T>& attend(View4<T> keys, View4<T> values) {
    const Answer<T> answer(in.q.view, keys, values, p.options());
    out = answer.out.values, lse = answer.lse_values;
    return out;
  }
  const std::vector<T>& attend() { return attend(in.k.view, in.v.view); }
  std::int64_t kv_head(std::int64_t h) const { return h / (p.shape.heads / p.shape.kv_heads); }
  std::size_t row(std::int64_t b, std::int64_t h, std::int64_t i) const {
    return static_cast<std::size_t>((b * p.shape.heads + h) * p.shape.q_len + i);
  }
  T out_at(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t c) const {
    return out[row(b, h, i) * static_cast<std::size_t>(p.shape.value_dim) + static_cast<std::size_t>(c)];
  }
  // function(b, h, i, keys that the row sees)
  template <class Function>
  void each_row(const Function& function) const {
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.heads; ++h)
        for (std::int64_t i = 0; i < p.shape.q_len; ++i) {
          const Stand stand(p, b, i);
          std::vector<std::int64_t> keys;
          for (std::int64_t j = 0; j < p.shape.kv_len; ++j)
            if (sees(p, stand, {b, h, i}, j)) keys.push_back(j);
          function(b, h, i, keys);
        }
  }
  // The largest magnitude of a score, its rounding errors' measure.
  double largest_score() const {
    double largest = 0;
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.heads; ++h)
        for (std::int64_t i = 0; i < p.shape.q_len; ++i)
          for (double m : Row<double>(p, in.q.view, in.k.view, {b, h, i}).biased.magnitudes)
            largest = std::max(largest, m);
    return largest;
  }
};

template <class T>
double largest_of(const std::vector<T>& values) {
  double largest = 0;
  for (T x : values)
    if (std::isfinite(x)) largest = std::max(largest, std::fabs(static_cast<double>(x)));
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
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// A sink's share goes to a value of zero.
template <class T>
void stays_within_visible_values() {
  const Problem p = draw<T>({kDropout});
  Run<T> run(p);
  run.attend();
  run.each_row([&](std::int64_t b, std::int64_t h, std::int64_t i, const std::vector<std::int64_t>& keys) {
    const bool zero = keys.empty() || !p.sinks.empty();
    for (std::int64_t c = 0; c < p.shape.value_dim; ++c) {
      double low = zero ? 0 : 1e300, high = zero ? 0 : -1e300;
      for (std::int64_t j : keys) {
        const double x = run.in.v.view(b, run.kv_head(h), j, c);
        low = std::min(low, x), high = std::max(high, x);
      }
      const double slack =
          rounding<T>(static_cast<std::int64_t>(keys.size()), std::max(std::fabs(low), std::fabs(high)));
      RC_ASSERT(run.out_at(b, h, i, c) >= low - slack);
      RC_ASSERT(run.out_at(b, h, i, c) <= high + slack);
    }
  });
}
RC_GTEST_PROP(AttentionProperty, OutputStaysWithinTheVisibleValues, (bool wide)) {
  wide ? stays_within_visible_values<double>() : stays_within_visible_values<float>();
}

// Of what does not go by a key's place: softcap, sinks, scale, grouped heads.
template <class T>
void permutation_is_rounding() {
  const Problem p = draw<T>({kCausal, kWindow, kPacking, kLengths, kKeep, kDrop, kBias, kAlibi, kRelative, kDropout});
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
  const auto k = permuted(run.in.k), v = permuted(run.in.v);
  RC_ASSERT(difference(before, run.attend(k->view, v->view)) <=
            2 * rounding<T>(p.shape.kv_len, largest_of(run.in.v.values)));
  RC_ASSERT(difference(lse, run.lse) <= 2 * rounding<T>(p.shape.kv_len, 1 + largest_of(lse)));
}
RC_GTEST_PROP(AttentionProperty, PermutingKeysAndValuesIsRounding, (bool wide)) {
  wide ? permutation_is_rounding<double>() : permutation_is_rounding<float>();
}

// One more channel, the same in every key, adds one number to all scores of a row, and here to the sink. Scores move by
// their own rounding, so an output moves by that times the spread of the values.
template <class T>
void shift_is_rounding() {
  Problem p = draw<T>({kSoftcap, kBiasValues, kDropout});
  p.plain.scale = 1 / std::sqrt(static_cast<double>(p.shape.head_dim));
  p.heads_inside = false, p.padding = 0;
  Run<T> run(p);
  const std::vector<T> before = run.attend(), lse = run.lse;
  Problem wider = p;
  ++wider.shape.head_dim;
  const T in_query = static_cast<T>(between(-20, 20)), in_key = T(0.5);
  const double shift = static_cast<double>(in_query * in_key) * *p.plain.scale;
  for (double& sink : wider.sinks) sink += shift;
  Run<T> shifted(wider);
  for (auto [to, from, extra] : {std::tuple{&shifted.in.q, &run.in.q, in_query}, {&shifted.in.k, &run.in.k, in_key}}) {
    T* next = from->values.data();
    std::int64_t channel = 0;
    to->each([&, last = p.shape.head_dim, added = extra](T& x) {
      x = channel == last ? added : *next++;
      channel = channel == last ? 0 : channel + 1;
    });
  }
  const double scores = 2 * run.largest_score() + std::fabs(shift) + (p.sinks.empty() ? 0 : largest_of(p.sinks));
  const double moved = 4 * static_cast<double>(std::numeric_limits<T>::epsilon()) * scores;
  const double largest = largest_of(run.in.v.values);
  RC_ASSERT(difference(before, shifted.attend(shifted.in.k.view, run.in.v.view)) <=
            2 * moved * largest + 2 * rounding<T>(p.shape.kv_len, largest));
  for (std::size_t i = 0; i + 1 < lse.size(); ++i)
    RC_ASSERT(distance(lse[i] + shift, shifted.lse[i]) <= moved + 2 * rounding<T>(p.shape.kv_len, 1 + scores));
}
RC_GTEST_PROP(AttentionProperty, OneNumberOnAllScoresIsRounding, (bool wide)) {
  wide ? shift_is_rounding<double>() : shift_is_rounding<float>();
}

template <class T>
void groups_are_repeated_heads() {
  Problem p = draw<T>();
  p.heads_inside = false, p.padding = 0;
  Run<T> run(p);
  const std::vector<T> before = run.attend();
  const std::vector<Sum<T>> lse = run.lse;
  const auto repeated = [&](const Tensor<T>& from) {
    const std::int64_t width = from.view.extent(3);
    auto to = std::make_unique<Tensor<T>>(std::array{p.shape.batch, p.shape.heads, p.shape.kv_len, width});
    for (std::int64_t b = 0; b < p.shape.batch; ++b)
      for (std::int64_t h = 0; h < p.shape.heads; ++h)
        std::copy_n(&from.view(b, run.kv_head(h), 0, 0), p.shape.kv_len * width, &to->view(b, h, 0, 0));
    return to;
  };
  const auto k = repeated(run.in.k), v = repeated(run.in.v);
  RC_ASSERT(same(run.attend(k->view, v->view), before));
  RC_ASSERT(same(run.lse, lse));
}
RC_GTEST_PROP(AttentionProperty, GroupedHeadsAreRepeatedHeadsBitForBit, (int type)) {
  switch (type & 3) {
    case 0:
      return groups_are_repeated_heads<float>();
    case 1:
      return groups_are_repeated_heads<double>();
    case 2:
      return groups_are_repeated_heads<BFloat16>();
    default:
      return groups_are_repeated_heads<Float16>();
  }
}

// A power of two goes through every product and sum unrounded, a sign too.
template <class T>
void values_scale() {
  const Problem p = draw<T>();
  Run<T> run(p);
  std::vector<T> wanted = run.attend();
  const std::vector<T> lse = run.lse;
  const T factor = static_cast<T>(std::ldexp(*rc::gen::element(1, -1), static_cast<int>(between(-20, 20))));
  for (T& x : wanted) x *= factor;
  run.in.v.each([&](T& x) { x *= factor; });
  RC_ASSERT(run.attend() == wanted);  // -0 is 0
  RC_ASSERT(run.lse == lse);
}
RC_GTEST_PROP(AttentionProperty, ScalingTheValuesScalesTheOutput, (bool wide)) {
  wide ? values_scale<double>() : values_scale<float>();
}

template <class T>
void one_key_is_its_value() {
  const Problem p = draw<T>({kSinks, kDropout});
  Run<T> run(p);
  run.attend();
  run.each_row([&](std::int64_t b, std::int64_t h, std::int64_t i, const std::vector<std::int64_t>& keys) {
    if (keys.size() != 1) return;
    for (std::int64_t c = 0; c < p.shape.value_dim; ++c)
      RC_ASSERT(run.out_at(b, h, i, c) == run.in.v.view(b, run.kv_head(h), keys[0], c));
  });
}
RC_GTEST_PROP(AttentionProperty, ASingleVisibleKeyGivesItsValueExactly, (bool wide)) {
  wide ? one_key_is_its_value<double>() : one_key_is_its_value<float>();
}

template <class T>
void equal_keys_add_their_log() {
  Problem p = draw<T>({kBias, kAlibi, kRelative, kSoftcap, kSinks, kScale});
  p.heads_inside = false, p.padding = 0;
  Run<T> run(p);
  const auto width = static_cast<std::size_t>(p.shape.head_dim);
  std::vector<T>& k = run.in.k.values;
  for (std::size_t at = width; at < k.size(); ++at) k[at] = k[at - width];
  run.attend();
  const double epsilon = std::numeric_limits<T>::epsilon(), largest = run.largest_score();
  run.each_row([&](std::int64_t b, std::int64_t h, std::int64_t i, const std::vector<std::int64_t>& keys) {
    double score = 0;
    for (std::int64_t c = 0; c < p.shape.head_dim; ++c)
      score += static_cast<double>(run.in.q.view(b, h, i, c)) * k[static_cast<std::size_t>(c)];
    const double wanted =
        score / std::sqrt(static_cast<double>(p.shape.head_dim)) + std::log(static_cast<double>(keys.size()));
    // A score is one chain over head_dim; its change of units, the log and their sum round a few times.
    const double slack = epsilon * (static_cast<double>(p.shape.head_dim + 4) * largest + 40);
    RC_ASSERT(distance(run.lse[run.row(b, h, i)], wanted) <= slack);
  });
}
RC_GTEST_PROP(AttentionProperty, EqualKeysAddTheLogOfTheirNumber, (bool wide)) {
  wide ? equal_keys_add_their_log<double>() : equal_keys_add_their_log<float>();
}

// Two keep masks see what both keep; a keep and a drop mask what the one keeps and the other does not drop.
template <class T>
void masks_compose() {
  Problem p = draw<T>({kKeep, kDrop}), kept = p, dropped = p;
  if (!p.shape.q_len || !p.shape.kv_len) return;
  Random random(p.seed);
  const Choice two = [&] {
    Choice choice{};
    choice[kKeep] = static_cast<int>(between(1, 2)), choice[kDrop] = static_cast<int>(between(1, 2));
    choice[kRank] = static_cast<int>(between(0, 3)), choice[kStrides] = static_cast<int>(between(0, 3));
    return choice;
  }();
  Problem masks;
  masks.shape = p.shape;
  draw_spreads(random, two, masks);
  dropped.keep_mask = masks.keep_mask, dropped.drop_mask = masks.drop_mask;
  Spread both = expanded(masks.keep_mask, p.shape);
  const Spread drop = expanded(masks.drop_mask, p.shape);
  for (std::size_t at = 0; at < both.values.size(); ++at) both.values[at] *= 1 - drop.values[at];
  both.store_mask(random);
  kept.keep_mask = both;
  Run<T> one(kept), other(dropped);
  RC_ASSERT(same(one.attend(), other.attend()));
  RC_ASSERT(same(one.lse, other.lse));
}
RC_GTEST_PROP(AttentionProperty, MasksComposeBitForBit, (int type)) {
  switch (type & 3) {
    case 0:
      return masks_compose<float>();
    case 1:
      return masks_compose<double>();
    case 2:
      return masks_compose<BFloat16>();
    default:
      return masks_compose<Float16>();
  }
}

}  // namespace
}  // namespace multihead::testing
