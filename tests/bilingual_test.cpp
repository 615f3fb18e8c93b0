// SPDX-License-Identifier: Apache-2.0
// Sentences of task "translation": French by a reader with rules of its own, alignments, what is held out, one list
// for one seed.
#include "train/tasks/bilingual.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "french.hpp"
#include "train/tasks/lexicon.hpp"

namespace multihead::testing {
namespace {

using bilingual::Sentence;
using bilingual::Wanted;

std::vector<std::string> split(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

std::vector<std::string> words_of(const Vocabulary& words, const std::vector<std::int64_t>& tokens) {
  std::vector<std::string> texts;
  for (const std::int64_t token : tokens) texts.emplace_back(words.text(token));
  return texts;
}

std::string wrong(const std::string& tokens) { return read_french(split(tokens)).wrong; }

TEST(FrenchReader, TakesWhatIsRight) {
  for (const char* right :
       {"le chat dort", "l' homme ne voit pas de maison", "de vieux oiseaux chantent",
        "son abeille est heureuse parce qu' elle travaille", "mon bel oiseau dort près du vieil arbre"})
    EXPECT_EQ(wrong(right), "") << right;
}

// Each differs from a right one in one thing.
TEST(FrenchReader, RefusesWhatIsWrong) {
  for (const char* sentence : {"la chat dort",
                               "le chats dort",
                               "les chat dorment",
                               "les chats dort",
                               "le homme dort",
                               "l' chat dort",
                               "ma abeille dort",
                               "mon vache dort",
                               "cet chat dort",
                               "ce homme dort",
                               "le chat noire dort",
                               "le noir chat dort",
                               "le chat petit dort",
                               "la petit maison est rouge",
                               "un vieux homme dort",
                               "un vieil chat dort",
                               "des petits chats dorment",
                               "de chats dorment",
                               "le chat ne dort",
                               "le chat dort pas",
                               "le chat ne aime pas le roi",
                               "le chat ne voit pas un roi",
                               "le chat n' voit pas le roi",
                               "le chat voit",
                               "le chat dort le roi",
                               "le chat est noire",
                               "les chats est noirs",
                               "le chat dort près de le jardin",
                               "le chat dort près de les jardins",
                               "le chat dort près du église",
                               "le chat a dort",
                               "les chats a dormi",
                               "elle est petit",
                               "ils est petits",
                               "le chat dort parce il est noir",
                               "le chat qui dort",
                               "dort le chat",
                               "le chat dort le",
                               "le chat est bel"})
    EXPECT_NE(wrong(sentence), "") << sentence;
}

TEST(Bilingual, EveryFrenchSentenceIsRight) {
  for (const Part part : {Part::training, Part::held_out})
    for (std::uint64_t i = 0; i < 3000; ++i) {
      const Sentence sentence = bilingual::sentence(3, i, part, Wanted::translation);
      const French french = read_french(words_of(bilingual::target_words(), sentence.target));
      ASSERT_EQ(french.wrong, "") << text_of(bilingual::source_words(), sentence.source) << " -> "
                                  << text_of(bilingual::target_words(), sentence.target);
    }
}

TEST(Bilingual, WordsComeFromTheirTranslations) {
  std::int64_t checked = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const Sentence sentence = bilingual::sentence(4, i, Part::training, Wanted::translation);
    ASSERT_LE(std::ssize(sentence.source), bilingual::kMostTokens);
    ASSERT_LT(std::ssize(sentence.target), bilingual::kMostTokens);
    for (std::size_t word = 0; word < sentence.target.size(); ++word) {
      const std::uint64_t gold = sentence.gold[word];
      ASSERT_NE(gold, 0u);
      ASSERT_EQ(gold & 1, 0u);
      ASSERT_EQ(gold >> sentence.source.size(), 0u);
      const std::string french(bilingual::target_words().text(sentence.target[word]));
      const std::string base = english_of_french(french);
      if (base.empty()) continue;
      bool found = false;
      for (std::size_t from = 0; from < sentence.source.size(); ++from)
        if (gold >> from & 1)
          found |= base_of_english(std::string(bilingual::source_words().text(sentence.source[from]))) == base;
      ASSERT_TRUE(found) << french << " in " << text_of(bilingual::source_words(), sentence.source);
      ++checked;
    }
  }
  EXPECT_GT(checked, 5000);
}

std::int64_t number_of(const std::string& english, std::int64_t count, std::string_view (*name)(std::int64_t)) {
  for (std::int64_t i = 0; i < count; ++i)
    if (name(i) == english) return i;
  ADD_FAILURE() << english;
  return -1;
}
std::int64_t noun_number(const std::string& english) {
  return number_of(english, bilingual::kNouns, [](std::int64_t i) { return bilingual::noun(i).english[0]; });
}
std::int64_t adjective_number(const std::string& english) {
  return number_of(english, bilingual::kAdjectives, [](std::int64_t i) { return bilingual::adjective(i).english; });
}
std::int64_t verb_number(const std::string& english) {
  return number_of(english, bilingual::kVerbs, [](std::int64_t i) { return bilingual::verb(i).base; });
}

// As the French reader sees it, who knows nothing of how sentences are made.
bool holds_held_out(const French& french) {
  for (const auto& [adjective, noun] : french.adjective_of_noun)
    if (bilingual::held_out_adjective(adjective_number(adjective), noun_number(noun))) return true;
  for (const auto& [noun, verb] : french.noun_of_verb)
    if (bilingual::held_out_verb(noun_number(noun), verb_number(verb))) return true;
  return false;
}

TEST(Bilingual, HeldOutPairsAreNeverTrainedOn) {
  for (const std::uint64_t seed : {1, 2, 77})
    for (std::uint64_t i = 0; i < 1500; ++i)
      for (const Part part : {Part::training, Part::held_out}) {
        const Sentence sentence = bilingual::sentence(seed, i, part, Wanted::translation);
        ASSERT_EQ(holds_held_out(read_french(words_of(bilingual::target_words(), sentence.target))),
                  part == Part::held_out);
      }
}

// In summaries only English is seen: adjectives stand right before their noun.
TEST(Bilingual, HeldOutAdjectivesAreNotInSummariesEither) {
  std::set<std::string> adjectives;
  for (std::int64_t i = 0; i < bilingual::kAdjectives; ++i) adjectives.emplace(bilingual::adjective(i).english);
  std::int64_t pairs = 0;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    const Sentence sentence = bilingual::sentence(5, i, Part::training, Wanted::summary);
    std::vector<std::int64_t> waiting;
    for (const std::string& word : words_of(bilingual::source_words(), sentence.source)) {
      const std::string base = base_of_english(word);
      if (adjectives.count(word)) {
        waiting.push_back(adjective_number(word));
        continue;
      }
      for (std::int64_t noun = 0; noun < bilingual::kNouns; ++noun)
        if (bilingual::noun(noun).english[0] == base)
          for (const std::int64_t adjective : waiting) {
            ASSERT_FALSE(bilingual::held_out_adjective(adjective, noun));
            ++pairs;
          }
      waiting.clear();
    }
  }
  EXPECT_GT(pairs, 1000);
}

TEST(Bilingual, EveryWordIsTrainedOn) {
  std::set<std::int64_t> source, target;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const Sentence sentence = bilingual::sentence(1, i, Part::training);
    source.insert(sentence.source.begin(), sentence.source.end());
    target.insert(sentence.target.begin(), sentence.target.end());
  }
  EXPECT_EQ(std::ssize(source), bilingual::source_words().size());
  for (std::int64_t word = bilingual::kEnd + 1; word < bilingual::french_words(); ++word)
    EXPECT_TRUE(target.count(word)) << bilingual::target_words().text(word);
  EXPECT_GE(bilingual::source_words().size(), 150);
  EXPECT_LE(bilingual::french_words(), 400);
}

