// SPDX-License-Identifier: Apache-2.0
// embedding() and its gradient.
#include <algorithm>

#include "core/float_mode.hpp"
#include "multihead/gradients.hpp"
#include "train/checks.hpp"

namespace multihead {

namespace {

// A table (entries, width), the ids of rows (ids, width).
void check_embedding(const char* function, const Operand& table, std::span<const std::int64_t> ids,
                     const Operand& rows) {
  check_matrix(function, table);
  check_matrix(function, rows);
  check_equal(function, rows.name, "has rows", rows.extents[0], "the number of ids is",
              static_cast<std::int64_t>(ids.size()));
  check_equal(function, rows.name, "has width", rows.extents[1], "the table has", table.extents[1]);
  for (std::int64_t id : ids) check_between(function, "an id", id, -1, table.extents[0] - 1);
}

}  // namespace

template <class T>
void embedding(MatrixView<const T> table, std::span<const std::int64_t> ids, MatrixView<T> y) {
  constexpr const char* kName = "embedding";
  const Operand from = operand("table", table), to = operand("y", y);
  const ListView list = view_of(ids);
  check_embedding(kName, from, ids, to);
  check_written(kName, to, {from, operand("ids", list)});
  for (std::int64_t i = 0; i < y.extent(0); ++i) {
    T* const row = y.data() + i * y.stride(0);
    if (list(i) < 0)
      std::fill_n(row, y.extent(1), T(0));
    else
      std::copy_n(table.data() + list(i) * table.stride(0), y.extent(1), row);
  }
}

template <class T>
void embedding_backward(std::span<const std::int64_t> ids, MatrixView<const T> d_y, MatrixView<T> d_table) {
  constexpr const char* kName = "embedding_backward";
  const Operand from = operand("d_y", d_y), to = operand("d_table", d_table);
  const ListView list = view_of(ids);
  check_embedding(kName, to, ids, from);
  check_written(kName, to, {from, operand("ids", list)});
  const FloatMode mode;
  for (std::int64_t i = 0; i < d_y.extent(0); ++i) {
    if (list(i) < 0) continue;
    const T* const row = d_y.data() + i * d_y.stride(0);
    T* const sum = d_table.data() + list(i) * d_table.stride(0);
    for (std::int64_t c = 0; c < d_y.extent(1); ++c) sum[c] += row[c];
  }
}

#define MULTIHEAD_INSTANTIATE(T)                                                              \
  template void embedding(MatrixView<const T>, std::span<const std::int64_t>, MatrixView<T>); \
  template void embedding_backward(std::span<const std::int64_t>, MatrixView<const T>, MatrixView<T>);
MULTIHEAD_INSTANTIATE(float)
MULTIHEAD_INSTANTIATE(double)
#undef MULTIHEAD_INSTANTIATE

}  // namespace multihead
