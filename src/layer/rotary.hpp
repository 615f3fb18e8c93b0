// SPDX-License-Identifier: Apache-2.0
// Rotary embedding for the layer: its rules, checked under the name of whoever asks.
#pragma once

#include "multihead/rotary.hpp"

namespace multihead {

constexpr std::int64_t kMaxPosition = std::int64_t{1} << 20;

// R, theta and the scaling; the message of an unknown scaling lists the known ones.
void check_rotary(const char* function, std::int64_t rotary_dim, const RotaryOptions& options);

// The frequencies of checked options, (R / 2).
void fill_frequencies(std::int64_t rotary_dim, const RotaryOptions& options, double* inv_freq) noexcept;

// bad_option where the angles of positions up to the largest leave the domain of sin and cos.
void check_angles(const char* function, std::int64_t largest_position, std::span<const double> inv_freq);

// One row of a table: cos and sin of position inv_freq[t], strides between columns.
template <class T>
void fill_table_row(std::int64_t position, std::span<const double> inv_freq, View<T, 1> cos, View<T, 1> sin) noexcept;

}  // namespace multihead
