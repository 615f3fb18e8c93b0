// SPDX-License-Identifier: Apache-2.0
// paged_attention() of the module.
#include <limits>
#include <vector>

#include "faces.hpp"
#include "inputs.hpp"
#include "options.hpp"

namespace face {
namespace {

// Rows of page numbers as the C face has them.
class Table {
 public:
  void read(nb::handle object, Place place) {
    Integers rows;
    rows.read_if(object, place, true);
    if (!rows.given()) raise(PyExc_TypeError, place, "is None; the page numbers of each sequence are wanted");
    for (const int64_t page : rows.values()) {
      if (page < std::numeric_limits<int32_t>::min() || page > std::numeric_limits<int32_t>::max())
        raise(PyExc_ValueError, place, "has page " + std::to_string(page) + "; 32 bits must hold it");
      pages_.push_back(static_cast<int32_t>(page));
    }
    tensor_ = *rows.get();
    tensor_.type = MH_INT32;
    tensor_.data = pages_.data();
  }
  const mh_tensor* get() const { return &tensor_; }

 private:
  std::vector<int32_t> pages_;
  mh_tensor tensor_{};
};

// keys: (k_pages, v_pages, block_table, lengths). call: (layout, out, return_lse).
nb::object paged_attention(nb::handle q, const nb::tuple& keys, const nb::tuple& call, const nb::dict& given) {
  const char* const name = "paged_attention";
  Inputs inputs;
  inputs.read_layout(call[0], name);
  inputs.read_first(q, {name, "q"});
  inputs.k.read(keys[0], {name, "k_pages"});
  inputs.v.read(keys[1], {name, "v_pages"});
  for (const Array* pages : {&inputs.k, &inputs.v})
    if (pages->rank() != 4)
      raise(PyExc_ValueError, {name, pages == &inputs.k ? "k_pages" : "v_pages"},
            "has rank " + std::to_string(pages->rank()) + "; (pages, page_len, kv_heads, dim) is wanted");
  Table table;
  table.read(keys[2], {name, "block_table"});
  Integers lengths;
  lengths.read_if(keys[3], {name, "lengths"});
  Options options(name, given);
  options.keep_queries_alone();
  double positions = 0;
  for (const int64_t length : lengths.values()) positions += static_cast<double>(length);
  const mh_tensor& rows = inputs.q.tensor();
  options.run().set_work(2 * positions * static_cast<double>(rows.shape[1] * rows.shape[2] * rows.shape[3]));
  Result out, lse;
  inputs.make_out(out, call[1], {name, "out"});
  if (flag(call[2], {name, "return_lse"})) inputs.make_lse(lse, {name, "lse"});
  mh_paged_keys paged;
  mh_paged_keys_init(&paged, sizeof paged);
  paged.k_pages = inputs.k.get(), paged.v_pages = inputs.v.get();
  paged.block_table = table.get(), paged.lengths = lengths.get();
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_paged_attention(inputs.q.get(), &paged, out.array.get(), lse.array.get(), options.get());
  }
  check(status);
  return lse.object.is_valid() ? nb::object(nb::make_tuple(out.object, lse.object)) : out.object;
}

}  // namespace

void add_paged(nb::module_& module) {
  module.def("paged_attention", &paged_attention, nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
}

}  // namespace face
