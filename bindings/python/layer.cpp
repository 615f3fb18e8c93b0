// SPDX-License-Identifier: Apache-2.0
// The layer of the module: weights packed once, called any number of times.
#include <nanobind/stl/unique_ptr.h>

#include <cstring>
#include <iterator>
#include <memory>
#include <vector>

#include "faces.hpp"
#include "options.hpp"
#include "statistics.hpp"

namespace face {
namespace {

constexpr char kName[] = "MultiHeadAttention";

struct Destroy {
  void operator()(mh_layer* layer) const { mh_layer_destroy(layer); }
};

struct Layer {
  std::unique_ptr<mh_layer, Destroy> handle;
  mh_layer_extents extents;

  explicit Layer(mh_layer* made) : handle(made) {
    mh_layer_extents_init(&extents, sizeof extents);
    check(mh_layer_get_extents(made, &extents));
  }
};

template <class Choice>
struct Named {
  const char* name;
  Choice choice;
};

template <size_t Count>
int32_t choice(nb::handle value, Place place, const Named<int32_t> (&choices)[Count]) {
  std::string wanted;
  for (const auto& [name, chosen] : choices) {
    if (is_text(value, name)) return chosen;
    wanted += std::string(wanted.empty() ? "\"" : ", \"") + name + "\"";
  }
  raise(PyExc_ValueError, place, "is " + shown(value) + "; one of " + wanted + " is wanted");
}

constexpr Named<int32_t> kOrders[] = {{"in_out", MH_ORDER_IN_OUT}, {"out_in", MH_ORDER_OUT_IN}};
constexpr Named<int32_t> kFusedOrders[] = {{"blocks", MH_FUSED_BLOCKS}, {"groups", MH_FUSED_GROUPS}};
constexpr Named<int32_t> kNorms[] = {
    {"none", MH_NORM_NONE}, {"rms", MH_NORM_RMS}, {"rms_plus_1", MH_NORM_RMS_PLUS_1}, {"layer", MH_NORM_LAYER}};
constexpr Named<int32_t> kPairings[] = {{"half_split", MH_ROTARY_HALF_SPLIT}, {"interleaved", MH_ROTARY_INTERLEAVED}};

// A spec from a dict of what was given; the texts it points to live in the dict.
class Spec {
 public:
  explicit Spec(const nb::dict& given) {
    mh_layer_spec_init(&spec_, sizeof spec_);
    Py_ssize_t at = 0;
    PyObject *key, *value;
    while (PyDict_Next(given.ptr(), &at, &key, &value))
      if (value != Py_None) read(text(key, {kName, "a keyword"}), value);
  }

  mh_layer_spec* get() { return &spec_; }

 private:
  void read(const char* name, nb::handle value) {
    const Place place{kName, name};
    for (const auto& [known, field] : integers())
      if (std::strcmp(known, name) == 0) {
        *field = integer(value, place);
        return;
      }
    for (const auto& [known, field] : numbers())
      if (std::strcmp(known, name) == 0) {
        *field = number(value, place);
        spec_.has_scale |= field == &spec_.scale;
        return;
      }
    for (const auto& [known, field] : choices())
      if (std::strcmp(known, name) == 0) {
        *field = choice_of(name, value, place);
        return;
      }
    if (std::strcmp(name, "rotary_scaling") == 0) {
      spec_.rotary_scaling = text(value, place);
    } else if (std::strcmp(name, "add_zero_attn") == 0) {
      spec_.add_zero_attn = flag(value, place);
    } else {
      raise(PyExc_TypeError, std::string(kName) + "() got an unexpected keyword argument '" + name + "'");
    }
  }

  static int32_t choice_of(const char* name, nb::handle value, Place place) {
    if (std::strcmp(name, "order") == 0) return choice(value, place, kOrders);
    if (std::strcmp(name, "fused_order") == 0) return choice(value, place, kFusedOrders);
    if (std::strcmp(name, "rotary") == 0) return choice(value, place, kPairings);
    return choice(value, place, kNorms);
  }

