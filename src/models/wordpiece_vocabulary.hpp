// SPDX-License-Identifier: Apache-2.0
// The vocabulary: tokens by id and ids by token, and the greedy cutting of a word into them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace multihead {

// Ids by text. The texts belong to someone else and stay where they are.
class TokenTable {
 public:
  explicit TokenTable(std::size_t count) { ids_.reserve(count); }

  bool insert(std::string_view text, std::int64_t id);      // false where the text is there already
  std::int64_t find(std::string_view text) const noexcept;  // -1 where it is not
  std::size_t longest() const noexcept { return longest_; }

 private:
  std::unordered_map<std::string_view, std::int64_t> ids_;
  std::size_t longest_ = 0;
};

// A piece of a word: letters [begin, end).
struct Piece {
  std::int64_t id;
  std::size_t begin, end;
};

// Cuts words: the longest token that the word begins with, then the longest that goes on, and so forth.
class WordCutter {
 public:
  // words holds tokens as they are; tails those that go on inside a word, without what marks them.
  WordCutter(const TokenTable& words, const TokenTable& tails) : words_(words), tails_(tails) {}

  // Fills pieces; false where at some place none goes on.
  bool cut(std::u32string_view word, std::vector<Piece>& pieces);

 private:
  const TokenTable& words_;
  const TokenTable& tails_;
  std::string bytes_;                // the word in UTF-8
  std::vector<std::size_t> starts_;  // each letter's first byte, then the number of bytes
};

}  // namespace multihead
