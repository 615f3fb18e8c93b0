// SPDX-License-Identifier: Apache-2.0
// Random attention problems: sizes, options and a seed for the numbers of q, k and v.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
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
  auto of(const auto& list) { return list[static_cast<std::size_t>(between(0, std::ssize(list) - 1))]; }
  double normal() { return normal_(engine_); }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

// A mask, a bias or a table of random values: the last `rank` of four axes, where an axis of extent 1 repeats.
struct Spread {
  int rank = 0;  // 0: not given
  std::array<std::int64_t, 4> extents{1, 1, 1, 1};
  std::array<std::int64_t, 4> strides{};
  std::vector<double> values;     // as they are stored
  Type type = Type::float32;      // not of a mask
  std::vector<std::byte> stored;  // elements of the type, or a mask's bytes

  double at(const std::array<std::int64_t, 4>& place) const;
  BroadcastView view() const;
};

// A run of queries and the run of keys that belongs to it; query i stands at position i + offset.
struct Sequence {
  std::int64_t batch, q_begin, q_len;
  std::int64_t k_begin, k_len;  // the valid keys
  std::int64_t offset;
};

// Everything about a problem but the numbers of q, k and v.
struct Problem {
  AttentionShape shape;
  AttentionOptions plain;  // what is one number: scale, softcap, causal, alignment, window
  std::vector<std::int64_t> offsets, prefixes, lengths, cu_seqlens_q, cu_seqlens_k, q_segments, kv_segments;
  std::vector<double> alibi_slopes, sinks;
  Spread keep_mask, drop_mask, bias;
  Spread table;  // of the relative bias: (1, 1, buckets, heads)
  bool bidirectional = true;
  std::int64_t max_distance = 0;
  std::vector<Sequence> sequences;  // what the options make of batch, queries and keys
  std::uint64_t seed = 0;

  AttentionOptions options() const;  // with views of this problem
  std::string text() const;
};

// Sizes around register widths, tiles and key blocks, grouped heads, and every option of attention(), some problems
// with few of them and some with many. The same for the same seed and index, but for the types of biases, which are
// float64 only where the sums are.
Problem random_problem(std::uint64_t seed, int index, Type type);

// Draws the options of a problem that has its extents; may lessen them.
void draw_options(Random& random, Problem& problem);

}  // namespace multihead::cli
