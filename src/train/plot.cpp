// SPDX-License-Identifier: Apache-2.0
// The range of curves, and ticks at round numbers.
#include "train/plot.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace multihead {

namespace {

Range widened(Range range) {
  if (range.low > range.high) return {};
  if (range.low < range.high) return range;
  const double by = range.low == 0 ? 1 : std::abs(range.low) / 2;
  return {range.low - by, range.high + by};
}

// The largest power of ten that is not above value: what stands behind its first digit.
double power_of_ten_below(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific, 17);
  char* const e = std::find(text, end, 'e');
  *(e - 1) = '1';
  double power = 0;
  std::from_chars(e - 1, end, power);
  return power;
}

}  // namespace

bool is_shown(const std::pair<double, double>& point) noexcept {
  constexpr double kMost = 1e100;  // beyond, differences of numbers might overflow
  return std::abs(point.first) < kMost && std::abs(point.second) < kMost;
}

PlotRanges plot_ranges(std::span<const Curve> curves) {
  PlotRanges ranges{{1, 0}, {1, 0}};
  bool any = false;
  for (const Curve& curve : curves)
    for (const auto& point : curve.points) {
      if (!is_shown(point)) continue;
      const auto& [x, y] = point;
      ranges.x = any ? Range{std::min(ranges.x.low, x), std::max(ranges.x.high, x)} : Range{x, x};
      ranges.y = any ? Range{std::min(ranges.y.low, y), std::max(ranges.y.high, y)} : Range{y, y};
      any = true;
    }
  return {widened(ranges.x), widened(ranges.y)};
}

std::vector<double> ticks(const Range& range, int about) {
  const double rough = (range.high - range.low) / about;
  const double unit = power_of_ten_below(rough), rest = rough / unit - 1e-9;
  const double step = rest <= 1 ? unit : rest <= 2 ? 2 * unit : rest <= 5 ? 5 * unit : 10 * unit;
  std::vector<double> found;
  const double first = std::ceil(range.low / step - 1e-9);
  for (double n = first; n * step <= range.high + step * 1e-9 && found.size() < 100; ++n)
    found.push_back(n * step + 0.0);
  return found;
}

std::string tick_text(double value, int digits) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value, std::chars_format::general, digits).ptr};
}

}  // namespace multihead