  std::vector<Named<int64_t*>> integers() {
    return {{"heads", &spec_.heads},
            {"kv_heads", &spec_.kv_heads},
            {"value_dim", &spec_.value_dim},
            {"rotary_dim", &spec_.rotary_dim},
            {"rotary_original_max_position_embeddings", &spec_.rotary_original_max_position_embeddings},
            {"max_positions", &spec_.max_positions}};
  }
  std::vector<Named<double*>> numbers() {
    return {{"scale", &spec_.scale},
            {"q_norm_eps", &spec_.q_norm_eps},
            {"k_norm_eps", &spec_.k_norm_eps},
            {"rotary_theta", &spec_.rotary_theta},
            {"rotary_factor", &spec_.rotary_factor},
            {"rotary_low_freq_factor", &spec_.rotary_low_freq_factor},
            {"rotary_high_freq_factor", &spec_.rotary_high_freq_factor}};
  }
  std::vector<Named<int32_t*>> choices() {
    return {{"order", &spec_.order},
            {"fused_order", &spec_.fused_order},
            {"q_norm_kind", &spec_.q_norm},
            {"k_norm_kind", &spec_.k_norm},
            {"rotary", &spec_.rotary}};
  }

  mh_layer_spec spec_;
};

std::unique_ptr<Layer> create(const nb::dict& spec_given, const nb::dict& weights_given) {
  static constexpr Named<const mh_tensor * mh_layer_weights::*> kWeights[] = {
      {"q", &mh_layer_weights::q},
      {"k", &mh_layer_weights::k},
      {"v", &mh_layer_weights::v},
      {"qkv", &mh_layer_weights::qkv},
      {"out", &mh_layer_weights::out},
      {"q_bias", &mh_layer_weights::q_bias},
      {"k_bias", &mh_layer_weights::k_bias},
      {"v_bias", &mh_layer_weights::v_bias},
      {"qkv_bias", &mh_layer_weights::qkv_bias},
      {"out_bias", &mh_layer_weights::out_bias},
      {"bias_k", &mh_layer_weights::bias_k},
      {"bias_v", &mh_layer_weights::bias_v},
      {"q_norm", &mh_layer_weights::q_norm},
      {"k_norm", &mh_layer_weights::k_norm},
      {"q_norm_bias", &mh_layer_weights::q_norm_bias},
      {"k_norm_bias", &mh_layer_weights::k_norm_bias}};
  Spec spec(spec_given);
  Array arrays[std::size(kWeights)];
  mh_layer_weights weights;
  mh_layer_weights_init(&weights, sizeof weights);
  for (size_t i = 0; i < std::size(kWeights); ++i) {
    const char* const name = kWeights[i].name;
    if (!weights_given.contains(name)) continue;
    arrays[i].read_if(weights_given[name], {kName, name});
    weights.*kWeights[i].choice = arrays[i].get();
    if (arrays[i].given() && spec.get()->type == 0) spec.get()->type = arrays[i].tensor().type;
  }
  if (spec.get()->type == 0) raise(PyExc_TypeError, std::string(kName) + ": no weights are given");
  mh_layer* made = nullptr;
  check(mh_layer_create(spec.get(), &weights, &made));
  return std::make_unique<Layer>(made);
}

// Tensors whose names do not begin with prefix are not read at all.
std::unique_ptr<Layer> load(nb::handle layout_given, const nb::dict& tensors, nb::handle prefix_given,
                            const nb::dict& spec_given) {
  const char* const function = "MultiHeadAttention.from_tensors";
  const char* const layout = text(layout_given, {function, "layout"});
  const char* const prefix = text(prefix_given, {function, "prefix"});
  Spec spec(spec_given);
  const auto count = static_cast<size_t>(PyDict_Size(tensors.ptr()));
  std::vector<Array> arrays(count);
  std::vector<std::string> places(count);
  std::vector<mh_named_tensor> named(count);
  size_t used = 0;
  Py_ssize_t at = 0;
  PyObject *key, *value;
  while (PyDict_Next(tensors.ptr(), &at, &key, &value)) {
    const char* const name = text(key, {function, "a name in tensors"});
    if (std::strncmp(name, prefix, std::strlen(prefix)) != 0) continue;
    places[used] = std::string("tensor \"") + name + "\"";
    arrays[used].read(value, {function, places[used].c_str()});
    named[used] = {name, arrays[used].tensor()};
    if (spec.get()->type == 0) spec.get()->type = arrays[used].tensor().type;
    ++used;
  }
  if (spec.get()->type == 0) spec.get()->type = MH_FLOAT32;
  mh_layer* made = nullptr;
  check(mh_layer_load(layout, named.data(), used, prefix, spec.get(), &made));
  return std::make_unique<Layer>(made);
}

nb::dict extents_of(const Layer& layer) {
  const mh_layer_extents& extents = layer.extents;
  const char* const types[] = {"", "float32", "float64", "bfloat16", "float16"};
  nb::dict result;
  result["dtype"] = types[extents.type];
  result["model_dim"] = extents.model_dim;
  result["kdim"] = extents.kdim;
  result["vdim"] = extents.vdim;
  result["heads"] = extents.heads;
  result["kv_heads"] = extents.kv_heads;
  result["head_dim"] = extents.head_dim;
  result["value_dim"] = extents.value_dim;
  result["out_dim"] = extents.out_dim;
  result["extra_keys"] = extents.extra_keys;
  return result;
}

// What a call of the layer gives beside the options of attention(), and where its results go.
class LayerCall {
 public:
  LayerCall(const Layer& layer, const nb::tuple& inputs) : layer_(layer) {
    read(inputs[0], query_, {kName, "query"});
    batchless_ = query_.rank() == 2;
    if (batchless_) query_.add_axis();
    // The very same object three times is self-attention.
    const bool same = nb::handle(inputs[1]).is(inputs[0]) && nb::handle(inputs[2]).is(inputs[0]);
    const bool none = nb::handle(inputs[1]).is_none() && nb::handle(inputs[2]).is_none();
    if (same || none) return;
    if (nb::handle(inputs[1]).is_none())
      raise(PyExc_ValueError, std::string(kName) + ": value is given without key; both or neither is wanted");
    read(inputs[1], key_, {kName, "key"});
    if (batchless_) key_.add_axis();
    const bool no_value = nb::handle(inputs[2]).is_none();
    read(inputs[no_value ? 1 : 2], value_, {kName, "value"});
    if (batchless_) value_.add_axis();
  }

