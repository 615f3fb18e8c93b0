// SPDX-License-Identifier: Apache-2.0
// Any array of Python as an mh_tensor, without a copy: the buffer protocol, DLPack, bfloat16 of ml_dtypes.
#pragma once

#include "dlpack.hpp"
#include "fail.hpp"

namespace face {

// Whose arrays results are.
enum class Kind { numpy, torch };

// What an argument's elements may be.
enum class Wanted { floating, mask, int64 };

// An array that is lent for the length of a call. It is released when the Array ends, with the GIL held.
class Array {
 public:
  Array() = default;
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array();

  // Takes hold of the object's elements; false, with no exception set, where it is no array. Raises for an array that
  // cannot be read: of another device, with more than four axes, with strides that are no whole elements.
  bool open(nb::handle object, Place place);
  // open(), and an error for what is no array or has other elements than are wanted.
  void read(nb::handle object, Place place, Wanted wanted = Wanted::floating);
  // The same for an array that is written.
  void read_output(nb::handle object, Place place, Wanted wanted = Wanted::floating);
  // read(), but for None, which leaves it not given.
  void read_if(nb::handle object, Place place, Wanted wanted = Wanted::floating);
  // An array of rank 2 becomes one of rank 3, and so on: an axis of extent 1 in front.
  void add_axis();
  void swap_axes(int one, int other);

  bool given() const { return tensor_.rank != 0; }
  const mh_tensor* get() const { return given() ? &tensor_ : nullptr; }
  const mh_tensor& tensor() const { return tensor_; }
  dlpack::Element element() const { return element_; }
  Kind kind() const { return kind_; }
  int rank() const { return tensor_.rank; }
  int64_t extent(int axis) const { return tensor_.shape[axis]; }

 private:
  bool open_buffer(nb::handle object, Place place);
  bool open_dlpack(nb::handle object, Place place);
  void take_buffer(Place place);
  void take_capsule(nb::object capsule, Place place);

  mh_tensor tensor_{};
  dlpack::Element element_{};
  Kind kind_ = Kind::numpy;
  bool read_only_ = false;
  bool has_buffer_ = false;
  Py_buffer buffer_{};
  nb::object owner_;  // a capsule, or the view whose buffer is held
};

// 0 where an element is none of the library's.
mh_type type_of(dlpack::Element element);
// "float32", "int16" ..
std::string name_of(dlpack::Element element);
// The type of sums over a type: of lse and of weights.
inline mh_type sum_of(mh_type type) { return type == MH_FLOAT64 ? MH_FLOAT64 : MH_FLOAT32; }

}  // namespace face
