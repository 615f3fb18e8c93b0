// SPDX-License-Identifier: Apache-2.0
// What is asked of NumPy, ml_dtypes and PyTorch: none is imported before its arrays are met or wanted.
#pragma once

#include "arrays.hpp"

namespace face {

// Whether the object is a torch.Tensor; torch is looked for only where it has been imported.
bool is_torch(nb::handle object);
// The DLPack capsule of a torch.Tensor. Raises for one that wants a gradient while gradients are recorded.
nb::object torch_capsule(nb::handle tensor, Place place);

// Raises for an array of numpy.ma: what it masks would be read as any other element.
void refuse_masked(nb::handle object, Place place);

// A new array with these extents, not filled: NumPy's or PyTorch's; a memoryview where NumPy is not installed.
// Raises where a bfloat16 is wanted of NumPy and ml_dtypes is not installed, and where a memoryview cannot be it.
nb::object empty(Place place, Kind kind, mh_type type, int rank, const int64_t* shape);

// An array that a call writes, and its elements.
struct Result {
  nb::object object;
  Array array;

  // A new one.
  void make(Place place, Kind kind, mh_type type, int rank, const int64_t* shape);
  // The caller's.
  void take(nb::handle given, Place place);
};

}  // namespace face
