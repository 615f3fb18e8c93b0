// SPDX-License-Identifier: Apache-2.0
// What a Decoder holds: its weights, packed for products; the embeddings, in the file where they can be.
#pragma once

#include <optional>
#include <string>
#include <variant>
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

// T: what its products multiply.
template <class T>
struct DecoderLayer {
  DecoderNorm attention_norm;
  Linear<T> qkv, out;  // qkv: all heads' queries, then keys, then values
  double scale;        // of scores
  DecoderNorm feed_norm;
  std::optional<Linear<T>> gate;
  Linear<T> up, down;
};
template <class T>
struct DecoderMaps {
  std::vector<DecoderLayer<T>> layers;
  Linear<T> head;
};
using AnyDecoderMaps = std::variant<DecoderMaps<float>, DecoderMaps<BFloat16>>;

struct Decoder::State {
  Checkpoint checkpoint;  // holds the maps that Elements point into
  DecoderExtents e;
  Activation activation;
  Elements<float> words;
  std::optional<Elements<float>> positions;  // learned; without them rotary
  RotaryOptions rotary;
  AnyDecoderMaps maps;
  DecoderNorm last_norm;
  std::vector<std::string> unused;
};

}  // namespace multihead
