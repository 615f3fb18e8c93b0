// SPDX-License-Identifier: Apache-2.0
// Random inputs of the layer, the plain implementation that judges it, and the bound of the error.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "multihead/layer.hpp"
#include "problem.hpp"

namespace multihead::testing {

struct LayerExtents {
  std::int64_t n, model_dim, qk_width, v_width, out_dim;
  int heads;
};
template <class T>
struct Inputs {
  LayerExtents e;
  Matrix<T> X, Wq, Wk, Wv, Wo;

  explicit Inputs(const LayerExtents& extents)
      : e(extents),
        X(e.n, e.model_dim),
        Wq(e.model_dim, e.qk_width),
        Wk(e.model_dim, e.qk_width),
        Wv(e.model_dim, e.v_width),
        Wo(e.v_width, e.out_dim) {
    Random random(static_cast<std::uint64_t>(e.n + e.model_dim));
    for (Matrix<T>* m : {&X, &Wq, &Wk, &Wv, &Wo}) {
      const double scale = m == &X ? 1 : 1.5 / std::sqrt(static_cast<double>(std::max<std::int64_t>(m->rows(), 1)));
      for (std::int64_t i = 0; i < m->rows(); ++i)
        for (std::int64_t j = 0; j < m->columns(); ++j) (*m)(i, j) = static_cast<T>(random.normal() * scale);
    }
  }
  Matrix<T> run(const LayerOptions& options) const { return multi_head_attention(X, Wq, Wk, Wv, Wo, e.heads, options); }
  // Head h's columns of a weight.
  MatrixView<const T> slice(const Matrix<T>& w, int h) const {
    const std::int64_t width = w.columns() / e.heads;
    return {w.data() + h * width, {w.rows(), width}, {w.columns(), 1}};
  }
  SelfAttention<T> run_head(int h, const LayerOptions& options) const {
    return self_attention(X, slice(Wq, h), slice(Wk, h), slice(Wv, h), options);
  }
};

template <class T>
std::uint64_t bits(MatrixView<const T> m) {
  return hash_bits<const T>(m);
}
template <class T>
std::uint64_t bits(const Matrix<T>& m) {
  return bits<T>(MatrixView<const T>(m));
}

// The plain implementation, with sums in Real. slack is how far an element may move, to first order, when every product
// is off by 4 roundings of its magnitude (sum of |terms|) on the way: projections, scores, heads' outputs, output.
template <class Real>
struct Plain {
  using Values = std::vector<Real>;
  Values output, slack;

  static Values absolute(Values x) {
    for (Real& value : x) value = std::fabs(value);
    return x;
  }
  static Values product(const Values& a, const Values& b, std::int64_t rows, std::int64_t columns) {
    const std::size_t n = static_cast<std::size_t>(rows), m = static_cast<std::size_t>(columns);
    const std::size_t inner = b.size() / m;
    Values c(n * m, 0);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t k = 0; k < inner; ++k)
        for (std::size_t j = 0; j < m; ++j) c[i * m + j] += a[i * inner + k] * b[k * m + j];
    return c;
  }

  // A projection and its magnitudes.
  struct Projected {
    Values values, magnitudes;
    template <class T>
    Projected(const Matrix<T>& a, const Matrix<T>& b) {
      const Values x(a.values().begin(), a.values().end()), w(b.values().begin(), b.values().end());
      values = product(x, w, a.rows(), b.columns());
      magnitudes = product(absolute(x), absolute(w), a.rows(), b.columns());
    }
  };

  template <class T>
  explicit Plain(const Inputs<T>& in) {
    const std::array<Projected, 3> qkv{Projected(in.X, in.Wq), Projected(in.X, in.Wk), Projected(in.X, in.Wv)};
    Values concat(qkv[2].values.size()), away(concat.size());
    for (int h = 0; h < in.e.heads; ++h)
      for (std::int64_t i = 0; i < in.e.n; ++i) attend(in.e, qkv, h, i, concat, away);
    const Values Wo(in.Wo.values().begin(), in.Wo.values().end());
    output = product(concat, Wo, in.e.n, in.e.out_dim);
    const Values moved = product(away, absolute(Wo), in.e.n, in.e.out_dim);
    slack = product(absolute(concat), absolute(Wo), in.e.n, in.e.out_dim);
    const Real four_roundings = 2 * static_cast<Real>(std::numeric_limits<T>::epsilon());
    for (std::size_t at = 0; at < slack.size(); ++at) slack[at] = (slack[at] + moved[at]) * four_roundings;
  }

  static void attend(const LayerExtents& e, const std::array<Projected, 3>& qkv, int h, std::int64_t i, Values& concat,
                     Values& away) {
    const auto& [q, k, v] = qkv;
    const std::int64_t d = e.qk_width / e.heads, width = e.v_width / e.heads;
    const Real scale = 1 / std::sqrt(static_cast<Real>(d));
    Values p, magnitudes;
    for (std::int64_t j = 0; j < e.n; ++j) {
      Real dot = 0, magnitude = 0;
      for (std::int64_t c = h * d; c < (h + 1) * d; ++c) {
        const auto a = static_cast<std::size_t>(i * e.qk_width + c), b = static_cast<std::size_t>(j * e.qk_width + c);
        dot += q.values[a] * k.values[b], magnitude += q.magnitudes[a] * k.magnitudes[b];
      }
      p.push_back(dot * scale), magnitudes.push_back(magnitude * scale);
    }
    const Real largest = *std::max_element(p.begin(), p.end());
    Real sum = 0;
    for (Real& x : p) sum += x = std::exp(x - largest);
    for (Real& x : p) x /= sum;
    for (std::int64_t c = h * width; c < (h + 1) * width; ++c) {
      const auto at = [&](std::size_t j) {
        return j * static_cast<std::size_t>(e.v_width) + static_cast<std::size_t>(c);
      };
      Real mean = 0, moved = 0;
      for (std::size_t j = 0; j < p.size(); ++j) mean += p[j] * v.values[at(j)];
      for (std::size_t j = 0; j < p.size(); ++j)
        moved += p[j] * (std::fabs(v.values[at(j)] - mean) * magnitudes[j] + v.magnitudes[at(j)]);
      concat[at(static_cast<std::size_t>(i))] = mean, away[at(static_cast<std::size_t>(i))] = moved;
    }
  }
};

// At most twice the plain implementation's worst error, and the slack.
template <class T>
double excess(const Matrix<T>& got, const Plain<T>& plain, const Plain<long double>& truth) {
  Judge<T> judge(0);
  for (std::size_t i = 0; i < truth.output.size(); ++i)
    judge.meet(got.values()[i], plain.output[i], truth.output[i], truth.slack[i]);
  return judge.excess();
}

}  // namespace multihead::testing
