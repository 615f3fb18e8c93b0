// SPDX-License-Identifier: Apache-2.0
// Numbers, matrices and tables as text.
#include "print.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace multihead::cli {

namespace {

constexpr std::size_t kTerminal = 100;  // columns
constexpr std::size_t kIndent = 2, kGap = 4;
constexpr int kMostDecimals = 4;

std::string formatted(const char* format, int precision, double value) {
  if (std::isnan(value)) return "NaN";
  const int size = std::snprintf(nullptr, 0, format, precision, value);
  std::string text(static_cast<std::size_t>(size) + 1, '\0');
  std::snprintf(text.data(), text.size(), format, precision, value);
  text.pop_back();
  return text;
}

std::string spaces(std::size_t count) { return std::string(count, ' '); }

}  // namespace

std::string fixed(double value, int decimals) {
  const std::string text = formatted("%.*f", decimals, value);
  const bool zero = text.find_first_not_of("-0.") == std::string::npos;
  return zero && text.front() == '-' ? text.substr(1) : text;
}

std::string brief(double value) { return formatted("%.*e", 2, value); }

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) text += (axis ? ", " : "") + std::to_string(shape[axis]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

int decimals_of(MatrixView<const double> matrix) {
  int decimals = 0;
  double unit = 1;
  for (std::int64_t i = 0; i < matrix.extent(0); ++i)
    for (std::int64_t j = 0; j < matrix.extent(1); ++j)
      while (decimals < kMostDecimals && std::abs(matrix(i, j) * unit - std::round(matrix(i, j) * unit)) > 1e-9) {
        ++decimals;
        unit *= 10;
      }
  return decimals;
}

std::size_t Block::width() const {
  std::size_t widest = 0;
  for (const Line& line : lines) widest = std::max(widest, line.width);
  return widest;
}

Block matrix_block(const std::string& title, MatrixView<const double> matrix, int decimals) {
  std::size_t widest = 0;
  for (std::int64_t i = 0; i < matrix.extent(0); ++i)
    for (std::int64_t j = 0; j < matrix.extent(1); ++j) widest = std::max(widest, fixed(matrix(i, j), decimals).size());
  Block block;
  if (!title.empty()) block.add(title);
  for (std::int64_t i = 0; i < matrix.extent(0); ++i) {
    std::string line;
    for (std::int64_t j = 0; j < matrix.extent(1); ++j) {
      const std::string number = fixed(matrix(i, j), decimals);
      line += spaces(widest - number.size() + 2) + number;
    }
    block.add(line);
  }
  return block;
}

void print_blocks(std::ostream& out, const std::vector<Block>& blocks) {
  std::size_t width = 0, height = 0;
  for (const Block& block : blocks) {
    width += kGap + block.width();
    height = std::max(height, block.lines.size());
  }
  if (width > kTerminal && blocks.size() > 1) {
    for (const Block& block : blocks) print_blocks(out, {block});
    return;
  }
  for (std::size_t line = 0; line < height; ++line) {
    std::size_t column = 0, shown = 0;  // where a block begins, and how far the line is written
    for (const Block& block : blocks) {
      if (line < block.lines.size()) {
        out << spaces(column + kIndent - shown) << block.lines[line].text;
        shown = column + kIndent + block.lines[line].width;
      }
      column += block.width() + kGap;
    }
    out << '\n';
  }
  out << '\n';
}

void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i + 1 < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i)
      out << row[i] << (i + 1 < row.size() ? spaces(widths[i] - row[i].size() + 2) : "\n");
  }
}

void print_output(std::ostream& out, MatrixView<const double> output) {
  out << "Output:\n";
  for (const Block::Line& line : matrix_block("", output, kMostDecimals).lines) out << line.text << '\n';
}

}  // namespace multihead::cli
