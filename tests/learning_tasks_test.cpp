// SPDX-License-Identifier: Apache-2.0
// The data of the tasks four-relations and grammar: what is right by rules of this file's own, and what is held out.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "multihead/tasks.hpp"
#include "train/tasks/english.hpp"
#include "train/tasks/relations_data.hpp"

namespace multihead::testing {
namespace {

// ---- four-relations

TEST(FourRelations, EveryTargetIsRight) {
  multihead::Random random(1, 2);
  const relations::Data data = relations::draw(random, 50, false);
  const std::vector<std::int64_t> wanted = relations::wanted(data);
  for (std::int64_t s = 0; s < 50; ++s) {
    const std::int64_t start = s * 16;
    std::map<std::int64_t, std::vector<std::int64_t>> places;
    for (std::int64_t i = 0; i < 16; ++i) places[data.token(start + i)].push_back(i);
    EXPECT_EQ(places.size(), 8u);
    for (const auto& [token, both] : places) EXPECT_EQ(both.size(), 2u) << token;
    for (std::int64_t i = 0; i < 16; ++i) {
      const std::vector<std::int64_t>& both = places[data.token(start + i)];
      const std::int64_t goals[] = {i == 0 ? 15 : i - 1, 15 - i, i < 13 ? i + 3 : i - 13,
                                    both[0] == i ? both[1] : both[0]};
      for (std::int64_t r = 0; r < 4; ++r)
        EXPECT_EQ(wanted[static_cast<std::size_t>(r * 800 + start + i)], data.payload(start + goals[r]))
            << s << " " << i << " " << r;
    }
  }
}

TEST(FourRelations, WhatIsHeldOutIsNeverTrainedOn) {
  for (bool held_out : {false, true})
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      multihead::Random random(seed, 3);
      const relations::Data data = relations::draw(random, 64, held_out);
      for (std::int64_t s = 0; s < 64; ++s) {
        std::int64_t sum = 0;
        for (std::int64_t i = 0; i < 16; ++i) sum += data.payload(s * 16 + i);
        EXPECT_EQ(sum % 16 == 15, held_out);
      }
    }
}

// ---- grammar

std::vector<std::string> words_of(const english::Sentence& sentence) {
  const english::Tokens tokens = english::tokens_of(sentence);
  std::istringstream text(english::text_of(tokens.words));
  std::vector<std::string> words;
  for (std::string word; text >> word;) words.push_back(word);
  return words;
}

const std::set<std::string> kGood{"pleasant", "bright", "useful", "gentle", "honest", "clever",
                                  "lovely",   "calm",   "fresh",  "safe",   "fair",   "brave"};
const std::set<std::string> kBad{"dreadful", "dull",  "useless", "cruel",     "dishonest", "stupid",
                                 "ugly",     "noisy", "rotten",  "dangerous", "unfair",    "cowardly"};
const std::set<std::string> kNot{"not", "never", "hardly", "scarcely"};
const std::set<std::string> kJoins{"but", "and", "while", "although", "because"};
const std::set<std::string> kBefore{"near", "behind", "beside", "above", "under", "with"};

// A clause read from its words.
struct Read {
  std::vector<std::string> nouns;  // the subject first
  std::string adjective, negator;
  bool plural = false, praises = false;
};

std::string singular(const std::string& noun) {
  if (noun == "children") return "child";
  if (noun == "stories") return "story";
  return noun.back() == 's' ? noun.substr(0, noun.size() - 1) : noun;
}

// What stands before a preposition or _ is a noun; what stands last is the adjective.
Read read(const std::vector<std::string>& words) {
  Read clause;
  const auto verb = std::find(words.begin(), words.end(), "_");
  for (auto word = words.begin(); word != verb; ++word)
    if (word + 1 == verb || kBefore.count(*(word + 1)) > 0) clause.nouns.push_back(*word);
  clause.plural = singular(clause.nouns[0]) != clause.nouns[0];
  for (auto word = verb; word != words.end(); ++word)
    if (kNot.count(*word) > 0) clause.negator = *word;
  clause.adjective = words.back();
  clause.praises = (kGood.count(clause.adjective) > 0) != !clause.negator.empty();
  return clause;
}

std::vector<Read> read_clauses(const std::vector<std::string>& words) {
  const auto join = std::find_if(words.begin(), words.end(), [](const auto& word) { return kJoins.count(word) > 0; });
  return {read({words.begin(), join}), read({join + 1, words.end() - 1})};
}

TEST(Grammar, EveryAnswerIsRight) {
  std::map<std::string, int> seen;
  for (bool held_out : {false, true}) {
    multihead::Random random(4, 5);
    for (int i = 0; i < 1000; ++i) {
      const english::Sentence sentence = english::draw(random, held_out);
      const std::vector<std::string> words = words_of(sentence);
      ASSERT_LE(std::ssize(words), english::kMostTokens);
      EXPECT_EQ(words.back(), "?");
      const std::vector<Read> clauses = read_clauses(words);
      for (std::size_t c = 0; c < 2; ++c) {
        const Read& clause = clauses[c];
        EXPECT_EQ(kGood.count(clause.adjective) + kBad.count(clause.adjective), 1u) << clause.adjective;
        EXPECT_EQ(sentence.clauses[c].plural(), clause.plural) << clause.nouns[0];
        EXPECT_EQ(sentence.clauses[c].praises(), clause.praises);
        const bool attracted = clause.nouns.size() > 1 &&
                               std::all_of(clause.nouns.begin() + 1, clause.nouns.end(),
                                           [&](const auto& noun) { return (singular(noun) != noun) != clause.plural; });
        EXPECT_EQ(sentence.clauses[c].is_attracted(), attracted);
        seen["plural"] += clause.plural, seen["praises"] += clause.praises, seen["attracted"] += attracted;
        seen["negated"] += !clause.negator.empty();
      }
    }
  }
  for (const char* what : {"plural", "praises"}) EXPECT_NEAR(seen[what], 2000, 150) << what;
  EXPECT_NEAR(seen["negated"], 1333, 150);
  EXPECT_GT(seen["attracted"], 800);
}

TEST(Grammar, WhatIsHeldOutIsNeverTrainedOn) {
  std::set<std::pair<std::string, std::string>> trained, held, trained_negations, held_negations;
  for (bool held_out : {false, true}) {
    multihead::Random random(6, 7);
    for (int i = 0; i < 20000; ++i)
      for (const Read& clause : read_clauses(words_of(english::draw(random, held_out)))) {
        for (std::size_t n = 1; n < (held_out ? 2 : clause.nouns.size()); ++n)
          (held_out ? held : trained).emplace(singular(clause.nouns[0]), singular(clause.nouns[n]));
        if (held_out) {
          EXPECT_GT(clause.nouns.size(), 1u);
        }
        if (!clause.negator.empty())
          (held_out ? held_negations : trained_negations).emplace(clause.negator, clause.adjective);
      }
  }
  EXPECT_EQ(trained.size(), 224u);
  EXPECT_EQ(held.size(), 32u);
  EXPECT_EQ(trained_negations.size(), 84u);
  EXPECT_EQ(held_negations.size(), 12u);
  for (const auto& pair : held) EXPECT_EQ(trained.count(pair), 0u) << pair.first << " " << pair.second;
  for (const auto& pair : held_negations) EXPECT_EQ(trained_negations.count(pair), 0u) << pair.first;
}

TEST(Grammar, ReadsWords) {
  const english::Tokens tokens =
      english::tokens_of("the keys near the old cabinet _ never dull but the garden _ pleasant");
  EXPECT_EQ(english::text_of(tokens.words), "the keys near the old cabinet _ never dull but the garden _ pleasant ?");
  EXPECT_EQ(tokens.clauses, (std::vector<std::int64_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 1, 1, 2}));
  multihead::Random random(8, 9);
  for (int i = 0; i < 50; ++i) {
    const english::Tokens drawn = english::tokens_of(english::draw(random, false));
    const english::Tokens again = english::tokens_of(english::text_of(drawn.words));
    EXPECT_EQ(again.words, drawn.words);
    EXPECT_EQ(again.clauses, drawn.clauses);
  }
  for (const char* text :
       {"the dragon _ calm but the key _ calm", "the key _ calm", "", "? the key _ calm but the key _ calm",
        "the key _ calm but the key _ calm and the key _ calm"})
    EXPECT_THROW(english::tokens_of(std::string(text)), Error) << text;
}

TEST(LearningTasks, HaveEqualParametersForEveryNumberOfHeads) {
  for (const char* name : {"four-relations", "grammar"}) {
    const std::unique_ptr<Task> task = make_task(name);
    const std::int64_t elements = Transformer<float>(task->config(task->heads()), 1).parameters().elements();
    for (std::int64_t heads : task->study_heads())
      EXPECT_EQ(Transformer<float>(task->config(heads), 1).parameters().elements(), elements) << name << " " << heads;
    if (name == std::string("four-relations")) {
      EXPECT_EQ(elements, 24000);
    }
  }
}

}  // namespace
}  // namespace multihead::testing
