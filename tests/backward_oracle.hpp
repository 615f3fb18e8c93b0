// SPDX-License-Identifier: Apache-2.0
// Gradients of a random problem: inputs, what is asked for, and the judge: the formulas pair by pair in double, with
// the magnitudes that rounding errors grow with.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "multihead/attention_backward.hpp"
#include "oracle.hpp"

namespace multihead::testing {

// Whether a target multiplies pairs of a type's elements here too, and rounds P Z and dx for that.
inline bool rounds_factors(Target target, Type type) {
  return type == Type::bfloat16 && (target == Target::avx512bf16 || target == Target::amx);
}

// Everything that a problem has a gradient of. bias: of these extents, or not asked for.
template <class T>
struct Gradients {
  Tensor<T> q, k, v;
  std::array<std::int64_t, 4> bias_extents{};
  std::vector<Sum<T>> bias, table;
  std::array<std::int64_t, 2> table_extents{};
  std::vector<double> slopes, sinks;
  double scale = 0;

  Gradients(const Problem& p, std::array<std::int64_t, 4> bias_of)
      : q({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.head_dim}, p.heads_inside, p.padding),
        k({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.head_dim}, p.heads_inside, p.padding),
        v({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.value_dim}, p.heads_inside, p.padding),
        bias_extents(p.bias.rank ? bias_of : std::array<std::int64_t, 4>{}),
        bias(static_cast<std::size_t>(bias_extents[0] * bias_extents[1] * bias_extents[2] * bias_extents[3])),
        slopes(p.alibi_slopes.size(), 77),
        sinks(p.sinks.size(), 77) {
    if (p.table.rank) table_extents = {p.table.extents[2], p.shape.heads};
    table.assign(static_cast<std::size_t>(table_extents[0] * table_extents[1]), 77);
    std::fill(bias.begin(), bias.end(), Sum<T>(77));
  }

  AttentionGradients<T> asked() {
    AttentionGradients<T> all;
    all.q = q.view, all.k = k.view, all.v = v.view;
    if (!bias.empty()) all.bias = View4<Sum<T>>(bias.data(), bias_extents);
    all.alibi_slopes = slopes, all.sinks = sinks, all.scale = &scale;
    if (!table.empty()) all.relative_bias = MatrixView<Sum<T>>(table.data(), table_extents);
    return all;
  }

  // function(name, elements as doubles) for each.
  template <class Function>
  void each(const Function& function) {
    const auto of_tensor = [](Tensor<T>& tensor) {
      std::vector<double> values;
      tensor.each([&](T& x) { values.push_back(static_cast<double>(widen(x))); });
      return values;
    };
    function("q", of_tensor(q)), function("k", of_tensor(k)), function("v", of_tensor(v));
    function("bias", std::vector<double>(bias.begin(), bias.end()));
    function("table", std::vector<double>(table.begin(), table.end()));
    function("slopes", slopes), function("sinks", sinks), function("scale", std::vector<double>{scale});
  }

  std::uint64_t bits() {
    std::uint64_t hash = hash_bits(q.view);
    hash = hash_bits(v.view, hash_bits(k.view, hash));
    const auto list = [&](auto& values) {
      using Element = std::remove_reference_t<decltype(values[0])>;
      hash = hash_bits(View<Element, 1>(values.data(), {static_cast<std::int64_t>(values.size())}), hash);
    };
    list(bias), list(table), list(slopes), list(sinks);
    std::vector<double> of_scale{scale};
    list(of_scale);
    return hash;
  }
};

// The extents of a gradient of the problem's bias: where the bias repeats 1, elsewhere 1 or all, by the bits of which.
inline std::array<std::int64_t, 4> bias_gradient_extents(const Problem& p, unsigned which) {
  const std::array<std::int64_t, 4> all{p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.kv_len};
  std::array<std::int64_t, 4> extents{};
  for (std::size_t axis = 0; axis < 4; ++axis)
    extents[axis] = p.bias.extents[axis] == 1 || (which >> axis & 1) ? 1 : all[axis];
  return extents;
}

// What the backward pass reads. Its out and lse are those of attention().
template <class T>
struct Pass {
  using Real = Sum<T>;
  const Problem& p;
  Tensor<T> q, k, v, out, d_out;
  std::vector<Real> lse, d_lse;

  explicit Pass(const Problem& problem)
      : p(problem),
        q({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.head_dim}, p.heads_inside, p.padding),
        k({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.head_dim}, p.heads_inside, p.padding),
        v({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.value_dim}, p.heads_inside, p.padding),
        out({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.value_dim}, p.heads_inside, p.padding),
        d_out({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.value_dim}, !p.heads_inside, p.padding) {
    Random random(p.seed + 1);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random, p.input_scale);
    d_out.fill_normal(random);
    const auto rows = static_cast<std::size_t>(p.shape.batch * p.shape.heads * p.shape.q_len);
    lse.assign(rows + 1, 0);
    for (std::size_t row = 0; row <= rows && p.seed % 2; ++row) d_lse.push_back(static_cast<Real>(random.normal()));
  }

