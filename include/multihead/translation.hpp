// SPDX-License-Identifier: Apache-2.0
// English of a little grammar into French, or into its main clause, by a learned model; and BLEU. Library
// multihead_train.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "multihead/tasks.hpp"
#include "multihead/transformer.hpp"

namespace multihead {

struct TranslateOptions {
  bool summarise = false;  // the main clause in English in place of the sentence in French
  std::int64_t beam = 1;   // 1 is greedy
  TransformerOptions machine = {};
};

// text: words of task "translation", capital letters as small ones, a last full stop aside. The output is decoded
// freely. layers: "encoder 0" and "decoder 0" have the tokens that they read on both sides; the row of "cross 0" that
// is called w is the one whose output the word w is, "<end>" being the last. Throws bad_option for a word that the
// task does not know, naming those that are nearest to it, for a text of no or of too many words, and for a model of
// other extents than the task's.
LearnedExample translate(Transformer<float>& model, const std::string& text, const TranslateOptions& options = {});

// BLEU of a corpus (Papineni et al. 2002) against one reference a sentence, n-grams of 1 to 4 tokens, nothing smoothed:
// without a matching n-gram of each length it is 0. value = brevity_penalty (p1 p2 p3 p4)^(1/4), 0 to 1.
struct Bleu {
  double value = 0, brevity_penalty = 0;
  std::array<double, 4> precisions{};  // matches / n-grams of the hypotheses; 0 without an n-gram
};
// Throws shape_mismatch where the sentences are not as many.
Bleu bleu(std::span<const std::vector<std::int64_t>> hypotheses, std::span<const std::vector<std::int64_t>> references);

}  // namespace multihead
