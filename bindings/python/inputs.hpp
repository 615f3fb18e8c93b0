// SPDX-License-Identifier: Apache-2.0
// q, k and v of a call in either layout, and the arrays that are shaped like them.
#pragma once

#include "options.hpp"

namespace face {

// q, k and v as (batch, heads, length, width), whatever they came as.
class Inputs {
 public:
  Array q, k, v;
  bool batchless = false;  // rank 3: a batch of one without its axis
  bool lengths_first = false;

  void read_layout(nb::handle layout, const char* function);
  void read_first(nb::handle object, Place place);  // q, whose rank is that of all
  void read(nb::handle object, Array& array, Place place) const;

  // (batch, heads, length, width) of a type, as the caller orders its axes.
  void make(Result& result, mh_type type, const int64_t (&extents)[4], Place place) const;
  void make_out(Result& out, nb::handle given, Place place) const;
  void make_lse(Result& lse, Place place) const;

  Weights::Extents extents() const { return {q.extent(0), q.extent(1), q.extent(2), k.extent(2), batchless}; }
  // Multiply-adds, were every key seen.
  double work() const;

 private:
  const char* first_ = "q";  // what read_first() read
  void order(Array& array, Place place) const;
};

}  // namespace face
