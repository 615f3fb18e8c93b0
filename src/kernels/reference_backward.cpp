// SPDX-License-Identifier: Apache-2.0
// Gradients of attention as they are defined, in float64, pair by pair.
//
// b batch, h query head, i query, j key, c channel; x a score's product, s the score, p its weight, z dropout's factor.
#include <algorithm>
#include <limits>
#include <vector>

#include "core/float_mode.hpp"
#include "kernels/backward.hpp"
#include "kernels/operands.hpp"
#include "kernels/reference_terms.hpp"
#include "kernels/sequences.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "attention_backward_reference";

template <int Rank>
void clear(const View<double, Rank>& view, std::array<std::int64_t, Rank> at = {}, int axis = 0) {
  if (!view.data()) return;
  for (at[axis] = 0; at[axis] < view.extent(axis); ++at[axis]) {
    if (axis + 1 < Rank) {
      clear<Rank>(view, at, axis + 1);
      continue;
    }
    std::int64_t offset = 0;
    for (int n = 0; n < Rank; ++n) offset += at[n] * view.stride(n);
    view.data()[offset] = 0;
  }
}

// A row, and one of its visible keys.
struct Row {
  std::int64_t b, h, i, kv, position;
};
struct Pair {
  std::int64_t j, key;  // in the sequence, in the tensors
  double product, p;    // q . k, the weight before dropout
};

struct Definition {
  const AttentionForward<double>& forward;
  const AttentionGradients<double>& to;
  const AttentionOptions& options;
  AttentionShape shape;
  double scale;
  RangeRules rules{options};

  void clear_all() const {
    clear(to.q), clear(to.k), clear(to.v), clear(to.bias), clear(to.relative_bias);
    for (double& x : to.alibi_slopes) x = 0;
    for (double& x : to.sinks) x = 0;
    if (to.scale) *to.scale = 0;
  }

  // Of a score, or a sink, in the row's lse: at most 1, however lse was rounded.
  double share_of(double score, const Row& row) const {
    return std::min(exp_of(score - forward.lse(row.b, row.h, row.i)), 1.0);
  }

  std::vector<Pair> pairs_of(const Row& row, const Sequence& sequence, const KeyRange& range) const {
    std::vector<Pair> pairs;
    for (std::int64_t j = range.begin; j < range.end; ++j) {
      const Place place{row.b, row.h, row.i, sequence.k_begin + j};
      if (!sequence.outside_gap(row.position - sequence.offset, j, rules) || hidden(options, place)) continue;
      double product = 0;
      for (std::int64_t c = 0; c < shape.head_dim; ++c)
        product += forward.q(row.b, row.h, row.i, c) * forward.k(row.b, row.kv, place[3], c);
      const double s = score_of(product * scale, options, row.position, j, place);
      pairs.push_back({j, place[3], product, share_of(s, row)});
    }
    return pairs;
  }

  // D_i: sum over c of dO O, less the gradient of lse. A row that sees no key has no dO.
  double row_term(const Row& row, bool sees) const {
    double sum = 0;
    for (std::int64_t c = 0; sees && c < shape.value_dim; ++c)
      sum += forward.d_out(row.b, row.h, row.i, c) * forward.out(row.b, row.h, row.i, c);
    return forward.d_lse.data() ? sum - forward.d_lse(row.b, row.h, row.i) : sum;
  }

  void add_row(const Row& row, const Sequence& sequence, const KeyRange& range) const {
    const std::vector<Pair> pairs = pairs_of(row, sequence, range);
    const double term = row_term(row, !pairs.empty());
    if (!to.sinks.empty()) {
      const auto h = static_cast<std::size_t>(row.h);
      to.sinks[h] -= share_of(options.sinks[h], row) * term;
    }
    for (const Pair& pair : pairs) add_pair(row, pair, term);
  }

  void add_pair(const Row& row, const Pair& pair, double term) const {
    const auto& [b, h, i, kv, position] = row;
    const bool dropped =
        options.dropout.probability > 0 && is_dropped(options.dropout, b * shape.heads + h, i, pair.key);
    const double z = dropped ? 0 : 1 / (1 - options.dropout.probability);
    double dp = 0;
    for (std::int64_t c = 0; c < shape.value_dim; ++c) dp += forward.d_out(b, h, i, c) * forward.v(b, kv, pair.key, c);
    const double ds = pair.p * (z * dp - term);
    const double t = options.softcap > 0 ? tanh_of(pair.product * scale / options.softcap) : 0;
    const double dx = ds * (1 - t * t);
    for (std::int64_t c = 0; to.v.data() && c < shape.value_dim; ++c)
      to.v(b, kv, pair.key, c) += pair.p * z * forward.d_out(b, h, i, c);
    for (std::int64_t c = 0; to.q.data() && c < shape.head_dim; ++c)
      to.q(b, h, i, c) += scale * dx * forward.k(b, kv, pair.key, c);
    for (std::int64_t c = 0; to.k.data() && c < shape.head_dim; ++c)
      to.k(b, kv, pair.key, c) += scale * dx * forward.q(b, h, i, c);
    add_terms(row, pair, ds);
    if (to.scale) *to.scale += dx * pair.product;
  }

  void add_terms(const Row& row, const Pair& pair, double ds) const {
    const auto at = [&](int axis, std::int64_t index) { return to.bias.extent(axis) == 1 ? 0 : index; };
    if (to.bias.data()) to.bias(at(0, row.b), at(1, row.h), at(2, row.i), at(3, pair.key)) += ds;
    const std::int64_t distance = pair.j < row.position ? row.position - pair.j : pair.j - row.position;
    if (!to.alibi_slopes.empty())
      to.alibi_slopes[static_cast<std::size_t>(row.h)] -= ds * static_cast<double>(distance);
    if (to.relative_bias.data()) to.relative_bias(bucket_of(options.relative_bias, row.position, pair.j), row.h) += ds;
  }
};

}  // namespace

void attention_backward_reference(const AttentionForward<double>& forward, const AttentionGradients<double>& gradients,
                                  const AttentionOptions& options) {
  check_backward(kName, forward, gradients, options);
  const FloatMode mode;
  const AttentionShape shape = shape_of(forward.q, forward.k, forward.v);
  const double scale = options.scale ? *options.scale : default_scale(shape.head_dim);
  const Definition definition{forward, gradients, options, shape, scale};
  Sequences sequences(shape, options);
  std::vector<std::byte> tables(sequences.scratch_bytes());
  sequences.prepare(kName, tables.data());
  definition.clear_all();
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const Sequence sequence = sequences.at(s);
    for (std::int64_t h = 0; h < shape.heads; ++h)
      for (std::int64_t i = 0; i < sequence.q_len; ++i)
        definition.add_row(
            {sequence.batch, h, sequence.q_begin + i, h / (shape.heads / shape.kv_heads), i + sequence.offset},
            sequence, sequence.row(i, definition.rules));
  }
}

}  // namespace multihead
