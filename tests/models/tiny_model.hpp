// SPDX-License-Identifier: Apache-2.0
// A small encoder with random weights: its folder, and what it must compute, by plain loops in float64.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "multihead/encoder.hpp"
#include "problem.hpp"

namespace multihead::testing {

// A folder that is gone with this object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("multihead_encoder_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path_ / name) << text; }

 private:
  std::filesystem::path path_;
};

struct TinyTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};
TinyTensor normal_tensor(Random& random, const std::vector<std::int64_t>& shape, double mean, double scale);

// The hidden states (layers + 1, tokens, width) and weights (layers, heads, tokens, tokens) of one sequence.
struct TinyTruth {
  std::vector<std::vector<std::vector<double>>> states;
  std::vector<std::vector<std::vector<std::vector<double>>>> weights;
};

struct TinyModel {
  std::string model_type, prefix;
  std::string activation = "gelu";
  std::int64_t layers = 2, heads = 3, width = 15, intermediate = 22, vocabulary = 37, positions = 20, types = 2;
  double eps = 1e-5;
  bool narrow_products = false;               // run() rounds to bfloat16 where an encoder of such products does
  std::map<std::string, TinyTensor> tensors;  // by their names without the prefix

  explicit TinyModel(const std::string& type, unsigned seed = 1);

  bool distilbert() const { return model_type == "distilbert"; }
  bool roberta() const { return model_type == "roberta" || model_type == "xlm-roberta"; }
  std::int64_t max_tokens() const { return positions - (roberta() ? 2 : 0); }
  std::string config() const;
  // config.json and model.safetensors, the latter with these tensors beside its own.
  void write(const TemporaryFolder& folder, const std::map<std::string, TinyTensor>& beside = {}) const;
  TinyTruth run(const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& token_types) const;

 private:
  using Rows = std::vector<std::vector<double>>;
  std::string layer(std::int64_t i) const {
    return (distilbert() ? "transformer.layer." : "encoder.layer.") + std::to_string(i) + ".";
  }
  double factor(double value) const;
  Rows rounded(Rows x) const;
  Rows linear(const std::string& name, const Rows& x) const;
  Rows normed(const std::string& name, const Rows& x, const Rows& residual) const;
  double activated(double x) const;
};

}  // namespace multihead::testing
