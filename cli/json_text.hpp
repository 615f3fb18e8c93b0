// SPDX-License-Identifier: Apache-2.0
// JSON as text, put together from its pieces, and whole files of text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "multihead/error.hpp"

namespace multihead::cli {

// A text as JSON quotes it; what is no UTF-8 becomes U+FFFD.
std::string json_text(std::string_view text);
// The shortest digits that read back as the same number; null for what is not finite.
std::string json_number(double value);
// "[1, 2]" of values that are JSON already.
std::string json_list(const std::vector<std::string>& values);

// The whole of a file. Throws file_missing, which begins with who reads.
std::string read_text(const std::string& path, const std::string& who);
// What an option names: a file, which is replaced when the new one is complete; "-" is standard output. Throws
// file_missing, which begins with the option.
void write_text(const std::string& option, const std::string& path, std::string_view text);
// Whether two paths name one file, through links, too; the file need not be there.
bool same_file(const std::string& a, const std::string& b);

// Does what throws errors that begin with "inner: ", and has them begin with the option.
template <class Do>
void by_option(const std::string& option, const std::string& inner, const Do& what) {
  try {
    what();
  } catch (const Error& error) {
    const std::string_view text = error.what();
    const std::string begin = inner + ": ";
    if (!text.starts_with(begin)) throw;
    throw Error(error.code(), option + ": " + std::string(text.substr(begin.size())));
  }
}

}  // namespace multihead::cli
