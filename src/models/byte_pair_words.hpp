// SPDX-License-Identifier: Apache-2.0
// Where the patterns of GPT-2 and Llama 3 cut a text into words.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "multihead/model_files.hpp"

namespace multihead {

// A letter of a text: its code, U+FFFD for bytes that are no UTF-8, and its first byte.
struct PlacedLetter {
  char32_t code;
  std::size_t begin;
};

// The letters of a text, then one that stands for its end, with code 0.
std::vector<PlacedLetter> placed_letters(std::string_view text);

// The end of the word that begins at letter `at`, which is not the last of letters (their end).
std::size_t word_end(WordPattern pattern, const std::vector<PlacedLetter>& letters, std::size_t at) noexcept;

}  // namespace multihead
