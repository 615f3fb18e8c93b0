// SPDX-License-Identifier: Apache-2.0
// Every marked pair of a text, in both directions, asked of every head of a model.
#pragma once

#include <cstdint>
#include <vector>

#include "multihead/encoder.hpp"
#include "multihead/relations.hpp"
#include "multihead/wordpiece.hpp"

namespace multihead::cli {

// The file examples/relations.txt, part of the program.
extern const char* const kMarkedSentences;

// One a relation: what dependents should look at, then what heads should.
struct BothDirections {
  RelationTrials to_head, from_head;
};

struct MarkedTrials {
  std::int64_t tokens = 0;  // of all sentences, [CLS] and [SEP] too
  // By the weights, and by the weights times the length of the value vector after Wo (Kobayashi et al. 2020).
  std::vector<BothDirections> plain, norm_weighted;
};

// Heads are counted through all layers: layer * heads + head. Without punctuation, marks are neither looked at nor
// counted in offsets. Throws bad_option for a sentence that the model does not take whole.
MarkedTrials ask_heads(const MarkedText& text, bool punctuation, const WordPiece& tokenizer, const Encoder& encoder,
                       const LayerOptions& options);

}  // namespace multihead::cli
