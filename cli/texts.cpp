// SPDX-License-Identifier: Apache-2.0
// What stands on the command line, word by word, to values.
#include "texts.hpp"

#include <algorithm>
#include <charconv>

#include "multihead/error.hpp"

namespace multihead::cli {

void refuse(const std::string& option, const std::string& text, const std::string& rule) {
  throw Error(ErrorCode::bad_option, option + ": '" + text + "' is not " + rule);
}

std::optional<std::int64_t> whole_number(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

std::vector<std::int64_t> whole_numbers(const std::string& option, const std::vector<std::string>& texts) {
  std::vector<std::int64_t> numbers;
  for (const std::string& text : texts)
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      const std::optional<std::int64_t> number = whole_number(text.substr(begin, end - begin));
      if (!number) refuse(option, text, "whole numbers with commas between");
      numbers.push_back(*number);
      begin = end + 1;
    }
  return numbers;
}

std::optional<Alignment> alignment_of(const std::string& text) {
  if (text == "square") return Alignment();
  if (text == "top_left") return Alignment::top_left();
  if (text == "bottom_right") return Alignment::bottom_right();
  const std::optional<std::int64_t> offset = whole_number(text);
  return offset ? std::optional(Alignment::at(*offset)) : std::nullopt;
}

}  // namespace multihead::cli
