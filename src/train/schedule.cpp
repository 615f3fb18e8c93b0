// SPDX-License-Identifier: Apache-2.0
// The factor of the learning rate at a step.
#include <algorithm>
#include <cmath>

#include "multihead/optimizer.hpp"
#include "train/plain_math.hpp"

namespace multihead {

double Schedule::factor(std::int64_t step) const noexcept {
  if (step < warm_up) return static_cast<double>(step + 1) / static_cast<double>(warm_up);
  if (kind == Kind::constant) return 1;
  if (kind == Kind::inverse_sqrt) {
    const double peak = static_cast<double>(std::max<std::int64_t>(warm_up, 1));
    return std::max(floor, std::sqrt(peak / static_cast<double>(step + 1)));
  }
  if (step >= total) return floor;
  const double passed = static_cast<double>(step - warm_up) / static_cast<double>(total - warm_up);
  const double share = kind == Kind::linear ? 1 - passed : 0.5 * (1 + plain_cosine(passed / 2));
  return floor + (1 - floor) * share;
}

}  // namespace multihead
