// SPDX-License-Identifier: Apache-2.0
// What enters the products of a model: float as it is, or rounded once to bfloat16.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

template <class T>
constexpr bool kRounds = !std::is_same_v<T, float>;

template <class T>
void round_each(const float* from, std::int64_t count, T* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(from[i]);
}

// A parameter: itself, or rounded into memory.
template <class T>
std::span<const T> factors(std::span<const float> exact, [[maybe_unused]] std::vector<T>& memory) {
  if constexpr (kRounds<T>) {
    memory.resize(exact.size());
    round_each(exact.data(), static_cast<std::int64_t>(exact.size()), memory.data());
    return memory;
  } else {
    return exact;
  }
}

// Rows without gaps between them: themselves, or rounded into memory, which has room for them.
template <class T>
MatrixView<const T> factors(const MatrixView<float>& rows, [[maybe_unused]] T* memory) {
  if constexpr (kRounds<T>) {
    round_each(rows.data(), rows.extent(0) * rows.extent(1), memory);
    return {memory, rows.extents()};
  } else {
    return rows;
  }
}

}  // namespace multihead
