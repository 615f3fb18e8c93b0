// SPDX-License-Identifier: Apache-2.0
// What an Encoder holds: its weights, packed for products; the embeddings, in the file where they can be.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "multihead/encoder.hpp"
#include "multihead/linear.hpp"

namespace multihead {

constexpr const char* kEncoder = "Encoder";

struct EncoderNorm {
  Elements<float> weight, bias;
  double eps;

  RowNorm<float> norm() const { return {{HeadNorm::Kind::layer, eps}, weight.values(), bias.values()}; }
};

// T: what its products multiply.
template <class T>
struct EncoderLayer {
  MultiHeadAttention<T> attention;
  EncoderNorm attention_norm;
  Linear<T> up, down;
  EncoderNorm output_norm;
};

using EncoderLayers = std::variant<std::vector<EncoderLayer<float>>, std::vector<EncoderLayer<BFloat16>>>;

struct Encoder::State {
  Checkpoint checkpoint;  // holds the maps that Elements point into
  EncoderExtents e;
  Activation activation;
  // A token that is the pad token stands at position pad, the others at pad + 1, pad + 2 .. (RoBERTa's); without pad
  // every token stands at its own place.
  std::optional<std::int64_t> pad;
  Elements<float> words, positions;
  std::optional<Elements<float>> types;
  EncoderNorm embedding_norm;
  EncoderLayers layers;
  std::vector<std::string> unused;
};

}  // namespace multihead
