// SPDX-License-Identifier: Apache-2.0
// Attention weights as a picture in the terminal: coloured cells, or bars where there is no colour.
#include "heatmap.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <string_view>

namespace multihead::cli {

namespace {

using Rgb = std::array<int, 3>;

// Even steps of viridis (van der Walt and Smith 2015), which grows lighter from end to end and so survives colour
// blindness and print.
constexpr std::array<Rgb, 5> kMap{{{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};
constexpr int kBar = 10;
constexpr std::string_view kReset = "\x1b[0m";

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

Rgb color_of(double place) {
  const double step = std::clamp(place, 0.0, 1.0) * (kMap.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(step), kMap.size() - 2);
  const double part = step - static_cast<double>(below);
  Rgb color{};
  for (std::size_t i = 0; i < color.size(); ++i)
    color[i] = static_cast<int>(std::lround(kMap[below][i] + part * (kMap[below + 1][i] - kMap[below][i])));
  return color;
}

// The nearest colour of the 6 x 6 x 6 cube, whose steps are 0, 95, 135, 175, 215, 255.
int index_of_256(const Rgb& color) {
  int index = 16;
  for (std::size_t i = 0; i < color.size(); ++i) {
    const int step = color[i] < 48 ? 0 : color[i] < 115 ? 1 : (color[i] - 35) / 40;
    index += step * (i == 0 ? 36 : i == 1 ? 6 : 1);
  }
  return index;
}

// "  0.8659  " in colour, or "  0.8659 [#########.]".
std::size_t cell_width(ColorDepth depth) { return depth == ColorDepth::none ? kBar + 11 : 10; }
std::string cell(double weight, ColorDepth depth) {
  const std::string number = "  " + fixed(weight, 4);
  if (depth != ColorDepth::none) return colored(number + "  ", weight, depth);
  const auto full = static_cast<std::size_t>(std::clamp<long>(std::lround(weight * kBar), 0, kBar));
  return number + " [" + std::string(full, '#') + std::string(kBar - full, '.') + "]";
}

}  // namespace

ColorDepth color_depth(Color color) {
  if (color == Color::never) return ColorDepth::none;
  const std::string_view term = environment("TERM"), color_term = environment("COLORTERM");
  const bool all = color_term == "truecolor" || color_term == "24bit" || term.ends_with("-direct");
  if (color == Color::automatic) {
    if (!environment("NO_COLOR").empty() || term == "dumb" || isatty(STDOUT_FILENO) == 0) return ColorDepth::none;
    if (!all && term.find("256color") == std::string_view::npos) return ColorDepth::none;
  }
  return all ? ColorDepth::colors_24_bit : ColorDepth::colors_256;
}

std::string colored(const std::string& text, double place, ColorDepth depth) {
  const Rgb back = color_of(place);
  const bool light = 299 * back[0] + 587 * back[1] + 114 * back[2] > 128'000;  // luma of Rec. 601
  if (depth == ColorDepth::colors_256)
    return "\x1b[48;5;" + std::to_string(index_of_256(back)) + (light ? ";38;5;16m" : ";38;5;231m") + text +
           std::string(kReset);
  return "\x1b[48;2;" + std::to_string(back[0]) + ';' + std::to_string(back[1]) + ';' + std::to_string(back[2]) +
         (light ? ";38;2;0;0;0m" : ";38;2;255;255;255m") + text + std::string(kReset);
}

Block heatmap(const std::string& title, MatrixView<const double> weights, ColorDepth depth) {
  const auto filled = [](std::string text, std::size_t width) {
    text.resize(std::max(text.size(), width), ' ');
    return text;
  };
  const std::size_t label = ("query " + std::to_string(weights.extent(0))).size() + 1;
  std::string keys(label, ' ');
  for (std::int64_t j = 0; j < weights.extent(1); ++j) keys += filled("  key " + std::to_string(j), cell_width(depth));
  keys.erase(keys.find_last_not_of(' ') + 1);

  Block block;
  block.add(title);
  block.add(keys);
  for (std::int64_t i = 0; i < weights.extent(0); ++i) {
    std::string line = filled("query " + std::to_string(i), label);
    for (std::int64_t j = 0; j < weights.extent(1); ++j) line += cell(weights(i, j), depth);
    block.add(line, label + static_cast<std::size_t>(weights.extent(1)) * cell_width(depth));
  }
  return block;
}

}  // namespace multihead::cli
