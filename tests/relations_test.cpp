// SPDX-License-Identifier: Apache-2.0
// Marked sentences and the heads that see their pairs, against numbers worked on paper.
#include "multihead/relations.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "multihead/error.hpp"

namespace multihead::testing {
namespace {

const std::string kStart = "relations: determiner subject\n\n";

TEST(MarkedText, SentencesWordsAndPairs) {
  const MarkedText read = parse_marked_text(
      "# a comment\r\nrelations:  determiner subject\r\n\nThe cat, (which?) sat.\n  determiner: The>cat\n\n"
      "\"So it goes,\" the dog said to the cat's owner.\n\tsubject: dog>said it>goes\n  determiner: the#2>owner "
      "the#1>dog",
      "it.txt");
  EXPECT_EQ(read.relations, (std::vector<std::string>{"determiner", "subject"}));
  ASSERT_EQ(read.sentences.size(), 2u);
  const auto words = [](const MarkedSentence& sentence) {
    std::vector<std::string> list;
    for (std::size_t i = 0; i < sentence.words.size(); ++i)
      list.emplace_back(sentence.word(static_cast<std::int64_t>(i)));
    return list;
  };
  EXPECT_EQ(words(read.sentences[0]),
            (std::vector<std::string>{"The", "cat", ",", "(", "which", "?", ")", "sat", "."}));
  EXPECT_EQ(words(read.sentences[1]), (std::vector<std::string>{"\"", "So", "it", "goes", ",", "\"", "the", "dog",
                                                                "said", "to", "the", "cat's", "owner", "."}));
  EXPECT_TRUE(read.sentences[0].words[2].punctuation);
  EXPECT_FALSE(read.sentences[1].words[11].punctuation);
  const std::vector<MarkedPair>& pairs = read.sentences[1].pairs;
  ASSERT_EQ(pairs.size(), 4u);
  const std::int64_t wanted[4][3] = {{1, 7, 8}, {1, 2, 3}, {0, 10, 12}, {0, 6, 7}};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(pairs[i].relation, wanted[i][0]);
    EXPECT_EQ(pairs[i].dependent, wanted[i][1]);
    EXPECT_EQ(pairs[i].head, wanted[i][2]);
  }
}

TEST(MarkedText, EveryRuleNamesItsLine) {
  const std::string sentence = kStart + "The cat and the dog saw the cat.\n  determiner: ";
  const std::pair<std::string, std::string> cases[] = {
      {"", "line 1: there is no line \"relations: NAME ...\""},
      {"# nothing\n", "line 1: there is no line \"relations: NAME ...\""},
      {"The cat sat.\n", "line 1: the first line must be \"relations: NAME ...\""},
      {"\nrelations:\n", "line 2: no relation is named"},
      {"relations: a b a", "line 1: relation 'a' is named twice"},
      {kStart + "  determiner: The>cat", "line 3: pairs stand before any sentence"},
      {kStart + "The cat.\n  The>cat", "line 4: pairs begin with a relation and a colon"},
      {kStart + "The cat.\n  objct: The>cat",
       "line 4: 'objct' is no relation of this file; it must be one of "
       "determiner, subject"},
      {kStart + "The cat.\n  determiner:", "line 4: relation 'determiner' has no pair"},
      {kStart + "The cat.\n  determiner: The-cat", "line 4: 'The-cat' is no pair; it must be DEPENDENT>HEAD"},
      {kStart + "The cat.\n  determiner: The>>cat", "line 4: 'The>>cat' is no pair"},
      {sentence + "The>dogs", "line 4: 'dogs' is no word of the sentence"},
      {sentence + "the>dog", "line 4: 'the' stands 2 times in the sentence; the#1, the#2 .. say which"},
      {sentence + "the#3>dog", "line 4: 'the#3': the sentence has #1 to #2 of it"},
      {sentence + "the#0>dog", "line 4: 'the#0': the sentence has #1 to #2 of it"},
      {sentence + "the#1x>dog", "line 4: 'the#1x': the sentence has #1 to #2 of it"},
      {sentence + "The>cat#2 dog>dog", "line 4: 'dog>dog' pairs a word with itself"},
      {sentence + "The>cat#2\n  subject: The>cat#2\n  determiner: The#1>cat#2",
       "line 6: 'The#1>cat#2' is marked twice"},
  };
  for (const auto& [text, rule] : cases) try {
      parse_marked_text(text, "it.txt");
      ADD_FAILURE() << "nothing thrown: " << rule;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::file_malformed);
      EXPECT_NE(std::string(error.what()).find("it.txt: " + rule), std::string::npos) << error.what();
    }
}

// [CLS] un believ able cat [SEP], the first three pieces one word: to it their sum, from it their mean.
TEST(WordWeights, SumToAWordMeanFromIt) {
  const float weights[5][5] = {{0.5f, 0.125f, 0.125f, 0.125f, 0.125f},
                               {0.25f, 0.25f, 0.0f, 0.25f, 0.25f},
                               {0.0f, 0.5f, 0.125f, 0.375f, 0.0f},
                               {0.25f, 0.125f, 0.375f, 0.25f, 0.0f},
                               {1, 0, 0, 0, 0}};
  const std::int64_t word_of_token[] = {-1, 0, 0, 1, -1};
  const Matrix<double> words = word_weights(MatrixView<const float>(weights), word_of_token, 3);
  EXPECT_EQ(words(0, 0), (0.25 + 0.5 + 0.125) / 2);
  EXPECT_EQ(words(0, 1), (0.25 + 0.375) / 2);
  EXPECT_EQ(words(1, 0), 0.5);
  EXPECT_EQ(words(1, 1), 0.25);
  for (std::int64_t i = 0; i < 3; ++i) EXPECT_EQ(words(2, i) + words(i, 2), 0);  // a word without tokens
  EXPECT_EQ(most_attended(words, 0), 1);
  EXPECT_EQ(most_attended(words, 1), 0);
  EXPECT_EQ(most_attended(words, 2), -1);
}

