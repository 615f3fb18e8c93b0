// SPDX-License-Identifier: Apache-2.0
// The stories of task "language": what they say by rules of this file's own, what is held out, and who reads them back.
#include "train/tasks/stories.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <sstream>
#include <string>

namespace multihead::testing {
namespace {

using stories::Skill;
using stories::Story;
using Words = std::set<std::string>;

const Words kWomen{"Anna", "Clara", "Emma", "Julia", "Maria", "Nora", "Rosa", "Vera"};
const Words kMen{"Adam", "David", "Felix", "Henry", "Jacob", "Oscar", "Paul", "Simon"};
const Words kTrades{"farmer", "baker",    "teacher", "doctor", "sailor", "painter",
                    "miller", "gardener", "singer",  "writer", "tailor", "weaver"};
const Words kAges{"old", "honest", "young", "quiet", "brave", "clever"};
const Words kColours{"red", "blue", "green", "white", "black", "yellow", "brown", "grey"};
const Words kThings{"boat",   "kite", "lamp",   "clock",   "chair", "basket",
                    "violin", "hat",  "bottle", "bicycle", "knife", "mirror"};
const Words kPlaces{"bridge", "garden", "house", "river", "tree", "church", "mill", "market", "tower", "stable"};
const Words kRelatives{"brother", "sister", "son", "daughter", "cousin", "aunt"};
const Words kMoods{"happy", "sad", "tired", "hungry", "angry", "proud"};

std::string one_of(const std::string& noun) {
  if (noun == "knives") return "knife";
  return noun.back() == 's' ? noun.substr(0, noun.size() - 1) : noun;
}

// A story's words, stops and commas among them, by sentence.
std::vector<std::vector<std::string>> sentences_of(const std::string& text) {
  std::vector<std::vector<std::string>> sentences(1);
  std::istringstream stream(text);
  for (std::string word; stream >> word;) {
    const char last = word.back();
    const bool mark = last == '.' || last == ',';
    sentences.back().push_back(mark ? word.substr(0, word.size() - 1) : word);
    if (mark) sentences.back().emplace_back(1, last);
    if (last == '.') sentences.emplace_back();
  }
  sentences.pop_back();
  return sentences;
}

// The words of a class that a story has, nouns as of one.
Words said(const std::vector<std::vector<std::string>>& sentences, const Words& list) {
  Words found;
  for (const auto& sentence : sentences)
    for (const std::string& word : sentence)
      if (list.count(word) > 0)
        found.insert(word);
      else if (list.count(one_of(word)) > 0)
        found.insert(one_of(word));
  return found;
}

const std::string& only(const Words& words) {
  EXPECT_EQ(words.size(), 1u);
  return *words.begin();
}

// What agrees with the verb of a sentence: its last noun or name before a relative clause or "of", or its pronoun.
bool is_of_many(const std::vector<std::string>& sentence, std::size_t verb) {
  for (std::size_t i = 0; i < verb; ++i) {
    const std::string& word = sentence[i];
    if (i == 0 || sentence[i - 1] == "and" || sentence[i - 1] == ",") {
      if (kWomen.count(word) + kMen.count(word) > 0 || word == "He" || word == "She") {
        const bool second =
            std::count(sentence.begin(), sentence.begin() + static_cast<std::ptrdiff_t>(verb), "and") > 0;
        if (!second) return false;
      }
    }
    if (kThings.count(word) + kThings.count(one_of(word)) > 0) return kThings.count(word) == 0;
    if (kRelatives.count(word) + kRelatives.count(one_of(word)) > 0) return kRelatives.count(word) == 0;
  }
  return false;
}

void check_story(const std::string& text, std::map<std::string, int>& seen) {
  const auto sentences = sentences_of(text);
  EXPECT_GE(sentences.size(), 2u);
  EXPECT_LE(sentences.size(), 5u);
  const Words women = said(sentences, kWomen), men = said(sentences, kMen);
  EXPECT_LE(women.size(), 1u);
  EXPECT_LE(men.size(), 1u);
  for (const Words* list : {&kTrades, &kAges, &kColours, &kThings}) only(said(sentences, *list));
  EXPECT_LE(said(sentences, kMoods).size(), 1u);
  const bool past = sentences[0][0] == "Once";
  std::string name;
  for (const std::string& word : sentences[0])
    if (kWomen.count(word) + kMen.count(word) > 0) name = word;
  const bool woman = kWomen.count(name) > 0;
  Words numbers;
  for (const auto& sentence : sentences)
    for (std::size_t i = 0; i < sentence.size(); ++i) {
      const std::string& word = sentence[i];
      const Words subjects{"She", "she", "He", "he"};
      const auto of_a_woman = [&](bool says) { EXPECT_EQ(says, woman) << word; };
      if (subjects.count(word) > 0) of_a_woman(word == "She" || word == "she");
      if (word == "his" || word == "His" || word == "Her") of_a_woman(word == "Her");
      if (word == "him") of_a_woman(sentence[0] != "People");  // of a gift, else of what people say
      if (Words{"is", "are", "was", "were"}.count(word) > 0 && sentence[0] != "Once") {
        EXPECT_EQ(word == "was" || word == "were", past);
        EXPECT_EQ(word == "are" || word == "were", is_of_many(sentence, i));
        ++seen[word];
      }
      EXPECT_FALSE(past && (word == "has" || word == "gives" || word == "call"));
      EXPECT_FALSE(!past && (word == "had" || word == "gave" || word == "called"));
      if (kThings.count(word) > 0) numbers.insert("one");
      if (kThings.count(one_of(word)) > 0 && kThings.count(word) == 0) numbers.insert("many");
      EXPECT_FALSE(word == "it" && only(numbers) != "one");
      EXPECT_FALSE(word == "them" && only(numbers) != "many");
    }
  only(numbers);
}

TEST(Stories, SayOneThingThroughout) {
  std::map<std::string, int> seen;
  for (const Part part : {Part::training, Part::held_out})
    for (std::uint64_t i = 0; i < 1000; ++i) {
      const std::string text = stories::text_of(stories::story(3, i, part).words);
      check_story(text, seen);
      if (HasFailure()) FAIL() << text;
    }
  for (const char* verb : {"is", "are", "was", "were"}) EXPECT_GT(seen[verb], 300) << verb;
}

TEST(Stories, HeldOutColoursAndTradesAreNeverTrainedOn) {
  std::map<Part, std::set<std::pair<std::string, std::string>>> colours, trades;
  for (const Part part : {Part::training, Part::held_out})
    for (std::uint64_t i = 0; i < 4000; ++i) {
      const auto sentences =
          sentences_of(stories::text_of(stories::story(part == Part::training ? 1 : 2, i, part).words));
      colours[part].emplace(only(said(sentences, kColours)), only(said(sentences, kThings)));
      for (const std::string& word : sentences[0])
        if (kWomen.count(word) + kMen.count(word) > 0) trades[part].emplace(only(said(sentences, kTrades)), word);
    }
  EXPECT_EQ(colours[Part::training].size(), 84u);
  EXPECT_EQ(colours[Part::held_out].size(), 12u);
  EXPECT_EQ(trades[Part::training].size(), 168u);
  EXPECT_EQ(trades[Part::held_out].size(), 24u);
  for (const auto& pair : colours[Part::held_out]) EXPECT_EQ(colours[Part::training].count(pair), 0u) << pair.second;
  for (const auto& pair : trades[Part::held_out]) EXPECT_EQ(trades[Part::training].count(pair), 0u) << pair.second;
}

TEST(Stories, AreReadInOneWay) {
  for (const Part part : {Part::training, Part::held_out})
    for (std::uint64_t i = 0; i < 300; ++i) {
      const std::string text = stories::text_of(stories::story(4, i, part).words);
      const stories::Reading reading = stories::read(text);
      EXPECT_EQ(reading.ways, 1) << text;
      EXPECT_EQ(reading.right, text.size());
    }
  EXPECT_EQ(stories::read("").ways, 0);
  EXPECT_EQ(stories::read("The old farmer").ways, 0);
  EXPECT_EQ(stories::read("The old farmer").right, 14u);
  EXPECT_EQ(stories::read("The old dragon").right, 7u);
}

// A word that must be what it is, exchanged for another of its kind, makes the text no story from there on.
TEST(Stories, AWrongFormIsSeenWhereItStands) {
  std::map<Skill, int> tried;
  for (std::uint64_t i = 0; i < 100; ++i) {
    Story story = stories::story(5, i, Part::training);
    for (std::size_t w = 0; w < story.words.size(); ++w) {
      stories::Word& word = story.words[w];
      const std::size_t before = stories::text_of(std::span(story.words).first(w)).size();
      const std::string_view right = word.text;
      for (const std::string_view form : word.forms) {
        if (form == right) continue;
        word.text = form;
        const stories::Reading reading = stories::read(stories::text_of(story.words));
        EXPECT_EQ(reading.ways, 0) << stories::text_of(story.words);
        EXPECT_EQ(reading.right, before) << stories::text_of(story.words);
        ++tried[word.skill];
        if (tried[word.skill] % 3 > 0) break;  // one other form, and now and then all
      }
      word.text = right;
    }
  }
  for (const Skill skill : {Skill::agreement, Skill::reference, Skill::fact}) EXPECT_GT(tried[skill], 100);
  EXPECT_EQ(tried[Skill::none], 0);
}

TEST(Stories, NoFormBeginsWithAnother) {
  for (std::uint64_t i = 0; i < 200; ++i)
    for (const stories::Word& word : stories::story(6, i, Part::held_out).words) {
      EXPECT_EQ(word.skill == Skill::none, word.forms.empty());
      std::int64_t right = 0;
      for (const std::string_view form : word.forms) {
        right += form == word.text;
        EXPECT_EQ(std::count_if(word.forms.begin(), word.forms.end(),
                                [&](std::string_view other) { return form.starts_with(other); }),
                  1)
            << form;
      }
      EXPECT_EQ(right, word.skill == Skill::none ? 0 : 1) << word.text;
    }
}

// By hand, of the shortest stories of one kind: 3 openings, 6 ages, 12 trades, names that the trade is not held out
// with, 5 numbers, 8 colours, things that the colour is not held out with, 8 kinds of sentences, an end of 4.
TEST(Stories, TellHowLikelyTheyAre) {
  int found = 0;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    const Story story = stories::story(7, i, Part::training);
    const auto sentences = sentences_of(stories::text_of(story.words));
    if (sentences.size() != 2 || sentences[0][0] != "The" || sentences[1][0] != "People") continue;
    std::int64_t colour = -1, things = 0;
    for (const std::string_view name : {"red", "blue", "green", "white", "black", "yellow", "brown", "grey"})
      if (++colour, name == only(said(sentences, kColours))) break;
    for (std::int64_t thing = 0; thing < 12; ++thing) things += !stories::is_held_out_colour(colour, thing);
    const double ways = 3.0 * 6 * 12 * 14 * 5 * 8 * static_cast<double>(things) * 8 * 4;
    EXPECT_NEAR(story.nats, std::log(ways), 1e-12);
    ++found;
  }
  EXPECT_GT(found, 10);
}

TEST(Stories, AreAFunctionOfSeedAndIndex) {
  const auto text = [](std::uint64_t seed, std::uint64_t index) {
    return stories::text_of(stories::story(seed, index, Part::training).words);
  };
  const std::string first = text(1, 7);
  for (std::uint64_t i = 0; i < 20; ++i) text(1, i);
  EXPECT_EQ(text(1, 7), first);
  EXPECT_NE(text(1, 8), first);
  EXPECT_NE(text(2, 7), first);
  EXPECT_EQ(
      text(1, 3),
      "The brave writer Nora has two green boats. People call her brave Nora. Her partner David misses them. Every day "
      "she sings behind the bridge. The boats are beside the church.");
}

// Stories that results are measured on are new ones.
TEST(Stories, AreSeldomToldTwice) {
  std::set<std::string> trained;
  for (std::uint64_t i = 0; i < 20000; ++i)
    trained.insert(stories::text_of(stories::story(1, i, Part::training).words));
  int again = 0;
  for (std::uint64_t i = 0; i < 1000; ++i)
    again += trained.count(stories::text_of(stories::story(0x7465'6c6c, i, Part::training).words)) > 0;
  EXPECT_LT(again, 5);
}

}  // namespace
}  // namespace multihead::testing
