// SPDX-License-Identifier: Apache-2.0
// How far two runs of an encoder lie apart.
#include "movement.hpp"

#include <cmath>

#include "multihead/encoder.hpp"

namespace multihead::cli {

namespace {

double distance(MatrixView<const float> a, MatrixView<const float> b, std::int64_t first, std::int64_t last) {
  double apart = 0, length = 0;
  for (std::int64_t row = first; row < last; ++row)
    for (std::int64_t c = 0; c < a.extent(1); ++c) {
      const double from = a(row, c), away = b(row, c) - from;
      apart += away * away, length += from * from;
    }
  return apart == 0 ? 0 : std::sqrt(apart / length);
}

}  // namespace

Movement movement(MatrixView<const float> a, MatrixView<const float> b, std::span<const std::int64_t> starts) {
  const std::int64_t texts = std::ssize(starts) - 1;
  Matrix<float> from(texts, a.extent(1)), to(texts, a.extent(1));
  mean_pool(a, starts, false, from);
  mean_pool(b, starts, false, to);
  Movement sum;
  for (std::int64_t text = 0; text < texts; ++text) {
    double lengths[2] = {};
    for (std::int64_t c = 0; c < from.columns(); ++c) {
      lengths[0] += double{from(text, c)} * from(text, c);
      lengths[1] += double{to(text, c)} * to(text, c);
    }
    // Half the squared distance of the directions: 1 - cosine without its cancellation.
    double half = 0;
    const bool both_zero = lengths[0] == 0 && lengths[1] == 0;
    for (std::int64_t c = 0; c < from.columns() && !both_zero; ++c) {
      const double away = to(text, c) / std::sqrt(lengths[1]) - from(text, c) / std::sqrt(lengths[0]);
      half += 0.5 * away * away;
    }
    sum.vector += half;
    sum.hidden += distance(a, b, starts[static_cast<std::size_t>(text)], starts[static_cast<std::size_t>(text) + 1]);
  }
  return {sum.vector / static_cast<double>(texts), sum.hidden / static_cast<double>(texts)};
}

}  // namespace multihead::cli