  int64_t batch() const { return query_.extent(0); }
  int64_t q_len() const { return query_.extent(1); }
  int64_t kv_len() const { return key_.given() ? key_.extent(1) : q_len(); }
  double work() const {
    const mh_layer_extents& extents = layer_.extents;
    const auto rows = static_cast<double>(batch()) * (static_cast<double>(q_len()) + static_cast<double>(kv_len()));
    const auto width = static_cast<double>(extents.heads * extents.head_dim);
    return rows * width * (static_cast<double>(extents.model_dim) + static_cast<double>(kv_len()));
  }

  // wants: (out, return_lse, return_weights, return_heads, q_positions, k_positions, gates, return_statistics,
  // return_norms).
  void read_wants(const nb::tuple& wants) {
    const bool with_lse = flag(wants[1], {kName, "return_lse"});
    weights_.read(wants[2], kName);
    const bool with_heads = flag(wants[3], {kName, "return_heads"});
    q_positions_.read_if(wants[4], {kName, "q_positions"}, true);
    k_positions_.read_if(wants[5], {kName, "k_positions"}, true);
    gates_.read_if(wants[6], {kName, "gates"});
    statistics_.read(wants[7], kName);
    const bool with_norms = flag(wants[8], {kName, "return_norms"});
    make(output_, "output", query_.tensor().type, {batch(), q_len(), layer_.extents.out_dim}, wants[0]);
    const mh_type sum = sum_of(layer_.extents.type);
    if (with_lse) make(lse_, "lse", sum, {batch(), layer_.extents.heads, q_len()}, nb::none());
    if (with_heads)
      make(heads_, "heads", sum, {batch(), layer_.extents.heads, q_len(), layer_.extents.value_dim}, nb::none());
    const int64_t keys = kv_len() + layer_.extents.extra_keys;
    if (with_norms) make(norms_, "norms", sum, {batch(), layer_.extents.heads, keys}, nb::none());
    weights_.make(query_.kind(), sum, {batch(), layer_.extents.heads, q_len(), keys, batchless_});
    statistics_.make(query_.kind(), sum, {batch(), layer_.extents.heads, q_len(), kv_len(), batchless_});
  }

