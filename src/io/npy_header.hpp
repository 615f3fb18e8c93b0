// SPDX-License-Identifier: Apache-2.0
// The header of a .npy file: its grammar and limits on the way in, the text NumPy writes on the way out.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "io/file.hpp"
#include "io/shape.hpp"
#include "multihead/io.hpp"

namespace multihead::npy {

inline constexpr std::string_view kMagic{"\x93NUMPY", 6};
inline constexpr std::size_t kMaxRank = 64;                        // the limit of NumPy 2
inline constexpr std::size_t kMaxHeaderSize = 10000;               // the limit of NumPy's reader
inline constexpr std::size_t kMaxDataBegin = 12 + kMaxHeaderSize;  // magic 6, version 2, length 2 or 4, header

struct Header {
  ElementType type = ElementType::float32;
  bool fortran_order = false;
  std::size_t rank = 0;
  std::array<std::int64_t, kMaxRank> extents{};
  std::uint64_t data_begin = 0;
  std::uint64_t data_size = 0;

  std::span<const std::int64_t> shape() const noexcept { return std::span(extents).first(rank); }
};

// The types, as the key descr writes them.
struct Description {
  ElementType type;
  std::string_view descr;
};
inline constexpr std::array<Description, 8> kDescriptions{{{ElementType::float16, "<f2"},
                                                           {ElementType::float32, "<f4"},
                                                           {ElementType::float64, "<f8"},
                                                           {ElementType::boolean, "|b1"},
                                                           {ElementType::int8, "|i1"},
                                                           {ElementType::uint8, "|u1"},
                                                           {ElementType::int32, "<i4"},
                                                           {ElementType::int64, "<i8"}}};

// The bytes of an array, as size_of_shape() has them.
constexpr std::optional<std::int64_t> data_size(std::span<const std::int64_t> shape, ElementType type) noexcept {
  return io::size_of_shape(shape, static_cast<std::int64_t>(size_of(type)));
}

// A shape as Python writes a tuple: "()", "(2,)", "(2, 3)".
inline std::string shape_text(std::span<const std::int64_t> shape) {
  return "(" + io::joined(shape, ", ") + (shape.size() == 1 ? ",)" : ")");
}

// The dictionary of a header. The grammar is the part of Python's that writers of such files use: one dictionary of
// the three keys in any order, strings in single or double quotes without escapes, spaces between any two tokens.
class HeaderText {
 public:
  // text is the header with its final newline, begin its offset in the file.
  HeaderText(std::string_view text, std::uint64_t begin, const io::Origin& origin) noexcept
      : text_(text), begin_(begin), origin_(origin) {}

  // Fills type, fortran_order, rank, extents and data_size.
  void read(Header& header) {
    constexpr std::array<std::string_view, 3> kKeys{"descr", "fortran_order", "shape"};
    std::array<bool, 3> seen{};
    expect('{', "the header is a Python dictionary and begins with '{'");
    std::size_t close = position_;
    for (; !take('}'); close = position_) {
      const std::size_t at = position_;
      const std::string_view key = quoted("a key in quotes or '}' is expected");
      const auto which = static_cast<std::size_t>(std::find(kKeys.begin(), kKeys.end(), key) - kKeys.begin());
      if (which == kKeys.size())
        refuse(at, "unknown key '" + io::printable(key) + "'; the keys are 'descr', 'fortran_order' and 'shape'");
      if (seen[which]) refuse(at, "duplicate key '" + io::printable(key) + "'");
      seen[which] = true;
      expect(':', "':' follows a key");
      if (which == 0) read_type(header);
      if (which == 1) read_order(header);
      if (which == 2) read_shape(header);
      if (take(',')) continue;
      close = position_;
      expect('}', "',' or '}' follows a value");
      break;
    }
    for (std::size_t which = 0; which < kKeys.size(); ++which)
      if (!seen[which]) refuse(close, "key '" + std::string(kKeys[which]) + "' is missing");
    skip_spaces();
    if (position_ + 1 != text_.size() || text_[position_] != '\n')
      refuse(position_, "only spaces and one newline follow the dictionary");
    size_data(header);
  }