TEST(Bilingual, AboutOnePairInElevenIsHeldOut) {
  std::int64_t adjectives = 0, fitting = 0, verbs = 0;
  for (std::int64_t noun = 0; noun < bilingual::kNouns; ++noun)
    for (std::int64_t adjective = 0; adjective < bilingual::kAdjectives; ++adjective)
      if (bilingual::fits(adjective, noun)) ++fitting, adjectives += bilingual::held_out_adjective(adjective, noun);
  for (std::int64_t noun = 0; noun < bilingual::kBeings; ++noun)
    for (std::int64_t verb = 0; verb < bilingual::kVerbs; ++verb) verbs += bilingual::held_out_verb(noun, verb);
  EXPECT_NEAR(static_cast<double>(adjectives) / static_cast<double>(fitting), 1.0 / 11, 0.03);
  EXPECT_NEAR(static_cast<double>(verbs) / (bilingual::kBeings * bilingual::kVerbs), 1.0 / 11, 0.03);
}

TEST(Bilingual, SummariesAreTheMainClause) {
  std::set<std::string> subordinating{"that",   "because", "when", "although", "while",
                                      "before", "after",   ",",    "say",      "know"};
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const Sentence sentence = bilingual::sentence(6, i, Part::held_out, Wanted::summary);
    ASSERT_LT(sentence.target.size(), sentence.source.size() - 1);
    std::size_t from = 1;
    for (std::size_t word = 0; word < sentence.target.size(); ++word, ++from) {
      while (from < sentence.source.size() && bilingual::english(sentence.source[from]) != sentence.target[word])
        ++from;
      ASSERT_LT(from, sentence.source.size());
      ASSERT_EQ(subordinating.count(std::string(bilingual::target_words().text(sentence.target[word]))), 0u);
      ASSERT_EQ(sentence.skills[word], bilingual::summary);
    }
  }
}

TEST(Bilingual, ASentenceIsAFunctionOfSeedAndIndex) {
  const auto text = [](const Sentence& sentence) {
    return text_of(bilingual::source_words(), sentence.source) + " | " +
           text_of(bilingual::target_words(), sentence.target);
  };
  std::vector<std::string> forwards, backwards;
  for (std::uint64_t i = 0; i < 50; ++i) forwards.push_back(text(bilingual::sentence(9, i, Part::training)));
  for (std::uint64_t i = 50; i-- > 0;) backwards.push_back(text(bilingual::sentence(9, i, Part::training)));
  std::reverse(backwards.begin(), backwards.end());
  EXPECT_EQ(forwards, backwards);
  EXPECT_NE(forwards[0], text(bilingual::sentence(10, 0, Part::training)));
  EXPECT_EQ(std::set<std::string>(forwards.begin(), forwards.end()).size(), 50u);
  EXPECT_EQ(forwards[0],
            "<translate> her intelligent uncle will find a strong boy | son oncle intelligent trouvera un garçon fort");
}

TEST(Bilingual, TextsAreWrittenAsTheyAreRead) {
  const auto ids = [](const char* text) {
    std::vector<std::int64_t> list;
    for (const std::string& word : split(text)) list.push_back(bilingual::target_words().find(word));
    return list;
  };
  EXPECT_EQ(text_of(bilingual::target_words(), ids("l' arbre n' est pas vert")), "l'arbre n'est pas vert");
  const auto source = read_words("test", "it", bilingual::source_words(), "In the end,the cat  Sleeps. ", 10);
  EXPECT_EQ(text_of(bilingual::source_words(), source), "in the end, the cat sleeps");
}

}  // namespace
}  // namespace multihead::testing
