// SPDX-License-Identifier: Apache-2.0
// mh_layer: what it is made of and what it holds.
#include "layer.hpp"

#include <memory>
#include <string_view>
#include <vector>

#include "multihead/layouts.hpp"
#include "options.hpp"

namespace multihead::c {

template <>
struct StructOf<mh_layer_spec> : Described<mh_layer_spec> {
  static constexpr const char* kName = "mh_layer_spec";
  static void set(mh_layer_spec& made) {
    made.q_norm_eps = made.k_norm_eps = HeadNorm{}.eps;
    const RotaryOptions rotary;
    made.rotary_theta = rotary.theta;
    made.rotary_factor = rotary.scaling.factor;
    made.rotary_low_freq_factor = rotary.scaling.low_freq_factor;
    made.rotary_high_freq_factor = rotary.scaling.high_freq_factor;
    made.rotary_original_max_position_embeddings = rotary.scaling.original_max_position_embeddings;
    made.max_positions = MultiHeadSpec{}.max_positions;
  }
};

namespace {

constexpr const char* kCreate = "MultiHeadAttention";
constexpr const char* kLoad = "load_layer";
constexpr const char* kExtents = "mh_layer_get_extents";

std::optional<std::int64_t> unless_zero(std::int64_t value) {
  return value == 0 ? std::nullopt : std::optional<std::int64_t>(value);
}

HeadNorm norm_of(const char* function, const char* name, mh_head_norm kind, double eps) {
  check_enumerated(function, name, kind, MH_NORM_NONE, MH_NORM_LAYER);
  using Kind = HeadNorm::Kind;
  constexpr Kind kKinds[] = {Kind::none, Kind::rms, Kind::rms_plus_1, Kind::layer};
  return {kKinds[kind], eps};
}

// Without rotary nothing of it is read, and of its scaling no more than the kind takes.
void check_rotary(const char* function, const mh_layer_spec& read) {
  const auto unset = defaults<mh_layer_spec>();
  const Field factor{"rotary_factor", read.rotary_factor, unset.rotary_factor};
  const Field low{"rotary_low_freq_factor", read.rotary_low_freq_factor, unset.rotary_low_freq_factor};
  const Field high{"rotary_high_freq_factor", read.rotary_high_freq_factor, unset.rotary_high_freq_factor};
  const Field original{"rotary_original_max_position_embeddings", read.rotary_original_max_position_embeddings,
                       unset.rotary_original_max_position_embeddings};
  const std::string_view scaling = read.rotary_scaling ? read.rotary_scaling : "default";
  if (read.rotary == MH_ROTARY_NONE)
    check_unread(function, "without rotary",
                 {{"rotary_dim", read.rotary_dim, unset.rotary_dim},
                  {"rotary_theta", read.rotary_theta, unset.rotary_theta},
                  {"rotary_scaling", read.rotary_scaling != nullptr},
                  factor,
                  low,
                  high,
                  original,
                  {"max_positions", read.max_positions, unset.max_positions}});
  else if (scaling == "default")
    check_unread(function, "without rotary_scaling", {factor, low, high, original});
  else if (scaling == "linear")
    check_unread(function, "with rotary_scaling \"linear\"", {low, high, original});
}

// What a layer that is made of weights with names of their own would not read of its spec.
void check_spec(const mh_layer_spec& read, const mh_layer_weights& weights) {
  const auto unset = defaults<mh_layer_spec>();
  if (!is_given(weights.qkv))
    check_unread(kCreate, "without qkv", {{"fused_order", read.fused_order, unset.fused_order}});
  if (read.q_norm == MH_NORM_NONE)
    check_unread(kCreate, "without a kind of norm", {{"q_norm_eps", read.q_norm_eps, unset.q_norm_eps}});
  if (read.k_norm == MH_NORM_NONE)
    check_unread(kCreate, "without a kind of norm", {{"k_norm_eps", read.k_norm_eps, unset.k_norm_eps}});
}

std::optional<RotaryOptions> rotary_of(const char* function, const mh_layer_spec& read) {
  check_enumerated(function, "rotary", read.rotary, MH_ROTARY_NONE, MH_ROTARY_INTERLEAVED);
  check_rotary(function, read);
  if (read.rotary == MH_ROTARY_NONE) return {};
  RotaryOptions rotary;
  rotary.pairing = read.rotary == MH_ROTARY_HALF_SPLIT ? RotaryPairing::half_split : RotaryPairing::interleaved;
  rotary.rotary_dim = unless_zero(read.rotary_dim);
  rotary.theta = read.rotary_theta;
  if (read.rotary_scaling) rotary.scaling.type = read.rotary_scaling;
  rotary.scaling.factor = read.rotary_factor;
  rotary.scaling.low_freq_factor = read.rotary_low_freq_factor;
  rotary.scaling.high_freq_factor = read.rotary_high_freq_factor;
  rotary.scaling.original_max_position_embeddings = read.rotary_original_max_position_embeddings;
  return rotary;
}

MultiHeadSpec spec_of(const char* function, const mh_layer_spec& read) {
  check_reserved(function, "mh_layer_spec.reserved", read.reserved);
  check_enumerated(function, "order", read.order, MH_ORDER_UNNAMED, MH_ORDER_OUT_IN);
  check_enumerated(function, "fused_order", read.fused_order, MH_FUSED_BLOCKS, MH_FUSED_GROUPS);
  check_flag(function, "add_zero_attn", read.add_zero_attn);
  MultiHeadSpec spec;
  spec.heads = read.heads;
  spec.kv_heads = unless_zero(read.kv_heads);
  spec.value_dim = unless_zero(read.value_dim);
  if (read.order != MH_ORDER_UNNAMED)
    spec.order = read.order == MH_ORDER_IN_OUT ? WeightOrder::in_out : WeightOrder::out_in;
  spec.fused_order = read.fused_order == MH_FUSED_BLOCKS ? FusedOrder::blocks : FusedOrder::groups;
  spec.scale = scale_of(function, read.has_scale, read.scale);
  spec.q_norm = norm_of(function, "q_norm", read.q_norm, read.q_norm_eps);
  spec.k_norm = norm_of(function, "k_norm", read.k_norm, read.k_norm_eps);
  spec.rotary = rotary_of(function, read);
  spec.max_positions = read.max_positions;
  spec.add_zero_attn = read.add_zero_attn == 1;
  return spec;
}

template <class T>
MultiHeadWeights<T> weights_of(const mh_layer_weights& read) {
  const auto matrix = [](const char* name, const mh_tensor* tensor) {
    return optional_view<const T, 2>({kCreate, name}, tensor);
  };
  const auto vector = [](const char* name, const mh_tensor* tensor) { return filled_list<T>({kCreate, name}, tensor); };
  MultiHeadWeights<T> weights;
  weights.q = matrix("q", read.q);
  weights.k = matrix("k", read.k);
  weights.v = matrix("v", read.v);
  weights.qkv = matrix("qkv", read.qkv);
  weights.out = matrix("out", read.out);
  weights.q_bias = vector("q_bias", read.q_bias);
  weights.k_bias = vector("k_bias", read.k_bias);
  weights.v_bias = vector("v_bias", read.v_bias);
  weights.qkv_bias = vector("qkv_bias", read.qkv_bias);
  weights.out_bias = vector("out_bias", read.out_bias);
  weights.bias_k = vector("bias_k", read.bias_k);
  weights.bias_v = vector("bias_v", read.bias_v);
  weights.q_norm = vector("q_norm", read.q_norm);
  weights.k_norm = vector("k_norm", read.k_norm);
  weights.q_norm_bias = vector("q_norm_bias", read.q_norm_bias);
  weights.k_norm_bias = vector("k_norm_bias", read.k_norm_bias);
  return weights;
}

template <class T>
NamedTensor<T> named_tensor(const mh_named_tensor& given) {
  const Role role{kLoad, given.name};
  const mh_tensor& tensor = given.tensor;
  if (!is_given(&tensor)) missing(role);
  check_contiguous(role, tensor, kCType<T>);
  return {given.name, static_cast<const T*>(tensor.data),
          std::vector<std::int64_t>(tensor.shape, tensor.shape + tensor.rank)};
}

// Those whose names begin with the prefix.
template <class T>
std::vector<NamedTensor<T>> named_tensors(const mh_named_tensor* tensors, std::size_t count, std::string_view prefix) {
  std::vector<NamedTensor<T>> found;
  for (std::size_t i = 0; i < count; ++i) {
    if (!tensors[i].name) bad_argument(kLoad, "the name of tensor " + std::to_string(i) + " is NULL; it must be given");
    if (std::string_view(tensors[i].name).substr(0, prefix.size()) == prefix)
      found.push_back(named_tensor<T>(tensors[i]));
  }
  return found;
}

}  // namespace

template <>
struct StructOf<mh_layer_weights> : Described<mh_layer_weights> {
  static constexpr const char* kName = "mh_layer_weights";
};

template <>
struct StructOf<mh_layer_extents> : Described<mh_layer_extents> {
  static constexpr const char* kName = "mh_layer_extents";
};

}  // namespace multihead::c