 private:
  [[noreturn]] void refuse(std::size_t at, const std::string& rule) const { origin_.malformed(begin_ + at, rule); }

  bool next_is(char c) const noexcept { return position_ < text_.size() && text_[position_] == c; }
  void skip_spaces() noexcept {
    while (next_is(' ')) ++position_;
  }
  // Consumes c and the spaces after it.
  bool take(char c) noexcept {
    if (!next_is(c)) return false;
    ++position_;
    skip_spaces();
    return true;
  }
  void expect(char c, const char* rule) {
    if (!take(c)) refuse(position_, rule);
  }
  bool take_word(std::string_view word) noexcept {
    if (!text_.substr(position_).starts_with(word)) return false;
    position_ += word.size();
    skip_spaces();
    return true;
  }

  std::string_view quoted(const char* rule) {
    const std::size_t at = position_;
    if (!next_is('\'') && !next_is('"')) refuse(at, rule);
    const std::size_t end = text_.find(text_[at], at + 1);
    if (end == std::string_view::npos) refuse(at, "the string is not closed");
    const std::string_view content = text_.substr(at + 1, end - at - 1);
    if (content.find('\\') != std::string_view::npos) refuse(at, "a string holds no escape (backslash)");
    position_ = end + 1;
    skip_spaces();
    return content;
  }

  void read_type(Header& header) {
    const std::size_t at = position_;
    if (next_is('[')) refuse_type(at, "descr is a list, a structured type");
    const std::string_view descr = quoted("descr is a type in quotes, such as '<f4'");
    const auto found = std::find_if(kDescriptions.begin(), kDescriptions.end(),
                                    [&](const Description& known) { return known.descr == descr; });
    const std::string start = "descr '" + io::printable(descr) + "' is ";
    if (found != kDescriptions.end())
      header.type = found->type;
    else if (descr.starts_with('>'))
      refuse_type(at, start + "big-endian");
    else if (descr == "|O" || descr == "O")
      refuse_type(at, start + "pickled Python objects");
    else
      refuse_type(at, start + "another type");
  }

  [[noreturn]] void refuse_type(std::size_t at, const std::string& reason) const {
    std::string accepted;
    for (const Description& known : kDescriptions) {
      if (!accepted.empty()) accepted += &known == &kDescriptions.back() ? " and " : ", ";
      accepted.append("'").append(known.descr).append("'");
    }
    refuse(at, reason + "; accepted are " + accepted);
  }

  void read_order(Header& header) {
    header.fortran_order = take_word("True");
    if (!header.fortran_order && !take_word("False")) refuse(position_, "fortran_order is True or False");
  }

  void read_shape(Header& header) {
    shape_at_ = position_;
    expect('(', "shape is a tuple in parentheses, such as (2, 3)");
    while (!take(')')) {
      if (header.rank == kMaxRank) refuse(position_, "shape has at most " + std::to_string(kMaxRank) + " axes");
      header.extents[header.rank++] = read_extent();
      if (take(',')) continue;
      if (header.rank == 1 && next_is(')')) refuse(shape_at_, "a tuple of one extent ends in a comma, such as (2,)");
      expect(')', "',' or ')' follows an extent");
      break;
    }
  }

  std::int64_t read_extent() {
    const std::size_t at = position_;
    const auto digit = [this] {
      return position_ < text_.size() && text_[position_] >= '0' && text_[position_] <= '9';
    };
    if (next_is('-')) refuse(at, "an extent is not negative");
    if (!digit()) refuse(at, "an extent is a decimal number");
    std::int64_t extent = 0;
    for (; digit(); ++position_)
      if (__builtin_mul_overflow(extent, 10, &extent) ||
          __builtin_add_overflow(extent, text_[position_] - '0', &extent))
        refuse(at, "an extent is at most 9223372036854775807");
    if (text_[at] == '0' && position_ > at + 1) refuse(at, "an extent has no leading zero");
    if (next_is('L') || next_is('l')) refuse(position_, "an extent has no suffix 'L' (files of Python 2)");
    skip_spaces();
    return extent;
  }

