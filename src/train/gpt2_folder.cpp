// SPDX-License-Identifier: Apache-2.0
// Names and files of GPT-2 (Radford et al. 2019), as Hugging Face has them.
#include "train/gpt2_folder.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "core/validate.hpp"
#include "io/file.hpp"
#include "train/checkpoint.hpp"

namespace multihead {

namespace {

constexpr const char* kSave = "save_gpt2";

// A layer's parts by their names here and there.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kParts{{{"attention.norm", "ln_1"},
                                                                               {"attention.qkv", "attn.c_attn"},
                                                                               {"attention.out", "attn.c_proj"},
                                                                               {"feed_forward.norm", "ln_2"},
                                                                               {"feed_forward.up", "mlp.c_fc"},
                                                                               {"feed_forward.down", "mlp.c_proj"}}};

std::string gpt2_name(std::string_view name) {
  name.remove_prefix(std::string_view("decoder.").size());
  if (name == "embedding.0") return "transformer.wte.weight";
  if (name == "positions") return "transformer.wpe.weight";
  const std::string end(name.substr(name.rfind('.')));  // .weight, .bias
  if (name.starts_with("norm.")) return "transformer.ln_f" + end;
  const std::size_t dot = name.find('.');
  const std::string_view part = name.substr(dot + 1, name.size() - dot - 1 - end.size());
  const auto* const found =
      std::find_if(kParts.begin(), kParts.end(), [&](const auto& two) { return two.first == part; });
  return "transformer.h." + std::string(name.substr(0, dot)) + '.' + std::string(found->second) + end;
}

// Matrices are [in, out] in both; a vector has no row there.
Stored as_gpt2(const Parameter<float>& parameter) {
  const bool matrix = parameter.decays;
  return {gpt2_name(parameter.name), matrix ? std::vector{parameter.value.rows(), parameter.value.columns()}
                                            : std::vector{parameter.value.columns()}};
}

void check(const TransformerConfig& config) {
  const auto must = [](bool rule, const char* what) {
    if (!rule) fail(ErrorCode::bad_option, std::string(kSave) + ": the model's " + what);
  };
  must(config.kind == TransformerConfig::Kind::decoder, "kind is not decoder; GPT-2 is one");
  must(config.source_vocab.size() == 1, "tokens have several tables; GPT-2's have one");
  must(!config.rotary, "positions are rotary; GPT-2's are learned");
  must(config.tied, "logits have a matrix of their own; GPT-2's are tied");
  must(config.final_norm, "final_norm is false; GPT-2 has one");
  must(config.feed_forward > 0, "feed_forward is 0; it must be at least 1");
  must(config.activation == Activation::gelu_tanh, "activation is not gelu_tanh; GPT-2's is");
}

std::string config_json(const TransformerConfig& config, std::int64_t end) {
  std::string text = "{\n";
  const auto add = [&](const char* name, const std::string& value) {
    text += std::string(text.size() > 2 ? ",\n" : "") + "  \"" + name + "\": " + value;
  };
  add("architectures", "[\"GPT2LMHeadModel\"]"), add("model_type", "\"gpt2\"");
  add("vocab_size", std::to_string(config.source_vocab[0])), add("n_positions", std::to_string(config.max_tokens));
  add("n_ctx", std::to_string(config.max_tokens)), add("n_embd", std::to_string(config.model_dim));
  add("n_layer", std::to_string(config.decoder_layers)), add("n_head", std::to_string(config.heads));
  add("n_inner", std::to_string(config.feed_forward)), add("activation_function", "\"gelu_new\"");
  add("layer_norm_epsilon", "1e-05"), add("initializer_range", "0.02");
  add("attn_pdrop", "0.0"), add("embd_pdrop", "0.0"), add("resid_pdrop", "0.0");
  add("tie_word_embeddings", "true");
  add("bos_token_id", std::to_string(end)), add("eos_token_id", std::to_string(end));
  add("torch_dtype", "\"float32\"");
  return text + "\n}\n";
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  const std::string name = path.string();
  const io::Origin origin{kSave, name};
  io::OutputFile file(path, origin);
  file.write(text.data(), text.size());
  file.commit();
}

}  // namespace

void save_gpt2(const std::filesystem::path& folder, const Transformer<float>& model, std::string_view tokenizer,
               std::int64_t end, const Metadata& metadata) {
  check(model.config());
  const std::string ends =
      "{\n  \"bos_token_id\": " + std::to_string(end) + ",\n  \"eos_token_id\": " + std::to_string(end) + "\n}\n";
  write_file(folder / "tokenizer.json", tokenizer);
  write_file(folder / "config.json", config_json(model.config(), end));
  write_file(folder / "generation_config.json", ends);
  Metadata all = metadata;
  all.emplace_back("format", "pt");  // what Transformers asks of the file
  save_parameters(folder / "model.safetensors", model.parameters(), as_gpt2, all);
}

void load_gpt2(const std::filesystem::path& path, Transformer<float>& model) {
  load_parameters(path, model.parameters(), as_gpt2);
}

}  // namespace multihead
