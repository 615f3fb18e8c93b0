// SPDX-License-Identifier: Apache-2.0
// Sentences with marked pairs of words, and which heads look from one to the other (Clark et al. 2019, section 4.2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/tensor.hpp"

namespace multihead {

// A word and the one it belongs to, both counted from 0 in their sentence: a determiner and its noun, a pronoun and its
// antecedent.
struct MarkedPair {
  std::int64_t relation, dependent, head;
};

struct MarkedSentence {
  struct Word {
    std::size_t begin, end;  // bytes of the text
    bool punctuation;
  };
  std::string text;
  std::vector<Word> words;
  std::vector<MarkedPair> pairs;
  std::int64_t line = 0;  // of the file, from 1

  std::string_view word(std::int64_t i) const {
    const Word& at = words[static_cast<std::size_t>(i)];
    return std::string_view(text).substr(at.begin, at.end - at.begin);
  }
};

struct MarkedText {
  std::vector<std::string> relations;
  std::vector<MarkedSentence> sentences;
};

// The text of a file of marked sentences (docs/formats.md); name stands for the file. Throws file_malformed, which
// names the line and the rule.
MarkedText parse_marked_text(std::string_view text, const std::string& name);

// Tokens' weights (tokens, tokens) as words' (words, words): to a word the sum over its tokens, from it the mean over
// them. word_of_token[t]: whose part token t is, -1 for one that is left out. A word without tokens has zeros. Sums in
// double, in ascending order. Throws shape_mismatch, bad_option.
Matrix<double> word_weights(MatrixView<const float> weights, std::span<const std::int64_t> word_of_token,
                            std::int64_t words);

// The other word of the largest weight in a word's row, of equals the first; -1 where no weight is above 0.
std::int64_t most_attended(MatrixView<const double> weights, std::int64_t word);

// One relation in one direction, asked of every head: pair i is a word and the one that it should look at.
struct RelationTrials {
  std::vector<std::int64_t> sentences;  // (pairs), ascending: whose pair it is
  std::vector<std::int64_t> offsets;    // (pairs): where the second word stands, in words from the first
  std::vector<std::uint8_t> seen;       // (heads, pairs): 1 where the first word's most attended one is the second
  std::vector<float> others;            // (heads, pairs): the share of the sentence's other words that see the second
};

constexpr std::int64_t kFarthestOffset = 5;

// Means over the pairs of sentences first .. last - 1, NaN without any. The share of pairs that a head sees; the share
// of other words that see the second word too, which is what a head gets that looks there from anywhere; the share of
// pairs whose second word stands at an offset.
double head_accuracy(const RelationTrials& trials, std::int64_t head, std::int64_t first_sentence,
                     std::int64_t last_sentence);
double others_accuracy(const RelationTrials& trials, std::int64_t head, std::int64_t first_sentence,
                       std::int64_t last_sentence);
double offset_accuracy(const RelationTrials& trials, std::int64_t offset, std::int64_t first_sentence,
                       std::int64_t last_sentence);

// The best head and the best offset of -5 to 5 but 0 on the pairs of sentences first .. last - 1; of equals the lower
// head, the nearer offset, the negative one. NaN where there are no pairs.
struct RelationBest {
  std::int64_t pairs = 0, head = 0, offset = -1;
  double accuracy = 0, others = 0, offset_accuracy = 0;  // others: of the head
  double gain() const { return accuracy - offset_accuracy; }
};
RelationBest best_of(const RelationTrials& trials, std::int64_t first_sentence, std::int64_t last_sentence);

// Head and offset chosen on the sentences before `split`, their shares on those from there on; and the middle 95 % of
// the gain over 2,000 drawings of as many sentences, with repetition (the bootstrap; the drawings are always the same).
struct RelationHeldOut {
  RelationBest best;
  double low = 0, high = 0;
};
RelationHeldOut held_out(const RelationTrials& trials, std::int64_t split, std::int64_t sentences);

}  // namespace multihead
