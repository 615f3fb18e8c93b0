// SPDX-License-Identifier: Apache-2.0
// The search for added tokens, as tokenizer/added_vocabulary.rs of Hugging Face tokenizers has it.
#include "models/wordpiece_added.hpp"

#include <algorithm>

#include "models/wordpiece_unicode.hpp"

namespace multihead {

std::size_t AddedTokens::step(std::size_t node, char32_t letter) const {
  const auto found = steps_.find(static_cast<std::uint64_t>(node) << 32 | letter);
  return found == steps_.end() ? 0 : found->second;
}

bool AddedTokens::insert(std::u32string_view pattern, const AddedToken& token) {
  if (pattern.empty()) return false;
  std::size_t node = 0;
  for (char32_t letter : pattern) {
    std::size_t next = step(node, letter);
    if (next == 0) {
      next = entries_.size();
      entries_.emplace_back();
      steps_.emplace(static_cast<std::uint64_t>(node) << 32 | letter, next);
    }
    node = next;
  }
  if (entries_[node].id >= 0) return false;
  entries_[node] = {token.id, token.single_word, token.lstrip, token.rstrip};
  return true;
}

bool AddedTokens::find(std::u32string_view text, Match& match) const {
  for (std::size_t at = match.next; !steps_.empty() && at < text.size(); ++at) {
    const Entry* longest = nullptr;
    std::size_t end = at, node = 0;
    for (std::size_t i = at; i < text.size(); ++i) {
      node = step(node, text[i]);
      if (node == 0) break;
      if (entries_[node].id >= 0) longest = &entries_[node], end = i + 1;
    }
    if (!longest) continue;
    match = {end, at, end, longest};
    return true;
  }
  return false;
}

bool AddedTokens::widen(std::u32string_view text, std::size_t done, Match& match) const {
  if (match.token->single_word &&
      ((match.begin > 0 && is_word(text[match.begin - 1])) || (match.end < text.size() && is_word(text[match.end]))))
    return false;
  if (match.token->lstrip) {
    while (match.begin > done && is_space(text[match.begin - 1])) --match.begin;
    match.begin = std::max(match.begin, done);
  }
  if (match.token->rstrip)
    while (match.end < text.size() && is_space(text[match.end])) ++match.end;
  return true;
}

}  // namespace multihead
