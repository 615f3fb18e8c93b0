// SPDX-License-Identifier: Apache-2.0
// One head up close: its labels and map, its rows' strongest keys, or one row whole.
#include "head_rows.hpp"

#include <algorithm>
#include <cmath>
#include <iostream>

#include "model.hpp"
#include "print.hpp"
#include "texts.hpp"

namespace multihead::cli {

namespace {

constexpr std::size_t kLongestToken = 16;

std::string place_of(std::int64_t i) { return std::to_string(i); }

// Numbers to the right, names to the left, as wide as the widest of them.
class Names {
 public:
  explicit Names(const HeadTokens& tokens) : tokens_(tokens) {
    digits_ = std::to_string(std::max<std::int64_t>(tokens.size(), 1) - 1).size();
    for (const std::string& name : tokens.names) name_ = std::max(name_, columns_of(name));
    name_ = std::min(name_, kLongestToken);
  }
  std::size_t width() const { return digits_ + 1 + name_ + 2; }
  std::string of(std::int64_t i) const {
    const std::string number = place_of(i);
    return std::string(digits_ - number.size(), ' ') + number + ' ' +
           fitted(tokens_.names[static_cast<std::size_t>(i)], name_) + "  ";
  }

 private:
  const HeadTokens& tokens_;
  std::size_t digits_ = 0, name_ = 0;
};

void print_line(std::string line, std::size_t columns) {
  line.erase(line.find_last_not_of(' ') + 1);
  std::cout << (columns_of(line) > columns ? fitted(line, columns) : line) << '\n';
}

// A threshold as it was published: 0.3, 3.8.
std::string published(double value) {
  return fixed(value, std::abs(value * 10 - std::round(value * 10)) < 1e-9 ? 1 : 2);
}

void print_labels(const RowsOfHead& rows) {
  std::cout << "Labels of layer " << rows.head.layer << ", head " << rows.head.head << ":\n";
  for (const HeadLabel& label : rows.head.labels)
    std::cout << "  " << label.name << ": " << label.measure << ' ' << fixed(label.value, 2) << "; threshold "
              << published(label.threshold) << ", " << label.source << '\n';
}

}  // namespace

std::int64_t row_of(const HeadTokens& tokens, const std::string& row) {
  const std::int64_t n = tokens.size();
  if (const std::optional<std::int64_t> number = whole_number(row)) {
    if (*number >= 0 && *number < n) return *number;
    throw Error(ErrorCode::bad_option,
                "--row is " + row + "; the text has " + std::to_string(n) + " tokens, counted from 0");
  }
  std::string places;
  std::int64_t found = -1, count = 0;
  for (std::int64_t i = 0; i < n; ++i)
    if (tokens.texts[static_cast<std::size_t>(i)] == row) {
      places += (count++ ? ", " : "") + place_of(i);
      found = i;
    }
  if (count == 1) return found;
  if (count > 1)
    throw Error(ErrorCode::bad_option,
                "--row: '" + row + "' stands " + std::to_string(count) + " times; name one by its number: " + places);
  throw Error(ErrorCode::bad_option, "--row: '" + row + "' is no token of the text; multihead tokens shows them");
}

std::int64_t top_for_rows(const HeadTokens& tokens, std::int64_t top) {
  if (top > 64)
    throw Error(ErrorCode::bad_option, "--top is " + std::to_string(top) + "; at most 64 keys of a row are shown");
  return std::min(top, tokens.size());
}

void print_map(const std::string& title, const RowsOfHead& rows, const std::vector<float>& weights) {
  print_labels(rows);
  std::cout << '\n' << title << ": each row is a token and what it looks at\n";
  const std::int64_t n = rows.tokens.size();
  for (const std::string& line : picture({weights.data(), {n, n}}, {rows.columns, rows.depth, rows.tokens.names, {}}))
    std::cout << line << '\n';
}

void print_top(const std::string& title, const RowsOfHead& rows, std::int64_t top) {
  const Names names(rows.tokens);
  const RowStatistics<const float> of = rows.stats.rows();
  print_labels(rows);
  std::cout << '\n' << title << ": each row's strongest keys, each with its weight\n";
  print_line(fitted("row", names.width()) + "entropy  keys", rows.columns);
  for (std::int64_t i = 0; i < rows.tokens.size(); ++i) {
    std::string line = names.of(i) + fitted(fixed(of.entropy(0, rows.head.head, i), 2), 9);
    std::size_t used = names.width() + 9;
    for (std::int64_t place = 0; place < top; ++place) {
      const std::int64_t key = of.top_keys(0, rows.head.head, i, place);
      if (key < 0) break;
      const std::string text = rows.tokens.names[static_cast<std::size_t>(key)] + ' ' +
                               fixed(of.top_weights(0, rows.head.head, i, place), 2);
      if (place > 0 && used + columns_of(text) > rows.columns) break;
      line += text + "   ";
      used += columns_of(text) + 3;
    }
    print_line(line, rows.columns);
  }
}

void print_row(const std::string& title, const RowsOfHead& rows, const std::vector<float>& weights, std::int64_t row) {
  constexpr std::size_t kNumber = 8, kFewest = 4;  // columns of a weight, and of the longest bar
  const Names names(rows.tokens);
  const std::int64_t n = rows.tokens.size();
  const std::span<const float> of =
      std::span(weights).subspan(static_cast<std::size_t>(row * n), rows.tokens.ids.size());
  const double largest = static_cast<double>(*std::max_element(of.begin(), of.end()));
  const std::size_t used = names.width() + kNumber;
  const std::size_t room = rows.columns > used + kFewest ? rows.columns - used : kFewest;
  std::cout << title << ": what token " << row << ", " << rows.tokens.names[static_cast<std::size_t>(row)]
            << ", looks at; the longest bar is the largest weight\n";
  for (std::int64_t key = 0; key < n; ++key) {
    const auto weight = static_cast<double>(of[static_cast<std::size_t>(key)]);
    const double length = largest > 0 ? weight / largest * static_cast<double>(room) : 0;
    const auto bar = static_cast<std::size_t>(std::lround(length));
    std::string line = names.of(key) + fixed(weight, 4) + "  ";
    if (rows.depth == ColorDepth::none)
      line += std::string(bar, '#');
    else if (bar > 0)
      line += colored(std::string(bar, ' '), std::sqrt(weight), rows.depth);
    line.erase(line.find_last_not_of(' ') + 1);
    std::cout << line << '\n';
  }
}

}  // namespace multihead::cli
