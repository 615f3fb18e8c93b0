// SPDX-License-Identifier: Apache-2.0
// Terms of a score as they are defined, element by element.
#include "kernels/reference_terms.hpp"

#include <limits>

#include "core/element.hpp"
#include "kernels/table.hpp"

namespace multihead {

namespace {

double mapped(MathFunction function, double x) {
  baseline_table.f64.map(function, &x, &x, 1);
  return x;
}

// Where an element of a broadcast view stands.
std::int64_t offset_of(const BroadcastView& view, const Place& place) {
  std::int64_t offset = 0;
  for (std::size_t axis = 0; axis < 4; ++axis) offset += view.extents[axis] == 1 ? 0 : place[axis] * view.strides[axis];
  return offset;
}

bool is_true(const Mask& mask, const Place& place) {
  return static_cast<const std::uint8_t*>(mask.view.data)[offset_of(mask.view, place)] != 0;
}

double bias_of(const AttentionOptions& options, const Place& place) {
  const Bias& bias = options.bias;
  return bias.given() ? element_as_double(bias.view.data, bias.type, offset_of(bias.view, place)) : 0;
}

double relative_bias(const RelativeBias& relative, std::int64_t h, std::int64_t p, std::int64_t j) {
  if (!relative.given()) return 0;
  const std::int64_t at = bucket_of(relative, p, j) * relative.strides[0] + h * relative.strides[1];
  return element_as_double(relative.data, relative.type, at);
}

}  // namespace

double exp_of(double x) { return mapped(MathFunction::exp, x); }
double log_of(double x) { return mapped(MathFunction::log, x); }
double tanh_of(double x) { return mapped(MathFunction::tanh, x); }

int bucket_of(const RelativeBias& relative, std::int64_t p, std::int64_t j) {
  return relative_bucket(j - p, static_cast<int>(relative.extents[0]), relative.bidirectional, relative.max_distance);
}

bool hidden(const AttentionOptions& options, const Place& place) {
  if (options.keep_mask.given() && !is_true(options.keep_mask, place)) return true;
  if (options.drop_mask.given() && is_true(options.drop_mask, place)) return true;
  return bias_of(options, place) == -std::numeric_limits<double>::infinity();
}

double score_of(double dot, const AttentionOptions& options, std::int64_t p, std::int64_t j, const Place& place) {
  const std::int64_t h = place[1];
  double score = options.softcap > 0 ? options.softcap * tanh_of(dot / options.softcap) : dot;
  if (!options.alibi_slopes.empty())
    score -= options.alibi_slopes[static_cast<std::size_t>(h)] * static_cast<double>(p < j ? j - p : p - j);
  return score + relative_bias(options.relative_bias, h, p, j) + bias_of(options, place);
}

}  // namespace multihead
