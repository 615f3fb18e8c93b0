// SPDX-License-Identifier: Apache-2.0
// Short stories from a grammar: who tells them decides, word by word; what a word must look back for is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/tasks/words.hpp"

namespace multihead::stories {

// "The old farmer Clara has two red boats. The boats that her brother wants are quite heavy. In winter the red boats
// are behind the mill.": two to five sentences about a person, a thing and what was said of both.
constexpr std::int64_t kFewestSentences = 2, kMostSentences = 5;

// What a word depends on, beside the words right before it.
enum class Skill {
  none,
  agreement,  // a verb's number, past the nouns in between, and the story's tense; it or them
  reference,  // a pronoun or possessive: the sex that goes with a name further up
  fact,       // a name, trade, age, colour, thing or place that was said before
};
constexpr std::int64_t kSkills = 3;
constexpr std::string_view kSkillNames[kSkills] = {"agreement", "reference", "fact"};

struct Word {
  std::string_view text;  // without the blank before it; or a full stop or comma
  Skill skill = Skill::none;
  std::span<const std::string_view> forms = {};  // where there is a skill: what a mistake would choose from, text among
                                                 // them; none begins with another
};

// Decides what a story says. Every choice shows in the words that follow it.
class Teller {
 public:
  virtual ~Teller() = default;
  virtual std::int64_t choose(std::int64_t count) = 0;  // one of [0, count)
  virtual bool once_in(std::int64_t count) = 0;
  virtual void say(const Word& word) = 0;
};

// Colours of things and trades of names that training never draws: about one of eight each. A story that is held out
// has such a colour and such a trade. part empty: any.
bool is_held_out_colour(std::int64_t colour, std::int64_t thing) noexcept;
bool is_held_out_trade(std::int64_t trade, std::int64_t name) noexcept;
void tell(Teller& teller, std::optional<Part> part);

struct Story {
  std::vector<Word> words;
  double nats = 0;  // -log of its probability
};
// Story `index` of an endless list, a function of its arguments: each choice even over what part allows, a story ending
// after a sentence but the first with probability 1/4. index below 2^32 - 1.
Story story(std::uint64_t seed, std::uint64_t index, Part part);

// Blanks between words, none before a full stop or comma.
std::string text_of(std::span<const Word> words);
// The word as it stands in a text: with a blank before it unless it is the first one or a full stop or comma.
std::string spelled(const Word& word, bool first);

// A text held against the grammar.
struct Reading {
  std::int64_t ways = 0;  // of telling just this; 0: it is no story. No text has two
  std::size_t right = 0;  // bytes that a story begins with
};
Reading read(std::string_view text);

}  // namespace multihead::stories
