// SPDX-License-Identifier: Apache-2.0
// Text in a terminal's columns: how wide its characters are, and cut to fit.
#include "inspect/text_width.hpp"

#include <algorithm>
#include <array>

namespace multihead::text {

namespace {

struct Range {
  char32_t first, last;
};

// Blocks of marks that combine, and signs without width.
constexpr std::array<Range, 12> kNarrow{{{0x300, 0x36f},
                                         {0x483, 0x489},
                                         {0x591, 0x5bd},
                                         {0x610, 0x61a},
                                         {0x64b, 0x65f},
                                         {0x1ab0, 0x1aff},
                                         {0x1dc0, 0x1dff},
                                         {0x200b, 0x200f},
                                         {0x20d0, 0x20ff},
                                         {0x3099, 0x309a},
                                         {0xfe00, 0xfe0f},
                                         {0xfe20, 0xfe2f}}};
// Blocks whose characters are wide (UAX 11).
constexpr std::array<Range, 10> kWide{{{0x1100, 0x115f},
                                       {0x2e80, 0x303e},
                                       {0x3041, 0xa4cf},
                                       {0xa960, 0xa97f},
                                       {0xac00, 0xd7a3},
                                       {0xf900, 0xfaff},
                                       {0xfe30, 0xfe6f},
                                       {0xff00, 0xff60},
                                       {0x1f300, 0x1faff},
                                       {0x20000, 0x3fffd}}};

// Controls, and marks of direction and of lines: what changes how a terminal shows the text around it.
constexpr std::array<Range, 9> kHarmful{{{0, 0x1f},
                                         {0x7f, 0x9f},
                                         {0x61c, 0x61c},
                                         {0x200e, 0x200f},
                                         {0x2028, 0x202e},
                                         {0x2066, 0x206f},
                                         {0xd800, 0xdfff},
                                         {0xfff9, 0xfffb},
                                         {0xe0000, 0xe007f}}};

template <std::size_t Count>
bool within(const std::array<Range, Count>& ranges, char32_t code) noexcept {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const Range& range) { return range.first <= code && code <= range.last; });
}

char32_t code_of(std::string_view bytes) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  if (bytes.size() == 1) return byte(0);
  char32_t code = byte(0) & (0xffU >> (bytes.size() + 1));
  for (std::size_t i = 1; i < bytes.size(); ++i) code = code << 6 | (byte(i) & 0x3f);
  return code;
}

// Whether it is UTF-8 as it should be: no lone byte, none longer than need be, none beyond U+10FFFF.
bool is_whole(std::string_view bytes, char32_t code) noexcept {
  constexpr std::array<char32_t, 5> kLeast{0, 0, 0x80, 0x800, 0x10000};
  return bytes.size() == 1 ? code < 0x80 : code >= kLeast[bytes.size()] && code <= 0x10ffff;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const std::string_view bytes = first_character(text).bytes;
    const char32_t code = code_of(bytes);
    if (is_whole(bytes, code) && !within(kHarmful, code))
      shown += bytes;
    else
      shown += '?';
    text.remove_prefix(bytes.size());
  }
  return shown;
}

Character first_character(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t size = byte(0) < 0xc0 ? 1 : byte(0) < 0xe0 ? 2 : byte(0) < 0xf0 ? 3 : 4;
  if (size == 1 || size > text.size()) return {text.substr(0, 1), 1};
  for (std::size_t i = 1; i < size; ++i)
    if ((byte(i) & 0xc0) != 0x80) return {text.substr(0, 1), 1};
  const char32_t code = code_of(text.substr(0, size));
  return {text.substr(0, size), within(kNarrow, code) ? 0U : within(kWide, code) ? 2U : 1U};
}

std::size_t columns_of(std::string_view text) noexcept {
  std::size_t columns = 0;
  while (!text.empty()) {
    const Character next = first_character(text);
    columns += next.columns;
    text.remove_prefix(next.bytes.size());
  }
  return columns;
}

std::string fitted(std::string_view text, std::size_t columns) {
  const std::size_t whole = columns_of(text);
  if (whole <= columns) return std::string(text) + std::string(columns - whole, ' ');
  std::string cut;
  std::size_t used = 0;
  while (columns > 0) {
    const Character next = first_character(text);
    if (used + next.columns + 1 > columns) return cut + '~' + std::string(columns - used - 1, ' ');
    cut += next.bytes;
    used += next.columns;
    text.remove_prefix(next.bytes.size());
  }
  return cut;
}

}  // namespace multihead::text
