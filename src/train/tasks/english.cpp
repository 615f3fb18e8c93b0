// SPDX-License-Identifier: Apache-2.0
// A little English: words, clauses, what is held out.
#include "train/tasks/english.hpp"

#include <algorithm>

#include "core/validate.hpp"
#include "train/tasks/words.hpp"

namespace multihead::english {

namespace {

// In the order of the constants: nouns one and many, prepositions, adjectives that judge well and ill, neutral ones,
// negators, intensifiers, connectives, and what stands in every sentence.
constexpr std::string_view kWords[] = {
    "key",       "keys",    "cabinet",  "cabinets", "window",   "windows",   "garden", "gardens",  "letter",
    "letters",   "teacher", "teachers", "child",    "children", "river",     "rivers", "engine",   "engines",
    "bird",      "birds",   "bridge",   "bridges",  "author",   "authors",   "doctor", "doctors",  "painting",
    "paintings", "house",   "houses",   "story",    "stories",  "near",      "behind", "beside",   "above",
    "under",     "with",    "pleasant", "bright",   "useful",   "gentle",    "honest", "clever",   "lovely",
    "calm",      "fresh",   "safe",     "fair",     "brave",    "dreadful",  "dull",   "useless",  "cruel",
    "dishonest", "stupid",  "ugly",     "noisy",    "rotten",   "dangerous", "unfair", "cowardly", "old",
    "red",       "small",   "tall",     "new",      "distant",  "not",       "never",  "hardly",   "scarcely",
    "very",      "quite",   "really",   "rather",   "but",      "and",       "while",  "although", "because",
    "the",       "_",       "?"};

constexpr std::int64_t kFirstPreposition = 2 * kNouns, kFirstAdjective = kFirstPreposition + kPrepositions;
constexpr std::int64_t kFirstNegator = kFirstAdjective + kJudging + kNeutral;
constexpr std::int64_t kFirstIntensifier = kFirstNegator + kNegators;
constexpr std::int64_t kFirstConnective = kFirstIntensifier + kIntensifiers;
constexpr std::int64_t kThe = kFirstConnective + kConnectives, kVerb = kThe + 1, kQuestion = kThe + 2;
static_assert(std::size(kWords) == kQuestion + 1);

constexpr std::int64_t kBetween = 2;  // the clause of what belongs to none

bool is_connective(std::int64_t token) { return token >= kFirstConnective && token < kThe; }

Noun draw_noun(Random& random) {
  Noun noun;
  noun.noun = random.below(kNouns);
  noun.plural = random.below(2) == 1;
  if (random.below(4) == 0) noun.adjective = random.below(kJudging + kNeutral);
  return noun;
}

Clause draw_clause(Random& random, bool held_out) {
  Clause clause;
  clause.subject = draw_noun(random);
  const std::int64_t phrases = held_out ? 1 + random.below(3) : random.below(4);
  for (std::int64_t i = 0; i < phrases; ++i) {
    const std::int64_t preposition = random.below(kPrepositions);
    Noun noun = draw_noun(random);
    // Later phrases of a clause that is held out are free.
    while ((i == 0 || !held_out) && is_held_out_pair(clause.subject.noun, noun.noun) != held_out)
      noun.noun = random.below(kNouns);
    clause.phrases.push_back({preposition, noun});
  }
  clause.adjective = random.below(kJudging);
  if (random.below(3) == 0) {
    clause.negator = random.below(kNegators);
    while (is_held_out_negation(clause.adjective, clause.negator) != held_out)
      clause.adjective = random.below(kJudging);
  }
  if (random.below(3) == 0) clause.intensifier = random.below(kIntensifiers);
  return clause;
}

void add_noun(const Noun& noun, std::vector<std::int64_t>& words) {
  words.push_back(kThe);
  if (noun.adjective >= 0) words.push_back(kFirstAdjective + noun.adjective);
  words.push_back(2 * noun.noun + (noun.plural ? 1 : 0));
}

void add_clause(const Clause& clause, std::vector<std::int64_t>& words) {
  add_noun(clause.subject, words);
  for (const Clause::Phrase& phrase : clause.phrases) {
    words.push_back(kFirstPreposition + phrase.preposition);
    add_noun(phrase.noun, words);
  }
  words.push_back(kVerb);
  if (clause.negator >= 0) words.push_back(kFirstNegator + clause.negator);
  if (clause.intensifier >= 0) words.push_back(kFirstIntensifier + clause.intensifier);
  words.push_back(kFirstAdjective + clause.adjective);
}

// What clause each word belongs to, by the connective between them.
Tokens with_clauses(std::vector<std::int64_t> words) {
  Tokens tokens{std::move(words), {}};
  std::int64_t clause = 0;
  for (const std::int64_t token : tokens.words) {
    const bool between = is_connective(token) || token == kQuestion;
    tokens.clauses.push_back(between ? kBetween : clause);
    if (between) ++clause;
  }
  return tokens;
}

}  // namespace

bool Clause::is_attracted() const {
  return !phrases.empty() && std::none_of(phrases.begin(), phrases.end(),
                                          [&](const Phrase& phrase) { return phrase.noun.plural == subject.plural; });
}

bool is_held_out(const Clause& clause) {
  return (clause.negator >= 0 && is_held_out_negation(clause.adjective, clause.negator)) ||
         std::any_of(clause.phrases.begin(), clause.phrases.end(), [&](const Clause::Phrase& phrase) {
           return is_held_out_pair(clause.subject.noun, phrase.noun.noun);
         });
}

Sentence draw(Random& random, bool held_out) {
  Sentence sentence;
  for (Clause& clause : sentence.clauses) clause = draw_clause(random, held_out);
  sentence.connective = random.below(kConnectives);
  return sentence;
}

Tokens tokens_of(const Sentence& sentence) {
  std::vector<std::int64_t> words;
  add_clause(sentence.clauses[0], words);
  words.push_back(kFirstConnective + sentence.connective);
  add_clause(sentence.clauses[1], words);
  words.push_back(kQuestion);
  return with_clauses(std::move(words));
}

Tokens tokens_of(const std::string& text) {
  const auto wrong = [](const std::string& rest) { fail(ErrorCode::bad_option, "grammar: " + rest); };
  std::vector<std::int64_t> words;
  for (std::size_t begin = 0; (begin = text.find_first_not_of(' ', begin)) != std::string::npos;) {
    const std::string_view read = std::string_view(text).substr(begin, text.find(' ', begin) - begin);
    begin += read.size();
    const auto* const found = std::find(std::begin(kWords), std::end(kWords), read);
    if (found == std::end(kWords)) wrong("'" + shown(read) + "' is no word of this grammar");
    words.push_back(found - std::begin(kWords));
  }
  if (words.empty() || words.back() != kQuestion) words.push_back(kQuestion);
  if (std::count_if(words.begin(), words.end(), is_connective) != 1)
    wrong("a sentence has two clauses with one of but, and, while, although, because between them");
  if (std::count(words.begin(), words.end(), kQuestion) != 1) wrong("? stands at the end");
  if (std::ssize(words) > kMostTokens)
    wrong("the sentence has " + std::to_string(words.size()) + " words; it may have " + std::to_string(kMostTokens));
  return with_clauses(std::move(words));
}

std::int64_t vocabulary() noexcept { return std::ssize(kWords); }

std::string_view word(std::int64_t token) { return kWords[token]; }

std::string text_of(std::span<const std::int64_t> words) {
  std::string text;
  for (const std::int64_t token : words) text += (text.empty() ? "" : " ") + std::string(word(token));
  return text;
}

}  // namespace multihead::english
