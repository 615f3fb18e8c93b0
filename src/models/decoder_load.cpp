// SPDX-License-Identifier: Apache-2.0
// The constructor of Decoder: which tensor of a checkpoint is what, and every rule about them.
#include <cmath>
#include <utility>

#include "models/decoder_state.hpp"
#include "models/weight_source.hpp"

namespace multihead {

namespace {

enum class Kind { gpt2, llama };

// How a family names its parts after the prefix.
struct Family {
  std::string_view model_type;
  Kind kind;
  std::string_view words, layers, attention_norm, feed_norm, last_norm, up;
};

constexpr Family kFamilies[] = {
    {"gpt2", Kind::gpt2, "wte.weight", "h.", "ln_1", "ln_2", "ln_f", "mlp.c_fc"},
    {"llama", Kind::llama, "embed_tokens.weight", "layers.", "input_layernorm", "post_attention_layernorm", "norm",
     "mlp.up_proj"},
};

[[noreturn]] void refuse(ErrorCode code, const std::string& rule) { fail(kDecoder, code, rule); }

// Reads what is a decoder's alone.
class Source : public WeightSource {
 public:
  Source(const Family& family, const ModelConfig& config, const Checkpoint& checkpoint, Type precision)
      : WeightSource(kDecoder, checkpoint, family.words, precision), family_(family), config_(config) {}

  DecoderNorm norm(const std::string& name) {
    const bool layer = family_.kind == Kind::gpt2;
    const std::int64_t width = config_.model_dim;
    const HeadNorm norm{layer ? HeadNorm::Kind::layer : HeadNorm::Kind::rms,
                        config_.norm_eps.value_or(layer ? 1e-5 : 1e-6)};
    DecoderNorm read{norm, elements(tensor(name + ".weight", {width})), {}};
    if (layer) read.bias.emplace(elements(tensor(name + ".bias", {width})));
    return read;
  }

  // Llama's, stored (out, in), several that share their input one after the other.
  struct Part {
    std::string name;
    std::int64_t out;
  };
  template <class T>
  Linear<T> out_in(const std::vector<Part>& parts, std::int64_t in, bool biased) {
    std::int64_t out = 0;
    for (const Part& part : parts) out += part.out;
    std::vector<float> weight, bias;
    weight.reserve(static_cast<std::size_t>(out * in));
    for (const Part& part : parts) {
      const Elements<float> own = elements(tensor(part.name + ".weight", {part.out, in}));
      weight.insert(weight.end(), own.values().begin(), own.values().end());
      if (!biased) continue;
      const Elements<float> added = elements(tensor(part.name + ".bias", {part.out}));
      bias.insert(bias.end(), added.values().begin(), added.values().end());
    }
    std::vector<T> weights, biases;
    return Linear<T>({factors(std::span<const float>(weight), weights).data(), {out, in}}, WeightOrder::out_in,
                     factors(std::span<const float>(bias), biases));
  }

  // head: the weight of the product behind the last layer.
  template <class T>
  DecoderMaps<T> maps(std::int64_t intermediate, const StoredTensor& head) {
    std::vector<DecoderLayer<T>> layers;
    for (std::int64_t number = 0; number < config_.layers; ++number) layers.push_back(layer<T>(number, intermediate));
    const Elements<float> weight = elements(head);
    std::vector<T> rounded;
    return {std::move(layers),
            Linear<T>({factors(weight.values(), rounded).data(), {head.shape[0], head.shape[1]}}, WeightOrder::out_in)};
  }

  // The tensors that were not read: those under the decoder's own names must not be, but for what older files stored
  // as if they were weights: masks, and frequencies of the rotary embedding.
  std::vector<std::string> unused() const {
    const std::string own = prefix() + std::string(family_.layers);
    std::vector<std::string> names;
    for (const StoredTensor* tensor : unread()) {
      const std::string_view name = tensor->name;
      const bool buffer = family_.kind == Kind::gpt2
                              ? name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
                              : name.ends_with(".rotary_emb.inv_freq");
      if (name.starts_with(own) && buffer) continue;
      if (name.starts_with(own))
        malformed(name, "is no part of a " + std::string(family_.model_type) + " decoder of these extents");
      names.emplace_back(name);
    }
    return names;
  }

