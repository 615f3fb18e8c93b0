// SPDX-License-Identifier: Apache-2.0
// Characters as Hugging Face tokenizers sees them, whatever Unicode version utf8proc knows; docs/models.md says why.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace multihead {

// The character at text[at], at < text.size(), and the bytes it takes. Bytes that are not UTF-8 are U+FFFD, one for
// each maximal subpart (Unicode 3.9, table 3-8; Python's decode("utf-8", "replace")).
struct Decoded {
  char32_t letter;
  std::size_t bytes;
};
Decoded decode_utf8(std::string_view text, std::size_t at) noexcept;
void append_utf8(char32_t letter, std::string& to);
std::u32string decode_all(std::string_view text);

bool is_space(char32_t letter) noexcept;        // White_Space
bool is_removed(char32_t letter) noexcept;      // by clean_text: U+0000, U+FFFD, controls, formats, private use
bool is_chinese(char32_t letter) noexcept;      // the blocks of CJK ideographs that chinese_chars sets apart
bool is_nonspacing(char32_t letter) noexcept;   // Mn
bool is_punctuation(char32_t letter) noexcept;  // ASCII's, and P
bool is_letter(char32_t letter) noexcept;       // L
bool is_number(char32_t letter) noexcept;       // N
bool is_word(char32_t letter) noexcept;         // what \w matches: for added tokens that are whole words

// The canonical decomposition, in full, and its length; the letter itself where it has none.
constexpr int kMaxDecomposed = 4;
int decompose(char32_t letter, char32_t (&to)[kMaxDecomposed]) noexcept;
int combining_class(char32_t letter) noexcept;  // of a letter that decompose gives

// The lower case of one letter and its length: U+0130 becomes two.
int lower_case(char32_t letter, char32_t (&to)[2]) noexcept;

}  // namespace multihead
