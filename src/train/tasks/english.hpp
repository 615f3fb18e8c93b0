// SPDX-License-Identifier: Apache-2.0
// A little English: two clauses whose verbs are left out, and what there is to know about each.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/optimizer.hpp"

namespace multihead::english {

// "the keys near the old cabinet _ never dull but the garden _ quite pleasant ?": _ stands where a verb stood, ? where
// the answers are read: is or are in each clause, and whether the clause speaks well of its subject.
constexpr std::int64_t kNouns = 16, kPrepositions = 6, kJudging = 24, kNeutral = 6, kNegators = 4;
constexpr std::int64_t kIntensifiers = 4, kConnectives = 5;
constexpr std::int64_t kMostTokens = 40, kClauses = 2;

struct Noun {
  std::int64_t noun = 0;
  bool plural = false;
  std::int64_t adjective = -1;  // before it: judging ones, then neutral ones; -1: none
};

struct Clause {
  Noun subject;
  struct Phrase {
    std::int64_t preposition;
    Noun noun;
  };
  std::vector<Phrase> phrases;  // at most 3; their nouns attract the verb
  std::int64_t negator = -1, intensifier = -1;
  std::int64_t adjective = 0;  // judging: the first half speaks well

  bool plural() const { return subject.plural; }
  bool praises() const { return (adjective < kJudging / 2) != (negator >= 0); }
  bool is_attracted() const;  // phrases, all of the other number
};

struct Sentence {
  std::array<Clause, kClauses> clauses;
  std::int64_t connective = 0;
};

// Never trained on: a subject with such a noun in a phrase, a negator with such an adjective.
constexpr bool is_held_out_pair(std::int64_t subject, std::int64_t attractor) {
  return (3 * subject + attractor) % 8 == 0;
}
constexpr bool is_held_out_negation(std::int64_t adjective, std::int64_t negator) {
  return (adjective + 3 * negator) % 8 == 0;
}
bool is_held_out(const Clause& clause);

// One clause of three has a negator. For training neither clause has anything held out. Held out: the first phrase of
// each is such a pair, and its negation, where it has one, such a negation.
Sentence draw(Random& random, bool held_out);

// Tokens and what clause each belongs to: 0, 1; 2 for the connective and ?.
struct Tokens {
  std::vector<std::int64_t> words, clauses;
};
Tokens tokens_of(const Sentence& sentence);
// Of words with spaces between them, ? left out or not. Throws bad_option for a word that is none, a sentence that does
// not have one connective, and more than kMostTokens.
Tokens tokens_of(const std::string& text);

std::int64_t vocabulary() noexcept;
std::string_view word(std::int64_t token);
std::string text_of(std::span<const std::int64_t> words);

}  // namespace multihead::english
