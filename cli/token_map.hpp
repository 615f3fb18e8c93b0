// SPDX-License-Identifier: Apache-2.0
// What one head looks at in a sentence, as a map of tokens by tokens in the terminal.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "heatmap.hpp"

namespace multihead::cli {

// Columns of the terminal of standard output; of none: what COLUMNS says, else 100.
std::size_t terminal_columns();

// weights (tokens, tokens): a row for each token that looks, a column for each that is looked at, both named by their
// numbers and the rows by tokens too. In colour a cell grows lighter with the square root of the weight; without, it is
// the weight in hundredths, or a sign of " .:-=+*#%@" by its square root where numbers do not fit. Where columns do not
// fit either, each shows the largest weight of a few neighbouring tokens, and the title says of how many.
Block token_map(const std::string& title, const std::vector<std::string>& tokens, MatrixView<const float> weights,
                ColorDepth depth, std::size_t columns);

}  // namespace multihead::cli