  std::array<std::int64_t, 3> rows() const { return {p.shape.batch, p.shape.heads, p.shape.q_len}; }
  void attend(const AttentionOptions& options) {
    attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view,
              View3<Real>(lse.data(), rows()), options);
  }
  AttentionForward<T> forward() const {
    AttentionForward<T> all{q.view, k.view, v.view, out.view, View3<const Real>(lse.data(), rows()), d_out.view, {}};
    if (!d_lse.empty()) all.d_lse = View3<const Real>(d_lse.data(), rows());
    return all;
  }
};

// The true gradients of a pass, from its out and lse, and their magnitudes: the same sums over absolute values, each
// pair times how far its weight and the rest may be off in units of rounding. rounded: over absolute values alone, of
// what a target with rounds_factors() rounds first.
template <class T>
struct Truth {
  static constexpr double kFactorRounding = 1 / 257.0;  // of a factor rounded to bfloat16, as a share of it
  static constexpr double kUnit = static_cast<double>(std::numeric_limits<Sum<T>>::epsilon()) / 2;
  // A weight below the normal range is zero, in units of rounding.
  static constexpr double kFlushed = static_cast<double>(std::numeric_limits<Sum<T>>::min()) / kUnit;
  const Pass<T>& pass;
  const Problem& p;
  const AttentionOptions options;
  Gradients<double> value, magnitude, rounded;

  Truth(const Pass<T>& of, const AttentionOptions& with, std::array<std::int64_t, 4> bias)
      : pass(of), p(of.p), options(with), value(p, bias), magnitude(p, bias), rounded(p, bias) {
    for (Gradients<double>* all : {&value, &magnitude, &rounded}) {
      for (auto* tensor : {&all->q, &all->k, &all->v}) tensor->each([](double& x) { x = 0; });
      for (auto* list : {&all->bias, &all->table, &all->slopes, &all->sinks}) std::fill(list->begin(), list->end(), 0);
    }
    const AttentionShape& s = p.shape;
    for (std::int64_t b = 0; b < s.batch; ++b)
      for (std::int64_t h = 0; h < s.heads; ++h)
        for (std::int64_t i = 0; i < s.q_len; ++i) add_row(b, h, i);
  }

  void add_row(std::int64_t b, std::int64_t h, std::int64_t i) {
    const Row<double> row(p, pass.q.view, pass.k.view, {b, h, i});
    const auto at = static_cast<std::size_t>((b * p.shape.heads + h) * p.shape.q_len + i);
    const double lse = pass.lse[at];
    double term = 0, size = 0;
    for (std::int64_t c = 0; !row.keys.empty() && c < p.shape.value_dim; ++c) {
      const double x = static_cast<double>(widen(pass.d_out.view(b, h, i, c))) *
                       static_cast<double>(widen(pass.out.view(b, h, i, c)));
      term += x, size += std::fabs(x);
    }
    if (!pass.d_lse.empty()) term -= pass.d_lse[at], size += std::fabs(pass.d_lse[at]);
    if (!p.sinks.empty()) {
      const double w = std::exp(p.sinks[static_cast<std::size_t>(h)] - lse);
      value.sinks[static_cast<std::size_t>(h)] -= w * term;
      magnitude.sinks[static_cast<std::size_t>(h)] += w * size;
    }
    for (std::size_t n = 0; n < row.keys.size(); ++n) add_pair({b, h, i}, row, n, lse, term, size);
  }