 private:
  template <class T>
  DecoderLayer<T> layer(std::int64_t number, std::int64_t intermediate) {
    const std::string at = std::string(family_.layers) + std::to_string(number) + ".";
    const std::string attention_norm = at + std::string(family_.attention_norm);
    const std::string feed_norm = at + std::string(family_.feed_norm);
    return family_.kind == Kind::gpt2 ? gpt2<T>(at, number, norm(attention_norm), norm(feed_norm), intermediate)
                                      : llama<T>(at, norm(attention_norm), norm(feed_norm), intermediate);
  }

  template <class T>
  DecoderLayer<T> gpt2(const std::string& at, std::int64_t number, DecoderNorm first, DecoderNorm second,
                       std::int64_t intermediate) {
    // Stored (in, out).
    const auto map = [&](const char* name, std::int64_t in, std::int64_t out) {
      return linear<T>(at + name, in, out, WeightOrder::in_out);
    };
    const std::int64_t width = config_.model_dim;
    double scale = config_.scale_attn_weights.value_or(true) ? 1 / std::sqrt(static_cast<double>(config_.head_dim)) : 1;
    if (config_.scale_attn_by_inverse_layer_idx.value_or(false)) scale /= static_cast<double>(number + 1);
    return {std::move(first),
            map("attn.c_attn", width, 3 * width),
            map("attn.c_proj", width, width),
            scale,
            std::move(second),
            std::nullopt,
            map("mlp.c_fc", width, intermediate),
            map("mlp.c_proj", intermediate, width)};
  }

  template <class T>
  DecoderLayer<T> llama(const std::string& at, DecoderNorm first, DecoderNorm second, std::int64_t intermediate) {
    const std::int64_t width = config_.model_dim, q = config_.heads * config_.head_dim;
    const std::int64_t kv = config_.kv_heads * config_.head_dim;
    const std::string attention = at + "self_attn.", mlp = at + "mlp.";
    const bool biased = config_.attention_bias.value_or(false), mlp_biased = config_.mlp_bias.value_or(false);
    return {
        std::move(first),
        out_in<T>({{attention + "q_proj", q}, {attention + "k_proj", kv}, {attention + "v_proj", kv}}, width, biased),
        out_in<T>({{attention + "o_proj", width}}, q, biased),
        1 / std::sqrt(static_cast<double>(config_.head_dim)),
        std::move(second),
        out_in<T>({{mlp + "gate_proj", intermediate}}, width, mlp_biased),
        out_in<T>({{mlp + "up_proj", intermediate}}, width, mlp_biased),
        out_in<T>({{mlp + "down_proj", width}}, intermediate, mlp_biased)};
  }

