// SPDX-License-Identifier: Apache-2.0
// Which model a subcommand takes, and its tokens as a terminal may show them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/wordpiece.hpp"

namespace multihead::cli {

// given; where that is empty what MULTIHEAD_MODEL names; else where ./run keeps the model that it fetches:
// $XDG_CACHE_HOME/multihead/all-MiniLM-L6-v2, XDG_CACHE_HOME being ~/.cache unless set. Throws file_missing, with what
// to do, when there is no such folder; option: which gave it.
std::filesystem::path model_folder(const std::string& given, const std::string& option = "--model");

// [CLS] text [SEP], or [CLS] first [SEP] second [SEP], whole. Throws bad_option when that is more than max_tokens.
std::vector<Token> tokens_of(const WordPiece& tokenizer, const std::vector<std::string>& texts,
                             std::int64_t max_tokens);

// Text that cannot harm a terminal: control characters become '?', and so do those that turn the direction of others,
// and what is no UTF-8.
std::string printable(std::string_view text);
// Columns that a terminal gives printable text. Letters that combine take none, wide ones two.
std::size_t columns_of(std::string_view text);
// text, cut to so many columns (the last one is then ~), or filled with spaces to them.
std::string fitted(std::string_view text, std::size_t columns);

}  // namespace multihead::cli
