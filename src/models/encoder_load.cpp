// SPDX-License-Identifier: Apache-2.0
// The constructor of Encoder: which tensor of a checkpoint is what, and every rule about them.
#include <algorithm>
#include <array>
#include <utility>

#include "models/encoder_state.hpp"
#include "models/weight_source.hpp"
#include "multihead/error.hpp"
#include "multihead/layouts.hpp"

namespace multihead {

namespace {

constexpr std::string_view kWords = "embeddings.word_embeddings.weight";

// How a family names the parts of a layer. Linear layers and norms are a weight and a bias each.
struct Family {
  std::string_view model_type, layout;
  std::string_view layers;                    // before a layer's number
  std::array<std::string_view, 4> attention;  // after "attention.": queries, keys, values, output
  std::string_view attention_norm, up, down, output_norm;
  bool types, pads;  // has token types; counts positions from the pad token's id
};

constexpr std::array<std::string_view, 4> kBertAttention{"self.query", "self.key", "self.value", "output.dense"};
constexpr std::array<std::string_view, 4> kDistilbertAttention{"q_lin", "k_lin", "v_lin", "out_lin"};

constexpr Family bert_form(std::string_view model_type, bool pads) {
  return {model_type,           "bert",         "encoder.layer.",   kBertAttention, "attention.output.LayerNorm",
          "intermediate.dense", "output.dense", "output.LayerNorm", true,           pads};
}
constexpr Family kFamilies[] = {
    bert_form("bert", false),
    {"distilbert", "distilbert", "transformer.layer.", kDistilbertAttention, "sa_layer_norm", "ffn.lin1", "ffn.lin2",
     "output_layer_norm", false, false},
    bert_form("roberta", true),
    bert_form("xlm-roberta", true),
};

[[noreturn]] void refuse(ErrorCode code, const std::string& rule) { fail(kEncoder, code, rule); }

// Reads what is an encoder's alone.
class Source : public WeightSource {
 public:
  Source(const Checkpoint& checkpoint, Type precision) : WeightSource(kEncoder, checkpoint, kWords, precision) {}

  EncoderNorm norm(const std::string& name, std::int64_t width, double eps) {
    const bool old = !has(name + ".weight") && has(name + ".gamma");
    return {elements(tensor(name + (old ? ".gamma" : ".weight"), {width})),
            elements(tensor(name + (old ? ".beta" : ".bias"), {width})), eps};
  }

  template <class T>
  MultiHeadAttention<T> attention(const Family& family, const std::string& name, std::int64_t model_dim,
                                  std::int64_t heads) {
    std::vector<std::string> names;
    std::vector<Elements<float>> parts;
    std::vector<std::vector<T>> rounded(8);
    std::vector<NamedTensor<T>> tensors;
    names.reserve(8), parts.reserve(8);
    for (std::string_view part : family.attention)
      for (const auto& [kind, shape] :
           {std::pair{".weight", std::vector{model_dim, model_dim}}, std::pair{".bias", std::vector{model_dim}}}) {
        names.push_back(std::string(part) + kind);
        parts.push_back(elements(tensor(name + names.back(), shape)));
        tensors.push_back({names.back(), factors(parts.back().values(), rounded[tensors.size()]).data(), shape});
      }
    return load_layer(family.layout, std::span<const NamedTensor<T>>(tensors), {.heads = heads});
  }

