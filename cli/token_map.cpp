// SPDX-License-Identifier: Apache-2.0
// What one head looks at in a sentence, as a map of tokens by tokens in the terminal.
#include "token_map.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "model.hpp"
#include "texts.hpp"

namespace multihead::cli {

namespace {

constexpr std::size_t kColumns = 100, kFewestCells = 8;
constexpr std::size_t kLongestToken = 16;
constexpr std::string_view kShades = " .:-=+*#%@";

// How wide a cell is, and how many tokens it stands for.
struct Cells {
  std::size_t width, tokens;
};

Cells cells_for(std::size_t tokens, std::size_t room, ColorDepth depth) {
  if (depth == ColorDepth::none && 3 * tokens <= room) return {3, 1};
  if (depth != ColorDepth::none && 2 * tokens <= room) return {2, 1};
  return {1, (tokens + room - 1) / std::max<std::size_t>(room, 1)};
}

std::string cell(float weight, std::size_t width, ColorDepth depth) {
  const double place = std::sqrt(std::clamp<double>(weight, 0, 1));
  if (depth != ColorDepth::none) return colored(std::string(width, ' '), place, depth);
  if (width == 1)
    return std::string(1, kShades[std::min(static_cast<std::size_t>(place * kShades.size()), kShades.size() - 1)]);
  const long hundredths = std::lround(100 * weight);
  const std::string number = hundredths == 0 ? "." : hundredths == 100 ? "1." : std::to_string(hundredths);
  return std::string(width - number.size(), ' ') + number;
}

// The numbers of the columns, a line a digit where a cell is narrower than they are.
void add_numbers(Block& block, std::size_t tokens, const Cells& cells, std::size_t label) {
  const std::size_t digits = std::to_string(tokens - 1).size();
  const std::size_t lines = cells.width > digits ? 1 : digits;
  for (std::size_t line = 0; line < lines; ++line) {
    std::string text(label, ' ');
    for (std::size_t first = 0; first < tokens; first += cells.tokens) {
      std::string number = std::to_string(first);
      if (lines > 1) {
        number.insert(0, digits - number.size(), ' ');
        number = number.substr(line, 1);
      }
      text += std::string(cells.width - std::min(cells.width, number.size()), ' ') + number;
    }
    block.add(text);
  }
}

}  // namespace

std::size_t terminal_columns() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const std::optional<std::int64_t> number = whole_number(columns ? columns : "");
  return number && *number > 0 ? static_cast<std::size_t>(*number) : kColumns;
}

Block token_map(const std::string& title, const std::vector<std::string>& tokens, MatrixView<const float> weights,
                ColorDepth depth, std::size_t columns) {
  std::size_t longest = 0;
  for (const std::string& token : tokens) longest = std::max(longest, columns_of(token));
  longest = std::min(longest, kLongestToken);
  const std::size_t digits = std::to_string(tokens.size() - 1).size(), label = digits + 1 + longest + 1;
  const Cells cells = cells_for(tokens.size(), columns > label + kFewestCells ? columns - label : kFewestCells, depth);
  Block block;
  block.add(cells.tokens == 1
                ? title
                : title + "; each column is the largest of " + std::to_string(cells.tokens) + " neighbouring tokens");
  add_numbers(block, tokens.size(), cells, label);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    std::string number = std::to_string(i);
    std::string line = std::string(digits - number.size(), ' ') + number + ' ' + fitted(tokens[i], longest) + ' ';
    for (std::size_t first = 0; first < tokens.size(); first += cells.tokens) {
      float largest = 0;
      for (std::size_t j = first; j < std::min(first + cells.tokens, tokens.size()); ++j)
        largest = std::max(largest, weights(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j)));
      line += cell(largest, cells.width, depth);
    }
    block.add(line, label + cells.width * ((tokens.size() + cells.tokens - 1) / cells.tokens));
  }
  return block;
}

}  // namespace multihead::cli
