// SPDX-License-Identifier: Apache-2.0
// Random attention problems: sizes, masks and a seed for the numbers.
#pragma once

#include <cstdint>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "multihead/attention.hpp"

namespace multihead::cli {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::int64_t between(std::int64_t first, std::int64_t last) {
    return std::uniform_int_distribution<std::int64_t>(first, last)(engine_);
  }
  bool chance(double probability) { return std::bernoulli_distribution(probability)(engine_); }
  std::int64_t of(const auto& list) { return list[static_cast<std::size_t>(between(0, std::ssize(list) - 1))]; }
  double normal() { return normal_(engine_); }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

// Everything about a problem but its numbers.
struct Problem {
  AttentionShape shape;
  Causal causal;
  std::vector<std::int64_t> lengths;  // empty or one a sequence
  std::optional<double> scale;
  std::uint64_t seed = 0;

  std::string text() const;
};

// Sizes around register widths, tiles and key blocks, grouped heads, every kind of causal, lengths, scale. The same for
// the same seed and index.
Problem random_problem(std::uint64_t seed, int index);

}  // namespace multihead::cli
