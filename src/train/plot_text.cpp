// SPDX-License-Identifier: Apache-2.0
// Curves as signs in a terminal.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "train/plot.hpp"

namespace multihead {

namespace {

constexpr std::size_t kRows = 9;  // and below them the axis, its numbers and the signs
constexpr std::string_view kSigns = "*+ox#@%=";

std::string right(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

class Canvas {
 public:
  Canvas(const PlotRanges& ranges, std::size_t width) : ranges_(ranges), rows_(kRows, std::string(width, ' ')) {}

  const std::string& row(std::size_t i) const { return rows_[i]; }

  // A sign a column, on straight lines between the points that are shown one after the other.
  void draw(const Curve& curve, char sign) {
    const std::pair<double, double>* before = nullptr;
    for (const auto& point : curve.points) {
      if (!is_shown(point)) {
        before = nullptr;
        continue;
      }
      const std::size_t end = column(point.first);
      put(end, point.second, sign);
      if (before) {
        const std::size_t start = column(before->first);
        for (std::size_t c = start + 1; c < end; ++c) {
          const double share = static_cast<double>(c - start) / static_cast<double>(end - start);
          put(c, before->second + share * (point.second - before->second), sign);
        }
      }
      before = &point;
    }
  }

 private:
  std::size_t column(double x) const {
    return static_cast<std::size_t>(std::floor(ranges_.x.share(x) * static_cast<double>(rows_[0].size() - 1) + 0.5));
  }
  void put(std::size_t column, double y, char sign) {
    const double down = (1 - ranges_.y.share(y)) * static_cast<double>(kRows - 1);
    rows_[std::min(kRows - 1, static_cast<std::size_t>(std::floor(down + 0.5)))][column] = sign;
  }

  PlotRanges ranges_;
  std::vector<std::string> rows_;
};

}  // namespace

std::vector<std::string> plot_text(std::span<const Curve> curves, std::size_t columns) {
  constexpr std::size_t kLeast = 8;  // of the canvas
  const PlotRanges ranges = plot_ranges(curves);
  constexpr int kDigits = 3;
  const std::string high = tick_text(ranges.y.high, kDigits), low = tick_text(ranges.y.low, kDigits);
  const std::string middle = tick_text((ranges.y.low + ranges.y.high) / 2, kDigits);
  const std::size_t margin = std::max({high.size(), low.size(), middle.size()});
  const std::size_t width = std::max(kLeast, columns - std::min(columns, margin + 2));
  Canvas canvas(ranges, width);
  for (std::size_t i = 0; i < curves.size(); ++i) canvas.draw(curves[i], kSigns[i % kSigns.size()]);

  std::vector<std::string> lines;
  for (std::size_t row = 0; row < kRows; ++row) {
    const std::string& label = row == 0 ? high : row == kRows - 1 ? low : row == kRows / 2 ? middle : std::string();
    std::string line = right(label, margin) + " |" + canvas.row(row);
    line.erase(line.find_last_not_of(' ') + 1);
    lines.push_back(line);
  }
  lines.push_back(right("", margin) + " +" + std::string(width, '-'));
  const std::string first = tick_text(ranges.x.low), last = tick_text(ranges.x.high);
  lines.push_back(right("", margin + 2) + first + right(last, width - std::min(width, first.size())));
  std::string legend;
  for (std::size_t i = 0; i < curves.size(); ++i)
    legend += (i > 0 ? "   " : "") + std::string(1, kSigns[i % kSigns.size()]) + " " + curves[i].name;
  lines.push_back(right("", margin + 2) + legend);
  return lines;
}

}  // namespace multihead
