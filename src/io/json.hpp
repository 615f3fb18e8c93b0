// SPDX-License-Identifier: Apache-2.0
// Strict JSON under the readers: nlohmann_json, held to what it lets pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "io/file.hpp"

namespace multihead::io {

using Json = nlohmann::json;

inline constexpr std::size_t kMaxJsonDepth = 64;

// The one value that text holds: RFC 8259 in valid UTF-8 without a byte order mark, at most kMaxJsonDepth values nested
// in each other, no key twice in an object, no number beyond float64. Throws file_malformed with the byte at which
// reading found it broken (of a key given twice: its end), counted from first_byte of the file. Memory is a small
// multiple of the text's: at most 40 times, when it is brackets and commas.
Json parse_json(std::span<const std::byte> text, std::uint64_t first_byte, const Origin& origin);

// A value that is not what it must be, for a sentence: "-1", "true", "of type string".
std::string kind_text(const Json& value);

bool is_utf8(std::string_view text);

inline constexpr std::size_t kMostFileBytes = std::size_t{64} << 20;

// The same of a whole file, which has at most kMostFileBytes.
Json parse_json_file(std::span<const std::byte> text, const Origin& origin);

}  // namespace multihead::io
