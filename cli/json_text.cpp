// SPDX-License-Identifier: Apache-2.0
// JSON as text, put together from its pieces, and whole files of text.
#include "json_text.hpp"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <span>

#include "head_files.hpp"

namespace multihead::cli {

namespace {

// The bytes at the text's begin that are one character of UTF-8; 0 where there is none.
std::size_t character_size(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t size = byte(0) < 0x80 ? 1 : byte(0) < 0xc2 ? 0 : byte(0) < 0xe0 ? 2 : byte(0) < 0xf0 ? 3 : 4;
  if (size == 0 || size > text.size() || byte(0) > 0xf4) return 0;
  for (std::size_t i = 1; i < size; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const bool overlong = (byte(0) == 0xe0 && byte(1) < 0xa0) || (byte(0) == 0xf0 && byte(1) < 0x90);
  const bool beyond = (byte(0) == 0xed && byte(1) > 0x9f) || (byte(0) == 0xf4 && byte(1) > 0x8f);
  return overlong || beyond ? 0 : size;
}

}  // namespace

std::string json_text(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out = "\"";
  while (!text.empty()) {
    const std::size_t size = character_size(text);
    const auto code = static_cast<unsigned char>(text[0]);
    if (size == 0)
      out += "\uFFFD";
    else if (code == '"' || code == '\\')
      (out += '\\') += text[0];
    else if (code < 0x20)
      ((out += "\\u00") += kDigits[code >> 4]) += kDigits[code & 15];
    else
      out += text.substr(0, size);
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return out + '"';
}

std::string json_number(double value) { return number_text(value, "null"); }

std::string json_list(const std::vector<std::string>& values) {
  std::string out = "[";
  for (const std::string& value : values) out += (out.size() > 1 ? ", " : "") + value;
  return out + "]";
}

std::string read_text(const std::string& path, const std::string& who) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  const bool there = file && !std::filesystem::is_directory(path);
  if (there) text.assign(std::istreambuf_iterator<char>(file), {});
  if (!there || file.bad()) throw Error(ErrorCode::file_missing, who + ": " + path + ": cannot be read");
  return text;
}

void write_text(const std::string& option, const std::string& path, std::string_view text) {
  if (path == "-")
    std::cout << text;
  else
    by_option(option, "write_bytes", [&] { write_bytes(path, std::as_bytes(std::span(text))); });
}

bool same_file(const std::string& a, const std::string& b) {
  std::error_code none;
  const auto real = [&](const std::string& path) {
    return std::filesystem::weakly_canonical(std::filesystem::absolute(path), none);
  };
  const bool one_name = std::filesystem::path(a).lexically_normal() == std::filesystem::path(b).lexically_normal();
  if (one_name || std::filesystem::equivalent(a, b, none)) return true;
  return !a.empty() && !b.empty() && a != "-" && b != "-" && real(a) == real(b);
}

}  // namespace multihead::cli
