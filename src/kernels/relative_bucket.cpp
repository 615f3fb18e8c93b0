// SPDX-License-Identifier: Apache-2.0
// T5's buckets of relative positions (Raffel et al. 2020, section 2.1, and the layer's published code).
#include <algorithm>
#include <cmath>

#include "core/float_mode.hpp"
#include "kernels/table.hpp"
#include "multihead/masks.hpp"

namespace multihead {

// nb buckets a direction: n < nb / 2 has its own; beyond, nb / 2 + floor(log(n / (nb / 2)) / log(max_distance / (nb /
// 2))
// * (nb - nb / 2)), at most nb - 1. Where the quotient is a whole number the logarithms miss it by a few roundings:
// what lies that near counts as reached, as it does in float.
int relative_bucket(std::int64_t r, int buckets, bool bidirectional, std::int64_t max_distance) noexcept {
  const FloatMode mode;
  const int count = bidirectional ? buckets / 2 : buckets;
  const int base = bidirectional && r > 0 ? count : 0;
  const std::int64_t n = bidirectional ? (r < 0 ? -r : r) : std::max<std::int64_t>(-r, 0);
  const int exact = count / 2;
  if (n < exact) return base + static_cast<int>(n);
  double logs[2] = {static_cast<double>(n) / exact, static_cast<double>(max_distance) / exact};
  baseline_table.f64.map(MathFunction::log, logs, logs, 2);
  const double steps = logs[0] / logs[1] * (count - exact);
  constexpr double kNear = 1e-9;
  return base + std::min(count - 1, exact + static_cast<int>(std::min(steps + kNear, static_cast<double>(count))));
}

}  // namespace multihead
