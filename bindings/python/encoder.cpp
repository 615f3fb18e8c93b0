// SPDX-License-Identifier: Apache-2.0
// The encoder of the module: ids to states, texts to tokens and vectors.
#include <nanobind/stl/unique_ptr.h>

#include <cstring>
#include <memory>
#include <vector>

#include "faces.hpp"
#include "options.hpp"
#include "statistics.hpp"

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
std::unique_ptr<Encoder> open(const nb::bytes& name, nb::handle precision, nb::handle products) {
  const char* const folder = name.c_str();
  if (std::strlen(folder) != name.size()) raise(PyExc_ValueError, {kName, "folder"}, "has the character 0");
  constexpr mh_type kTypes[] = {MH_FLOAT32, MH_BFLOAT16, MH_FLOAT16};
  mh_encoder_options options;
  mh_encoder_options_init(&options, sizeof options);
  options.precision = kTypes[choice(precision, {kName, "precision"}, {"float32", "bfloat16", "float16"})];
  options.products = kTypes[choice(products, {kName, "products"}, {"float32", "bfloat16"})];
  mh_encoder* opened = nullptr;
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_encoder_open_with(folder, &options, &opened);
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

// What is asked of each layer: one request for all of them, or a list of one a layer, None for a layer without.
// Request: Weights or Statistics; Struct: what the C face takes of it.
template <class Request, class Struct>
class LayerRequests {
 public:
  // read(request, asked) makes one of what is asked.
  template <class Read>
  LayerRequests(const Encoder& encoder, nb::handle asked, const char* argument, const Read& read)
      : layers_(static_cast<size_t>(encoder.extents.layers)) {
    if (asked.is_none() || (is_flag(asked) && !flag(asked, {kName, argument}))) return;
    const bool list = PyList_Check(asked.ptr());
    if (list && static_cast<size_t>(PyList_Size(asked.ptr())) != layers_)
      raise(PyExc_ValueError, {kName, argument},
            "has " + std::to_string(PyList_Size(asked.ptr())) + " requests, the encoder " + std::to_string(layers_) +
                " layers; they must be equal in number");
    requests_ = std::make_unique<Request[]>(layers_);
    for (size_t i = 0; i < layers_; ++i) read(requests_[i], list ? nb::object(asked[i]) : nb::borrow(asked));
  }

  void make(Kind kind, const Weights::Extents& extents) {
    if (!requests_) return;
    for (size_t i = 0; i < layers_; ++i) {
      requests_[i].make(kind, MH_FLOAT32, extents);
      structs_.push_back(requests_[i].get());
    }
  }

  const Struct* const* data() const { return structs_.empty() ? nullptr : structs_.data(); }
  size_t size() const { return structs_.size(); }
  bool wanted() const { return requests_ != nullptr; }
  nb::object result() const {
    nb::list results;
    for (size_t i = 0; i < layers_; ++i) results.append(requests_[i].wanted() ? requests_[i].result() : nb::none());
    return nb::tuple(results);
  }

 private:
  size_t layers_;
  std::unique_ptr<Request[]> requests_;
  std::vector<const Struct*> structs_;
};

// call: (cu_seqlens, token_types, return_hidden_states, return_weights, threads, target, gates, return_statistics,
// return_norms).
nb::object forward(const Encoder& encoder, nb::handle ids_given, const nb::tuple& call) {
  Integers ids, cu_seqlens, token_types;
  ids.read_if(ids_given, {kName, "ids"});
  cu_seqlens.read_if(call[0], {kName, "cu_seqlens"});
  token_types.read_if(call[1], {kName, "token_types"});
  Numbers gates;
  gates.read_if(call[6], {kName, "gates"});
  const bool with_states = flag(call[2], {kName, "return_hidden_states"});
  const bool with_norms = flag(call[8], {kName, "return_norms"});
  LayerRequests<Weights, mh_weights_request> weights(
      encoder, call[3], "return_weights",
      [](Weights& request, const nb::object& asked) { request.read(asked, kName); });
  LayerRequests<Statistics, mh_statistics_request> statistics(
      encoder, call[7], "return_statistics",
      [ids_given](Statistics& request, const nb::object& asked) { request.read(asked, kName, ids_given); });
  RunOptions run(kName);
  run.read_threads(call[4]);
  run.read_target(call[5]);
  const Kind kind = is_torch(ids_given) ? Kind::torch : Kind::numpy;
  const int64_t count = ids.size();
  const int64_t shape[] = {encoder.extents.layers + 1, count, encoder.extents.model_dim};
  const int64_t norms_shape[] = {encoder.extents.layers, encoder.extents.heads, count};
  Result output, states, norms;
  output.make({kName, "ids"}, kind, MH_FLOAT32, 2, shape + 1);
  if (with_states) states.make({kName, "hidden_states"}, kind, MH_FLOAT32, 3, shape);
  if (with_norms) norms.make({kName, "norms"}, kind, MH_FLOAT32, 3, norms_shape);
  weights.make(kind, {1, encoder.extents.heads, count, count, true});
  statistics.make(kind, {1, encoder.extents.heads, count, count, true});
  mh_encoder_call with;
  mh_encoder_call_init(&with, sizeof with);
  with.ids = ids.get();
  with.cu_seqlens = cu_seqlens.get();
  with.token_types = token_types.get();
  with.hidden_states = states.array.get();
  with.weights = weights.data();
  with.weights_count = weights.size();
  with.gates = gates.get();
  with.statistics = statistics.data();
  with.statistics_count = statistics.size();
  with.norms = norms.array.get();
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_encoder_forward(encoder.handle.get(), &with, output.array.get(), run.get());
  }
  check(status);
  nb::list results;
  results.append(output.object);
  if (with_states) results.append(states.object);
  if (weights.wanted()) results.append(weights.result());
  if (with_norms) results.append(norms.object);
  if (statistics.wanted()) results.append(statistics.result());
  return nb::len(results) == 1 ? output.object : nb::object(nb::tuple(results));
}

}  // namespace

void add_encoder(nb::module_& module) {
  nb::class_<Encoder>(module, "Encoder")
      .def_static("open", &open, nb::arg(), nb::arg().none(), nb::arg().none())
      .def("tokens", &tokens, nb::arg().none())
      .def("encode", &encode, nb::arg(), nb::arg().none(), nb::arg().none())
      .def("forward", &forward, nb::arg().none(), nb::arg())
      .def_prop_ro("extents", &extents_of);
}

}  // namespace face
