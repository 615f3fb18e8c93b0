// SPDX-License-Identifier: Apache-2.0
// Every marked pair of a text, in both directions, asked of every head of a model.
#include "relation_trials.hpp"

#include <algorithm>
#include <iterator>
#include <string>

namespace multihead::cli {

namespace {

// Of a call of the encoder. Weights are dense, so that sentences together cost the square of their length.
constexpr std::int64_t kTokensTogether = 256;

// A sentence as the model and as the count of words see it.
struct Prepared {
  std::vector<std::int64_t> ids, word_of_token;
  std::int64_t words = 0;
  std::vector<MarkedPair> pairs;
};

Prepared prepare(const MarkedSentence& sentence, bool punctuation, const WordPiece& tokenizer, std::int64_t most) {
  Prepared prepared;
  std::vector<std::int64_t> place;  // of each word; -1 for one that is left out
  for (const MarkedSentence::Word& word : sentence.words)
    place.push_back(word.punctuation && !punctuation ? -1 : prepared.words++);
  std::size_t word = 0;
  for (const Token& token : tokenizer.encode(sentence.text)) {
    while (word + 1 < sentence.words.size() && token.begin >= sentence.words[word].end) ++word;
    prepared.ids.push_back(token.id);
    prepared.word_of_token.push_back(token.begin == token.end ? -1 : place[word]);
  }
  if (static_cast<std::int64_t>(prepared.ids.size()) > most)
    throw Error(ErrorCode::bad_option, "relations: line " + std::to_string(sentence.line) + ": the sentence has " +
                                           std::to_string(prepared.ids.size()) + " tokens; this model takes at most " +
                                           std::to_string(most));
  for (const MarkedPair& pair : sentence.pairs) {
    const std::int64_t dependent = place[static_cast<std::size_t>(pair.dependent)];
    const std::int64_t head = place[static_cast<std::size_t>(pair.head)];
    if (dependent >= 0 && head >= 0) prepared.pairs.push_back({pair.relation, dependent, head});
  }
  return prepared;
}

// Sentences that go through the encoder together, and what all heads make of them.
class Pack {
 public:
  Pack(const Encoder& encoder, const LayerOptions& options) : encoder_(encoder), options_(options) {}

  std::int64_t tokens() const { return starts.back(); }
  void add(const Prepared& sentence) {
    ids_.insert(ids_.end(), sentence.ids.begin(), sentence.ids.end());
    starts.push_back(static_cast<std::int64_t>(ids_.size()));
  }

  // Weights are plain ones after it.
  void run() {
    const EncoderExtents& e = encoder_.extents();
    const std::int64_t n = tokens();
    weights_.resize(static_cast<std::size_t>(e.layers * e.heads * n * n));
    norms_.resize(static_cast<std::size_t>(e.layers * e.heads * n));
    std::vector<WeightsRequest<float>> requests(static_cast<std::size_t>(e.layers));
    for (std::size_t layer = 0; layer < requests.size(); ++layer)
      requests[layer].per_head = {weights_.data() + static_cast<std::int64_t>(layer) * e.heads * n * n,
                                  {1, e.heads, n, n}};
    Matrix<float> hidden(n, e.model_dim);
    encoder_.forward({.ids = ids_, .cu_seqlens = starts}, hidden, options_,
                     {.weights = requests, .norms = {norms_.data(), {e.layers, e.heads, n}}});
  }
  // And norm-weighted ones after this.
  void weigh() {
    const std::size_t n = static_cast<std::size_t>(tokens());
    for (std::size_t row = 0; row < weights_.size() / n; ++row)
      for (std::size_t key = 0; key < n; ++key) weights_[row * n + key] *= norms_[row / n * n + key];
  }

  MatrixView<const float> weights(std::int64_t layer, std::int64_t head, std::size_t sentence) const {
    const std::int64_t n = tokens(), first = starts[sentence], count = starts[sentence + 1] - first;
    return {
        weights_.data() + ((layer * encoder_.extents().heads + head) * n + first) * n + first, {count, count}, {n, 1}};
  }