  const Family& family_;
  const ModelConfig& config_;
};

// What config.json must say of a decoder of any family.
void check_config(const ModelConfig& config, const Family& family) {
  for (const auto& [field, value] : {std::pair{"the number of layers", config.layers},
                                     {"the number of heads", config.heads},
                                     {"the number of kv heads", config.kv_heads},
                                     {"the model's width", config.model_dim}})
    if (value < 1)
      refuse(ErrorCode::file_malformed,
             std::string(field) + " is " + std::to_string(value) + "; it must be at least 1");
  if (config.heads % config.kv_heads != 0)
    refuse(ErrorCode::file_malformed, "heads is " + std::to_string(config.heads) + ", kv_heads " +
                                          std::to_string(config.kv_heads) + "; it must divide heads");
  if (config.head_dim < 1 || config.head_dim > 1024)
    refuse(ErrorCode::unsupported, "head_dim is " + std::to_string(config.head_dim) + "; it must be 1 to 1024");
  if (family.kind == Kind::gpt2 &&
      (config.kv_heads != config.heads || config.heads * config.head_dim != config.model_dim))
    refuse(ErrorCode::file_malformed, "heads, kv_heads and head_dim of a gpt2 must make the model's width");
  if (family.kind == Kind::llama && config.head_dim % 2 != 0)
    refuse(ErrorCode::unsupported, "head_dim is " + std::to_string(config.head_dim) + "; a llama's must be even");
  if (config.norm_eps && !(*config.norm_eps >= 0 && *config.norm_eps <= 1))
    refuse(ErrorCode::file_malformed, "the norms' eps is " + std::to_string(*config.norm_eps) + "; it must be 0 to 1");
  if (config.sliding_window && config.use_sliding_window.value_or(true))
    refuse(ErrorCode::unsupported, "sliding_window is " + std::to_string(*config.sliding_window) + "; it must be null");
  for (const std::string& type : config.layer_types)
    if (type != "full_attention")
      refuse(ErrorCode::unsupported, "layer_types has '" + type + "'; it must be full_attention in all layers");
  if (config.softcap || config.query_pre_attn_scalar)
    refuse(ErrorCode::unsupported, "attn_logit_softcapping or query_pre_attn_scalar is given; neither must be");
  if (config.add_cross_attention.value_or(false))
    refuse(ErrorCode::unsupported, "add_cross_attention is true; it must be false");
  if (config.partial_rotary_factor.value_or(1) != 1)
    refuse(ErrorCode::unsupported, "partial_rotary_factor is given; all channels must be turned");
}

// Throws, by name, for a scaling that is not known.
RotaryOptions rotary_of(const ModelConfig& config) {
  RotaryOptions rotary;
  rotary.theta = config.rope_theta.value_or(10000);
  if (config.rope_scaling) rotary.scaling = *config.rope_scaling;
  std::vector<double> frequencies(static_cast<std::size_t>(config.head_dim / 2));
  rotary_frequencies(config.head_dim, rotary, frequencies);
  return rotary;
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, const Checkpoint& checkpoint, const DecoderOptions& options) {
  const Family& family =
      named(kDecoder, kFamilies, config.model_type, "model_type", [](const Family& f) { return f.model_type; });
  check_config(config, family);
  check_types(kDecoder, options.precision, options.products);
  const bool gpt2 = family.kind == Kind::gpt2;
  const Activation activation = activation_of(kDecoder, !config.activation.empty() ? config.activation
                                                        : gpt2                     ? "gelu_new"
                                                                                   : "silu");
  Source source(family, config, checkpoint, options.precision);
  const std::int64_t width = config.model_dim;
  const StoredTensor& words = source.tensor(std::string(family.words), {config.vocab_size.value_or(kAny), width});
  const StoredTensor* positions =
      gpt2 ? &source.tensor("wpe.weight", {config.max_positions.value_or(kAny), width}) : nullptr;
  const std::int64_t given = config.intermediate_dim.value_or(gpt2 ? 4 * width : kAny);
  const std::string up = std::string(family.layers) + "0." + std::string(family.up) + ".weight";
  const std::int64_t intermediate =
      gpt2 ? source.tensor(up, {width, given}).shape[1] : source.tensor(up, {given, width}).shape[0];
  const DecoderExtents e{config.layers,   config.heads,
                         config.kv_heads, config.head_dim,
                         width,           intermediate,
                         words.shape[0],  positions ? positions->shape[0] : config.max_positions.value_or(2048)};
  if (e.vocab_size < 1 || e.max_tokens < 1)
    refuse(ErrorCode::file_malformed, "there are " + std::to_string(e.vocab_size) + " words and " +
                                          std::to_string(e.max_tokens) + " positions; there must be one at least");
  // Tied: the embeddings are the head's weight.
  const bool tied = config.tie_word_embeddings.value_or(gpt2);
  const StoredTensor& head = tied ? words : source.whole_name("lm_head.weight", {e.vocab_size, width});
  AnyDecoderMaps maps = options.products == Type::bfloat16 ? AnyDecoderMaps(source.maps<BFloat16>(intermediate, head))
                                                           : source.maps<float>(intermediate, head);
  std::optional<Elements<float>> learned;
  if (positions) learned.emplace(source.elements(*positions));
  state_ = std::make_shared<const State>(State{checkpoint, e, activation, source.elements(words), std::move(learned),
                                               gpt2 ? RotaryOptions{} : rotary_of(config), std::move(maps),
                                               source.norm(std::string(family.last_norm)), source.unused()});
}

Decoder::Decoder(const std::filesystem::path& folder, const DecoderOptions& options)
    : Decoder(read_config(folder / "config.json"), Checkpoint(folder), options) {}

const DecoderExtents& Decoder::extents() const noexcept { return state_->e; }

std::span<const std::string> Decoder::unused_tensors() const noexcept { return state_->unused; }

KvCacheSpec Decoder::cache_spec(std::int64_t positions, KvStorage storage) const {
  KvCacheSpec spec;
  if (positions < 1)
    refuse(ErrorCode::bad_option, "positions is " + std::to_string(positions) + "; it must be at least 1");
  spec.storage = storage;
  spec.layers = state_->e.layers, spec.kv_heads = state_->e.kv_heads, spec.head_dim = state_->e.head_dim;
  spec.pages = (positions - 1) / spec.page_len + 1;
  return spec;
}

}  // namespace multihead
