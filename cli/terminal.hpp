// SPDX-License-Identifier: Apache-2.0
// What the terminal of standard output can show, and how wide it is.
#pragma once

#include <cstddef>

#include "arguments.hpp"
#include "multihead/inspect.hpp"

namespace multihead::cli {

// What standard output can show. automatic: none when it is no terminal, NO_COLOR is set and not empty, or TERM names a
// terminal without 256 colours; COLORTERM=truecolor or 24bit means 24 bits. always: 256 colours at least.
ColorDepth color_depth(Color color);

// Columns of pictures: of the terminal of standard output; of none: what COLUMNS says, else 100.
std::size_t terminal_columns();
// Columns at which lines of text are cut: the same, but without a terminal and COLUMNS they are not cut.
std::size_t line_columns();

}  // namespace multihead::cli
