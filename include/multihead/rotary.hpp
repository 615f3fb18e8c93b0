// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al. 2021): pairs of channels of queries and keys turned by position.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "multihead/target.hpp"
#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

// Which two channels of the rotated width R are turned together, for t < R / 2.
enum class RotaryPairing {
  half_split,   // (t, t + R / 2): Llama, Mistral, Qwen, NeoX, ModernBERT as Hugging Face stores them
  interleaved,  // (2t, 2t + 1): GPT-J, Llama as Meta stores it
};

// The angle of pair t at position p is p inv_freq[t], inv_freq[t] = theta^(-2t / R), changed by the scaling. type is
// Hugging Face's rope_type: "default", "linear" (inv_freq / factor) or "llama3"; any other is refused by name.
struct RotaryScaling {
  std::string type = "default";
  double factor = 1;
  // llama3 only.
  double low_freq_factor = 1, high_freq_factor = 4;
  std::int64_t original_max_position_embeddings = 8192;
};

struct RotaryOptions {
  RotaryPairing pairing = RotaryPairing::half_split;  // named by whoever makes the model; never guessed
  std::optional<std::int64_t> rotary_dim = {};  // R, even; all of head_dim unless given, the channels after it pass
  double theta = 10000;
  RotaryScaling scaling = {};
};

// The frequencies (R / 2). Throws bad_option for an R that is odd or below 2, and for a scaling that is not one.
void rotary_frequencies(std::int64_t rotary_dim, const RotaryOptions& options, std::span<double> inv_freq);

// cos and sin (positions, R / 2) of the angles of given positions, angles in float64, rounded once. Positions 0 to
// 2^20: a larger angle is refused by bad_option.
void rotary_tables(std::span<const std::int64_t> positions, std::int64_t rotary_dim, const RotaryOptions& options,
                   MatrixView<float> cos, MatrixView<float> sin);
void rotary_tables(std::span<const std::int64_t> positions, std::int64_t rotary_dim, const RotaryOptions& options,
                   MatrixView<double> cos, MatrixView<double> sin);

// y = x with each pair (a, b) of its first 2 x columns channels turned: (a cos - b sin, b cos + a sin).
//   x, y (batch, heads, length, head_dim)   cos, sin (rows, R / 2)   positions (batch, length): rows of cos and sin
// R / 2 is the number of columns of cos, at most head_dim / 2; the channels from R on are copied. y may be x itself,
// and otherwise overlaps nothing. Strides are free but for the last axes, which must be contiguous. The tables are used
// as they are given. Throws Error before anything is written: shapes, and a position outside the tables.
void rotary_embedding(View4<const float> x, MatrixView<const float> cos, MatrixView<const float> sin,
                      MatrixView<const std::int64_t> positions, RotaryPairing pairing, View4<float> y,
                      std::optional<Target> target = {});
void rotary_embedding(View4<const double> x, MatrixView<const double> cos, MatrixView<const double> sin,
                      MatrixView<const std::int64_t> positions, RotaryPairing pairing, View4<double> y,
                      std::optional<Target> target = {});

}  // namespace multihead
