// SPDX-License-Identifier: Apache-2.0
// What the functions of gradients.hpp ask of their arguments alike.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "core/validate.hpp"
#include "kernels/operands.hpp"
#include "multihead/layer.hpp"

namespace multihead {

// A matrix of contiguous rows.
inline void check_matrix(const char* function, const Operand& matrix) {
  check_view(function, matrix);
  check_contiguous(function, matrix);
}

// The matrix has the extents of another one: "x has" names it.
inline void check_like(const char* function, const Operand& matrix, const char* other_has, const Operand& other) {
  check_equal(function, matrix.name, "has rows", matrix.extents[0], other_has, other.extents[0]);
  check_equal(function, matrix.name, "has width", matrix.extents[1], other_has, other.extents[1]);
}

// What is written can be, and shares no memory with anything that is read or written beside it.
inline void check_written(const char* function, const Operand& written, std::initializer_list<Operand> others) {
  check_writable(function, written);
  for (const Operand& other : others) check_apart(function, written, other);
}

inline bool same_place(const Operand& a, const Operand& b) {
  return a.data == b.data && std::equal(a.extents.begin(), a.extents.end(), b.extents.begin()) &&
         std::equal(a.strides.begin(), a.strides.end(), b.strides.begin());
}

inline void check_threads(const char* function, const LayerOptions& options) {
  check_between(function, "threads", options.threads, 1, 1 << 16);
}

template <class T>
View<T, 1> vector_view(std::span<T> values) {
  return {values.data(), {static_cast<std::int64_t>(values.size())}};
}

}  // namespace multihead
