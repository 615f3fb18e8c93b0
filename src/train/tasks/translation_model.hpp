// SPDX-License-Identifier: Apache-2.0
// How sentences of the little grammar go through a Transformer: batches, decoding, what is measured.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "multihead/tasks.hpp"
#include "train/tasks/bilingual.hpp"
#include "train/tasks/packed.hpp"

namespace multihead {

// No target of 200,000 sentences has more than 24 words; an untrained model goes on to the end.
inline DecodeOptions free_decoding() { return {.begin = bilingual::kBegin, .end = bilingual::kEnd, .most = 32}; }

// The target goes in behind kBegin; what must come out ends with kEnd.
struct SentenceBatch {
  explicit SentenceBatch(std::span<const bilingual::Sentence> sentences);
  Packed source, target;
  std::vector<std::int64_t> wanted;  // (tokens of target)
};

// Sentence by sentence, decoded freely.
std::vector<std::vector<std::int64_t>> decode_sentences(Transformer<float>& model,
                                                        std::span<const bilingual::Sentence> sentences,
                                                        std::int64_t beam, const TransformerOptions& machine);

// The share of the sentences that came out word for word; NaN without one.
double exact_match(std::span<const bilingual::Sentence> sentences, std::span<const std::vector<std::int64_t>> outputs);

// Word alignment by cross-attention with the target as it should be: the share of its words, kEnd left out, whose
// largest weight (of equals the first) is on a word of the source that they come from.
struct WordAlignment {
  std::vector<double> heads;  // (cross layers * heads)
  std::vector<double> mean;   // (cross layers): of the mean over a layer's heads
};
WordAlignment align(Transformer<float>& model, std::span<const bilingual::Sentence> sentences,
                    const TransformerOptions& machine);

// (kSkills): the share of tokens that ask for a skill and come out right, given the right words before them; NaN
// without one.
std::vector<double> skill_accuracy(Transformer<float>& model, std::span<const bilingual::Sentence> sentences,
                                   const TransformerOptions& machine);

// source: what is asked, then words. Its layers as translate() has them.
LearnedExample translated(Transformer<float>& model, std::span<const std::int64_t> source, std::int64_t beam,
                          const TransformerOptions& machine);

}  // namespace multihead
