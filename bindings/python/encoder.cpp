// SPDX-License-Identifier: Apache-2.0
// The encoder of the module: ids to states, texts to tokens and vectors.
#include <nanobind/stl/unique_ptr.h>

#include <cstring>
#include <memory>
#include <vector>

#include "faces.hpp"
#include "options.hpp"

namespace face {
namespace {

constexpr char kName[] = "Encoder";

struct Destroy {
  void operator()(mh_encoder* encoder) const { mh_encoder_destroy(encoder); }
};

struct Encoder {
  std::unique_ptr<mh_encoder, Destroy> handle;
  mh_encoder_extents extents;

  explicit Encoder(mh_encoder* opened) : handle(opened) {
    mh_encoder_extents_init(&extents, sizeof extents);
    check(mh_encoder_get_extents(opened, &extents));
  }
};

// folder: the bytes of its name.
std::unique_ptr<Encoder> open(const nb::bytes& name) {
  const char* const folder = name.c_str();
  if (std::strlen(folder) != name.size()) raise(PyExc_ValueError, {kName, "folder"}, "has the character 0");
  mh_encoder* opened = nullptr;
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_encoder_open(folder, &opened);
  }
  check(status);
  return std::make_unique<Encoder>(opened);
}

nb::dict extents_of(const Encoder& encoder) {
  const mh_encoder_extents& extents = encoder.extents;
  nb::dict result;
  result["layers"] = extents.layers;
  result["heads"] = extents.heads;
  result["head_dim"] = extents.head_dim;
  result["model_dim"] = extents.model_dim;
  result["intermediate_dim"] = extents.intermediate_dim;
  result["vocab_size"] = extents.vocab_size;
  result["token_types"] = extents.token_types;
  result["max_tokens"] = extents.max_tokens;
  result["texts"] = extents.texts != 0;
  return result;
}

// The character that each byte of a text belongs to, and behind the last the number of characters.
std::vector<int64_t> characters(const char* text, Py_ssize_t length) {
  std::vector<int64_t> of(static_cast<size_t>(length) + 1);
  int64_t character = -1;
  for (Py_ssize_t at = 0; at < length; ++at) {
    character += (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
    of[static_cast<size_t>(at)] = character;
  }
  of[static_cast<size_t>(length)] = character + 1;
  return of;
}

// (id, text, begin, end) of each token, begin and end in characters.
nb::list tokens(const Encoder& encoder, nb::handle text) {
  Py_ssize_t length = 0;
  const char* const bytes = utf8(text, length, {"Encoder.tokens", "text"});
  const auto size = static_cast<size_t>(length);
  size_t count = 0;
  check(mh_encoder_tokens(encoder.handle.get(), bytes, size, nullptr, nullptr, nullptr, 0, &count));
  std::vector<int64_t> ids(count + 1), begins(count + 1), ends(count + 1);
  check(mh_encoder_tokens(encoder.handle.get(), bytes, size, ids.data(), begins.data(), ends.data(), count, &count));
  const std::vector<int64_t> character = characters(bytes, length);
  nb::list result;
  for (size_t i = 0; i < count; ++i) {
    const char* const word = mh_encoder_token_text(encoder.handle.get(), ids[i]);
    result.append(nb::make_tuple(ids[i], word ? word : "", character[static_cast<size_t>(begins[i])],
                                 character[static_cast<size_t>(ends[i])]));
  }
  return result;
}

nb::object encode(const Encoder& encoder, const nb::list& texts, nb::handle threads, nb::handle target) {
  const char* const name = "Encoder.encode";
  std::vector<const char*> bytes;
  for (nb::handle one : texts) bytes.push_back(text(one, {name, "texts"}));
  RunOptions run(name);
  run.read_threads(threads);
  run.read_target(target);
  const int64_t shape[] = {static_cast<int64_t>(bytes.size()), encoder.extents.model_dim};
  Result vectors;
  vectors.make({name, "texts"}, Kind::numpy, MH_FLOAT32, 2, shape);
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_encoder_encode(encoder.handle.get(), bytes.data(), bytes.size(), vectors.array.get(), run.get());
  }
  check(status);
  return vectors.object;
}

// The weights of each layer: one request for all of them, or a list of one a layer, None for a layer without.
class LayerWeights {
 public:
  LayerWeights(const Encoder& encoder, nb::handle asked) : layers_(static_cast<size_t>(encoder.extents.layers)) {
    if (asked.is_none() || (is_flag(asked) && !flag(asked, {kName, "return_weights"}))) return;
    const bool list = PyList_Check(asked.ptr());
    if (list && static_cast<size_t>(PyList_Size(asked.ptr())) != layers_)
      raise(PyExc_ValueError, {kName, "return_weights"},
            "has " + std::to_string(PyList_Size(asked.ptr())) + " requests, the encoder " + std::to_string(layers_) +
                " layers; they must be equal in number");
    weights_ = std::make_unique<Weights[]>(layers_);
    for (size_t i = 0; i < layers_; ++i) weights_[i].read(list ? nb::object(asked[i]) : nb::borrow(asked), kName);
  }

