// SPDX-License-Identifier: Apache-2.0
// What stands on the command line, word by word, to values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "multihead/masks.hpp"

namespace multihead::cli {

// Throws bad_option: "--heads: 'x' is not a whole number".
[[noreturn]] void refuse(const std::string& option, const std::string& text, const std::string& rule);

std::optional<std::int64_t> whole_number(const std::string& text);

// Whole numbers, apart or with commas between. (CLI11 would let an empty one pass.)
std::vector<std::int64_t> whole_numbers(const std::string& option, const std::vector<std::string>& texts);

// square, top_left, bottom_right, or the keys before the first query.
std::optional<Alignment> alignment_of(const std::string& text);

}  // namespace multihead::cli
