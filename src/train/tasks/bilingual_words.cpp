// SPDX-License-Identifier: Apache-2.0
// The words of both languages by number.
#include <algorithm>
#include <utility>

#include "train/tasks/bilingual.hpp"
#include "train/tasks/lexicon.hpp"

namespace multihead::bilingual {
namespace {

// Words in the order in which they come, each once, and the parts of those with a blank.
class Collection {
 public:
  explicit Collection(std::vector<std::string_view> first) : texts_(std::move(first)) {}
  void add(std::string_view text) {
    for (std::size_t blank; (blank = text.find(' ')) != std::string_view::npos; text.remove_prefix(blank + 1))
      add(text.substr(0, blank));
    if (!text.empty() && std::find(texts_.begin(), texts_.end(), text) == texts_.end()) texts_.push_back(text);
  }
  template <class Texts>
  void add_all(const Texts& texts) {
    for (const std::string_view text : texts) add(text);
  }
  std::vector<std::string_view> take() { return std::move(texts_); }

 private:
  std::vector<std::string_view> texts_;
};

template <class Take>
void each_fixed(Take take) {
  for (const auto list : {adverbs(), places(), conjunctions(), pronouns()})
    for (const Fixed& fixed : list) take(fixed);
}

std::vector<std::string_view> english_list() {
  Collection words({"<translate>", "<summarise>"});
  words.add_all(std::initializer_list<std::string_view>{
      ",",    "the", "a",     "an", "some", "this", "these", "my", "his", "her", "our", "two", "three",
      "that", "not", "never", "do", "does", "did",  "will",  "be", "is",  "are", "was", "were"});
  each_fixed([&](const Fixed& fixed) { words.add(fixed.english); });
  words.add_all(other_conjunctions());
  words.add_all(remarks());
  for (std::int64_t i = 0; i < kNouns; ++i) words.add_all(noun(i).english);
  for (std::int64_t i = 0; i < kAdjectives; ++i) words.add(adjective(i).english);
  for (std::int64_t i = 0; i < kVerbs; ++i)
    words.add_all(std::initializer_list<std::string_view>{verb(i).base, verb(i).third, verb(i).past});
  return words.take();
}

std::vector<std::string_view> french_list() {
  Collection words({"<begin>", "<end>"});
  words.add_all(std::initializer_list<std::string_view>{
      "le",  "la",  "l'",     "les", "un",  "une", "des", "de",    "d'",    "du",      "ce",    "cet",   "cette",
      "ces", "mon", "ma",     "mes", "son", "sa",  "ses", "notre", "nos",   "deux",    "trois", "qui",   "ne",
      "n'",  "pas", "jamais", "qu'", "a",   "ont", "est", "sont",  "était", "étaient", "sera",  "seront"});
  each_fixed([&](const Fixed& fixed) { words.add(fixed.french); });
  for (std::int64_t i = 0; i < kNouns; ++i) words.add_all(noun(i).french);
  for (std::int64_t i = 0; i < kAdjectives; ++i) {
    for (const auto& forms : adjective(i).french) words.add_all(forms);
    words.add(adjective(i).before_vowel);
  }
  for (std::int64_t i = 0; i < kVerbs; ++i) {
    words.add_all(verb(i).present);
    words.add_all(verb(i).future);
    words.add(verb(i).participle);
  }
  return words.take();
}

}  // namespace

const Vocabulary& source_words() {
  static const Vocabulary words(english_list());
  return words;
}

std::int64_t french_words() noexcept {
  static const auto count = static_cast<std::int64_t>(french_list().size());
  return count;
}

std::int64_t english(std::int64_t source) noexcept { return french_words() + source - kSummarise - 1; }

const Vocabulary& target_words() {
  static const Vocabulary words([] {
    std::vector<std::string_view> list = french_list();
    const auto all = source_words().texts();
    list.insert(list.end(), all.begin() + kSummarise + 1, all.end());
    return list;
  }());
  return words;
}

}  // namespace multihead::bilingual
