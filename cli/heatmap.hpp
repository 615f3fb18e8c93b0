// SPDX-License-Identifier: Apache-2.0
// Attention weights as a picture in the terminal.
#pragma once

#include <string>

#include "multihead/inspect.hpp"
#include "print.hpp"

namespace multihead::cli {

// weights (q_len, kv_len) in [0, 1], a cell each with its number: on a colour from dark violet (0) to yellow (1), or
// beside a bar of ten signs where there is no colour. Rows are named query, columns key.
Block heatmap(const std::string& title, MatrixView<const double> weights, ColorDepth depth);

}  // namespace multihead::cli
