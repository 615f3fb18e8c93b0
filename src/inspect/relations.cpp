// SPDX-License-Identifier: Apache-2.0
// How often heads see marked pairs, beside the best fixed offset.
#include "multihead/relations.hpp"

#include <algorithm>
#include <limits>

#include "core/validate.hpp"

namespace multihead {

namespace {

constexpr const char* kWordWeights = "word_weights";
constexpr int kDrawings = 2000;

// Pairs of sentences first .. last - 1: places in the lists of trials, which are in order of sentences.
struct Range {
  std::size_t begin, end;
  std::int64_t size() const { return static_cast<std::int64_t>(end - begin); }
};
Range range_of(const RelationTrials& trials, std::int64_t first, std::int64_t last) {
  const auto at = [&](std::int64_t sentence) {
    return static_cast<std::size_t>(std::lower_bound(trials.sentences.begin(), trials.sentences.end(), sentence) -
                                    trials.sentences.begin());
  };
  return {at(first), std::max(at(first), at(last))};
}

std::size_t place(const RelationTrials& trials, std::int64_t head, std::size_t pair) {
  return static_cast<std::size_t>(head) * trials.sentences.size() + pair;
}
bool seen(const RelationTrials& trials, std::int64_t head, std::size_t pair) {
  return trials.seen[place(trials, head, pair)] != 0;
}

template <class Value>
double mean(const Range& range, const Value& value) {
  if (range.size() == 0) return std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  for (std::size_t pair = range.begin; pair < range.end; ++pair) sum += value(pair);
  return sum / static_cast<double>(range.size());
}

// SplitMix64: the same numbers everywhere.
class Draw {
 public:
  std::size_t below(std::size_t count) {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<std::size_t>((z ^ (z >> 31)) % count);
  }

 private:
  std::uint64_t state_ = 1;
};

// Of one sentence: its pairs, and how many more the head sees than the offset finds.
struct Tally {
  std::int64_t pairs = 0, more = 0;
};

}  // namespace

Matrix<double> word_weights(MatrixView<const float> weights, std::span<const std::int64_t> word_of_token,
                            std::int64_t words) {
  const auto tokens = static_cast<std::int64_t>(word_of_token.size());
  check_view(kWordWeights, operand("weights", weights));
  check_equal(kWordWeights, "weights", "has rows", weights.extent(0), "word_of_token has", tokens);
  check_equal(kWordWeights, "weights", "has columns", weights.extent(1), "word_of_token has", tokens);
  for (const std::int64_t word : word_of_token)
    check_between(kWordWeights, "a word of word_of_token", word, -1, words - 1);
  Matrix<double> sums(words, words);
  std::vector<std::int64_t> pieces(static_cast<std::size_t>(words));
  for (std::int64_t i = 0; i < tokens; ++i) {
    const std::int64_t from = word_of_token[static_cast<std::size_t>(i)];
    if (from < 0) continue;
    ++pieces[static_cast<std::size_t>(from)];
    for (std::int64_t j = 0; j < tokens; ++j) {
      const std::int64_t to = word_of_token[static_cast<std::size_t>(j)];
      if (to >= 0) sums(from, to) += weights(i, j);
    }
  }
  for (std::int64_t from = 0; from < words; ++from)
    for (std::int64_t to = 0; to < words && pieces[static_cast<std::size_t>(from)] > 1; ++to)
      sums(from, to) /= static_cast<double>(pieces[static_cast<std::size_t>(from)]);
  return sums;
}

std::int64_t most_attended(MatrixView<const double> weights, std::int64_t word) {
  std::int64_t most = -1;
  double largest = 0;
  for (std::int64_t to = 0; to < weights.extent(1); ++to)
    if (to != word && weights(word, to) > largest) most = to, largest = weights(word, to);
  return most;
}

double head_accuracy(const RelationTrials& trials, std::int64_t head, std::int64_t first_sentence,
                     std::int64_t last_sentence) {
  return mean(range_of(trials, first_sentence, last_sentence),
              [&](std::size_t pair) { return seen(trials, head, pair); });
}

double others_accuracy(const RelationTrials& trials, std::int64_t head, std::int64_t first_sentence,
                       std::int64_t last_sentence) {
  return mean(range_of(trials, first_sentence, last_sentence),
              [&](std::size_t pair) { return trials.others[place(trials, head, pair)]; });
}

double offset_accuracy(const RelationTrials& trials, std::int64_t offset, std::int64_t first_sentence,
                       std::int64_t last_sentence) {
  return mean(range_of(trials, first_sentence, last_sentence),
              [&](std::size_t pair) { return trials.offsets[pair] == offset; });
}

RelationBest best_of(const RelationTrials& trials, std::int64_t first_sentence, std::int64_t last_sentence) {
  RelationBest best;
  best.pairs = range_of(trials, first_sentence, last_sentence).size();
  best.accuracy = head_accuracy(trials, 0, first_sentence, last_sentence);
  best.offset_accuracy = offset_accuracy(trials, best.offset, first_sentence, last_sentence);
  const auto heads = static_cast<std::int64_t>(trials.seen.size() / std::max<std::size_t>(trials.sentences.size(), 1));
  for (std::int64_t head = 1; head < heads; ++head) {
    const double accuracy = head_accuracy(trials, head, first_sentence, last_sentence);
    if (accuracy > best.accuracy) best.head = head, best.accuracy = accuracy;
  }
  best.others = others_accuracy(trials, best.head, first_sentence, last_sentence);
  for (std::int64_t far = 1; far <= kFarthestOffset; ++far)
    for (const std::int64_t offset : {-far, far}) {
      const double accuracy = offset_accuracy(trials, offset, first_sentence, last_sentence);
      if (accuracy > best.offset_accuracy) best.offset = offset, best.offset_accuracy = accuracy;
    }
  return best;
}

RelationHeldOut held_out(const RelationTrials& trials, std::int64_t split, std::int64_t sentences) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  RelationHeldOut result{best_of(trials, 0, split), kNaN, kNaN};
  RelationBest& best = result.best;
  const Range range = range_of(trials, split, sentences);
  best.accuracy = head_accuracy(trials, best.head, split, sentences);
  best.others = others_accuracy(trials, best.head, split, sentences);
  best.offset_accuracy = offset_accuracy(trials, best.offset, split, sentences);
  if (best.pairs == 0) best.accuracy = best.others = best.offset_accuracy = kNaN;  // nothing to choose by
  best.pairs = range.size();
  std::vector<Tally> tallies;
  for (std::size_t pair = range.begin; pair < range.end; ++pair) {
    if (pair == range.begin || trials.sentences[pair] != trials.sentences[pair - 1]) tallies.emplace_back();
    ++tallies.back().pairs;
    tallies.back().more += seen(trials, best.head, pair) - (trials.offsets[pair] == best.offset);
  }
  if (tallies.empty()) return result;
  Draw draw;
  std::vector<double> gains(kDrawings);
  for (double& gain : gains) {
    Tally sum;
    for (std::size_t i = 0; i < tallies.size(); ++i) {
      const Tally& drawn = tallies[draw.below(tallies.size())];
      sum.pairs += drawn.pairs, sum.more += drawn.more;
    }
    gain = static_cast<double>(sum.more) / static_cast<double>(sum.pairs);
  }
  std::sort(gains.begin(), gains.end());
  result.low = gains[kDrawings / 40], result.high = gains[kDrawings - 1 - kDrawings / 40];
  return result;
}

}  // namespace multihead