 private:
  const Encoder& encoder_;
  const LayerOptions& options_;
  std::vector<std::int64_t> ids_, starts{0};
  std::vector<float> weights_, norms_;  // (layers, heads, tokens, tokens), (layers, heads, tokens)
};

// What one head makes of a sentence. next: where each relation's answers of this sentence begin.
void answer(const Prepared& sentence, MatrixView<const float> weights, std::int64_t head, std::vector<std::size_t> next,
            std::vector<BothDirections>& trials) {
  const Matrix<double> words = word_weights(weights, sentence.word_of_token, sentence.words);
  std::vector<std::int64_t> most(static_cast<std::size_t>(sentence.words));
  for (std::int64_t word = 0; word < sentence.words; ++word)
    most[static_cast<std::size_t>(word)] = most_attended(words, word);
  const auto set = [&](RelationTrials& asked, std::size_t at, std::int64_t from, std::int64_t to) {
    asked.seen[at] = most[static_cast<std::size_t>(from)] == to;
    const auto all = std::count(most.begin(), most.end(), to);
    asked.others[at] =
        sentence.words > 2 ? static_cast<float>(all - asked.seen[at]) / static_cast<float>(sentence.words - 2) : 0;
  };
  for (const MarkedPair& pair : sentence.pairs) {
    const auto relation = static_cast<std::size_t>(pair.relation);
    BothDirections& of = trials[relation];
    const std::size_t at = static_cast<std::size_t>(head) * of.to_head.sentences.size() + next[relation]++;
    set(of.to_head, at, pair.dependent, pair.head);
    set(of.from_head, at, pair.head, pair.dependent);
  }
}

// The pairs of all sentences, unanswered; starts: where each sentence's begin, (sentences, relations).
std::vector<BothDirections> questions(const std::vector<Prepared>& sentences, std::size_t relations, std::size_t heads,
                                      std::vector<std::vector<std::size_t>>& starts) {
  std::vector<BothDirections> trials(relations);
  for (std::size_t s = 0; s < sentences.size(); ++s) {
    starts.emplace_back();
    for (const BothDirections& of : trials) starts.back().push_back(of.to_head.sentences.size());
    for (const MarkedPair& pair : sentences[s].pairs) {
      BothDirections& of = trials[static_cast<std::size_t>(pair.relation)];
      for (RelationTrials* one : {&of.to_head, &of.from_head}) one->sentences.push_back(static_cast<std::int64_t>(s));
      of.to_head.offsets.push_back(pair.head - pair.dependent);
      of.from_head.offsets.push_back(pair.dependent - pair.head);
    }
  }
  for (BothDirections& of : trials)
    for (RelationTrials* one : {&of.to_head, &of.from_head}) {
      one->seen.resize(heads * one->sentences.size());
      one->others.resize(one->seen.size());
    }
  return trials;
}

}  // namespace

MarkedTrials ask_heads(const MarkedText& text, bool punctuation, const WordPiece& tokenizer, const Encoder& encoder,
                       const LayerOptions& options) {
  const EncoderExtents& e = encoder.extents();
  std::vector<Prepared> sentences;
  for (const MarkedSentence& sentence : text.sentences)
    sentences.push_back(prepare(sentence, punctuation, tokenizer, e.max_tokens));
  std::vector<std::vector<std::size_t>> starts;
  MarkedTrials trials;
  trials.plain = questions(sentences, text.relations.size(), static_cast<std::size_t>(e.layers * e.heads), starts);
  trials.norm_weighted = trials.plain;
  for (std::size_t first = 0, last = 0; first < sentences.size(); first = last) {
    Pack pack(encoder, options);
    while (last < sentences.size() &&
           (last == first || pack.tokens() + std::ssize(sentences[last].ids) <= kTokensTogether))
      pack.add(sentences[last++]);
    const auto hear = [&](std::vector<BothDirections>& into) {
      for (std::int64_t layer = 0; layer < e.layers; ++layer)
        for (std::int64_t head = 0; head < e.heads; ++head)
          for (std::size_t s = first; s < last; ++s)
            answer(sentences[s], pack.weights(layer, head, s - first), layer * e.heads + head, starts[s], into);
    };
    pack.run();
    hear(trials.plain);
    pack.weigh();
    hear(trials.norm_weighted);
    trials.tokens += pack.tokens();
  }
  return trials;
}

}  // namespace multihead::cli
