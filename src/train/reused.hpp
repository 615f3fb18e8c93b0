// SPDX-License-Identifier: Apache-2.0
// Memory that a model takes at each step and allocates only when it must grow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "multihead/tensor.hpp"

namespace multihead {

// One matrix at a time, its elements as they were left.
template <class T>
class Reused {
 public:
  MatrixView<T> matrix(std::int64_t rows, std::int64_t columns) {
    const auto count = static_cast<std::size_t>(rows * columns);
    if (values_.size() < count) values_.resize(count);
    return {values_.data(), {rows, columns}};
  }

 private:
  std::vector<T> values_;
};

// y += x, of one shape, rows contiguous.
template <class T>
void add_to(MatrixView<const T> x, MatrixView<T> y) {
  for (std::int64_t row = 0; row < y.extent(0); ++row) {
    const T* from = x.data() + row * x.stride(0);
    T* to = y.data() + row * y.stride(0);
    for (std::int64_t i = 0; i < y.extent(1); ++i) to[i] += from[i];
  }
}

}  // namespace multihead
