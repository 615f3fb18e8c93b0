// SPDX-License-Identifier: Apache-2.0
// Added tokens: where they stand in a text, the leftmost first and of those the longest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "multihead/model_files.hpp"

namespace multihead {

// The search takes a text's length times that of the longest pattern that its letters follow.
class AddedTokens {
 public:
  // False where the pattern is there already or empty.
  bool insert(std::u32string_view pattern, const AddedToken& token);

  // Calls plain(begin, end) and added(begin, end, id) for the text's parts, in their order.
  template <class Plain, class Added>
  void split(std::u32string_view text, Plain plain, Added added) const {
    std::size_t done = 0;
    for (Match match; find(text, match);) {
      if (!widen(text, done, match)) continue;
      if (done < match.begin) plain(done, match.begin);
      added(match.begin, match.end, match.token->id);
      done = match.end;
    }
    if (done < text.size()) plain(done, text.size());
  }

 private:
  struct Entry {
    std::int64_t id = -1;
    bool single_word = false, lstrip = false, rstrip = false;
  };
  struct Match {
    std::size_t next = 0;  // where the search goes on
    std::size_t begin = 0, end = 0;
    const Entry* token = nullptr;
  };
  // The next match from match.next on.
  bool find(std::u32string_view text, Match& match) const;
  // Takes the white space that the token asks for; false where it is not the whole word that it has to be.
  bool widen(std::u32string_view text, std::size_t done, Match& match) const;

  // A step of the tree of all patterns, by node and letter; 0 where there is none.
  std::size_t step(std::size_t node, char32_t letter) const;

  std::unordered_map<std::uint64_t, std::size_t> steps_;  // (node << 32 | letter) to node
  std::vector<Entry> entries_{Entry{}};                   // of each node; an id of -1: no pattern ends there
};

}  // namespace multihead
