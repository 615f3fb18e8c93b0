// SPDX-License-Identifier: Apache-2.0
// Scaled dot-product attention as it is defined, in float64, with nothing clever.
//
// b batch, h query head, i query, j key, c channel; q (b, h, i, c), k and v (b, h / group, j, c).
#include "multihead/reference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/float_mode.hpp"
#include "kernels/operands.hpp"
#include "kernels/reference_terms.hpp"
#include "kernels/sequences.hpp"

namespace multihead {

namespace {

// softmax over the scores of one row, in place; returns the log of the sum of exp. The largest score is taken out
// first, so that exp cannot overflow: exp(s - m) / sum exp(s - m) is the same number.
double softmax(std::vector<double>& scores) {
  double m = -std::numeric_limits<double>::infinity();
  for (double s : scores) m = std::max(m, s);
  double sum = 0;
  for (double& s : scores) sum += s = exp_of(s - m);
  for (double& s : scores) s /= sum;
  return m + log_of(sum);
}

double dropout_factor(const Dropout& dropout, std::int64_t bh, std::int64_t i, std::int64_t j) {
  return is_dropped(dropout, bh, i, j) ? 0 : 1 / (1 - dropout.probability);
}

}  // namespace

void attention_reference(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
                         View3<double> lse, const AttentionOptions& options) {
  const AttentionShape shape = shape_of(q, k, v);
  check_operands("attention_reference", operands_of(q, k, v, out, lse), options);
  check_attention("attention_reference", shape, options);
  const FloatMode mode;
  const double scale = options.scale ? *options.scale : default_scale(shape.head_dim);
  const RangeRules rules(options);
  Sequences sequences(shape, options);
  std::vector<std::byte> tables(sequences.scratch_bytes());
  sequences.prepare("attention_reference", tables.data());
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const Sequence sequence = sequences.at(s);
    for (std::int64_t h = 0; h < shape.heads; ++h)
      for (std::int64_t i = 0; i < sequence.q_len; ++i) {
        const std::int64_t b = sequence.batch, row = sequence.q_begin + i, kv = h / (shape.heads / shape.kv_heads);
        std::vector<double> weights;  // of the visible keys: scores, then softmax; the sink's is the last
        std::vector<std::int64_t> visible;
        const KeyRange range = sequence.row(i, rules);
        for (std::int64_t j = range.begin; j < range.end; ++j) {
          const std::int64_t key = sequence.k_begin + j;
          double dot = 0;
          for (std::int64_t c = 0; c < shape.head_dim; ++c) dot += q(b, h, row, c) * k(b, kv, key, c);
          if (!sequence.outside_gap(i, j, rules) || hidden(options, {b, h, row, key})) continue;
          visible.push_back(key);
          weights.push_back(score_of(dot * scale, options, i + sequence.offset, j, {b, h, row, key}));
        }
        if (!options.sinks.empty()) weights.push_back(options.sinks[static_cast<std::size_t>(h)]);
        const double row_lse = weights.empty() ? -std::numeric_limits<double>::infinity() : softmax(weights);
        if (lse.data()) lse(b, h, row) = row_lse;
        if (options.dropout.probability > 0)
          for (std::size_t n = 0; n < visible.size(); ++n)
            weights[n] *= dropout_factor(options.dropout, b * shape.heads + h, row, visible[n]);
        for (std::int64_t c = 0; c < shape.value_dim; ++c) {
          out(b, h, row, c) = 0;
          for (std::size_t n = 0; n < visible.size(); ++n) out(b, h, row, c) += weights[n] * v(b, kv, visible[n], c);
        }
      }
  }
}

namespace {

// a (rows, inner) times columns [first, first + columns) of b.
Matrix<double> product(MatrixView<const double> a, MatrixView<const double> b, std::int64_t first,
                       std::int64_t columns) {
  Matrix<double> c(a.extent(0), columns);
  for (std::int64_t i = 0; i < a.extent(0); ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      for (std::int64_t k = 0; k < a.extent(1); ++k) c(i, j) += a(i, k) * b(k, first + j);
  return c;
}

}  // namespace

void multi_head_attention_reference(MatrixView<const double> X, MatrixView<const double> Wq,
                                    MatrixView<const double> Wk, MatrixView<const double> Wv,
                                    MatrixView<const double> Wo, int num_heads, MatrixView<double> output,
                                    View3<double> weights) {
  const std::int64_t n = X.extent(0), head_dim = Wq.extent(1) / num_heads, value_dim = Wv.extent(1) / num_heads;
  Matrix<double> concat(n, Wv.extent(1));
  for (int h = 0; h < num_heads; ++h) {
    const Matrix<double> Q = product(X, Wq, h * head_dim, head_dim);
    const Matrix<double> K = product(X, Wk, h * head_dim, head_dim);
    const Matrix<double> V = product(X, Wv, h * value_dim, value_dim);
    for (std::int64_t i = 0; i < n; ++i) {
      std::vector<double> row(static_cast<std::size_t>(n));
      for (std::int64_t j = 0; j < n; ++j) {
        double dot = 0;
        for (std::int64_t c = 0; c < head_dim; ++c) dot += Q(i, c) * K(j, c);
        row[static_cast<std::size_t>(j)] = dot / std::sqrt(static_cast<double>(head_dim));
      }
      softmax(row);
      for (std::int64_t j = 0; j < n; ++j) {
        if (weights.data()) weights(h, i, j) = row[static_cast<std::size_t>(j)];
        for (std::int64_t c = 0; c < value_dim; ++c)
          concat(i, h * value_dim + c) += row[static_cast<std::size_t>(j)] * V(j, c);
      }
    }
  }
  const Matrix<double> result = product(concat, Wo, 0, Wo.extent(1));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < Wo.extent(1); ++j) output(i, j) = result(i, j);
}

}  // namespace multihead
