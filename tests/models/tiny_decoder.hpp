// SPDX-License-Identifier: Apache-2.0
// A small decoder with random weights, and its folder.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "models/tiny_model.hpp"
#include "multihead/decoder.hpp"

namespace multihead::testing {

struct TinyDecoder {
  bool llama;
  std::int64_t layers = 2, heads = 4, kv_heads = 4, width = 24, intermediate = 20, words = 270, positions = 200;
  std::map<std::string, std::string> config;  // fields as JSON writes them
  std::map<std::string, TinyTensor> tensors;

  // "gpt2", or "llama" with two query heads to a kv head.
  explicit TinyDecoder(const std::string& type, unsigned seed = 1);

  void write(const TemporaryFolder& folder) const;
  Decoder decoder(const DecoderOptions& options = {}) const;  // by way of a folder
};

}  // namespace multihead::testing