  void add_pair(std::array<std::int64_t, 3> at, const Row<double>& row, std::size_t n, double lse, double term,
                double size) {
    const auto [b, h, i] = at;
    const std::int64_t j = row.keys[n], kv = h / (p.shape.heads / p.shape.kv_heads);
    const Dropout& dropout = options.dropout;
    const double z = dropout.probability == 0                           ? 1
                     : is_dropped(dropout, b * p.shape.heads + h, i, j) ? 0
                                                                        : 1 / (1 - dropout.probability);
    const double off = 1 + row.biased.magnitudes[n] + std::fabs(lse);
    const double weight = std::min(std::exp(row.biased.values[n] - lse), 1.0);
    // Of a score so far from zero that less than a factor e is left of it any weight may come.
    const double weight_size = (off * kUnit < 1 ? weight * off : 2 / kUnit) + kFlushed;
    double dp = 0, dp_size = 0;
    for (std::int64_t c = 0; c < p.shape.value_dim; ++c) {
      const double d_out = static_cast<double>(widen(pass.d_out.view(b, h, i, c)));
      const double x = d_out * static_cast<double>(widen(pass.v.view(b, kv, j, c)));
      dp += x, dp_size += std::fabs(x);
      value.v.view(b, kv, j, c) += weight * z * d_out;
      magnitude.v.view(b, kv, j, c) += weight_size * z * std::fabs(d_out);
      rounded.v.view(b, kv, j, c) += weight * z * std::fabs(d_out);
    }
    const double ds = weight * (z * dp - term), ds_size = weight_size * (z * dp_size + size);
    const double cap = p.plain.softcap,
                 scale = p.plain.scale.value_or(1 / std::sqrt(static_cast<double>(p.shape.head_dim)));
    const double t = cap > 0 ? row.capped.values[n] / cap : 0, slope = 1 - t * t;
    // Near the cap the slope is what is left of 1.
    const double dx = ds * slope,
                 dx_size = ds_size * (slope + (cap > 0 ? 4 * (1 + row.scaled.magnitudes[n] / cap) : 0));
    double product = 0, product_size = 0;
    for (std::int64_t c = 0; c < p.shape.head_dim; ++c) {
      const double q = static_cast<double>(widen(pass.q.view(b, h, i, c))),
                   k = static_cast<double>(widen(pass.k.view(b, kv, j, c)));
      product += q * k, product_size += std::fabs(q * k);
      value.q.view(b, h, i, c) += scale * dx * k, magnitude.q.view(b, h, i, c) += std::fabs(scale * k) * dx_size;
      value.k.view(b, kv, j, c) += scale * dx * q, magnitude.k.view(b, kv, j, c) += std::fabs(scale * q) * dx_size;
      rounded.q.view(b, h, i, c) += std::fabs(scale * dx * k), rounded.k.view(b, kv, j, c) += std::fabs(scale * dx * q);
    }
    value.scale += dx * product, magnitude.scale += dx_size * product_size, rounded.scale += std::fabs(dx * product);
    add_terms(at, j, ds, ds_size);
  }

  void add_terms(std::array<std::int64_t, 3> at, std::int64_t j, double ds, double size) {
    const auto [b, h, i] = at;
    const auto& e = value.bias_extents;
    if (!value.bias.empty()) {
      const std::array<std::int64_t, 4> all{b, h, i, j};
      std::int64_t place = 0;
      for (std::size_t axis = 0; axis < 4; ++axis) place = place * e[axis] + (e[axis] == 1 ? 0 : all[axis]);
      value.bias[static_cast<std::size_t>(place)] += ds, magnitude.bias[static_cast<std::size_t>(place)] += size;
    }
    const Stand stand(p, b, i);
    const std::int64_t r = j - stand.k_first - (i - stand.q_first + stand.offset);
    if (!value.slopes.empty()) {
      value.slopes[static_cast<std::size_t>(h)] -= ds * static_cast<double>(std::abs(r));
      magnitude.slopes[static_cast<std::size_t>(h)] += size * static_cast<double>(std::abs(r));
    }
    if (value.table.empty()) return;
    const auto bucket = bucket_of(r, p.table.extents[2], p.bidirectional, p.max_distance);
    const auto place = static_cast<std::size_t>(bucket * p.shape.heads + h);
    value.table[place] += ds, magnitude.table[place] += size;
  }

  // A Float16 that is, or may be, beyond the largest.
  static bool half_overflows(double wanted, double bound) {
    return std::is_same_v<T, Float16> && std::fabs(wanted) + bound >= 65520;
  }

  // How far the worst element lies outside its bound, roundings of its magnitude, a share of what is rounded first and
  // one rounding of storage; and whose.
  std::string excess(Gradients<T>& got, double roundings, double share = 0) {
    std::vector<std::vector<double>> found, bounds, firsts;
    got.each([&](const char*, const std::vector<double>& x) { found.push_back(x); });
    magnitude.each([&](const char*, const std::vector<double>& x) { bounds.push_back(x); });
    rounded.each([&](const char*, const std::vector<double>& x) { firsts.push_back(x); });
    std::string text;
    std::size_t at = 0;
    value.each([&](const char* name, const std::vector<double>& wanted) {
      for (std::size_t n = 0; n < wanted.size(); ++n) {
        const double bound = roundings * kUnit * bounds[at][n] + share * firsts[at][n] +
                             static_cast<double>(std::numeric_limits<Sum<T>>::min());
        const double stored = at < 3 ? half_ulp<T>(std::fabs(wanted[n]) + bound) : 0;
        if (half_overflows(wanted[n], bound) && std::isinf(found[at][n])) continue;
        if (distance(found[at][n], wanted[n]) > bound + stored && text.empty())
          text = std::string(name) + "[" + std::to_string(n) + "] is " + std::to_string(found[at][n]) + ", true is " +
                 std::to_string(wanted[n]) + ", " +
                 std::to_string((distance(found[at][n], wanted[n]) - stored) / (kUnit * bounds[at][n])) + " roundings";
      }
      ++at;
    });
    return text;
  }
};

}  // namespace multihead::testing
