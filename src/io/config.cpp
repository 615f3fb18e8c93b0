// SPDX-License-Identifier: Apache-2.0
// config.json, whatever its family calls things.
#include <new>

#include "io/json_fields.hpp"
#include "io/mapped_file.hpp"
#include "multihead/model_files.hpp"

namespace multihead {

namespace {

using io::Fields;
using io::Json;

constexpr std::int64_t kMostExtent = std::int64_t{1} << 40;
constexpr std::int64_t kMostLayers = std::int64_t{1} << 20;
constexpr std::int64_t kMostHeads = std::int64_t{1} << 31;
constexpr double kMostReal = 1e30;

void read_extents(const Fields& fields, ModelConfig& config) {
  config.model_dim =
      fields.required("hidden_size", fields.whole({"hidden_size", "d_model", "n_embd", "dim"}, 1, kMostExtent));
  config.layers = fields.required(
      "num_hidden_layers", fields.whole({"num_hidden_layers", "n_layer", "n_layers", "num_layers"}, 1, kMostLayers));
  config.heads = fields.required(
      "num_attention_heads", fields.whole({"num_attention_heads", "n_head", "n_heads", "num_heads"}, 1, kMostHeads));
  config.kv_heads = fields.whole({"num_key_value_heads"}, 1, kMostHeads).value_or(config.heads);
  if (config.heads % config.kv_heads != 0)
    fields.refuse("num_key_value_heads", "is " + std::to_string(config.kv_heads) + "; it must divide " +
                                             std::to_string(config.heads) + " heads");
  const auto head_dim = fields.whole({"head_dim", "d_kv"}, 1, kMostExtent);
  if (!head_dim && config.model_dim % config.heads != 0)
    fields.refuse("head_dim", "is missing, and " + std::to_string(config.heads) + " heads do not divide " +
                                  std::to_string(config.model_dim) + " channels");
  config.head_dim = head_dim.value_or(config.model_dim / config.heads);
  config.intermediate_dim = fields.whole({"intermediate_size", "hidden_dim", "n_inner", "d_ff"}, 1, kMostExtent);
  config.vocab_size = fields.whole({"vocab_size"}, 1, kMostExtent);
  config.max_positions = fields.whole({"max_position_embeddings", "n_positions"}, 1, kMostExtent);
  config.token_types = fields.whole({"type_vocab_size"}, 0, kMostExtent);
  config.pad_token_id = fields.whole({"pad_token_id"}, -1, kMostExtent);
  if (config.pad_token_id == -1) config.pad_token_id.reset();  // what some files write for none
  config.sliding_window = fields.whole({"sliding_window"}, 1, kMostExtent);
}

RotaryScaling scaling_of(const Fields& fields) {
  RotaryScaling scaling;
  scaling.type = fields.text({"rope_type", "type"}).value_or("default");
  scaling.factor = fields.real({"factor"}, 0, kMostReal).value_or(scaling.factor);
  scaling.low_freq_factor = fields.real({"low_freq_factor"}, 0, kMostReal).value_or(scaling.low_freq_factor);
  scaling.high_freq_factor = fields.real({"high_freq_factor"}, 0, kMostReal).value_or(scaling.high_freq_factor);
  scaling.original_max_position_embeddings = fields.whole({"original_max_position_embeddings"}, 1, kMostExtent)
                                                 .value_or(scaling.original_max_position_embeddings);
  return scaling;
}

// Transformers 4: rope_theta and rope_scaling. Transformers 5: all in rope_parameters, for some families by kind of
// layer.
void read_rotary(const Fields& fields, ModelConfig& config) {
  config.rope_theta = fields.real({"rope_theta"}, 0, kMostReal);
  config.partial_rotary_factor = fields.real({"partial_rotary_factor", "rotary_pct"}, 0, 1);
  if (fields.has("rope_scaling")) config.rope_scaling = scaling_of(fields.inside("rope_scaling"));
  if (!fields.has("rope_parameters")) return;
  if (fields.has("rope_scaling"))
    fields.refuse("rope_scaling", "and field 'rope_parameters' mean one thing; it must be one of them");
  const Fields rope = fields.inside("rope_parameters");
  for (const auto& [key, value] : rope.json().items())
    if (value.is_object())
      throw Error(ErrorCode::unsupported,
                  std::string(fields.origin().function) + ": " + std::string(fields.origin().file) +
                      ": field 'rope_parameters." + io::printable(key) +
                      "' is for one kind of layer; the rotary embedding must be the same in all");
  config.rope_scaling = scaling_of(rope);
  const auto moved = [&](const char* name, std::optional<double>& field, double high) {
    const auto value = rope.real({name}, 0, high);
    if (value && field && *value != *field)
      fields.refuse(name, "and the one in 'rope_parameters' differ; they must be the same");
    if (value) field = value;
  };
  moved("rope_theta", config.rope_theta, kMostReal);
  moved("partial_rotary_factor", config.partial_rotary_factor, 1);
}

void read_layer_types(const Fields& fields, ModelConfig& config) {
  config.layer_types = fields.texts("layer_types");
  const auto count = static_cast<std::int64_t>(config.layer_types.size());
  if (count != 0 && count != config.layers)
    fields.refuse("layer_types", "has " + std::to_string(count) + " entries; it must have one for each of " +
                                     std::to_string(config.layers) + " layers");
}

// One id, or several in an array.
std::vector<std::int64_t> read_eos(const Fields& fields) {
  constexpr const char* kName = "eos_token_id";
  const Json* const value = fields.find({kName});
  std::vector<std::int64_t> ids;
  if (!value) return ids;
  if (!value->is_array()) return {*fields.whole({kName}, 0, kMostExtent)};
  for (const Json& id : *value) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::uint64_t{kMostExtent})
      fields.refuse_kind(kName, id, "an id, or an array of ids");
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

ModelConfig config_of(const Fields& fields) {
  ModelConfig config;
  config.model_type = fields.required("model_type", fields.text({"model_type"}));
  config.architectures = fields.texts("architectures");
  read_extents(fields, config);
  // Gemma's hidden_activation is the one that counts where hidden_act stands beside it.
  const auto gemma = fields.text({"hidden_activation"});
  config.activation =
      gemma ? *gemma
            : fields.text({"hidden_act", "activation", "activation_function", "feed_forward_proj"}).value_or("");
  config.norm_eps = fields.real({"layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "norm_eps"}, 0, 1);
  config.position_embedding_type = fields.text({"position_embedding_type"}).value_or(config.position_embedding_type);
  config.attention_bias = fields.flag("attention_bias");
  config.tie_word_embeddings = fields.flag("tie_word_embeddings");
  config.is_decoder = fields.flag("is_decoder");
  config.use_sliding_window = fields.flag("use_sliding_window");
  config.softcap = fields.real({"attn_logit_softcapping"}, 0, kMostReal);
  config.query_pre_attn_scalar = fields.real({"query_pre_attn_scalar"}, 0, kMostReal);
  read_rotary(fields, config);
  read_layer_types(fields, config);
  config.relative_buckets = fields.whole({"relative_attention_num_buckets"}, 1, kMostExtent);
  config.relative_max_distance = fields.whole({"relative_attention_max_distance"}, 1, kMostExtent);
  config.dtype = fields.text({"dtype", "torch_dtype"}).value_or("");
  config.bos_token_id = fields.whole({"bos_token_id"}, 0, kMostExtent);
  config.eos_token_ids = read_eos(fields);
  config.mlp_bias = fields.flag("mlp_bias");
  config.scale_attn_weights = fields.flag("scale_attn_weights");
  config.scale_attn_by_inverse_layer_idx = fields.flag("scale_attn_by_inverse_layer_idx");
  config.add_cross_attention = fields.flag("add_cross_attention");
  return config;
}

ModelConfig parse(std::span<const std::byte> text, const io::Origin& origin) try {
  const Json json = io::parse_json_file(text, origin);
  return config_of(Fields(json, origin));
} catch (const std::bad_alloc&) {
  origin.out_of_memory(text.size());
}

}  // namespace

ModelConfig read_config(const std::filesystem::path& path) { return io::with_file("read_config", path, parse); }

std::vector<std::int64_t> read_eos_token_ids(const std::filesystem::path& folder) {
  const std::filesystem::path own = folder / "generation_config.json";
  std::vector<std::int64_t> ids;
  const auto read = [&](std::span<const std::byte> text, const io::Origin& origin) {
    const Json json = io::parse_json_file(text, origin);
    ids = read_eos(Fields(json, origin));
  };
  if (io::is_there(own)) io::with_file("read_eos_token_ids", own, read);
  if (ids.empty()) io::with_file("read_eos_token_ids", folder / "config.json", read);
  return ids;
}

ModelConfig parse_config(std::span<const std::byte> text, const std::string& name) {
  return parse(text, io::Origin{"parse_config", name});
}

}  // namespace multihead
