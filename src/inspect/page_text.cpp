// SPDX-License-Identifier: Apache-2.0
// Hostile text and bytes, made fit to stand in a page.
#include <array>

#include "inspect/page.hpp"

namespace multihead {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// The bytes of the character of UTF-8 that text begins with (Unicode 15, table 3-7); 0: it begins with none.
std::size_t character(std::string_view text) {
  const auto at = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto follows = [&](std::size_t i) { return at(i) >= 0x80 && at(i) <= 0xBF; };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80, high = first == 0xED ? 0x9F : 0xBF;  // no surrogates
    return at(1) >= low && at(1) <= high && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80, high = first == 0xF4 ? 0x8F : 0xBF;
    return at(1) >= low && at(1) <= high && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

// The text, character by character: escape(character, out) says whether it has written it.
template <class Escape>
std::string escaped(std::string_view text, const Escape& escape) {
  std::string out;
  while (!text.empty()) {
    const std::size_t size = character(text);
    if (size == 0)
      out += kReplacement;
    else if (!escape(text.substr(0, size), out))
      out += text.substr(0, size);
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return out;
}

}  // namespace

std::string json_string(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  return '"' +
         escaped(text,
                 [&](std::string_view one, std::string& out) {
                   const auto code = static_cast<unsigned char>(one[0]);
                   if (one == "\xE2\x80\xA8" || one == "\xE2\x80\xA9")  // line and paragraph separator
                     out += one == "\xE2\x80\xA8" ? "\\u2028" : "\\u2029";
                   else if (code < 0x20 || code == 0x7F || one == "<" || one == ">" || one == "&")
                     (out += "\\u00") += {kHex[code >> 4], kHex[code & 15]};
                   else if (one == "\"" || one == "\\")
                     (out += '\\') += one;
                   else
                     return false;
                   return true;
                 }) +
         '"';
}

std::string html_text(std::string_view text) {
  return escaped(text, [](std::string_view one, std::string& out) {
    const auto code = static_cast<unsigned char>(one[0]);
    if (one == "<")
      out += "&lt;";
    else if (one == ">")
      out += "&gt;";
    else if (one == "&")
      out += "&amp;";
    else if (code < 0x20)
      out += ' ';
    else
      return false;
    return true;
  });
}

std::string base64(std::span<const std::byte> bytes) {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::size_t count = bytes.size() - at < 3 ? bytes.size() - at : 3;
    unsigned three = 0;
    for (std::size_t i = 0; i < 3; ++i)
      three = three << 8 | (i < count ? std::to_integer<unsigned>(bytes[at + i]) : 0u);
    for (std::size_t i = 0; i < 4; ++i) text += i <= count ? kLetters[three >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

}  // namespace multihead
