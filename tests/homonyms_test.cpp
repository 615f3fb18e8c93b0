// SPDX-License-Identifier: Apache-2.0
// Passages of task "noise": what tells a sense, what is spoilt, what is held out, one list for one seed.
#include "train/tasks/homonyms.hpp"

#include <gtest/gtest.h>

#include <set>

namespace multihead::testing {
namespace {

using homonyms::Passage;
using homonyms::PassageSpec;

double vote_on(const PassageSpec& spec, bool whole, Part part = Part::held_out) {
  double right = 0;
  std::int64_t asked = 0;
  for (std::uint64_t i = 0; i < 1500; ++i) vote(homonyms::passage(2, i, part, spec), whole, right, asked);
  return right / static_cast<double>(asked);
}

TEST(Homonyms, TheirClauseTellsTheirSense) {
  for (std::int64_t others = 0; others <= 3; ++others) EXPECT_EQ(vote_on({.others = others}, false), 1);
  for (std::int64_t slot = 0; slot < homonyms::kSlots; ++slot) EXPECT_EQ(vote_on({.only = slot}, false), 1);
}

TEST(Homonyms, OtherClausesMislead) {
  EXPECT_EQ(vote_on({}, true), 1);
  EXPECT_LT(vote_on({.others = 1}, true), 0.9);
  EXPECT_LT(vote_on({.others = 3}, true), vote_on({.others = 1}, true));
}

TEST(Homonyms, SpoiltWordsCost) {
  double before = 1;
  for (const double spoilt : {0.1, 0.2, 0.4}) {
    const double now = vote_on({.others = 1, .spoilt = spoilt}, false);
    EXPECT_LT(now, before);
    before = now;
  }
  EXPECT_GT(before, 0.8);
}

TEST(Homonyms, AsManyWordsAreSpoiltAsWasAsked) {
  std::int64_t words = 0, changed = 0;
  for (std::uint64_t i = 0; i < 500; ++i) {
    const Passage whole = homonyms::passage(1, i, Part::training, {.others = 2});
    const Passage spoilt = homonyms::passage(1, i, Part::training, {.others = 2, .spoilt = 0.3});
    ASSERT_EQ(whole.words.size(), spoilt.words.size());
    ASSERT_EQ(whole.wanted, spoilt.wanted);
    std::int64_t homonyms = 0;
    for (std::size_t w = 0; w < whole.words.size(); ++w) {
      const bool asked = whole.wanted[w] >= 0;
      ASSERT_EQ(asked, homonyms::first_sense(spoilt.words[w]) >= 0);  // no homonym comes or goes
      if (asked) {
        ASSERT_EQ(whole.words[w], spoilt.words[w]);
        ASSERT_EQ(homonyms::first_sense(whole.words[w]), whole.wanted[w] / 2 * 2);
        ++homonyms;
        continue;
      }
      ++words, changed += whole.words[w] != spoilt.words[w];
    }
    ASSERT_EQ(homonyms, 3);
    ASSERT_LE(whole.words.size(), 40u);
  }
  EXPECT_NEAR(static_cast<double>(changed) / static_cast<double>(words), 0.3, 0.01);
}

// Clauses as texts: none that is trained on is ever measured on.
TEST(Homonyms, HeldOutClausesAreNeverTrainedOn) {
  const auto clauses = [](std::uint64_t seed, Part part) {
    std::set<std::vector<std::int64_t>> found;
    for (std::uint64_t i = 0; i < 4000; ++i) {
      const Passage passage = homonyms::passage(seed, i, part, {.others = 3});
      for (std::int64_t clause = 0; clause < 4; ++clause) {
        std::vector<std::int64_t> words;
        for (std::size_t w = 0; w < passage.words.size(); ++w)
          if (passage.clause[w] == clause) words.push_back(passage.words[w]);
        found.insert(words);
      }
    }
    return found;
  };
  const auto trained = clauses(1, Part::training), more = clauses(2, Part::training), held = clauses(3, Part::held_out);
  std::int64_t both = 0, shared = 0;
  for (const auto& clause : held) both += trained.count(clause) + more.count(clause);
  for (const auto& clause : more) shared += trained.count(clause);
  EXPECT_EQ(both, 0);
  EXPECT_GT(shared, 0);  // two seeds of one part do meet
}

// Nor does a training clause become one by the words that are spoilt.
TEST(Homonyms, SpoiltClausesAreNeverThoseHeldOut) {
  const auto clauses = [](std::uint64_t count, const auto& draw) {
    std::set<std::vector<std::int64_t>> found;
    for (std::uint64_t i = 0; i < count; ++i) {
      const Passage passage = draw(i);
      for (std::size_t w = 0; w < passage.words.size(); ++w) {
        if (passage.clause[w] < 0) continue;
        std::vector<std::int64_t> words;
        const std::int64_t clause = passage.clause[w];
        for (; w < passage.words.size() && passage.clause[w] == clause; ++w) words.push_back(passage.words[w]);
        found.insert(words);
      }
    }
    return found;
  };
  const auto trained = clauses(10000, [](std::uint64_t i) { return homonyms::mixed_passage(1, i, Part::training); });
  const auto held = clauses(4000, [](std::uint64_t i) { return homonyms::passage(2, i, Part::held_out, {}); });
  EXPECT_GT(held.size(), 1000u);
  std::size_t both = 0;
  for (const auto& clause : held) both += trained.count(clause);
  EXPECT_EQ(both, 0u);
}

TEST(Homonyms, APassageIsAFunctionOfSeedAndIndex) {
  const auto words = [](std::uint64_t seed, std::uint64_t index) {
    return homonyms::mixed_passage(seed, index, Part::training).words;
  };
  const auto first = words(1, 7);
  for (std::uint64_t i = 0; i < 20; ++i) words(1, i);
  EXPECT_EQ(words(1, 7), first);
  EXPECT_NE(words(1, 8), first);
  EXPECT_NE(words(2, 7), first);
  EXPECT_EQ(text_of(homonyms::words(), homonyms::passage(1, 0, Part::held_out, {}).words),
            "the surgeon transplants the organ near the hospital");
}

TEST(Homonyms, NoWordStandsTwice) {
  std::set<std::string_view> all;
  for (const std::string_view word : homonyms::words().texts()) EXPECT_TRUE(all.insert(word).second) << word;
}

}  // namespace
}  // namespace multihead::testing
