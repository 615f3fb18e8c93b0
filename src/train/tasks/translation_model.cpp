// SPDX-License-Identifier: Apache-2.0
// Sentences of the little grammar through a Transformer, and how well they come out.
#include "train/tasks/translation_model.hpp"

#include <algorithm>
#include <limits>

namespace multihead {

using bilingual::Sentence;

namespace {

constexpr std::int64_t kTogether = 50;  // sentences of one pass

double share(std::int64_t of, std::int64_t all) {
  return all == 0 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(of) / static_cast<double>(all);
}

// take(sentences, the first one's number) over the list, a few at a time.
template <class Take>
void each_few(std::span<const Sentence> sentences, std::size_t few, Take take) {
  for (std::size_t first = 0; first < sentences.size(); first += few)
    take(sentences.subspan(first, std::min(few, sentences.size() - first)));
}

// Of equals the first.
template <class Value>
std::int64_t largest(std::int64_t count, Value value) {
  std::int64_t best = 0;
  for (std::int64_t i = 1; i < count; ++i)
    if (value(i) > value(best)) best = i;
  return best;
}

// Words whose largest weight is on a word that they come from, head by head.
class AlignmentCount {
 public:
  AlignmentCount(std::int64_t layers, std::int64_t heads)
      : heads_(heads), found_(static_cast<std::size_t>(layers * heads)), together_(static_cast<std::size_t>(layers)) {}

  // Asks for the weights of the next pass, which add() reads.
  std::vector<AttentionRequest> requests(std::int64_t rows, std::int64_t keys) {
    const std::int64_t layers = std::ssize(together_), one = heads_ * rows * keys;
    weights_.resize(static_cast<std::size_t>(layers * one));
    layers_.clear();
    std::vector<AttentionRequest> requests;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      layers_.emplace_back(weights_.data() + layer * one, View3<float>::Extents{heads_, rows, keys});
      requests.push_back({AttentionPart::cross, layer, layers_.back()});
    }
    return requests;
  }

  void add(const Sentence& sentence, std::int64_t first_row, std::int64_t first_key) {
    const std::int64_t length = std::ssize(sentence.source);
    for (std::size_t word = 0; word < sentence.target.size(); ++word, ++words_) {
      const auto right = [&](auto weight) {
        return static_cast<std::int64_t>(sentence.gold[word] >> largest(length, weight) & 1);
      };
      const std::int64_t row = first_row + static_cast<std::int64_t>(word);
      for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
        const View3<float>& of = layers_[layer];
        for (std::int64_t head = 0; head < heads_; ++head)
          found_[layer * static_cast<std::size_t>(heads_) + static_cast<std::size_t>(head)] +=
              right([&](std::int64_t key) { return of(head, row, first_key + key); });
        together_[layer] += right([&](std::int64_t key) {
          double sum = 0;
          for (std::int64_t head = 0; head < heads_; ++head) sum += static_cast<double>(of(head, row, first_key + key));
          return sum;
        });
      }
    }
  }

  WordAlignment shares() const {
    WordAlignment alignment;
    for (const std::int64_t count : found_) alignment.heads.push_back(share(count, words_));
    for (const std::int64_t count : together_) alignment.mean.push_back(share(count, words_));
    return alignment;
  }

 private:
  std::int64_t heads_, words_ = 0;
  std::vector<std::int64_t> found_, together_;
  std::vector<float> weights_;
  std::vector<View3<float>> layers_;
};

}  // namespace

SentenceBatch::SentenceBatch(std::span<const Sentence> sentences) {
  for (const Sentence& sentence : sentences) {
    source.add(sentence.source);
    target.push(bilingual::kBegin);
    for (const std::int64_t word : sentence.target) target.push(word), wanted.push_back(word);
    wanted.push_back(bilingual::kEnd);
    target.end();
  }
}

std::vector<std::vector<std::int64_t>> decode_sentences(Transformer<float>& model, std::span<const Sentence> sentences,
                                                        std::int64_t beam, const TransformerOptions& machine) {
  DecodeOptions decoding = free_decoding();
  decoding.beam = beam;
  std::vector<std::vector<std::int64_t>> outputs;
  each_few(sentences, kTogether, [&](std::span<const Sentence> few) {
    const SentenceBatch batch(few);
    for (std::vector<std::int64_t>& output : decode(model, batch.source.batch(), decoding, machine))
      outputs.push_back(std::move(output));
  });
  return outputs;
}

double exact_match(std::span<const Sentence> sentences, std::span<const std::vector<std::int64_t>> outputs) {
  std::int64_t same = 0;
  for (std::size_t i = 0; i < sentences.size(); ++i) same += sentences[i].target == outputs[i];
  return share(same, std::ssize(sentences));
}

WordAlignment align(Transformer<float>& model, std::span<const Sentence> sentences, const TransformerOptions& machine) {
  const TransformerConfig& config = model.config();
  AlignmentCount count(config.decoder_layers, config.heads);
  each_few(sentences, 10, [&](std::span<const Sentence> few) {
    const SentenceBatch batch(few);
    TransformerOptions options = machine;
    const auto requests = count.requests(batch.target.tokens(), batch.source.tokens());
    options.weights = requests;
    Matrix<float> logits(batch.target.tokens(), config.classes);
    model.forward(batch.source.batch(), batch.target.batch(), logits, options);
    for (std::size_t i = 0; i < few.size(); ++i) count.add(few[i], batch.target.starts[i], batch.source.starts[i]);
  });
  return count.shares();
}

std::vector<double> skill_accuracy(Transformer<float>& model, std::span<const Sentence> sentences,
                                   const TransformerOptions& machine) {
  std::vector<std::int64_t> right(bilingual::kSkills), all(bilingual::kSkills);
  each_few(sentences, kTogether, [&](std::span<const Sentence> few) {
    const SentenceBatch batch(few);
    Matrix<float> logits(batch.target.tokens(), model.config().classes);
    model.forward(batch.source.batch(), batch.target.batch(), logits, machine);
    for (std::size_t s = 0; s < few.size(); ++s)
      for (std::size_t word = 0; word < few[s].target.size(); ++word) {
        const std::int64_t row = batch.target.starts[s] + static_cast<std::int64_t>(word);
        const bool correct =
            largest(logits.columns(), [&](std::int64_t i) { return logits(row, i); }) == few[s].target[word];
        for (std::size_t skill = 0; skill < right.size(); ++skill)
          if (few[s].skills[word] >> skill & 1) ++all[skill], right[skill] += correct;
      }
  });
  std::vector<double> accuracy;
  for (std::size_t skill = 0; skill < right.size(); ++skill) accuracy.push_back(share(right[skill], all[skill]));
  return accuracy;
}

}  // namespace multihead
