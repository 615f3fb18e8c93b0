// SPDX-License-Identifier: Apache-2.0
// One head up close: its labels and map, its rows' strongest keys, or one row whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "head_table.hpp"

namespace multihead::cli {

struct RowsOfHead {
  const HeadTokens& tokens;
  const HeadStats& stats;  // of the head's layer
  const Head& head;
  std::size_t columns;
  ColorDepth depth;
};

// A row by its number, or by its token where that stands once. Throws bad_option.
std::int64_t row_of(const HeadTokens& tokens, const std::string& row);

// What spec.top must be to show so many keys of each row. Throws bad_option.
std::int64_t top_for_rows(const HeadTokens& tokens, std::int64_t top);

// The head's labels, each with its number, threshold and source, then its weights (tokens, tokens) as a picture.
void print_map(const std::string& title, const RowsOfHead& rows, const std::vector<float>& weights);
// Each row's entropy and strongest keys, as many as fit of top.
void print_top(const std::string& title, const RowsOfHead& rows, std::int64_t top);
// One row's weights as bars, in the order of the text.
void print_row(const std::string& title, const RowsOfHead& rows, const std::vector<float>& weights, std::int64_t row);

}  // namespace multihead::cli
