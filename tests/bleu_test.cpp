// SPDX-License-Identifier: Apache-2.0
// BLEU against numbers worked on paper.
#include <gtest/gtest.h>

#include "multihead/translation.hpp"

namespace multihead::testing {
namespace {

using Corpus = std::vector<std::vector<std::int64_t>>;

TEST(Bleu, CountsAreClipped) {  // the example of Papineni et al. 2002, section 2.1: 2 / 7
  const Bleu score = bleu(Corpus{{1, 1, 1, 1, 1, 1, 1}}, Corpus{{1, 2, 3, 4, 1, 5}});
  EXPECT_DOUBLE_EQ(score.precisions[0], 2.0 / 7);
  EXPECT_EQ(score.precisions[1], 0);
  EXPECT_EQ(score.value, 0);
  EXPECT_EQ(score.brevity_penalty, 1);
}

TEST(Bleu, OfOneSentence) {
  // a b c d e f for a b c d x f g: 5/6, 3/5, 2/4 and 1/3, and e^(1 - 7/6) for its length.
  const Bleu score = bleu(Corpus{{1, 2, 3, 4, 5, 6}}, Corpus{{1, 2, 3, 4, 9, 6, 7}});
  EXPECT_DOUBLE_EQ(score.precisions[0], 5.0 / 6);
  EXPECT_DOUBLE_EQ(score.precisions[1], 3.0 / 5);
  EXPECT_DOUBLE_EQ(score.precisions[2], 2.0 / 4);
  EXPECT_DOUBLE_EQ(score.precisions[3], 1.0 / 3);
  EXPECT_NEAR(score.brevity_penalty, 0.846481724890614, 1e-15);
  EXPECT_NEAR(score.value, 0.537284965911771 * 0.846481724890614, 1e-14);  // (1/12)^(1/4)
}

TEST(Bleu, OfACorpusIsNoMeanOfSentences) {
  // Matches and n-grams are added up: 4 + 2 of 4 + 4, 3 + 1 of 3 + 3, 2 + 0 of 2 + 2, 1 + 0 of 1 + 1.
  const Bleu score = bleu(Corpus{{1, 2, 3, 4}, {5, 6, 7, 8}}, Corpus{{1, 2, 3, 4}, {5, 6, 9, 9}});
  EXPECT_DOUBLE_EQ(score.precisions[0], 6.0 / 8);
  EXPECT_DOUBLE_EQ(score.precisions[1], 4.0 / 6);
  EXPECT_DOUBLE_EQ(score.precisions[2], 2.0 / 4);
  EXPECT_DOUBLE_EQ(score.precisions[3], 1.0 / 2);
  EXPECT_NEAR(score.value, 0.594603557501361, 1e-14);  // (1/8)^(1/4)
}

TEST(Bleu, TheSameIsOneAndLongerIsNotPunishedTwice) {
  EXPECT_EQ(bleu(Corpus{{1, 2, 3, 4, 5}}, Corpus{{1, 2, 3, 4, 5}}).value, 1);
  EXPECT_EQ(bleu(Corpus{{1, 2, 3, 4, 5, 6}}, Corpus{{1, 2, 3, 4, 5}}).brevity_penalty, 1);
}

TEST(Bleu, WithoutTokensOrWithoutFourIsNothing) {
  EXPECT_EQ(bleu(Corpus{}, Corpus{}).value, 0);
  EXPECT_EQ(bleu(Corpus{{}}, Corpus{{1, 2}}).value, 0);
  EXPECT_EQ(bleu(Corpus{{1, 2, 3}}, Corpus{{1, 2, 3}}).value, 0);
  EXPECT_EQ(bleu(Corpus{{1, 2, 3}}, Corpus{{1, 2, 3}}).precisions[2], 1);
}

TEST(Bleu, SentencesAreAsMany) {
  try {
    bleu(Corpus{{1}}, Corpus{{1}, {2}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::shape_mismatch);
    EXPECT_NE(std::string(error.what()).find("bleu"), std::string::npos);
  }
}

}  // namespace
}  // namespace multihead::testing
