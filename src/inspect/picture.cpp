// SPDX-License-Identifier: Apache-2.0
// picture(): weights as lines of a terminal, in colours two rows a line, in signs without.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "core/validate.hpp"
#include "inspect/colors.hpp"
#include "inspect/text_width.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "picture";
constexpr std::size_t kFewestCells = 8, kLongestName = 16, kTallestName = 12;
constexpr std::string_view kShades = " .:-=+*#%@";
constexpr std::string_view kUpperHalf = "\u2580", kReset = "\x1b[0m";

// How wide a cell is, how many keys it stands for, and how many there are.
struct Cells {
  std::size_t width, keys, count;
};

Cells cells_for(std::size_t keys, std::size_t room, bool colors) {
  const std::size_t wide = colors ? 2 : 3;
  if (wide * keys <= room) return {wide, 1, keys};
  const std::size_t of = (keys + room - 1) / room;
  return {1, of, (keys + of - 1) / of};
}

class Picture {
 public:
  Picture(const MatrixView<const float>& weights, const PictureOptions& options)
      : weights_(weights), options_(options), colors_(options.depth != ColorDepth::none) {
    digits_ = std::to_string(std::max(rows(), std::size_t{1}) - 1).size();
    for (const std::string& name : options.row_names) row_names_.push_back(text::printable(name));
    for (const std::string& name : row_names_) name_ = std::max(name_, text::columns_of(name));
    name_ = std::min(name_, kLongestName);
    // Names give way first, then a second label of a line, then the numbers.
    const std::size_t least = std::min(options.columns, std::clamp(keys(), std::size_t{1}, kFewestCells));
    const auto fits = [&](std::size_t label) { return label + least <= options.columns; };
    labels_ = colors_ && rows() > 1 && fits(2 * label()) ? 2 : 1;
    while (name_ > 0 && !fits(label())) --name_;
    if (!fits(label())) labels_ = 0;
    cells_ = cells_for(std::max(keys(), std::size_t{1}), options.columns - labels_ * label(), colors_);
    if (keys() == 0) cells_.count = 0;
  }

  std::vector<std::string> lines() {
    if (cells_.keys == 1)
      add_key_names();
    else
      lines_.push_back(cut("each column: largest of " + std::to_string(cells_.keys) + " keys"));
    add_numbers();
    for (std::size_t row = 0; row < rows(); row += colors_ ? 2 : 1) {
      std::string line;
      for (std::size_t i = 0; i < labels_; ++i) line += label_of(row + i);
      for (std::size_t cell = 0; cell < cells_.count; ++cell) line += colors_ ? halves(row, cell) : signs(row, cell);
      lines_.push_back(line + std::string(colors_ ? kReset : ""));
    }
    return std::move(lines_);
  }

 private:
  std::size_t rows() const { return static_cast<std::size_t>(weights_.extent(0)); }
  std::size_t keys() const { return static_cast<std::size_t>(weights_.extent(1)); }
  std::size_t label() const { return digits_ + (name_ > 0 ? 1 + name_ : 0) + 1; }
  std::string margin() const { return std::string(labels_ * label(), ' '); }

  std::string label_of(std::size_t row) const {
    if (row >= rows()) return std::string(label(), ' ');
    const std::string number = std::to_string(row);
    std::string text = std::string(digits_ - number.size(), ' ') + number;
    if (name_ > 0) text += ' ' + text::fitted(row_names_[row], name_);
    return text + ' ';
  }

  // The square root of the largest weight of a cell: 0 to 1, NaN as 0.
  double place(std::size_t row, std::size_t cell) const { return std::sqrt(static_cast<double>(largest(row, cell))); }
  float largest(std::size_t row, std::size_t cell) const {
    float found = 0;
    for (std::size_t key = cell * cells_.keys; key < std::min((cell + 1) * cells_.keys, keys()); ++key)
      found = std::max(found, weights_(static_cast<std::int64_t>(row), static_cast<std::int64_t>(key)));
    return std::min(found, 1.0F);
  }

