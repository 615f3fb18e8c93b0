// SPDX-License-Identifier: Apache-2.0
// Pictures in a terminal: signs and numbers, colours by hand, widths, names wide and narrow, what is refused.
#include <gtest/gtest.h>

#include "multihead/error.hpp"
#include "multihead/inspect.hpp"

namespace multihead::testing {
namespace {

using Lines = std::vector<std::string>;

Lines picture_of(const std::vector<float>& weights, std::int64_t keys, const PictureOptions& options) {
  return picture({weights.data(), {static_cast<std::int64_t>(weights.size()) / keys, keys}}, options);
}

// The text without its colour codes.
std::string plain(const std::string& text) {
  std::string shown;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] == '\x1b')
      while (text[i] != 'm') ++i;
    else
      shown += text[i];
  return shown;
}

// Columns, where every character but what continues another takes one.
std::size_t width_of(const std::string& text) {
  std::size_t columns = 0;
  for (const char c : plain(text)) columns += (c & 0xc0) != 0x80;
  return columns;
}

TEST(Picture, HundredthsWhereTheyFit) {
  const Lines names{"[CLS]", "cat"};
  EXPECT_EQ(picture_of({1, 0, 0, 0.004F, 0.333F, 0.666F}, 3, {.row_names = names}),
            (Lines{"          0  1  2", "0 [CLS]  1.  .  .", "1 cat     . 33 67"}));
  EXPECT_EQ(picture_of({1, 0, 0, 0.004F, 0.333F, 0.666F}, 3, {.columns = 11}),
            (Lines{"    0  1  2", "0  1.  .  .", "1   . 33 67"}));
}

TEST(Picture, NamesThatWouldHarmATerminal) {
  // Escape, newline, the sign of C1 that begins sequences, right-to-left override and mark, a separator of lines, a
  // tag; no UTF-8: a lone byte, one that is longer than need be, half of a pair, beyond the last character.
  const Lines names{"\x1b[2J",
                    "a\nb",
                    "\u009b2J",
                    "\u202eb\u200f",
                    "\u2028",
                    "\U000e0041",
                    "\xff\x41",
                    "\xc0\x8a"
                    "c",
                    "\xed\xa0\x80",
                    "\u00e9\u0301",
                    "\xf4\x90\x80\x80"};
  const Lines shown{"?[2J", "a?b", "?2J", "?b?", "?", "?", "?A", "?c", "?", "\u00e9\u0301", "?"};
  const std::vector<float> weights(names.size(), 1);
  const Lines found = picture_of(weights, 1, {.row_names = names});
  ASSERT_EQ(found.size(), names.size() + 1);
  for (std::size_t i = 0; i < names.size(); ++i)
    EXPECT_NE(found[i + 1].find(' ' + shown[i] + ' '), std::string::npos) << found[i + 1];
  const Lines down = picture({weights.data(), {1, static_cast<std::int64_t>(names.size())}}, {.key_names = names});
  std::string all;
  for (const std::string& line : down) all += line;
  for (const char* harm : {"\x1b", "\n", "\u009b", "\u202e", "\u200f", "\u2028", "\xff", "\xc0", "\xed"})
    EXPECT_EQ(all.find(harm), std::string::npos) << all;
}

TEST(Picture, SignsWhereNumbersDoNotFit) {
  // By the square root: 0.25 is half way.
  EXPECT_EQ(picture_of({0, 0.25F, 0.8F, 1}, 4, {.columns = 8}), (Lines{"  0123", "0  +%@"}));
  // Each of the cells is the largest of two keys.
  EXPECT_EQ(picture_of({0, 0.25F, 0.8F, 1}, 4, {.columns = 4}), (Lines{"0123", " +%@"}));
  EXPECT_EQ(picture_of({0, 0.25F, 0.8F, 1}, 4, {.columns = 3}), (Lines{"ea~", "02", "+@"}));
}

