// SPDX-License-Identifier: Apache-2.0
// Short lists of numbers (lengths, positions, slopes), from any sequence or array: converted and kept for a call.
#pragma once

#include <vector>

#include "arrays.hpp"

namespace face {

// Numbers of rank 1 or 2; where rows are asked for, a list of rank 1 is one row.
template <class T>
class List {
 public:
  // Integers of any type, and for int64_t also floats without a fraction. None leaves the list not given.
  void read_if(nb::handle object, Place place, bool rows = false);

  bool given() const { return tensor_.rank != 0; }
  const mh_tensor* get() const { return given() ? &tensor_ : nullptr; }
  int64_t size() const { return static_cast<int64_t>(values_.size()); }
  const std::vector<T>& values() const { return values_; }

 private:
  void read_array(const Array& array, Place place);
  void read_sequence(nb::handle object, Place place, int depth);
  void append(nb::handle item, Place place);

  std::vector<T> values_;
  mh_tensor tensor_{};
};

using Integers = List<int64_t>;
using Numbers = List<double>;

}  // namespace face