  // The upper row in the colour of letters, the lower one behind them; where there is none the terminal's own colour.
  std::string halves(std::size_t row, std::size_t cell) {
    std::string code = color_code(color_of(place(row, cell)), false, options_.depth);
    code += row + 1 < rows() ? ';' + color_code(color_of(place(row + 1, cell)), true, options_.depth) : ";49";
    std::string text = cell > 0 && code == code_ ? "" : "\x1b[" + code + 'm';
    code_ = code;
    for (std::size_t i = 0; i < cells_.width; ++i) text += kUpperHalf;
    return text;
  }

  std::string signs(std::size_t row, std::size_t cell) const {
    if (cells_.width == 1) {
      const auto shade = static_cast<std::size_t>(place(row, cell) * static_cast<double>(kShades.size()));
      return std::string(1, kShades[std::min(shade, kShades.size() - 1)]);
    }
    const int hundredths = nearest(100 * static_cast<double>(largest(row, cell)));
    const std::string number = hundredths == 0 ? "." : hundredths == 100 ? "1." : std::to_string(hundredths);
    return std::string(cells_.width - number.size(), ' ') + number;
  }

  std::string cut(const std::string& text) const {
    return text.size() > options_.columns ? text::fitted(text, options_.columns) : text;
  }

  // The keys' names, written downwards.
  void add_key_names() {
    std::vector<std::string> down(kTallestName, margin());
    std::size_t tallest = 0;
    for (const std::string& given : options_.key_names) {
      const std::string shown = text::printable(given);
      std::string_view name = shown;
      std::size_t height = 0;
      while (height < kTallestName && !name.empty()) {
        const text::Character next = text::first_character(name);
        name.remove_prefix(next.bytes.size());
        if (next.columns == 0) continue;
        const bool fits = next.columns <= cells_.width;
        down[height] += std::string(cells_.width - (fits ? next.columns : 1), ' ');
        down[height++] += fits ? next.bytes : "?";
      }
      tallest = std::max(tallest, height);
      for (; height < kTallestName; ++height) down[height] += std::string(cells_.width, ' ');
    }
    lines_.insert(lines_.end(), down.begin(), down.begin() + static_cast<std::ptrdiff_t>(tallest));
  }

  // The numbers of the keys, a line a digit where a cell is narrower than they are.
  void add_numbers() {
    const std::size_t digits = std::to_string(std::max(keys(), std::size_t{1}) - 1).size();
    const std::size_t count = cells_.width > digits ? 1 : digits;
    for (std::size_t line = 0; line < count && keys() > 0; ++line) {
      std::string text = margin();
      for (std::size_t cell = 0; cell < cells_.count; ++cell) {
        std::string number = std::to_string(cell * cells_.keys);
        if (count > 1) {
          number.insert(0, digits - number.size(), ' ');
          number = number.substr(line, 1);
        }
        text += std::string(cells_.width - number.size(), ' ') + number;
      }
      lines_.push_back(text);
    }
  }

  const MatrixView<const float>& weights_;
  const PictureOptions& options_;
  const bool colors_;
  std::size_t digits_ = 0, name_ = 0, labels_ = 0;
  Cells cells_{};
  std::vector<std::string> row_names_;
  std::string code_;  // of the cell before
  std::vector<std::string> lines_;
};

void check_names(const char* what, std::span<const std::string> names, std::int64_t wanted) {
  if (!names.empty())
    check_equal(kName, what, "has elements", static_cast<std::int64_t>(names.size()), "wanted are", wanted);
}

}  // namespace

std::vector<std::string> picture(MatrixView<const float> weights, const PictureOptions& options) {
  check_view(kName, operand("weights", weights));
  check_names("row_names", options.row_names, weights.extent(0));
  check_names("key_names", options.key_names, weights.extent(1));
  if (options.columns == 0) fail(ErrorCode::bad_option, "picture: columns is 0; it must be at least 1");
  return Picture(weights, options).lines();
}

}  // namespace multihead
