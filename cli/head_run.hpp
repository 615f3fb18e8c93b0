// SPDX-License-Identifier: Apache-2.0
// A text through a model: its tokens, the statistics of every head, and weights where they are shown.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "multihead/encoder.hpp"
#include "multihead/inspect.hpp"
#include "multihead/model_files.hpp"

namespace multihead::cli {

// The text as the model sees it.
struct HeadTokens {
  std::vector<std::int64_t> ids, types;
  std::string title;                      // the texts as they were given
  std::vector<std::string> texts, names;  // as the tokenizer has them, and printable
  std::vector<char> special;              // [CLS], [SEP] and their kin
  std::vector<char> second;               // of the second text, and the [SEP] behind it
  bool pair = false;                      // two texts
  std::int64_t separator = -1;            // the id of [SEP]

  std::int64_t size() const { return static_cast<std::int64_t>(ids.size()); }
  bool ordinary(std::int64_t i) const { return !special[static_cast<std::size_t>(i)]; }
  std::int64_t specials() const;
};

// What all heads of all layers make of a text.
struct DenseWeights {
  std::vector<std::vector<float>> weights;  // a layer: (heads, tokens, tokens)
  std::vector<float> norms;                 // (layers, heads, tokens), as EncoderRequests has them
};

class HeadRun {
 public:
  // Its texts, model and gates. Throws Error.
  HeadRun(const HeadsArguments& arguments, const Common& common);

  const HeadTokens& tokens() const { return tokens_; }
  const EncoderExtents& extents() const { return encoder_.extents(); }
  const std::string& gates() const { return gates_text_; }  // "5.11 times 0.5"; empty without

  // What every layer's statistics are asked for: offsets -1, 0, 1, the first key, classes "special" and "separator", of
  // a pair also "first text" and "second text" without special tokens, patterns of tokens.
  HeadStatsSpec spec() const;
  // One HeadStats a layer, gathered in one pass; memory grows with the text's length, not with its square.
  std::vector<HeadStats> statistics(const HeadStatsSpec& spec) const;
  // What one head looks at, (tokens, tokens), by a pass of its own.
  std::vector<float> weights(std::int64_t layer, std::int64_t head) const;
  // All heads of all layers, in one pass.
  DenseWeights dense() const;

 private:
  // The tokenizer's files are asked for first: they say soonest that a folder is no model's.
  HeadRun(const std::filesystem::path& folder, const WordPieceModel& tokenizer, const HeadsArguments& arguments,
          const Common& common);
  void forward(const EncoderRequests& requests) const;

  Encoder encoder_;
  HeadTokens tokens_;
  LayerOptions options_;
  Matrix<double> gates_;
  std::string gates_text_;
};

}  // namespace multihead::cli