  void make(Kind kind, const Weights::Extents& extents) {
    if (!weights_) return;
    for (size_t i = 0; i < layers_; ++i) {
      weights_[i].make(kind, MH_FLOAT32, extents);
      requests_.push_back(weights_[i].get());
    }
  }

  void write_to(mh_encoder_call& call) const {
    call.weights = requests_.empty() ? nullptr : requests_.data();
    call.weights_count = requests_.size();
  }

  bool wanted() const { return weights_ != nullptr; }
  nb::object result() const {
    nb::list arrays;
    for (size_t i = 0; i < layers_; ++i) arrays.append(weights_[i].wanted() ? weights_[i].result() : nb::none());
    return nb::tuple(arrays);
  }

 private:
  size_t layers_;
  std::unique_ptr<Weights[]> weights_;
  std::vector<const mh_weights_request*> requests_;
};

// call: (cu_seqlens, token_types, return_hidden_states, return_weights, threads, target).
nb::object forward(const Encoder& encoder, nb::handle ids_given, const nb::tuple& call) {
  Integers ids, cu_seqlens, token_types;
  ids.read_if(ids_given, {kName, "ids"});
  cu_seqlens.read_if(call[0], {kName, "cu_seqlens"});
  token_types.read_if(call[1], {kName, "token_types"});
  const bool with_states = flag(call[2], {kName, "return_hidden_states"});
  LayerWeights weights(encoder, call[3]);
  RunOptions run(kName);
  run.read_threads(call[4]);
  run.read_target(call[5]);
  const Kind kind = is_torch(ids_given) ? Kind::torch : Kind::numpy;
  const int64_t count = ids.size();
  const int64_t shape[] = {encoder.extents.layers + 1, count, encoder.extents.model_dim};
  Result output, states;
  output.make({kName, "ids"}, kind, MH_FLOAT32, 2, shape + 1);
  if (with_states) states.make({kName, "hidden_states"}, kind, MH_FLOAT32, 3, shape);
  weights.make(kind, {1, encoder.extents.heads, count, count, true});
  mh_encoder_call with;
  mh_encoder_call_init(&with, sizeof with);
  with.ids = ids.get();
  with.cu_seqlens = cu_seqlens.get();
  with.token_types = token_types.get();
  with.hidden_states = states.array.get();
  weights.write_to(with);
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_encoder_forward(encoder.handle.get(), &with, output.array.get(), run.get());
  }
  check(status);
  if (with_states && weights.wanted()) return nb::make_tuple(output.object, states.object, weights.result());
  if (with_states) return nb::make_tuple(output.object, states.object);
  if (weights.wanted()) return nb::make_tuple(output.object, weights.result());
  return output.object;
}

}  // namespace

void add_encoder(nb::module_& module) {
  nb::class_<Encoder>(module, "Encoder")
      .def_static("open", &open)
      .def("tokens", &tokens, nb::arg().none())
      .def("encode", &encode, nb::arg(), nb::arg().none(), nb::arg().none())
      .def("forward", &forward, nb::arg().none(), nb::arg())
      .def_prop_ro("extents", &extents_of);
}

}  // namespace face
