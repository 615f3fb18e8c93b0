// SPDX-License-Identifier: Apache-2.0
// From the options of C++ to those of C.
#include "c_face.hpp"

#include <stdexcept>

namespace multihead::testing::c_face {

void require(mh_status status) {
  if (status == MH_OK) return;
  const std::string sentence = mh_last_error_message();
  switch (status) {
    case MH_SHAPE_MISMATCH:
    case MH_BAD_ARGUMENT:
      throw Error(ErrorCode::shape_mismatch, sentence);
    case MH_BAD_OPTION:
      throw Error(ErrorCode::bad_option, sentence);
    case MH_UNSUPPORTED:
      throw Error(ErrorCode::unsupported, sentence);
    case MH_FILE_MISSING:
      throw Error(ErrorCode::file_missing, sentence);
    case MH_FILE_MALFORMED:
      throw Error(ErrorCode::file_malformed, sentence);
    case MH_NON_FINITE:
      throw Error(ErrorCode::non_finite, sentence);
    case MH_OUT_OF_MEMORY:
      throw Error(ErrorCode::out_of_memory, sentence);
    default:
      throw std::logic_error(std::string(mh_status_string(status)) + ": " + sentence);
  }
}

mh_target number_of(std::optional<Target> target) {
  if (!target) return MH_TARGET_CHOOSE;
  mh_target number = MH_TARGET_CHOOSE;
  require(mh_target_from_name(std::string(target_name(*target)).c_str(), &number));
  return number;
}

Run::Run(const LayerOptions& options) {
  mh_run_options_init(&run, sizeof run);
  run.threads = options.threads;
  run.target = number_of(options.target);
  run.parallel_for = options.parallel_for.run;
  run.parallel_context = options.parallel_for.context;
  run.scratch = options.scratch.data();
  run.scratch_bytes = options.scratch.size();
}

namespace {

mh_type type_of(Type type) {
  switch (type) {
    case Type::float64:
      return MH_FLOAT64;
    case Type::bfloat16:
      return MH_BFLOAT16;
    case Type::float16:
      return MH_FLOAT16;
    default:
      return MH_FLOAT32;
  }
}

LayerOptions run_of(const AttentionOptions& from) {
  return {.threads = from.threads, .parallel_for = from.parallel_for, .target = from.target, .scratch = from.scratch};
}

}  // namespace

const mh_tensor* Attention::keep(const mh_tensor& tensor) {
  tensors_.at(count_) = tensor;
  return &tensors_.at(count_++);
}

const mh_tensor* Attention::broadcast(const BroadcastView& view, mh_type type) {
  mh_tensor tensor{};
  tensor.data = const_cast<void*>(view.data);
  tensor.type = type;
  tensor.rank = view.rank;
  for (int axis = 0; axis < view.rank; ++axis) {
    tensor.shape[axis] = view.extents[static_cast<std::size_t>(4 - view.rank + axis)];
    tensor.strides[axis] = view.strides[static_cast<std::size_t>(4 - view.rank + axis)];
  }
  return keep(tensor);
}

Attention::Attention(const AttentionOptions& from) : run_(run_of(from)) {
  mh_attention_options_init(&options, sizeof options);
  options.causal = from.causal ? 1 : 0;
  options.alignment = static_cast<mh_alignment>(from.alignment.kind());
  options.has_scale = from.scale ? 1 : 0;
  options.scale = from.scale.value_or(0);
  options.softcap = from.softcap;
  options.query_offset = from.alignment.offset();
  options.window_left = from.window.left, options.window_right = from.window.right;
  options.window_first = from.window.first;
  mh_tensor offsets = tensor_of(from.alignment.offsets());
  if (options.alignment == MH_ALIGN_OFFSETS) offsets.rank = 1, offsets.type = MH_INT64;
  options.query_offsets = keep(offsets);
  options.prefixes = keep(tensor_of(from.prefixes));
  options.lengths = keep(tensor_of(from.lengths));
  options.cu_seqlens_q = keep(tensor_of(from.cu_seqlens_q));
  options.cu_seqlens_k = keep(tensor_of(from.cu_seqlens_k));
  options.q_segments = keep(tensor_of(from.q_segments));
  options.kv_segments = keep(tensor_of(from.kv_segments));
  options.keep_mask = broadcast(from.keep_mask.view, MH_BOOL);
  options.drop_mask = broadcast(from.drop_mask.view, MH_BOOL);
  options.bias = broadcast(from.bias.view, type_of(from.bias.type));
  options.alibi_slopes = keep(tensor_of(from.alibi_slopes));
  options.sinks = keep(tensor_of(from.sinks));
  const RelativeBias& table = from.relative_bias;
  mh_tensor relative{const_cast<void*>(table.data),
                     type_of(table.type),
                     table.given() ? 2 : 0,
                     {table.extents[0], table.extents[1]},
                     {table.strides[0], table.strides[1]}};
  options.relative_bias = keep(relative);
  options.relative_bidirectional = table.bidirectional ? 1 : 0;
  options.relative_max_distance = table.max_distance;
  options.run = &run_.run;
  options.dropout = from.dropout.probability;
  options.dropout_seed = from.dropout.seed, options.dropout_stream = from.dropout.stream;
}

mh_attention_shape shape_of(const AttentionShape& shape) {
  mh_attention_shape made;
  mh_attention_shape_init(&made, sizeof made);
  made.type = type_of(shape.type);
  made.batch = shape.batch, made.heads = shape.heads, made.kv_heads = shape.kv_heads;
  made.q_len = shape.q_len, made.kv_len = shape.kv_len;
  made.head_dim = shape.head_dim, made.value_dim = shape.value_dim;
  return made;
}

std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights) {
  const mh_attention_shape made = shape_of(shape);
  const Attention structs(options);
  std::size_t bytes = 0;
  require(mh_attention_scratch_bytes(&made, &structs.options, weights ? 1 : 0, &bytes));
  return bytes;
}