TEST(Picture, TwoRowsALineInColour) {
  const std::string half = "\u2580";
  EXPECT_EQ(
      picture_of({1, 0, 0.25F, 0, 1, 0.25F}, 2, {.columns = 80, .depth = ColorDepth::colors_24_bit}),
      (Lines{"     0 1",
             "0 1 \x1b[38;2;253;231;37;48;2;33;145;140m" + half + half + "\x1b[38;2;68;1;84;48;2;68;1;84m" + half +
                 half + "\x1b[0m",
             "2   \x1b[38;2;253;231;37;49m" + half + half + "\x1b[38;2;33;145;140;49m" + half + half + "\x1b[0m"}));
  const Lines of_256 = picture_of({1, 0}, 1, {.columns = 80, .depth = ColorDepth::colors_256});
  ASSERT_EQ(of_256.size(), 2U);
  EXPECT_EQ(of_256[1], "0 1 \x1b[38;5;220;48;5;53m" + half + half + "\x1b[0m");
}

TEST(Picture, NoLineIsWiderThanTheTerminal) {
  constexpr std::int64_t kN = 37;
  std::vector<float> weights(kN * kN, 0.5F);
  const Lines names(kN, "a rather long name");
  for (const ColorDepth depth : {ColorDepth::none, ColorDepth::colors_256, ColorDepth::colors_24_bit})
    for (std::size_t columns = 1; columns < 150; ++columns) {
      const Lines lines = picture_of(weights, kN, {columns, depth, names, names});
      EXPECT_GE(lines.size(), static_cast<std::size_t>(depth == ColorDepth::none ? kN : (kN + 1) / 2));
      for (const std::string& line : lines) ASSERT_LE(width_of(line), columns) << line;
    }
}

TEST(Picture, NamesOfKeysDownwards) {
  const Lines keys{"ab", "\u732b", "e\u0301!"}, rows{"\u732b\u732b", "xyz"};
  EXPECT_EQ(picture_of({1, 0, 0, 1, 0, 0}, 3, {.row_names = rows, .key_names = keys}),
            (Lines{"         a \u732b  e", "         b     !", "         0  1  2", "0 \u732b\u732b  1.  .  .",
                   "1 xyz   1.  .  ."}));
  // No name where a cell is of several keys.
  EXPECT_EQ(picture_of({1, 0, 0}, 3, {.columns = 2, .key_names = keys}), (Lines{"e~", "02", "@ "}));
}

TEST(Picture, OddNumbersAndExtents) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(picture_of({nan, 2, -1}, 3, {}), (Lines{"    0  1  2", "0   . 1.  ."}));
  EXPECT_EQ(picture_of({nan, 2, -1}, 3, {.columns = 5}), (Lines{"  012", "0  @ "}));
  EXPECT_EQ(picture({nullptr, {0, 3}}, {}), Lines{"    0  1  2"});
  EXPECT_EQ(picture({nullptr, {2, 0}}, {}), (Lines{"0 ", "1 "}));
  EXPECT_EQ(picture({nullptr, {0, 0}}, {.depth = ColorDepth::colors_256}), Lines{});
}

TEST(Picture, ColouredText) {
  EXPECT_EQ(colored("x", 0.5, ColorDepth::none), "x");
  EXPECT_EQ(colored("x", 0, ColorDepth::colors_24_bit), "\x1b[48;2;68;1;84;38;2;255;255;255mx\x1b[0m");
  EXPECT_EQ(colored("x", 7, ColorDepth::colors_24_bit), "\x1b[48;2;253;231;37;38;2;0;0;0mx\x1b[0m");
  EXPECT_EQ(colored("x", 1, ColorDepth::colors_256), "\x1b[48;5;220;38;5;16mx\x1b[0m");
}

TEST(Picture, Refused) {
  const Lines two{"a", "b"};
  EXPECT_THROW(picture_of({1, 0, 0}, 3, {.row_names = two}), Error);
  EXPECT_THROW(picture_of({1, 0, 0}, 3, {.key_names = two}), Error);
  EXPECT_THROW(picture_of({1}, 1, {.columns = 0}), Error);
}

}  // namespace
}  // namespace multihead::testing
