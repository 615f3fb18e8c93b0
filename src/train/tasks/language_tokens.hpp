// SPDX-License-Identifier: Apache-2.0
// The stories' tokens: those of tokenizer.json beside this file, byte-level pairs as GPT-2 has them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace multihead::language {

// The file that goes into the folder of a learned model; make_tokenizer.py made it from stories.
std::string_view tokenizer_json() noexcept;

constexpr std::int64_t kEnd = 0;  // <|endoftext|>: before a story and after it
std::int64_t vocabulary();
// The bytes of a token; "<|endoftext|>".
std::string_view text_of_token(std::int64_t id);

// Ids of a text of letters, full stops and commas, with single blanks between. Throws bad_option for another byte.
std::vector<std::int64_t> encode(std::string_view text);
std::string decode(std::span<const std::int64_t> ids);

}  // namespace multihead::language