  // The tensors that were not read: those under the encoder's own names must not be.
  std::vector<std::string> unused(const Family& family) const {
    const std::string own = prefix() + std::string(family.layers.substr(0, family.layers.find('.') + 1));
    const std::string embeddings = prefix() + "embeddings.";
    std::vector<std::string> names;
    for (const StoredTensor* tensor : unread()) {
      // Whole numbers from 0 on, which some versions of the format stored as if they were weights.
      if (tensor->name == embeddings + "position_ids" || tensor->name == embeddings + "token_type_ids") continue;
      if (tensor->name.starts_with(own) || tensor->name.starts_with(embeddings))
        malformed(tensor->name, "is no part of a " + std::string(family.model_type) + " encoder of these extents");
      names.emplace_back(tensor->name);
    }
    return names;
  }
};

// What config.json must say of an encoder of any family.
void check_config(const ModelConfig& config) {
  for (const auto& [field, value] : {std::pair{"the number of layers", config.layers},
                                     {"the number of heads", config.heads},
                                     {"the model's width", config.model_dim}})
    if (value < 1)
      refuse(ErrorCode::file_malformed,
             std::string(field) + " is " + std::to_string(value) + "; it must be at least 1");
  if (config.heads * config.head_dim != config.model_dim || config.kv_heads != config.heads)
    refuse(ErrorCode::file_malformed, "heads is " + std::to_string(config.heads) + ", kv_heads " +
                                          std::to_string(config.kv_heads) + ", head_dim " +
                                          std::to_string(config.head_dim) + "; together they must make the model's " +
                                          std::to_string(config.model_dim));
  if (config.position_embedding_type != "absolute")
    refuse(ErrorCode::unsupported,
           "position_embedding_type is '" + config.position_embedding_type + "'; it must be absolute");
  if (config.is_decoder.value_or(false))
    refuse(ErrorCode::unsupported, "is_decoder is true; it must be false: an encoder's attention is not causal");
  if (config.norm_eps && !(*config.norm_eps >= 0 && *config.norm_eps <= 1))
    refuse(ErrorCode::file_malformed, "layer_norm_eps is " + std::to_string(*config.norm_eps) + "; it must be 0 to 1");
}

template <class T>
std::vector<EncoderLayer<T>> read_layers(Source& source, const Family& family, const ModelConfig& config,
                                         std::int64_t intermediate, double eps) {
  const std::int64_t width = config.model_dim;
  std::vector<EncoderLayer<T>> layers;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string start = std::string(family.layers) + std::to_string(layer) + ".";
    const auto part = [&](std::string_view name) { return start + std::string(name); };
    layers.push_back({source.attention<T>(family, start + "attention.", width, config.heads),
                      source.norm(part(family.attention_norm), width, eps),
                      source.linear<T>(part(family.up), width, intermediate, WeightOrder::out_in),
                      source.linear<T>(part(family.down), intermediate, width, WeightOrder::out_in),
                      source.norm(part(family.output_norm), width, eps)});
  }
  return layers;
}

}  // namespace

Encoder::Encoder(const ModelConfig& config, const Checkpoint& checkpoint, const EncoderOptions& options) {
  const Family& family =
      named(kEncoder, kFamilies, config.model_type, "model_type", [](const Family& f) { return f.model_type; });
  check_config(config);
  check_types(kEncoder, options.precision, options.products);
  const Activation activation = activation_of(kEncoder, config.activation.empty() ? "gelu" : config.activation);
  // DistilBERT's configuration has no such field.
  const double eps = family.layout == "distilbert" ? 1e-12 : config.norm_eps.value_or(1e-12);
  Source source(checkpoint, options.precision);
  const std::int64_t width = config.model_dim;
  const StoredTensor& words = source.tensor(std::string(kWords), {config.vocab_size.value_or(kAny), width});
  const StoredTensor& positions =
      source.tensor("embeddings.position_embeddings.weight", {config.max_positions.value_or(kAny), width});
  const StoredTensor* types = family.types ? &source.tensor("embeddings.token_type_embeddings.weight",
                                                            {config.token_types.value_or(kAny), width})
                                           : nullptr;
  if (types && types->shape[0] < 1) source.malformed(types->name, "has no rows; it must have one for type 0");
  const std::int64_t intermediate = source
                                        .tensor(std::string(family.layers) + "0." + std::string(family.up) + ".weight",
                                                {config.intermediate_dim.value_or(kAny), width})
                                        .shape[0];
  std::optional<std::int64_t> pad;
  if (family.pads) pad = config.pad_token_id.value_or(1);
  const std::int64_t max_tokens = positions.shape[0] - (pad ? *pad + 1 : 0);
  if ((pad && *pad < 0) || max_tokens < 1)
    refuse(ErrorCode::file_malformed, "pad_token_id is " + std::to_string(pad.value_or(0)) + " and there are " +
                                          std::to_string(positions.shape[0]) + " positions; none is left for a token");
  const EncoderExtents e{
      config.layers, config.heads, config.head_dim, width, intermediate, words.shape[0], types ? types->shape[0] : 1,
      max_tokens};
  std::optional<Elements<float>> type_elements;
  if (types) type_elements.emplace(source.elements(*types));
  EncoderLayers layers;
  if (options.products == Type::bfloat16)
    layers = read_layers<BFloat16>(source, family, config, intermediate, eps);
  else
    layers = read_layers<float>(source, family, config, intermediate, eps);
  state_ = std::make_shared<const State>(State{
      checkpoint, e, activation, pad, source.elements(words), source.elements(positions), std::move(type_elements),
      source.norm("embeddings.LayerNorm", width, eps), std::move(layers), source.unused(family)});
}

Encoder::Encoder(const std::filesystem::path& folder, const EncoderOptions& options)
    : Encoder(read_config(folder / "config.json"), Checkpoint(folder), options) {}

const EncoderExtents& Encoder::extents() const noexcept { return state_->e; }

std::span<const std::string> Encoder::unused_tensors() const noexcept { return state_->unused; }

}  // namespace multihead