  void size_data(Header& header) const {
    const std::optional<std::int64_t> size = npy::data_size(header.shape(), header.type);
    if (!size) refuse(shape_at_, "the extents other than zero multiply to a size of more than 63 bits, an overflow");
    header.data_size = static_cast<std::uint64_t>(*size);
  }

  std::string_view text_;
  std::uint64_t begin_;
  const io::Origin& origin_;
  std::size_t position_ = 0;
  std::size_t shape_at_ = 0;
};

// Reads and checks everything in front of the data, and that the data fill the rest of the file exactly.
//   start      the first min(file_size, kMaxDataBegin) bytes of the file
inline Header read_header(std::span<const std::byte> start, std::uint64_t file_size, const io::Origin& origin) {
  const std::string_view text(reinterpret_cast<const char*>(start.data()), start.size());
  const auto byte_at = [&](std::size_t at) { return static_cast<unsigned>(start[at]); };
  const auto need = [&](std::size_t size) {
    if (text.size() < size) origin.malformed(text.size(), "the file ends before its magic, version and header length");
  };
  if (text.empty()) origin.malformed(0, "the file is empty");
  if (!text.starts_with(kMagic.substr(0, text.size())))
    origin.malformed(0, "a .npy file begins with the magic \\x93NUMPY");
  need(8);
  const unsigned major = byte_at(6), minor = byte_at(7);
  if (major < 1 || major > 3 || minor != 0)
    origin.malformed(6, "version " + std::to_string(major) + "." + std::to_string(minor) +
                            " is not known; accepted are 1.0, 2.0 and 3.0");
  const std::size_t begin = major == 1 ? 10 : 12;
  need(begin);
  std::size_t size = 0;
  for (std::size_t at = begin; at-- > 8;) size = size << 8 | byte_at(at);
  if (size == 0) origin.malformed(8, "the header length is 0; a header holds at least a newline");
  if (size > kMaxHeaderSize)
    origin.malformed(8, "the header length is " + std::to_string(size) + ", at most 10000 is accepted");
  if (size > text.size() - begin)
    origin.malformed(8, "a header of " + std::to_string(size) + " bytes reaches beyond the end of the file, at " +
                            std::to_string(file_size));
  if (text[begin + size - 1] != '\n') origin.malformed(begin + size - 1, "the header ends with a newline");

  Header header;
  header.data_begin = begin + size;
  HeaderText(text.substr(begin, size), begin, origin).read(header);
  const std::uint64_t present = file_size - header.data_begin;
  const std::string rule = "shape " + shape_text(header.shape()) + " takes " + std::to_string(header.data_size) +
                           " bytes of data, the file holds " + std::to_string(present);
  if (present < header.data_size) origin.malformed(file_size, "the data end too early: " + rule);
  if (present > header.data_size)
    origin.malformed(header.data_begin + header.data_size, "bytes follow the data: " + rule);
  return header;
}

// Everything in front of the data, byte for byte as NumPy 1.24 and later write it: version 1.0, spare spaces for a
// first extent of 21 digits, then 1 to 64 spaces up to the newline in front of a multiple of 64.
inline std::string header_text(ElementType type, std::span<const std::int64_t> shape) {
  std::string text = "{'descr': '";
  for (const Description& known : kDescriptions)
    if (known.type == type) text += known.descr;
  text += "', 'fortran_order': False, 'shape': " + shape_text(shape) + ", }";
  if (!shape.empty()) text.append(21 - std::to_string(shape[0]).size(), ' ');
  const std::size_t preamble = kMagic.size() + 4;
  text.append(64 - (preamble + text.size() + 1) % 64, ' ');
  text += '\n';
  std::string start{kMagic};
  start += {'\x01', '\x00', static_cast<char>(text.size() & 0xff), static_cast<char>(text.size() >> 8)};
  return start + text;
}

}  // namespace multihead::npy
