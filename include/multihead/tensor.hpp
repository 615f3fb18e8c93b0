// SPDX-License-Identifier: Apache-2.0
// Views: a pointer, extents and strides. Matrix: a small owner for results.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <limits>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "multihead/error.hpp"

namespace multihead {

// A contiguous container of exactly Element (vector, array, span): its data() converts to T*.
template <class Range, class T>
concept ContiguousOf = std::ranges::contiguous_range<Range> && std::ranges::sized_range<Range> &&
    std::is_convertible_v<decltype(std::ranges::data(std::declval<Range&>())), T*>;

// A contiguous container of rows of fixed size: std::vector<std::array<double, 3>>, std::array<std::array<..>>.
template <class Range, class T>
concept ContiguousRowsOf = std::ranges::contiguous_range<Range> && std::ranges::sized_range<Range> &&
    requires(std::ranges::range_reference_t<Range> row) {
  { row.data() } -> std::convertible_to<T*>;
  std::tuple_size<std::remove_cvref_t<decltype(row)>>::value;
};

// Elements someone else owns, Rank axes, strides counted in elements. Copying it copies no element. A view of T
// converts to a view of const T. Views are values: they may be used from many threads; the elements are the caller's.
template <class T, int Rank>
class View {
 public:
  using Extents = std::array<std::int64_t, Rank>;

  View() = default;
  View(T* data, Extents extents, Extents strides) noexcept : data_(data), extents_(extents), strides_(strides) {}
  // Contiguous, last axis fastest.
  View(T* data, Extents extents) noexcept : data_(data), extents_(extents) {
    std::int64_t step = 1;
    for (int axis = Rank - 1; axis >= 0; --axis) {
      strides_[axis] = step;
      // Extents beyond the address space stay beyond it: whoever takes the view refuses it.
      if (__builtin_mul_overflow(step, extents_[axis] > 0 ? extents_[axis] : 1, &step))
        step = std::numeric_limits<std::int64_t>::max();
    }
  }
  // A flat container and its extents: {values, {2, 3}}. Throws shape_mismatch when they differ in size.
  template <class Range>
  requires ContiguousOf<Range, T> View(Range&& values, Extents extents) : View(std::ranges::data(values), extents) {
    check_count(static_cast<std::int64_t>(std::ranges::size(values)));
  }
  // Containers of fixed-size rows, and C arrays of rows, are matrices already.
  template <class Range>
  requires(Rank == 2 && ContiguousRowsOf<Range, T>) View(Range&& rows)
      : View(std::ranges::size(rows) ? std::ranges::begin(rows)->data() : nullptr,
             {static_cast<std::int64_t>(std::ranges::size(rows)),
              static_cast<std::int64_t>(
                  std::tuple_size_v<std::remove_cvref_t<std::ranges::range_reference_t<Range>>>)}) {}
  template <class U, std::size_t Rows, std::size_t Columns>
  requires(Rank == 2 && std::is_convertible_v<U*, T*>) View(U (&rows)[Rows][Columns])
      : View(&rows[0][0], {Rows, Columns}) {}
  // T to const T.
  template <class U>
  requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>) View(const View<U, Rank>& other)
  noexcept : View(other.data(), other.extents(), other.strides()) {}

  T* data() const noexcept { return data_; }
  const Extents& extents() const noexcept { return extents_; }
  const Extents& strides() const noexcept { return strides_; }
  std::int64_t extent(int axis) const noexcept { return extents_[axis]; }
  std::int64_t stride(int axis) const noexcept { return strides_[axis]; }
  bool empty() const noexcept {
    for (std::int64_t extent : extents_)
      if (extent == 0) return true;
    return false;
  }

  // Unchecked element access, one index an axis.
  template <std::convertible_to<std::int64_t>... Index>
  requires(sizeof...(Index) == Rank) T& operator()(Index... index) const noexcept {
    const Extents at{static_cast<std::int64_t>(index)...};
    std::int64_t offset = 0;
    for (int axis = 0; axis < Rank; ++axis) offset += at[axis] * strides_[axis];
    return data_[offset];
  }

 private:
  void check_count(std::int64_t count) const {
    std::int64_t wanted = 1;
    for (std::int64_t extent : extents_)
      if (extent < 0 || __builtin_mul_overflow(wanted, extent, &wanted)) wanted = -1;
    if (wanted != count)
      throw Error(ErrorCode::shape_mismatch, "view: the container holds " + std::to_string(count) +
                                                 " elements, the extents ask for another number");
  }

  T* data_ = nullptr;
  Extents extents_{};
  Extents strides_{};
};

template <class T>
using MatrixView = View<T, 2>;
template <class T>
using View3 = View<T, 3>;
template <class T>
using View4 = View<T, 4>;

// Rows as a student writes them: {{1, 0, 1}, {0, 1, 1}}. Accepted where a matrix is read; copied on the way in.
template <class T>
using Rows = std::vector<std::vector<T>>;

// An owned matrix, row-major. What the returning overloads hand back.
template <class T>
class Matrix {
 public:
  Matrix() = default;
  // Zeros. Throws shape_mismatch for a negative extent and out_of_memory when there is not that much.
  Matrix(std::int64_t rows, std::int64_t columns) : rows_(rows), columns_(columns) {
    std::int64_t count = 0;
    if (rows < 0 || columns < 0)
      throw Error(ErrorCode::shape_mismatch,
                  "matrix: " + std::to_string(rows) + " x " + std::to_string(columns) + " has a negative extent");
    const bool fits = !__builtin_mul_overflow(rows, columns, &count);
    try {
      values_.resize(fits ? static_cast<std::size_t>(count) : values_.max_size() + 1);
    } catch (const std::exception&) {
      throw Error(ErrorCode::out_of_memory,
                  "matrix: " + std::to_string(rows) + " x " + std::to_string(columns) + " cannot be allocated");
    }
  }
  Matrix(std::initializer_list<std::initializer_list<T>> rows) {
    for (const auto& row : rows) append(row.begin(), row.size());
  }
  // Throws shape_mismatch when the rows differ in length.
  explicit Matrix(const Rows<T>& rows) {
    for (const auto& row : rows) append(row.data(), row.size());
  }

  std::int64_t rows() const noexcept { return rows_; }
  std::int64_t columns() const noexcept { return columns_; }
  T* data() noexcept { return values_.data(); }
  const T* data() const noexcept { return values_.data(); }
  std::span<const T> values() const noexcept { return values_; }
  T& operator()(std::int64_t row, std::int64_t column) noexcept { return values_[row * columns_ + column]; }
  const T& operator()(std::int64_t row, std::int64_t column) const noexcept { return values_[row * columns_ + column]; }
  operator MatrixView<T>() noexcept { return {values_.data(), {rows_, columns_}}; }
  operator MatrixView<const T>() const noexcept { return {values_.data(), {rows_, columns_}}; }
  bool operator==(const Matrix&) const = default;

 private:
  void append(const T* row, std::size_t size) {
    if (rows_ > 0 && columns_ != static_cast<std::int64_t>(size))
      throw Error(ErrorCode::shape_mismatch, "matrix: row " + std::to_string(rows_) + " has " + std::to_string(size) +
                                                 " values, the rows before it have " + std::to_string(columns_));
    columns_ = static_cast<std::int64_t>(size);
    ++rows_;
    values_.insert(values_.end(), row, row + size);
  }

  std::int64_t rows_ = 0;
  std::int64_t columns_ = 0;
  std::vector<T> values_;
};

}  // namespace multihead
