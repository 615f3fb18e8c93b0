// SPDX-License-Identifier: Apache-2.0
// Text to tokens and back as byte-level pairs do it (Sennrich et al. 2016; Radford et al. 2019). Library
// multihead_models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/model_files.hpp"

namespace multihead {

// The tokenizer of GPT-2 and of Llama 3. Every string of bytes has tokens, and its tokens give it back: bytes that are
// no UTF-8 too. Immutable, cheap to copy; may be used from many threads. docs/models.md has the rules.
class BytePair {
 public:
  // Throws bad_option: a vocabulary that lacks a byte or has a token twice, an id out of range, an added token that is
  // empty, stands twice, or has another id than the vocabulary's or, where that lacks it, the next.
  explicit BytePair(const BytePairModel& model);
  explicit BytePair(const std::filesystem::path& folder);  // throws as read_byte_pair, too

  // The ids of a text; added: with those that the tokenizer puts around it, such as the one that begins every text.
  std::vector<std::int64_t> encode(std::string_view text, bool added = true) const;
  // The bytes of tokens, one after another; special: those of special tokens too. Throws bad_option for an id that no
  // token has.
  std::string decode(std::span<const std::int64_t> ids, bool special = true) const;

  std::int64_t size() const noexcept;             // ids are 0 to size() - 1
  std::string_view bytes(std::int64_t id) const;  // of a token, as decode gives them; throws likewise
  bool is_token(std::int64_t id) const noexcept;
  bool special(std::int64_t id) const noexcept;
  std::optional<std::int64_t> find(std::string_view bytes) const;  // the token of these bytes

  struct State;

 private:
  std::shared_ptr<const State> state_;
};

// UTF-8 out of bytes that come in pieces: what a token cuts in the middle of a letter waits for the next. Bytes that
// are no UTF-8 become U+FFFD, one for each maximal part, as Python's decode("utf-8", "replace") has it.
class TextStream {
 public:
  std::string put(std::string_view bytes);  // the text that is now whole
  std::string end();                        // what still waited, which then will not become whole

 private:
  std::string waiting_;
};

}  // namespace multihead
