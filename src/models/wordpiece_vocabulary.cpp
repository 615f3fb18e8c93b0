// SPDX-License-Identifier: Apache-2.0
// Tokens by their texts, and the cutting of words.
#include "models/wordpiece_vocabulary.hpp"

#include <algorithm>

#include "models/wordpiece_unicode.hpp"

namespace multihead {

bool TokenTable::insert(std::string_view text, std::int64_t id) {
  if (!ids_.emplace(text, id).second) return false;
  longest_ = std::max(longest_, text.size());
  return true;
}

std::int64_t TokenTable::find(std::string_view text) const noexcept {
  const auto found = ids_.find(text);
  return found == ids_.end() ? -1 : found->second;
}

bool WordCutter::cut(std::u32string_view word, std::vector<Piece>& pieces) {
  pieces.clear();
  bytes_.clear();
  starts_.clear();
  for (char32_t letter : word) {
    starts_.push_back(bytes_.size());
    append_utf8(letter, bytes_);
  }
  starts_.push_back(bytes_.size());
  for (std::size_t begin = 0; begin < word.size();) {
    const TokenTable& table = begin == 0 ? words_ : tails_;
    const std::string_view rest = std::string_view(bytes_).substr(starts_[begin]);
    // From the last end that the longest token reaches.
    const auto reach = std::upper_bound(starts_.begin(), starts_.end(), starts_[begin] + table.longest());
    std::size_t end = static_cast<std::size_t>(reach - starts_.begin()) - 1;
    std::int64_t id = -1;
    for (; end > begin; --end)
      if ((id = table.find(rest.substr(0, starts_[end] - starts_[begin]))) >= 0) break;
    if (id < 0) return false;
    pieces.push_back({id, begin, end});
    begin = end;
  }
  return true;
}

}  // namespace multihead
