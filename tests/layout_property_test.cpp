// SPDX-License-Identifier: Apache-2.0
// Layouts that change no bit, and what the weights of a row are to each other and to its lse.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

#include "multihead/attention.hpp"
#include "property.hpp"

namespace multihead::testing {
namespace {

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
    values.assign(static_cast<std::size_t>(step + 7), static_cast<T>(std::numeric_limits<Sum<T>>::quiet_NaN()));
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
  Problem p = draw<T>();
  p.heads_inside = false, p.padding = 0;
  Tensors<T> in(p);
  const Answer<T> plain(in, p.options());
  const Scattered<T> q(in.q), k(in.k), v(in.v);
  Scattered<T> out(plain.out);
  const auto [b, h, n] = plain.lse.extents();
  if (n == 0) return;
  const std::int64_t skip = between(1, 3);
  std::vector<Sum<T>> lse(plain.lse_values.size() * static_cast<std::size_t>(skip), Sum<T>(77));
  const View3<Sum<T>> lse_view(lse.data(), {b, h, n}, {skip, skip * b, skip * b * h});  // the other way round
  out.view(0, 0, 0, 0) = T(77);
  attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, lse_view, p.options());
  RC_ASSERT(hash_bits(lse_view, hash_bits(out.view)) == plain.bits());
  const auto written = std::count_if(out.values.begin(), out.values.end(), [](T x) { return !std::isnan(widen(x)); });
  RC_ASSERT(written == b * h * n * p.shape.value_dim);  // and nothing between the rows
}
RC_GTEST_PROP(AttentionProperty, LayoutsChangeNoBit, (int type)) {
  switch (type & 3) {
    case 0:
      return layouts_do_not_matter<float>();
    case 1:
      return layouts_do_not_matter<double>();
    case 2:
      return layouts_do_not_matter<BFloat16>();
    default:
      return layouts_do_not_matter<Float16>();
  }
}

// Of n keys: 1/n <= max p <= 1, 0 <= H <= ln n, -ln max p <= -ln sum p^2 <= H, and p = exp(score - lse), each up to
// rounding. H is the entropy.
template <class T>
void weights_are_a_distribution() {
  const Problem p = draw<T>({kSinks, kBiasValues});
  Tensors<T> in(p);
  const auto& s = p.shape;
  std::vector<T> values[2];
  const Answer<T> answer(in, p.options());
  View4<T> views[2];
  for (int at : {0, 1}) {
    values[at].resize(static_cast<std::size_t>(s.batch * s.heads * s.q_len * s.kv_len) + 1);
    views[at] = View4<T>(values[at].data(), {s.batch, s.heads, s.q_len, s.kv_len});
    WeightsRequest<T> request;
    request.point = at ? WeightsPoint::normalised : WeightsPoint::biased, request.per_head = views[at];
    attention_weights(View4<const T>(in.q.view), View4<const T>(in.k.view), View3<const T>(answer.lse), request,
                      p.options());
  }
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t i = 0; i < s.q_len; ++i) {
        double n = 0, largest = 0, entropy = 0, squares = 0, score = 1;
        for (std::int64_t j = 0; j < s.kv_len; ++j) {
          const double w = views[1](b, h, i, j), x = views[0](b, h, i, j);
          RC_ASSERT(w >= 0);
          if (std::isinf(x)) RC_ASSERT(w == 0);
          if (std::isinf(x)) continue;
          n += 1, largest = std::max(largest, w), squares += w * w, score = std::max(score, std::fabs(x));
          entropy -= w > 0 ? w * std::log(w) : 0;
          RC_ASSERT(std::fabs(w - std::exp(x - answer.lse(b, h, i))) <=
                    16 * (1 + score) * std::numeric_limits<T>::epsilon());
        }
        if (n == 0) continue;
        const double slack = (n + 16) * (1 + score) * std::numeric_limits<T>::epsilon();
        RC_ASSERT(largest >= 1 / n - slack);
        RC_ASSERT(largest <= 1 + slack);
        RC_ASSERT(entropy >= -slack);
        RC_ASSERT(entropy <= std::log(n) + 8 * slack);
        RC_ASSERT(-std::log(largest) <= -std::log(squares) + 8 * n * slack);
        RC_ASSERT(-std::log(squares) <= entropy + 8 * n * slack);
      }
}
RC_GTEST_PROP(WeightsProperty, ARowIsADistribution, (bool wide)) {
  wide ? weights_are_a_distribution<double>() : weights_are_a_distribution<float>();
}

}  // namespace
}  // namespace multihead::testing
