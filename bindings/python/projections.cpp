// SPDX-License-Identifier: Apache-2.0
// self_attention() and multi_head_attention() of the module: from X to the output.
#include "faces.hpp"
#include "options.hpp"

namespace face {
namespace {

constexpr int kMany = 5;
constexpr const char* kNames[kMany] = {"X", "Wq", "Wk", "Wv", "Wo"};

// X and the weights as matrices of one type. What is no array of float32 or float64, or of both, is converted as NumPy
// would: integers and rows of numbers to float64, float32 beside float64 to float64.
class Matrices {
 public:
  Matrices(const char* function, const nb::handle* objects, int count) : function_(function), count_(count) {
    bool plain = true;
    for (int i = 0; i < count && plain; ++i) plain = open(i, objects[i]);
    if (!plain) convert(objects);
    for (int i = 0; i < count; ++i)
      if (arrays_[i]->rank() != 2)
        raise(PyExc_ValueError, {function, kNames[i]},
              "has rank " + std::to_string(arrays_[i]->rank()) + "; 2 is wanted");
  }

  const mh_tensor* operator[](int i) const { return arrays_[i]->get(); }
  int64_t extent(int i, int axis) const { return arrays_[i]->extent(axis); }
  Kind kind() const { return arrays_[0]->kind(); }
  mh_type type() const { return arrays_[0]->tensor().type; }

  double work() const {
    const auto rows = static_cast<double>(extent(0, 0));
    double columns = 0;
    for (int i = 1; i < count_; ++i)
      columns +=
          static_cast<double>(extent(i, 1)) * (static_cast<double>(extent(i, 0)) + (i == 1 || i == 3 ? rows : 0));
    return rows * columns;
  }

 private:
  bool open(int i, nb::handle object) {
    Array& array = first_[i];
    if (!array.open(object, {function_, kNames[i]})) return false;
    arrays_[i] = &array;
    const mh_type type = array.tensor().type;
    return (type == MH_FLOAT32 || type == MH_FLOAT64) && type == arrays_[0]->tensor().type;
  }

  void convert(const nb::handle* objects) {
    nb::list given, names;
    for (int i = 0; i < count_; ++i) {
      given.append(objects[i]);
      names.append(kNames[i]);
    }
    for (int i = 0; i < count_; ++i) refuse_masked(objects[i], {function_, kNames[i]});
    converted_ = nb::module_::import_("multihead._arrays").attr("promoted")(function_, names, given);
    for (int i = 0; i < count_; ++i) {
      second_[i].read(converted_[i], {function_, kNames[i]});
      arrays_[i] = &second_[i];
    }
  }

  const char* function_;
  int count_;
  Array first_[kMany], second_[kMany];
  Array* arrays_[kMany] = {};
  nb::object converted_;
};

nb::object self_attention(nb::handle X, nb::handle Wq, nb::handle Wk, nb::handle Wv, nb::handle threads,
                          nb::handle target) {
  const char* const name = "self_attention";
  const nb::handle objects[] = {X, Wq, Wk, Wv};
  Matrices given(name, objects, 4);
  RunOptions run(name);
  run.read_threads(threads);
  run.read_target(target);
  run.set_work(given.work());
  const int64_t n = given.extent(0, 0);
  const int64_t shape[] = {n, given.extent(3, 1)}, square[] = {n, n};
  Result output, weights;
  output.make({name, "output"}, given.kind(), given.type(), 2, shape);
  weights.make({name, "weights"}, given.kind(), given.type(), 2, square);
  mh_status status;
  {
    nb::gil_scoped_release released;
    status =
        mh_self_attention(given[0], given[1], given[2], given[3], output.array.get(), weights.array.get(), run.get());
  }
  check(status);
  return nb::make_tuple(output.object, weights.object);
}

// call: (num_heads, out, return_weights, threads, target).
nb::object multi_head_attention(nb::handle X, nb::handle Wq, nb::handle Wk, nb::handle Wv, nb::handle Wo,
                                const nb::tuple& call) {
  const char* const name = "multi_head_attention";
  const nb::handle objects[] = {X, Wq, Wk, Wv, Wo};
  Matrices given(name, objects, 5);
  const int64_t heads = integer(call[0], {name, "num_heads"});
  const bool with_weights = flag(call[2], {name, "return_weights"});
  RunOptions run(name);
  run.read_threads(call[3]);
  run.read_target(call[4]);
  run.set_work(given.work());
  const int64_t n = given.extent(0, 0);
  const int64_t shape[] = {n, given.extent(4, 1)}, cube[] = {heads, n, n};
  Result output, weights;
  if (nb::handle(call[1]).is_none())
    output.make({name, "output"}, given.kind(), given.type(), 2, shape);
  else
    output.take(call[1], {name, "out"});
  // What follows names a number of heads that Wq's columns do not make; before it nothing is allocated for them.
  const bool divided = heads > 0 && heads <= given.extent(1, 1) && given.extent(1, 1) % heads == 0;
  if (with_weights && divided) weights.make({name, "weights"}, given.kind(), given.type(), 3, cube);
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_multi_head_attention(given[0], given[1], given[2], given[3], given[4], heads, output.array.get(),
                                     weights.array.get(), nullptr, run.get());
  }
  check(status);
  if (with_weights) return nb::make_tuple(output.object, weights.object);
  return output.object;
}

}  // namespace

void add_projections(nb::module_& module) {
  const auto any = nb::arg().none();
  module.def("self_attention", &self_attention, any, any, any, any, any, any);
  module.def("multi_head_attention", &multi_head_attention, any, any, any, any, any, nb::arg());
}

}  // namespace face
