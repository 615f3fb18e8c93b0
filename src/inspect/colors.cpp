// SPDX-License-Identifier: Apache-2.0
// The colours of a number between 0 and 1, as a terminal's codes.
#include <algorithm>
#include <array>

#include "inspect/colors.hpp"

namespace multihead {

namespace {

// Even steps of viridis (van der Walt and Smith 2015), which grows lighter from end to end and so survives colour
// blindness and print.
constexpr std::array<Rgb, 5> kMap{{{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};

// The nearest colour of the 6 x 6 x 6 cube, whose steps are 0, 95, 135, 175, 215, 255.
int index_of_256(const Rgb& color) {
  int index = 16;
  for (std::size_t i = 0; i < color.size(); ++i) {
    const int step = color[i] < 48 ? 0 : color[i] < 115 ? 1 : (color[i] - 35) / 40;
    index += step * (i == 0 ? 36 : i == 1 ? 6 : 1);
  }
  return index;
}

}  // namespace

Rgb color_of(double place) noexcept {
  const double step = place >= 0 ? std::min(place, 1.0) * (kMap.size() - 1) : 0;  // NaN as 0
  const auto below = std::min(static_cast<std::size_t>(step), kMap.size() - 2);
  const double part = step - static_cast<double>(below);
  Rgb color{};
  for (std::size_t i = 0; i < color.size(); ++i)
    color[i] = nearest(kMap[below][i] + part * (kMap[below + 1][i] - kMap[below][i]));
  return color;
}

std::string color_code(const Rgb& color, bool background, ColorDepth depth) {
  const std::string which = background ? "48" : "38";
  if (depth == ColorDepth::colors_256) return which + ";5;" + std::to_string(index_of_256(color));
  return which + ";2;" + std::to_string(color[0]) + ';' + std::to_string(color[1]) + ';' + std::to_string(color[2]);
}

std::string colored(const std::string& text, double place, ColorDepth depth) {
  if (depth == ColorDepth::none) return text;
  const Rgb back = color_of(place);
  const bool light = 299 * back[0] + 587 * back[1] + 114 * back[2] > 128'000;  // luma of Rec. 601
  const std::string front = depth == ColorDepth::colors_256 ? (light ? "38;5;16" : "38;5;231")
                            : light                         ? "38;2;0;0;0"
                                                            : "38;2;255;255;255";
  return "\x1b[" + color_code(back, true, depth) + ';' + front + 'm' + text + "\x1b[0m";
}

}  // namespace multihead