TEST(WordWeights, TheFirstOfEqualsAndNotANumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float weights[3][3] = {{0.5f, 0.25f, 0.25f}, {0.5f, 0.0f, 0.5f}, {nan, nan, nan}};
  const std::int64_t word_of_token[] = {0, 1, 2};
  const Matrix<double> words = word_weights(MatrixView<const float>(weights), word_of_token, 3);
  EXPECT_EQ(most_attended(words, 0), 1);
  EXPECT_EQ(most_attended(words, 1), 0);
  EXPECT_EQ(most_attended(words, 2), -1);
}

TEST(WordWeights, Rules) {
  const float weights[2][2] = {};
  const auto refused = [&](std::vector<std::int64_t> words, ErrorCode code) {
    try {
      word_weights(MatrixView<const float>(weights), words, 2);
      ADD_FAILURE() << "nothing thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find("word_of_token"), std::string::npos) << error.what();
    }
  };
  refused({0}, ErrorCode::shape_mismatch);
  refused({0, 1, 1}, ErrorCode::shape_mismatch);
  refused({0, 2}, ErrorCode::bad_option);
  refused({-2, 1}, ErrorCode::bad_option);
}

// Six sentences with ten pairs, three heads.
RelationTrials trials() {
  RelationTrials asked;
  asked.sentences = {0, 0, 1, 2, 2, 3, 3, 4, 5, 5};
  asked.offsets = {1, 1, 2, -3, 2, 2, 2, 1, 2, 6};
  asked.seen = {1, 1, 0, 1, 0, 0, 0, 0, 0, 0,   // 0.3: best of the first three sentences
                1, 0, 1, 0, 1, 1, 1, 0, 1, 1,   // 0.7: best of all
                0, 0, 0, 0, 0, 1, 1, 1, 1, 1};  // 0.5
  asked.others.assign(30, 0.5f);
  asked.others[10] = 0;
  return asked;
}

TEST(Relations, TheBestHeadAndOffset) {
  const RelationBest best = best_of(trials(), 0, 6);
  EXPECT_EQ(best.pairs, 10);
  EXPECT_EQ(best.head, 1);
  EXPECT_EQ(best.accuracy, 0.7);
  EXPECT_EQ(best.others, 0.45);
  EXPECT_EQ(best.offset, 2);
  EXPECT_EQ(best.offset_accuracy, 0.5);
  EXPECT_EQ(best.gain(), 0.7 - 0.5);
  EXPECT_EQ(head_accuracy(trials(), 2, 3, 5), 1);
  EXPECT_EQ(offset_accuracy(trials(), 1, 4, 5), 1);
}

TEST(Relations, EqualsGoToTheLowerHeadAndTheNearerOffset) {
  RelationTrials asked = trials();
  const RelationBest first = best_of(asked, 0, 3);  // heads 0 and 1 see 3 of 5; offsets 1 and 2 find 2
  EXPECT_EQ(first.head, 0);
  EXPECT_EQ(first.offset, 1);
  asked.offsets = {3, -3, 9, 9, 9, 9, 9, 9, 9, 9};
  EXPECT_EQ(best_of(asked, 0, 3).offset, -3);
}

TEST(Relations, HeldOutIsChosenOnOneHalfAndJudgedOnTheOther) {
  const RelationHeldOut held = held_out(trials(), 3, 6);
  EXPECT_EQ(held.best.head, 0);
  EXPECT_EQ(held.best.offset, 1);
  EXPECT_EQ(held.best.pairs, 5);
  EXPECT_EQ(held.best.accuracy, 0);
  EXPECT_EQ(held.best.offset_accuracy, 0.2);
  // Drawings of three sentences with gains 0 of 2, -1 of 1, 0 of 2: from none of the second to it alone, 1 in 27.
  EXPECT_EQ(held.high, 0);
  EXPECT_EQ(held.low, -1);
  const RelationHeldOut again = held_out(trials(), 3, 6);
  EXPECT_EQ(again.low, held.low);
}

TEST(Relations, WithoutPairs) {
  RelationTrials none;
  EXPECT_EQ(best_of(none, 0, 6).pairs, 0);
  EXPECT_TRUE(std::isnan(best_of(none, 0, 6).accuracy));
  const RelationHeldOut nothing_to_choose_by = held_out(trials(), 0, 6);
  EXPECT_TRUE(std::isnan(nothing_to_choose_by.best.accuracy));
  EXPECT_EQ(nothing_to_choose_by.best.pairs, 10);
  EXPECT_TRUE(std::isnan(held_out(trials(), 6, 6).best.accuracy));
  EXPECT_TRUE(std::isnan(held_out(trials(), 6, 6).low));
}

}  // namespace
}  // namespace multihead::testing
