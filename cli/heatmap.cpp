// SPDX-License-Identifier: Apache-2.0
// Attention weights as a picture in the terminal: coloured cells, or bars where there is no colour.
#include "heatmap.hpp"

#include <algorithm>
#include <cmath>

namespace multihead::cli {

namespace {

constexpr int kBar = 10;

// "  0.8659  " in colour, or "  0.8659 [#########.]".
std::size_t cell_width(ColorDepth depth) { return depth == ColorDepth::none ? kBar + 11 : 10; }
std::string cell(double weight, ColorDepth depth) {
  const std::string number = "  " + fixed(weight, 4);
  if (depth != ColorDepth::none) return colored(number + "  ", weight, depth);
  const auto full = static_cast<std::size_t>(std::clamp<long>(std::lround(weight * kBar), 0, kBar));
  return number + " [" + std::string(full, '#') + std::string(kBar - full, '.') + "]";
}

}  // namespace

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
