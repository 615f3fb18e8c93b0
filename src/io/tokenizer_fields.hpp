// SPDX-License-Identifier: Apache-2.0
// What the parts of any tokenizer.json have in common: a vocabulary, tokens added to it, templates around a text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/json_fields.hpp"
#include "multihead/model_files.hpp"

namespace multihead::io {

inline constexpr std::int64_t kMostId = (std::int64_t{1} << 32) - 1;

[[noreturn]] void unsupported(const Origin& origin, const std::string& rule);

// The part of the tokenizer that name stands for, of the one type that is known.
Fields part(const Fields& fields, const char* name, std::string_view type);

// Tokens by id, from the object "vocab" of fields; an id that no token has is empty.
std::vector<std::string> read_vocabulary(const Fields& fields);

// Tokens of the vocabulary, and others that continue it: Hugging Face gives those the next ids whatever the file says.
// While the file is read they stand in the vocabulary; these ids are returned.
std::vector<std::int64_t> read_added(const Fields& fields, std::vector<std::string>& vocabulary,
                                     std::vector<AddedToken>& added);

// A piece of a template: a text, "A" or "B", or a special token.
struct TemplatePiece {
  bool is_text;
  std::string id;
  std::int64_t type;
  bool operator==(const TemplatePiece&) const = default;
};
std::vector<TemplatePiece> template_of(const Fields& processor, const char* name);

// The token's one id in the file, beside its name, must be the one in the vocabulary: Hugging Face takes the file's.
void require_id(const Fields& fields, const std::string& field, const Json& id, const std::string& token,
                const std::vector<std::string>& vocabulary);
// The same of a token of a template, by the template's special_tokens.
void require_template_id(const Fields& processor, const std::string& token, const std::vector<std::string>& vocabulary);

}  // namespace multihead::io