  nb::object run(Options& options) {
    options.run().set_work(work());
    mh_layer_options with;
    mh_layer_options_init(&with, sizeof with);
    with.attention = options.get();
    with.q_positions = q_positions_.get();
    with.k_positions = k_positions_.get();
    with.gates = gates_.get();
    mh_layer_requests requests;
    mh_layer_requests_init(&requests, sizeof requests);
    requests.lse = lse_.array.get();
    requests.heads = heads_.array.get();
    requests.weights = weights_.get();
    requests.statistics = statistics_.get();
    requests.norms = norms_.array.get();
    mh_status status;
    {
      nb::gil_scoped_release released;
      status = mh_layer_forward(layer_.handle.get(), query_.get(), key_.get(), value_.get(), output_.array.get(), &with,
                                &requests);
    }
    check(status);
    return answer();
  }

 private:
  void read(nb::handle object, Array& array, Place place) {
    array.read(object, place);
    const int wanted = &array == &query_ ? (array.rank() == 2 ? 2 : 3) : (batchless_ ? 2 : 3);
    if (array.rank() != wanted)
      raise(PyExc_ValueError, place,
            "has rank " + std::to_string(array.rank()) + "; " + std::to_string(wanted) + " is wanted");
  }

  void make(Result& result, const char* name, mh_type type, std::initializer_list<int64_t> shape, nb::handle given) {
    const int rank = static_cast<int>(shape.size()) - batchless_;
    if (given.is_none()) {
      result.make({kName, name}, query_.kind(), type, rank, shape.begin() + batchless_);
    } else {
      result.take(given, {kName, "out"});
      if (result.array.rank() != rank)
        raise(PyExc_ValueError, {kName, "out"},
              "has rank " + std::to_string(result.array.rank()) + "; " + std::to_string(rank) + " is wanted");
    }
    if (batchless_) result.array.add_axis();
  }

  nb::object answer() const {
    nb::list results;
    results.append(output_.object);
    if (lse_.object.is_valid()) results.append(lse_.object);
    if (weights_.wanted()) results.append(weights_.result());
    if (heads_.object.is_valid()) results.append(heads_.object);
    if (norms_.object.is_valid()) results.append(norms_.object);
    if (statistics_.wanted()) results.append(statistics_.result());
    if (nb::len(results) == 1) return output_.object;
    return nb::tuple(results);
  }

  const Layer& layer_;
  bool batchless_ = false;
  Array query_, key_, value_;
  Integers q_positions_, k_positions_;
  Numbers gates_;
  Result output_, lse_, heads_, norms_;
  Weights weights_;
  Statistics statistics_;
};

nb::object forward(const Layer& layer, const nb::tuple& inputs, const nb::tuple& wants, const nb::dict& given) {
  LayerCall call(layer, inputs);
  Options options(kName, given);
  call.read_wants(wants);
  return call.run(options);
}

}  // namespace

void add_layer(nb::module_& module) {
  nb::class_<Layer>(module, "Layer")
      .def_static("create", &create)
      .def_static("load", &load, nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg())
      .def("forward", &forward)
      .def_prop_ro("extents", &extents_of);
}

}  // namespace face
