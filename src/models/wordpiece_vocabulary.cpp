// SPDX-License-Identifier: Apache-2.0
// Open addressing over views of the tokens' texts, and the cutting of words.
#include "models/wordpiece_vocabulary.hpp"

#include <algorithm>
#include <bit>
#include <functional>

#include "models/wordpiece_unicode.hpp"

namespace multihead {

TokenTable::TokenTable(std::size_t count) : slots_(std::bit_ceil(2 * count + 2)) { entries_.reserve(count); }

std::size_t TokenTable::slot(std::string_view text, std::uint64_t hash) const noexcept {
  const std::size_t mask = slots_.size() - 1;
  const auto holds_another = [&](const Slot& slot) {
    return slot.entry > 0 && (slot.hash != static_cast<std::uint32_t>(hash) || entries_[slot.entry - 1].text != text);
  };
  std::size_t place = (hash >> 32) & mask;
  while (holds_another(slots_[place])) place = (place + 1) & mask;
  return place;
}

bool TokenTable::insert(std::string_view text, std::int64_t id) {
  const std::uint64_t hash = std::hash<std::string_view>()(text);
  Slot& place = slots_[slot(text, hash)];
  if (place.entry > 0) return false;
  entries_.push_back({text, id});
  place = {static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(entries_.size())};
  longest_ = std::max(longest_, text.size());
  return true;
}

std::int64_t TokenTable::find(std::string_view text) const noexcept {
  const Slot& place = slots_[slot(text, std::hash<std::string_view>()(text))];
  return place.entry > 0 ? entries_[place.entry - 1].id : -1;
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