std::size_t attention_backward_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options) {
  const mh_attention_shape made = shape_of(shape);
  const Attention structs(options);
  std::size_t bytes = 0;
  require(mh_attention_backward_scratch_bytes(&made, &structs.options, &bytes));
  return bytes;
}

mh_attention_plan explain(const AttentionShape& shape, const AttentionOptions& options) {
  const mh_attention_shape made = shape_of(shape);
  const Attention structs(options);
  mh_attention_plan plan;
  mh_attention_plan_init(&plan, sizeof plan);
  require(mh_explain(&made, &structs.options, &plan));
  return plan;
}

mh_layer_spec spec_of(const MultiHeadSpec& spec, mh_type type) {
  mh_layer_spec made;
  mh_layer_spec_init(&made, sizeof made);
  made.type = type;
  made.heads = spec.heads;
  made.kv_heads = spec.kv_heads.value_or(0);
  made.value_dim = spec.value_dim.value_or(0);
  if (spec.order) made.order = *spec.order == WeightOrder::in_out ? MH_ORDER_IN_OUT : MH_ORDER_OUT_IN;
  made.fused_order = spec.fused_order == FusedOrder::blocks ? MH_FUSED_BLOCKS : MH_FUSED_GROUPS;
  made.has_scale = spec.scale ? 1 : 0;
  made.scale = spec.scale.value_or(0);
  made.add_zero_attn = spec.add_zero_attn ? 1 : 0;
  made.q_norm = static_cast<mh_head_norm>(spec.q_norm.kind), made.k_norm = static_cast<mh_head_norm>(spec.k_norm.kind);
  if (made.q_norm != MH_NORM_NONE) made.q_norm_eps = spec.q_norm.eps;
  if (made.k_norm != MH_NORM_NONE) made.k_norm_eps = spec.k_norm.eps;
  if (!spec.rotary) return made;
  made.max_positions = spec.max_positions;
  made.rotary = spec.rotary->pairing == RotaryPairing::half_split ? MH_ROTARY_HALF_SPLIT : MH_ROTARY_INTERLEAVED;
  made.rotary_dim = spec.rotary->rotary_dim.value_or(0);
  made.rotary_theta = spec.rotary->theta;
  const RotaryScaling& scaling = spec.rotary->scaling;
  made.rotary_scaling = scaling.type.c_str();
  made.rotary_factor = scaling.factor;
  made.rotary_low_freq_factor = scaling.low_freq_factor, made.rotary_high_freq_factor = scaling.high_freq_factor;
  made.rotary_original_max_position_embeddings = scaling.original_max_position_embeddings;
  return made;
}

void Layer::create(const MultiHeadSpec& spec, mh_type type, const mh_tensor* w) {
  mh_layer_spec made = spec_of(spec, type);
  mh_layer_weights weights;
  mh_layer_weights_init(&weights, sizeof weights);
  const mh_tensor** const places[] = {&weights.q,        &weights.k,        &weights.v,           &weights.qkv,
                                      &weights.out,      &weights.q_bias,   &weights.k_bias,      &weights.v_bias,
                                      &weights.qkv_bias, &weights.out_bias, &weights.bias_k,      &weights.bias_v,
                                      &weights.q_norm,   &weights.k_norm,   &weights.q_norm_bias, &weights.k_norm_bias};
  for (const mh_tensor** place : places) *place = w++;
  if (weights.qkv->rank == 0) made.fused_order = MH_FUSED_BLOCKS;  // C++ does not look at it then
  require(mh_layer_create(&made, &weights, &layer_));
}

mh_layer_extents Layer::extents() const {
  mh_layer_extents extents;
  mh_layer_extents_init(&extents, sizeof extents);
  require(mh_layer_get_extents(layer_, &extents));
  return extents;
}

}  // namespace multihead::testing::c_face
