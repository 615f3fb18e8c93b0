// SPDX-License-Identifier: Apache-2.0
// The small decoder: names by family, and the files.
#include "models/tiny_decoder.hpp"

namespace multihead::testing {

TinyDecoder::TinyDecoder(const std::string& type, unsigned seed) : llama(type == "llama") {
  if (llama) kv_heads = 2;
  Random random(seed);
  const auto add = [&](const std::string& name, const std::vector<std::int64_t>& shape, double mean, double scale) {
    tensors[name] = normal_tensor(random, shape, mean, scale);
  };
  const std::int64_t kv_width = width / heads * kv_heads;
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  config = {{"model_type", '"' + type + '"'}, {"vocab_size", text(words)}};
  if (llama) {
    config.insert({{"hidden_size", text(width)},
                   {"num_hidden_layers", text(layers)},
                   {"num_attention_heads", text(heads)},
                   {"num_key_value_heads", text(kv_heads)},
                   {"intermediate_size", text(intermediate)},
                   {"max_position_embeddings", text(positions)}});
    add("model.embed_tokens.weight", {words, width}, 0, 1), add("lm_head.weight", {words, width}, 0, 0.6);
    add("model.norm.weight", {width}, 1, 0.2);
  } else {
    config.insert({{"n_embd", text(width)},
                   {"n_layer", text(layers)},
                   {"n_head", text(heads)},
                   {"n_inner", text(intermediate)},
                   {"n_positions", text(positions)}});
    add("wte.weight", {words, width}, 0, 0.6), add("wpe.weight", {positions, width}, 0, 0.3);
    add("ln_f.weight", {width}, 1, 0.2), add("ln_f.bias", {width}, 0, 0.2);
  }
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const std::string at = (llama ? "model.layers." : "h.") + text(layer) + ".";
    const auto linear = [&](const std::string& name, std::int64_t in, std::int64_t out) {
      add(at + name + ".weight", llama ? std::vector{out, in} : std::vector{in, out}, 0, 0.3);
      if (!llama) add(at + name + ".bias", {out}, 0, 0.2);
    };
    if (llama) {
      linear("self_attn.q_proj", width, width), linear("self_attn.k_proj", width, kv_width);
      linear("self_attn.v_proj", width, kv_width), linear("self_attn.o_proj", width, width);
      linear("mlp.gate_proj", width, intermediate), linear("mlp.up_proj", width, intermediate);
      linear("mlp.down_proj", intermediate, width);
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
        add(at + norm + ".weight", {width}, 1, 0.2);
    } else {
      linear("attn.c_attn", width, 3 * width), linear("attn.c_proj", width, width);
      linear("mlp.c_fc", width, intermediate), linear("mlp.c_proj", intermediate, width);
      for (const char* norm : {"ln_1", "ln_2"})
        add(at + norm + ".weight", {width}, 1, 0.2), add(at + norm + ".bias", {width}, 0, 0.2);
    }
  }
}

void TinyDecoder::write(const TemporaryFolder& folder) const {
  std::vector<StoredTensor> stored;
  for (const auto& [name, tensor] : tensors)
    stored.push_back({name, "F32", tensor.shape, std::as_bytes(std::span(tensor.values))});
  write_safetensors(folder.path() / "model.safetensors", stored);
  std::string fields;
  for (const auto& [name, value] : config)
    fields.append(fields.empty() ? "" : ", ").append("\"").append(name).append("\": ").append(value);
  folder.write("config.json", "{" + fields + "}");
}

Decoder TinyDecoder::decoder(const DecoderOptions& options) const {
  const TemporaryFolder folder;
  write(folder);
  return Decoder(folder.path(), options);
}

}  // namespace multihead::testing
