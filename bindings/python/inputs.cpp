// SPDX-License-Identifier: Apache-2.0
// The reading of q, k and v: rank, layout, and what is made to their shape.
#include "inputs.hpp"

namespace face {

void Inputs::read_layout(nb::handle layout, const char* function) {
  lengths_first = is_text(layout, "bshd");
  if (!lengths_first && !is_text(layout, "bhsd"))
    raise(PyExc_ValueError, {function, "layout"}, "is " + shown(layout) + "; \"bhsd\" or \"bshd\" is wanted");
}

// Brings an array into the order of axes of the C face.
void Inputs::order(Array& array, Place place) const {
  if (array.rank() != (batchless ? 3 : 4))
    raise(PyExc_ValueError, place,
          "has rank " + std::to_string(array.rank()) + ", " + first_ + " has rank " +
              std::to_string(batchless ? 3 : 4) + "; they must be equal");
  if (batchless) array.add_axis();
  if (lengths_first) array.swap_axes(1, 2);
}

void Inputs::read(nb::handle object, Array& array, Place place) const {
  array.read(object, place);
  order(array, place);
}

void Inputs::read_first(nb::handle object, Place place) {
  first_ = place.argument;
  q.read(object, place);
  if (q.rank() != 3 && q.rank() != 4)
    raise(PyExc_ValueError, place, "has rank " + std::to_string(q.rank()) + "; 3 or 4 is wanted");
  batchless = q.rank() == 3;
  order(q, place);
}

void Inputs::make(Result& result, mh_type type, const int64_t (&extents)[4], Place place) const {
  const auto [batch, heads, length, width] = extents;
  const int64_t shape[] = {batch, lengths_first ? length : heads, lengths_first ? heads : length, width};
  result.make(place, q.kind(), type, 4 - batchless, shape + batchless);
  order(result.array, place);
}

void Inputs::make_out(Result& out, nb::handle given, Place place) const {
  if (given.is_none()) return make(out, q.tensor().type, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, place);
  out.take(given, place);
  order(out.array, place);
}

void Inputs::make_lse(Result& lse, Place place) const {
  const int64_t shape[] = {q.extent(0), q.extent(1), q.extent(2)};
  lse.make(place, q.kind(), sum_of(q.tensor().type), 3 - batchless, shape + batchless);
  if (batchless) lse.array.add_axis();
}

double Inputs::work() const {
  double product = 2;
  for (int axis = 0; axis < 4; ++axis) product *= static_cast<double>(q.extent(axis));
  return product * static_cast<double>(k.extent(2));
}

}  // namespace face
