// SPDX-License-Identifier: Apache-2.0
// UTF-8 in and out, and the classes and mappings of characters: tables of ranges, and utf8proc behind them.
#include "models/wordpiece_unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "models/wordpiece_classes.hpp"

namespace multihead {
namespace {

constexpr CodeRange kSpaces[] = {{0x9, 0xD},       {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                 {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                 {0x205F, 0x205F}, {0x3000, 0x3000}};
// 2B920 where the block begins at 2B820: so has it tokenizers.
constexpr CodeRange kChinese[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
                                  {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
// Other_Alphabetic outside L, M and N: circled and squared letters.
constexpr CodeRange kAlphabeticSigns[] = {{0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};

// Lower cases that came with Unicode 16.0 and 17.0: utf8proc 2.8 has those of 15.0.
struct LowerRange {
  char32_t first, last, lower;
};
constexpr LowerRange kNewLower[] = {{0x1C89, 0x1C89, 0x1C8A},   {0xA7CB, 0xA7CB, 0x264},  {0xA7CC, 0xA7CC, 0xA7CD},
                                    {0xA7CE, 0xA7CE, 0xA7CF},   {0xA7D2, 0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D4, 0xA7D5},
                                    {0xA7DA, 0xA7DA, 0xA7DB},   {0xA7DC, 0xA7DC, 0x19B},  {0x10D50, 0x10D65, 0x10D70},
                                    {0x16EA0, 0x16EB8, 0x16EBB}};

template <std::size_t N>
bool among(const CodeRange (&ranges)[N], char32_t letter) noexcept {
  const CodeRange* after = std::upper_bound(std::begin(ranges), std::end(ranges), letter,
                                            [](char32_t a, const CodeRange& b) { return a < b.first; });
  return after != std::begin(ranges) && letter <= std::prev(after)->last;
}

// The classes of ASCII, a bit each.
constexpr unsigned char kSpaceBit = 1, kRemovedBit = 2, kPunctuationBit = 4;
constexpr auto kAscii = [] {
  std::array<unsigned char, 0x80> classes{};
  const auto mark = [&](const auto& ranges, unsigned char bit) {
    for (const CodeRange& range : ranges)
      for (char32_t letter = range.first; letter <= range.last && letter < 0x80; ++letter) classes[letter] |= bit;
  };
  mark(kSpaces, kSpaceBit), mark(kRemoved, kRemovedBit), mark(kPunctuation, kPunctuationBit);
  return classes;
}();

template <std::size_t N>
bool has_class(char32_t letter, unsigned char bit, const CodeRange (&ranges)[N]) noexcept {
  return letter < 0x80 ? (kAscii[letter] & bit) != 0 : among(ranges, letter);
}

utf8proc_int32_t code(char32_t letter) noexcept { return static_cast<utf8proc_int32_t>(letter); }

}  // namespace

Decoded decode_utf8(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xC2 || first > 0xF4) return {0xFFFD, 1};
  const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  // The second byte's range leaves out overlong forms, surrogates and what lies beyond U+10FFFF.
  const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return {0xFFFD, 1};
  char32_t letter = (first & (0xFFu >> (length + 1))) << 6 | (byte(1) & 0x3F);
  for (std::size_t i = 2; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {0xFFFD, i};
    letter = letter << 6 | (byte(i) & 0x3F);
  }
  return {letter, length};
}

void append_utf8(char32_t letter, std::string& to) {
  const auto put = [&](char32_t bits) { to.push_back(static_cast<char>(static_cast<unsigned char>(bits))); };
  if (letter < 0x80) return put(letter);
  if (letter < 0x800) {
    put(0xC0 | letter >> 6);
  } else if (letter < 0x10000) {
    put(0xE0 | letter >> 12), put(0x80 | (letter >> 6 & 0x3F));
  } else {
    put(0xF0 | letter >> 18), put(0x80 | (letter >> 12 & 0x3F)), put(0x80 | (letter >> 6 & 0x3F));
  }
  put(0x80 | (letter & 0x3F));
}

std::u32string decode_all(std::string_view text) {
  std::u32string letters;
  for (std::size_t at = 0; at < text.size();) {
    const Decoded next = decode_utf8(text, at);
    letters.push_back(next.letter);
    at += next.bytes;
  }
  return letters;
}

bool is_space(char32_t letter) noexcept { return has_class(letter, kSpaceBit, kSpaces); }
bool is_removed(char32_t letter) noexcept { return has_class(letter, kRemovedBit, kRemoved); }
bool is_chinese(char32_t letter) noexcept { return letter >= 0x3400 && among(kChinese, letter); }
bool is_nonspacing(char32_t letter) noexcept { return letter >= 0x300 && among(kNonspacing, letter); }
bool is_punctuation(char32_t letter) noexcept { return has_class(letter, kPunctuationBit, kPunctuation); }

bool is_letter(char32_t letter) noexcept {
  switch (utf8proc_category(code(letter))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return true;
    default:
      return among(kNewLetters, letter);
  }
}

bool is_number(char32_t letter) noexcept {
  const utf8proc_category_t category = utf8proc_category(code(letter));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO ||
         among(kNewNumbers, letter);
}

bool is_word(char32_t letter) noexcept {
  switch (utf8proc_category(code(letter))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:  // beside the circled letters and the new ones, Join_Control
      return among(kAlphabeticSigns, letter) || among(kNewWord, letter) || letter == 0x200C || letter == 0x200D;
  }
}

int decompose(char32_t letter, char32_t (&to)[kMaxDecomposed]) noexcept {
  to[0] = letter;
  if (letter < 0xC0 || (letter > 0xFFFF && !among(kDecomposed, letter))) return 1;
  utf8proc_int32_t parts[kMaxDecomposed];
  int last_class = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(code(letter), parts, kMaxDecomposed, UTF8PROC_DECOMPOSE, &last_class);
  if (count < 1 || count > kMaxDecomposed) return 1;
  for (utf8proc_ssize_t i = 0; i < count; ++i) to[i] = static_cast<char32_t>(parts[i]);
  return static_cast<int>(count);
}

int combining_class(char32_t letter) noexcept {
  if (letter < 0x300 || !(is_nonspacing(letter) || among(kReordered, letter))) return 0;
  return utf8proc_get_property(code(letter))->combining_class;
}

int lower_case(char32_t letter, char32_t (&to)[2]) noexcept {
  if (letter < 0x80) {
    to[0] = letter >= 'A' && letter <= 'Z' ? letter + ('a' - 'A') : letter;
    return 1;
  }
  if (letter == 0x130) {
    to[0] = 'i', to[1] = 0x307;
    return 2;
  }
  for (const LowerRange& range : kNewLower)
    if (letter >= range.first && letter <= range.last) {
      to[0] = range.lower + (letter - range.first);
      return 1;
    }
  to[0] = static_cast<char32_t>(utf8proc_tolower(code(letter)));
  return 1;
}

}  // namespace multihead
