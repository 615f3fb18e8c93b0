// SPDX-License-Identifier: Apache-2.0
// A little grammar that writes English sentences with their French, or with their main clause, word beside word.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "train/tasks/words.hpp"

namespace multihead::bilingual {

// What is asked stands first in every source.
constexpr std::int64_t kTranslate = 0, kSummarise = 1;
// Of the target.
constexpr std::int64_t kBegin = 0, kEnd = 1;
const Vocabulary& source_words();  // <translate> <summarise> and English
const Vocabulary& target_words();  // <begin> <end>, French, then English: the word s of the source is english(s)
std::int64_t english(std::int64_t source) noexcept;
std::int64_t french_words() noexcept;

// What a token of the target asks for, beside knowing a word: bits, so that one may ask for several.
enum Skill : std::uint32_t {
  article = 1,         // the determiner's gender, number and form before a vowel
  agreement = 2,       // an adjective's
  order = 4,           // noun or adjective first: the first word after the determiner, where there is an adjective
  verb_agreement = 8,  // the finite verb's number
  negation = 16,       // ne .. pas, ne .. jamais
  summary = 32,        // any token of a main clause
};
constexpr std::int64_t kSkills = 6;
constexpr std::string_view kSkillNames[kSkills] = {"article", "agreement", "order", "verb", "negation", "summary"};

constexpr std::int64_t kMostTokens = 48;  // of a source or a target, with what is put before and behind

struct Sentence {
  std::vector<std::int64_t> source;   // kTranslate or kSummarise, then the words
  std::vector<std::int64_t> target;   // without kBegin and kEnd
  std::vector<std::uint64_t> gold;    // (target): bit i is set where the word comes from token i of the source
  std::vector<std::uint32_t> skills;  // (target): bits of Skill
};

// Pairs that no sentence of training holds, in neither language's order: about one in eleven of an adjective and a noun
// and of a noun and a verb whose subject it is. Every word stands in many others.
bool held_out_adjective(std::int64_t adjective, std::int64_t noun) noexcept;
bool held_out_verb(std::int64_t noun, std::int64_t verb) noexcept;

// Part::training: without a pair that is held out; Part::held_out: with at least one.
enum class Wanted { either, translation, summary };  // either: three of ten are summaries
// Sentence `index` of an endless list, a function of its arguments; index below 2^32 - 1.
Sentence sentence(std::uint64_t seed, std::uint64_t index, Part part, Wanted wanted = Wanted::either);

}  // namespace multihead::bilingual
