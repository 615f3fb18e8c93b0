// SPDX-License-Identifier: Apache-2.0
// What both pictures of curves share: the range of the points, and ticks at round numbers.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "multihead/training.hpp"

namespace multihead {

struct Range {
  double low = 0, high = 1;

  double share(double value) const noexcept { return (value - low) / (high - low); }
};

// Of all finite points, never empty; a range of one number is widened around it.
struct PlotRanges {
  Range x, y;
};
PlotRanges plot_ranges(std::span<const Curve> curves);

bool is_shown(const std::pair<double, double>& point) noexcept;

// Round numbers from low to high: multiples of 1, 2 or 5 times a power of ten, about so many.
std::vector<double> ticks(const Range& range, int about);
// The number in so many digits at most: "0.25", "1500".
std::string tick_text(double value, int digits = 6);

}  // namespace multihead
