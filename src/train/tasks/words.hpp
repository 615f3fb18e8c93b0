// SPDX-License-Identifier: Apache-2.0
// What tasks of words share: vocabularies, texts to words and back, and the two parts of a task's data.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace multihead {

enum class Part { training, held_out };

// Words and their numbers. Texts of tokens that are no words begin with '<'.
class Vocabulary {
 public:
  explicit Vocabulary(std::vector<std::string_view> texts);
  std::int64_t size() const noexcept { return static_cast<std::int64_t>(texts_.size()); }
  std::string_view text(std::int64_t id) const { return texts_[static_cast<std::size_t>(id)]; }
  std::int64_t find(std::string_view text) const noexcept;  // -1: none
  std::span<const std::string_view> texts() const noexcept { return texts_; }

 private:
  std::vector<std::string_view> texts_;
  std::unordered_map<std::string_view, std::int64_t> ids_;
};

// Tokens as text: blanks between words, none behind an apostrophe or before a comma.
std::string text_of(const Vocabulary& words, std::span<const std::int64_t> tokens);

// A word for a sentence: cut where it is long.
std::string shown(std::string_view word);

// Capital letters as small ones, a comma by itself, a full stop at the end aside. Texts of the vocabulary that begin
// with '<' are no words. Throws bad_option: function, the word, who does not know it, and the three nearest; or the
// number of words, 1 to most.
std::vector<std::int64_t> read_words(const char* function, std::string_view who, const Vocabulary& vocabulary,
                                     const std::string& text, std::int64_t most);

}  // namespace multihead