using namespace multihead::c;

void mh_layer_spec_init(mh_layer_spec* spec, size_t size) { init_struct(spec, size); }
void mh_layer_weights_init(mh_layer_weights* weights, size_t size) { init_struct(weights, size); }
void mh_layer_extents_init(mh_layer_extents* extents, size_t size) { init_struct(extents, size); }

mh_status mh_layer_create(const mh_layer_spec* spec, const mh_layer_weights* weights, mh_layer** layer) {
  return guarded([&] {
    wanted(kCreate, "spec", spec);
    wanted(kCreate, "weights", weights);
    wanted(kCreate, "layer", layer);
    const mh_layer_spec read = read_struct(kCreate, spec);
    const mh_layer_weights given = read_struct(kCreate, weights);
    check_reserved(kCreate, "mh_layer_weights.reserved", given.reserved);
    check_spec(read, given);
    *layer = with_type({kCreate, "the layer"}, read.type, [&]<class T>() {
      return new mh_layer{multihead::MultiHeadAttention<T>(spec_of(kCreate, read), weights_of<T>(given))};
    });
  });
}

mh_status mh_layer_load(const char* layout, const mh_named_tensor* tensors, size_t count, const char* prefix,
                        const mh_layer_spec* spec, mh_layer** layer) {
  return guarded([&] {
    wanted(kLoad, "layout", layout);
    if (count > 0) wanted(kLoad, "tensors", tensors);
    wanted(kLoad, "spec", spec);
    wanted(kLoad, "layer", layer);
    const mh_layer_spec read = read_struct(kLoad, spec);
    const multihead::LayoutOptions options{.prefix = prefix ? prefix : ""};
    *layer = with_type({kLoad, "the layer"}, read.type, [&]<class T>() {
      const auto named = named_tensors<T>(tensors, count, options.prefix);
      return new mh_layer{multihead::load_layer(layout, named, spec_of(kLoad, read), options)};
    });
  });
}

void mh_layer_destroy(mh_layer* layer) { delete layer; }

mh_status mh_layer_get_extents(const mh_layer* layer, mh_layer_extents* extents) {
  return guarded([&] {
    wanted(kExtents, "layer", layer);
    wanted(kExtents, "extents", extents);
    mh_layer_extents answer = defaults<mh_layer_extents>();
    std::visit(
        [&]<class T>(const multihead::MultiHeadAttention<T>& of_type) {
          const multihead::MultiHeadExtents& e = of_type.extents();
          answer.type = kCType<T>;
          answer.model_dim = e.model_dim, answer.kdim = e.kdim, answer.vdim = e.vdim;
          answer.heads = e.heads, answer.kv_heads = e.kv_heads;
          answer.head_dim = e.head_dim, answer.value_dim = e.value_dim;
          answer.out_dim = e.out_dim, answer.extra_keys = e.extra_keys;
        },
        layer->of_type);
    write_struct(kExtents, answer, extents);
  });
}
