// SPDX-License-Identifier: Apache-2.0
// attention_backward() of the module.
#include "faces.hpp"
#include "inputs.hpp"

namespace face {
namespace {

constexpr const char* kName = "attention_backward";

constexpr int kQ = 0, kK = 1, kV = 2, kBias = 3, kAlibiSlopes = 4, kRelativeBias = 5, kSinks = 6, kScale = 7,
              kCount = 8;
constexpr const char* kNames[kCount] = {"q", "k", "v", "bias", "alibi_slopes", "relative_bias", "sinks", "scale"};

// What want asks for, and the new arrays that it goes to.
class Gradients {
 public:
  void read(nb::handle want);
  void make(const Inputs& inputs, const mh_attention_options& options);
  const mh_attention_gradients* get() const { return &gradients_; }
  nb::dict result() const;

 private:
  void make_like(int which, const mh_tensor* given, Kind kind, mh_type type);

  bool wanted_[kCount] = {};
  Result results_[kCount];
  mh_attention_gradients gradients_;
};

void Gradients::read(nb::handle want) {
  const Place place{kName, "want"};
  if (!PyTuple_Check(want.ptr()) && !PyList_Check(want.ptr()))
    raise(PyExc_TypeError, place, "has type " + name_of_type(want) + "; a tuple of names is wanted");
  for (Py_ssize_t i = 0; i < PySequence_Size(want.ptr()); ++i) {
    const nb::object name = want[i];
    int which = 0;
    while (which < kCount && !is_text(name, kNames[which])) ++which;
    if (which == kCount)
      raise(PyExc_ValueError, place,
            "has " + shown(name) +
                "; \"q\", \"k\", \"v\", \"bias\", \"alibi_slopes\", \"relative_bias\", \"sinks\" and \"scale\" are "
                "known");
    wanted_[which] = true;
  }
}

// A gradient of the extents of an option.
void Gradients::make_like(int which, const mh_tensor* given, Kind kind, mh_type type) {
  if (!wanted_[which]) return;
  if (!given)
    raise(PyExc_ValueError, {kName, "want"},
          std::string("has \"") + kNames[which] + "\", and " + kNames[which] + " is not given; they come together");
  results_[which].make({kName, kNames[which]}, kind, type, given->rank, given->shape);
}

void Gradients::make(const Inputs& inputs, const mh_attention_options& options) {
  const Array* const like[] = {&inputs.q, &inputs.k, &inputs.v};
  const mh_type type = inputs.q.tensor().type;
  const Kind kind = inputs.q.kind();
  for (int i = kQ; i <= kV; ++i)
    if (wanted_[i])
      inputs.make(results_[i], type, {like[i]->extent(0), like[i]->extent(1), like[i]->extent(2), like[i]->extent(3)},
                  {kName, kNames[i]});
  const mh_tensor one{nullptr, MH_FLOAT64, 1, {1}, {1}};
  make_like(kBias, options.bias, kind, sum_of(type));
  make_like(kAlibiSlopes, options.alibi_slopes, kind, MH_FLOAT64);
  make_like(kRelativeBias, options.relative_bias, kind, sum_of(type));
  make_like(kSinks, options.sinks, kind, MH_FLOAT64);
  make_like(kScale, &one, kind, MH_FLOAT64);
  mh_attention_gradients_init(&gradients_, sizeof gradients_);
  gradients_.q = results_[kQ].array.get(), gradients_.k = results_[kK].array.get();
  gradients_.v = results_[kV].array.get(), gradients_.bias = results_[kBias].array.get();
  gradients_.alibi_slopes = results_[kAlibiSlopes].array.get();
  gradients_.relative_bias = results_[kRelativeBias].array.get();
  gradients_.sinks = results_[kSinks].array.get(), gradients_.scale = results_[kScale].array.get();
}

nb::dict Gradients::result() const {
  nb::dict made;
  for (int i = 0; i < kScale; ++i)
    if (wanted_[i]) made[kNames[i]] = results_[i].object;
  if (wanted_[kScale]) made[kNames[kScale]] = *static_cast<const double*>(results_[kScale].array.tensor().data);
  return made;
}

// call: (layout, out, lse, d_lse, want).
nb::dict attention_backward(nb::handle d_out, nb::handle q, nb::handle k, nb::handle v, const nb::tuple& call,
                            const nb::dict& given) {
  Inputs inputs;
  inputs.read_layout(call[0], kName);
  inputs.read_first(q, {kName, "q"});
  inputs.read(k, inputs.k, {kName, "k"});
  inputs.read(v, inputs.v, {kName, "v"});
  Array of_out, out, lse, d_lse;
  inputs.read(d_out, of_out, {kName, "d_out"});
  inputs.read(call[1], out, {kName, "out"});
  lse.read(call[2], {kName, "lse"});
  d_lse.read_if(call[3], {kName, "d_lse"});
  for (Array* rows : {&lse, &d_lse})
    if (inputs.batchless && rows->rank() == 2) rows->add_axis();
  Options options(kName, given);
  options.run().set_work(inputs.work());
  Gradients gradients;
  gradients.read(call[4]);
  gradients.make(inputs, *options.get());
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_attention_backward(inputs.q.get(), inputs.k.get(), inputs.v.get(), out.get(), lse.get(), of_out.get(),
                                   d_lse.get(), gradients.get(), options.get());
  }
  check(status);
  return gradients.result();
}

}  // namespace

void add_attention_backward(nb::module_& module) {
  const auto any = nb::arg().none();
  module.def("attention_backward", &attention_backward, any, any, any, any, nb::arg(), nb::arg());
}

}  // namespace face
