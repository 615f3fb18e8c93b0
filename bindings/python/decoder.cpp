// SPDX-License-Identifier: Apache-2.0
// The decoder of the module: ids and a cache to logits.
#include "multihead/decoder.hpp"

#include <nanobind/stl/unique_ptr.h>

#include <memory>
#include <vector>

#include "c/kv_cache.hpp"
#include "c/options.hpp"
#include "faces.hpp"
#include "kv_cache.hpp"
#include "options.hpp"
#include "speaking.hpp"

namespace face {
namespace {

constexpr char kName[] = "Decoder";

std::unique_ptr<OpenDecoder> open(const nb::bytes& name, nb::handle precision, nb::handle products) {
  const std::filesystem::path folder = path_of(name, {kName, "folder"});
  constexpr multihead::Type kTypes[] = {multihead::Type::float32, multihead::Type::bfloat16, multihead::Type::float16};
  const multihead::DecoderOptions options{
      .precision = kTypes[choice(precision, {kName, "precision"}, {"float32", "bfloat16", "float16"})],
      .products = kTypes[choice(products, {kName, "products"}, {"float32", "bfloat16"})]};
  std::unique_ptr<OpenDecoder> made;
  run_released([&] {
    made.reset(new OpenDecoder{multihead::Decoder(folder, options), multihead::read_eos_token_ids(folder),
                               multihead::read_config(folder / "config.json").bos_token_id});
  });
  return made;
}

nb::dict extents_of(const OpenDecoder& open) {
  const multihead::DecoderExtents& extents = open.decoder.extents();
  nb::dict result;
  result["layers"] = extents.layers;
  result["heads"] = extents.heads;
  result["kv_heads"] = extents.kv_heads;
  result["head_dim"] = extents.head_dim;
  result["model_dim"] = extents.model_dim;
  result["intermediate_dim"] = extents.intermediate_dim;
  result["vocab_size"] = extents.vocab_size;
  result["max_tokens"] = extents.max_tokens;
  return result;
}

nb::list end_ids(const OpenDecoder& open) {
  nb::list result;
  for (const int64_t id : open.end_ids) result.append(id);
  return result;
}

nb::object begin_id(const OpenDecoder& open) {
  return open.begin_id ? nb::object(nb::int_(*open.begin_id)) : nb::none();
}

nb::list unused_tensors(const OpenDecoder& open) {
  nb::list result;
  for (const std::string& name : open.decoder.unused_tensors())
    result.append(nb::steal(PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), "replace")));
  return result;
}

// call: (cu_seqlens, all_tokens, return_hidden_states, threads, target).
nb::object forward(const OpenDecoder& open, nb::handle ids_given, Cache& cache, nb::handle sequences,
                   const nb::tuple& call) {
  namespace c = multihead::c;
  Integers ids, cu_seqlens;
  ids.read_if(ids_given, {kName, "ids"});
  cu_seqlens.read_if(call[0], {kName, "cu_seqlens"});
  std::vector<multihead::KvSequence> names;
  for (const mh_kv_sequence name : names_of(sequences, {kName, "sequences"}))
    names.push_back(static_cast<multihead::KvSequence>(name));
  const bool all_tokens = flag(call[1], {kName, "all_tokens"});
  const bool with_states = flag(call[2], {kName, "return_hidden_states"});
  RunOptions run(kName);
  run.read_threads(call[3]);
  run.read_target(call[4]);
  const multihead::DecoderExtents& extents = open.decoder.extents();
  const Kind kind = is_torch(ids_given) ? Kind::torch : Kind::numpy;
  const int64_t rows = all_tokens ? ids.size() : static_cast<int64_t>(names.size());
  const int64_t shape[] = {rows, extents.vocab_size};
  const int64_t states_shape[] = {extents.layers + 1, ids.size(), extents.model_dim};
  Result logits, states;
  logits.make({kName, "logits"}, kind, MH_FLOAT32, 2, shape);
  if (with_states) states.make({kName, "hidden_states"}, kind, MH_FLOAT32, 3, states_shape);
  cache.change([&](mh_kv_cache* handle) {
    return c::guarded([&] {
      if (!ids.given()) c::missing({kName, "ids"});
      const multihead::DecoderInput input{
          .ids = c::list<std::int64_t>({kName, "ids"}, ids.get()),
          .cu_seqlens = c::filled_list<std::int64_t>({kName, "cu_seqlens"}, cu_seqlens.get()),
          .sequences = names};
      const auto view = c::view<float, 2>({kName, "logits"}, logits.array.get());
      const multihead::DecoderRequests requests{
          .every_logit = all_tokens ? view : multihead::MatrixView<float>(),
          .hidden_states = c::optional_view<float, 3>({kName, "hidden_states"}, states.array.get())};
      open.decoder.forward(input, handle->cache, all_tokens ? multihead::MatrixView<float>() : view,
                           c::run_options(kName, run.get()), requests);
    });
  });
  return with_states ? nb::object(nb::make_tuple(logits.object, states.object)) : logits.object;
}

}  // namespace

void add_decoder(nb::module_& module) {
  nb::class_<OpenDecoder>(module, "Decoder")
      .def_static("open", &open, nb::arg(), nb::arg().none(), nb::arg().none())
      .def("forward", &forward, nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg())
      .def_prop_ro("extents", &extents_of)
      .def_prop_ro("end_ids", &end_ids)
      .def_prop_ro("begin_id", &begin_id)
      .def_prop_ro("unused_tensors", &unused_tensors);
}

}  // namespace face
