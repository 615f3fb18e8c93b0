// SPDX-License-Identifier: Apache-2.0
// Text in a terminal's columns: how wide its characters are, and cut to fit.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace multihead::text {

// The first character of a UTF-8 text that is not empty: its bytes (one that is no UTF-8 stands for itself) and the
// columns a terminal gives it: 0 for letters that combine, 2 for wide ones, by the blocks of Unicode 15.
struct Character {
  std::string_view bytes;
  std::size_t columns;
};
Character first_character(std::string_view text) noexcept;

// The text as it cannot harm a terminal: control characters, separators of lines, what turns the direction of letters,
// and bytes that are no UTF-8 become '?'.
std::string printable(std::string_view text);

std::size_t columns_of(std::string_view text) noexcept;

// text, cut to so many columns (the last one is then ~), or filled with spaces to them.
std::string fitted(std::string_view text, std::size_t columns);

}  // namespace multihead::text
