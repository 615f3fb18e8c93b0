// SPDX-License-Identifier: Apache-2.0
// Text to tokens as BERT's WordPiece does it (Devlin et al. 2019; Hugging Face tokenizers). Library multihead_models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "multihead/model_files.hpp"

namespace multihead {

// A token and the bytes [begin, end) of the text that it stands for; begin = end for what the tokenizer adds, at the
// text's begin or end. From one token of a text to the next neither begin nor end goes back.
struct Token {
  std::int64_t id;
  std::size_t begin, end;
  std::int64_t type;  // 0, in the second of two texts 1
};

// Immutable, cheap to copy; may be used from many threads. Bytes that are not UTF-8 count as U+FFFD, as Python's
// decode("utf-8", "replace") has it. docs/models.md has the rules and the differences that remain.
class WordPiece {
 public:
  // Throws bad_option: a vocabulary without the unknown token, or with a token twice; no classify or separate token; an
  // added token that is empty or stands twice, before or after normalization, or whose id is neither the vocabulary's
  // nor, where that lacks it, the next free one; a negative max_letters.
  explicit WordPiece(const WordPieceModel& model);

  // The tokens of the text alone.
  std::vector<Token> tokens(std::string_view text) const;
  // [CLS] text [SEP]; with max_tokens (at least 2) the text's last tokens are left out until as many remain.
  std::vector<Token> encode(std::string_view text, std::optional<std::int64_t> max_tokens = {}) const;
  // [CLS] first [SEP] second [SEP]; with max_tokens (at least 3) the longer one loses its last tokens until as many
  // remain or both are equal; then both do, and an odd token stays with the longer one, the second where they were
  // equal.
  std::vector<Token> encode(std::string_view first, std::string_view second,
                            std::optional<std::int64_t> max_tokens = {}) const;

  std::int64_t size() const noexcept;            // ids are 0 to size() - 1
  std::string_view text(std::int64_t id) const;  // "##ing"; throws bad_option for an id out of range
  bool special(std::int64_t id) const noexcept;  // [CLS], [SEP] and their kin
  std::optional<std::int64_t> find(std::string_view token) const noexcept;

  struct State;

 private:
  std::shared_ptr<const State> state_;
};

}  // namespace multihead
