// SPDX-License-Identifier: Apache-2.0
// Numbers, matrices and tables as text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "multihead/tensor.hpp"

namespace multihead::cli {

// 1.5 with two decimals: "1.50"; zero never has a sign.
std::string fixed(double value, int decimals);
// Three significant digits: "1.23e-07".
std::string brief(double value);
// "(2, 3)", as NumPy writes it.
std::string shape_text(std::span<const std::int64_t> shape);
// The fewest decimals, at most 4, that show every element.
int decimals_of(MatrixView<const double> matrix);

// Lines that stand together.
struct Block {
  struct Line {
    std::string text;
    std::size_t width;  // what a terminal shows of it: colour codes take no room
  };
  std::vector<Line> lines;

  void add(const std::string& line) { lines.push_back({line, line.size()}); }
  void add(const std::string& line, std::size_t width) { lines.push_back({line, width}); }
  std::size_t width() const;
};

// Title, then a line a row, columns aligned.
Block matrix_block(const std::string& title, MatrixView<const double> matrix, int decimals);

// Side by side where they fit 100 columns, else one below the other; two spaces before each. Ends with an empty line.
void print_blocks(std::ostream& out, const std::vector<Block>& blocks);

// Columns aligned to the left, two spaces between them. The last cell of a row may be of any length.
void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows);

// "Output:" and the matrix, four decimals.
void print_output(std::ostream& out, MatrixView<const double> output);

}  // namespace multihead::cli
