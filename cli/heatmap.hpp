// SPDX-License-Identifier: Apache-2.0
// Attention weights as a picture in the terminal.
#pragma once

#include <string>

#include "arguments.hpp"
#include "print.hpp"

namespace multihead::cli {

enum class ColorDepth { none, colors_256, colors_24_bit };

// What standard output can show. automatic: none when it is no terminal, NO_COLOR is set and not empty, or TERM names a
// terminal without 256 colours; COLORTERM=truecolor or 24bit means 24 bits. always: 256 colours at least.
ColorDepth color_depth(Color color);

// text on the colour of a place between dark violet (0) and yellow (1); depth is not none.
std::string colored(const std::string& text, double place, ColorDepth depth);

// weights (q_len, kv_len) in [0, 1], a cell each with its number: on a colour from dark violet (0) to yellow (1), or
// beside a bar of ten signs where there is no colour. Rows are named query, columns key.
Block heatmap(const std::string& title, MatrixView<const double> weights, ColorDepth depth);

}  // namespace multihead::cli
