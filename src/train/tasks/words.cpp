// SPDX-License-Identifier: Apache-2.0
// Vocabularies, texts to words and back, and the words that are nearest to one that is none.
#include "train/tasks/words.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/validate.hpp"

namespace multihead {
namespace {

constexpr std::size_t kMostShown = 40;  // bytes of a word that is not known

// Levenshtein 1966: insertions, deletions and substitutions of bytes.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j)
      diagonal = std::exchange(row[j + 1], std::min({diagonal + (a[i] != b[j]), row[j] + 1, row[j + 1] + 1}));
  }
  return row.back();
}

std::string nearest(const Vocabulary& vocabulary, std::string_view word) {
  std::vector<std::pair<std::size_t, std::string_view>> near;
  word = word.substr(0, kMostShown);
  for (const std::string_view known : vocabulary.texts())
    if (known.front() != '<' && known != ",") near.emplace_back(edits(word, known), known);
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return std::string(near[0].second) + ", " + std::string(near[1].second) + " and " + std::string(near[2].second);
}

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Small letters; commas by themselves; without the full stop at the end.
std::vector<std::string> words_of(std::string text) {
  while (!text.empty() && is_blank(text.back())) text.pop_back();
  if (!text.empty() && text.back() == '.') text.pop_back();
  std::vector<std::string> words(1);
  const auto end_word = [&] {
    if (!words.back().empty()) words.emplace_back();
  };
  for (const char c : text) {
    if (is_blank(c) || c == ',') end_word();
    if (!is_blank(c)) words.back() += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (c == ',') end_word();
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

}  // namespace

std::string shown(std::string_view word) {
  if (word.size() <= kMostShown) return std::string(word);
  std::size_t end = kMostShown;
  while (end > 0 && (static_cast<unsigned char>(word[end]) & 0xc0) == 0x80) --end;  // not within a character of UTF-8
  return std::string(word.substr(0, end)) + "...";
}

Vocabulary::Vocabulary(std::vector<std::string_view> texts) : texts_(std::move(texts)) {
  // A word that both languages write alike is two tokens of the target; found is the first, the French one.
  for (std::size_t i = 0; i < texts_.size(); ++i) ids_.emplace(texts_[i], static_cast<std::int64_t>(i));
}

std::int64_t Vocabulary::find(std::string_view text) const noexcept {
  const auto found = ids_.find(text);
  return found == ids_.end() ? -1 : found->second;
}

std::string text_of(const Vocabulary& words, std::span<const std::int64_t> tokens) {
  std::string text;
  for (const std::int64_t id : tokens) {
    const std::string_view word = words.text(id);
    if (!text.empty() && text.back() != '\'' && word != ",") text += ' ';
    text += word;
  }
  return text;
}

std::vector<std::int64_t> read_words(const char* function, std::string_view who, const Vocabulary& vocabulary,
                                     const std::string& text, std::int64_t most) {
  const std::vector<std::string> words = words_of(text);
  if (words.empty() || std::ssize(words) > most)
    fail(ErrorCode::bad_option, std::string(function) + ": the text has " + std::to_string(words.size()) +
                                    " words; it must have 1 to " + std::to_string(most));
  std::vector<std::int64_t> ids;
  for (const std::string& word : words) {
    const std::int64_t id = vocabulary.find(word);
    if (id < 0 || word.front() == '<')
      fail(ErrorCode::bad_option, std::string(function) + ": " + std::string(who) + " does not know the word '" +
                                      shown(word) + "'; the nearest that it knows are " + nearest(vocabulary, word));
    ids.push_back(id);
  }
  return ids;
}

}  // namespace multihead
