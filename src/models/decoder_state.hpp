// SPDX-License-Identifier: Apache-2.0
// What a Decoder holds: its weights, packed for products; the embeddings, in the file where they can be.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "multihead/decoder.hpp"
#include "multihead/linear.hpp"
#include "multihead/rotary.hpp"

namespace multihead {

constexpr const char* kDecoder = "Decoder";

struct DecoderNorm {
  HeadNorm norm;
  Elements<float> weight;
  std::optional<Elements<float>> bias;

  RowNorm<float> row_norm() const { return {norm, weight.values(), bias ? bias->values() : std::span<const float>()}; }
};

struct DecoderLayer {
  DecoderNorm attention_norm;
  Linear<float> qkv, out;  // qkv: all heads' queries, then keys, then values
  double scale;            // of scores
  DecoderNorm feed_norm;
  std::optional<Linear<float>> gate;
  Linear<float> up, down;
};

struct Decoder::State {
  Checkpoint checkpoint;  // holds the maps that Elements point into
  DecoderExtents e;
  Activation activation;
  Elements<float> words;
  std::optional<Elements<float>> positions;  // learned; without them rotary
  RotaryOptions rotary;
  std::vector<DecoderLayer> layers;
  DecoderNorm last_norm;
  Linear<float> head;
  std::vector<std::string> unused;
};

}  // namespace multihead
