// SPDX-License-Identifier: Apache-2.0
// Two regular expressions, written out: the first of their branches that fits decides, and each takes all it can.
//   GPT-2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   Llama 3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
//            \s*[\r\n]+|\s+(?!\S)|\s+
#include "models/byte_pair_words.hpp"

#include <algorithm>

#include "models/wordpiece_unicode.hpp"

namespace multihead {

namespace {

using Letters = std::vector<PlacedLetter>;

bool is_line_end(char32_t code) noexcept { return code == '\r' || code == '\n'; }
bool is_sign(char32_t code) noexcept { return !is_space(code) && !is_letter(code) && !is_number(code); }

// The end of the run of letters from at on that are of this kind.
template <class Is>
std::size_t run_end(const Letters& letters, std::size_t at, const Is& is) noexcept {
  while (at + 1 < letters.size() && is(letters[at].code)) ++at;
  return at;
}

// 's 't 're 've 'm 'll 'd: the end of one, or at.
std::size_t contraction_end(const Letters& letters, std::size_t at, bool any_case) noexcept {
  const auto lower = [&](std::size_t i) -> char32_t {
    if (i + 1 >= letters.size()) return 0;
    const char32_t code = letters[i].code;
    if (!any_case) return code;
    if (code == 0x17F) return 's';  // the long s is an s of another case
    return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
  };
  if (letters[at].code != '\'') return at;
  const char32_t first = lower(at + 1), second = lower(at + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
  const bool two = ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l');
  return two ? at + 3 : at;
}

// White space leaves its last letter to what follows, where something does and a letter remains.
std::size_t space_end(const Letters& letters, std::size_t at) noexcept {
  const std::size_t end = run_end(letters, at, is_space);
  return end + 1 == letters.size() || end - at < 2 ? end : end - 1;
}

std::size_t gpt2_end(const Letters& letters, std::size_t at) noexcept {
  if (const std::size_t end = contraction_end(letters, at, false); end > at) return end;
  const std::size_t start = at + (letters[at].code == ' ' ? 1 : 0);
  if (const std::size_t end = run_end(letters, start, is_letter); end > start) return end;
  if (const std::size_t end = run_end(letters, start, is_number); end > start) return end;
  if (const std::size_t end = run_end(letters, start, is_sign); end > start) return end;
  return space_end(letters, at);
}

std::size_t llama3_end(const Letters& letters, std::size_t at) noexcept {
  if (const std::size_t end = contraction_end(letters, at, true); end > at) return end;
  const char32_t code = letters[at].code;
  const std::size_t word = at + (is_line_end(code) || is_letter(code) || is_number(code) ? 0 : 1);
  if (const std::size_t end = run_end(letters, word, is_letter); end > word) return end;
  if (is_number(code)) return std::min(run_end(letters, at, is_number), at + 3);
  const std::size_t start = at + (code == ' ' ? 1 : 0);
  if (const std::size_t end = run_end(letters, start, is_sign); end > start) return run_end(letters, end, is_line_end);
  const std::size_t spaces = run_end(letters, at, is_space);
  for (std::size_t end = spaces; end > at; --end)
    if (is_line_end(letters[end - 1].code)) return end;
  return space_end(letters, at);
}

}  // namespace

std::vector<PlacedLetter> placed_letters(std::string_view text) {
  std::vector<PlacedLetter> letters;
  letters.reserve(text.size() + 1);
  for (std::size_t at = 0; at < text.size();) {
    const Decoded next = decode_utf8(text, at);
    letters.push_back({next.letter, at});
    at += next.bytes;
  }
  letters.push_back({0, text.size()});
  return letters;
}

std::size_t word_end(WordPattern pattern, const Letters& letters, std::size_t at) noexcept {
  switch (pattern) {
    case WordPattern::gpt2:
      return gpt2_end(letters, at);
    case WordPattern::llama3:
      return llama3_end(letters, at);
    default:
      return letters.size() - 1;
  }
}

}  // namespace multihead
