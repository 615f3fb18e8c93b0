// SPDX-License-Identifier: Apache-2.0
// The small encoder: names by family, the files, and the definition in float64.
#include "models/tiny_model.hpp"

#include <cmath>

namespace multihead::testing {

TinyTensor normal_tensor(Random& random, const std::vector<std::int64_t>& shape, double mean, double scale) {
  TinyTensor tensor{shape, {}};
  std::int64_t count = 1;
  for (std::int64_t extent : shape) count *= extent;
  for (std::int64_t i = 0; i < count; ++i) tensor.values.push_back(static_cast<float>(mean + scale * random.normal()));
  return tensor;
}

TinyModel::TinyModel(const std::string& type, unsigned seed) : model_type(type) {
  if (distilbert()) types = 1, eps = 1e-12;
  if (roberta()) types = 1;
  Random random(seed);
  const auto add = [&](const std::string& name, const std::vector<std::int64_t>& shape, double mean, double scale) {
    tensors[name] = normal_tensor(random, shape, mean, scale);
  };
  const auto add_linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    add(name + ".weight", {out, in}, 0, 0.3), add(name + ".bias", {out}, 0, 0.2);
  };
  const auto add_norm = [&](const std::string& name) {
    add(name + ".weight", {width}, 1, 0.2), add(name + ".bias", {width}, 0, 0.2);
  };
  add("embeddings.word_embeddings.weight", {vocabulary, width}, 0, 1);
  add("embeddings.position_embeddings.weight", {positions, width}, 0, 0.5);
  if (!distilbert()) add("embeddings.token_type_embeddings.weight", {types, width}, 0, 0.5);
  add_norm("embeddings.LayerNorm");
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string at = layer(i);
    const bool d = distilbert();
    using Names = std::vector<const char*>;
    for (const char* name : d ? Names{"q_lin", "k_lin", "v_lin", "out_lin"}
                              : Names{"self.query", "self.key", "self.value", "output.dense"})
      add_linear(at + "attention." + name, width, width);
    add_norm(at + (d ? "sa_layer_norm" : "attention.output.LayerNorm"));
    add_linear(at + (d ? "ffn.lin1" : "intermediate.dense"), intermediate, width);
    add_linear(at + (d ? "ffn.lin2" : "output.dense"), width, intermediate);
    add_norm(at + (d ? "output_layer_norm" : "output.LayerNorm"));
  }
}

std::string TinyModel::config() const {
  const auto field = [](const char* name, auto value) {
    std::string text = "\"";
    return text.append(name).append("\": ").append(std::to_string(value)).append(", ");
  };
  char shortest[32];
  std::snprintf(shortest, sizeof shortest, "%g", eps);
  const bool d = distilbert();
  std::string text = "{\"model_type\": \"" + model_type + "\", ";
  text += field(d ? "dim" : "hidden_size", width) + field(d ? "n_layers" : "num_hidden_layers", layers);
  text += field(d ? "n_heads" : "num_attention_heads", heads);
  text += field(d ? "hidden_dim" : "intermediate_size", intermediate) + field("vocab_size", vocabulary);
  text += field("max_position_embeddings", positions);
  if (!d) text += field("type_vocab_size", types) + "\"layer_norm_eps\": " + shortest + ", ";
  text += field("pad_token_id", roberta() ? 1 : 0);
  return text + "\"" + (d ? "activation" : "hidden_act") + "\": \"" + activation + "\"}";
}

void TinyModel::write(const TemporaryFolder& folder, const std::map<std::string, TinyTensor>& beside) const {
  std::map<std::string, TinyTensor> all = beside;
  for (const auto& [name, tensor] : tensors) all[prefix + name] = tensor;
  std::vector<StoredTensor> stored;
  for (const auto& [name, tensor] : all)
    stored.push_back({name, "F32", tensor.shape, std::as_bytes(std::span(tensor.values))});
  write_safetensors(folder.path() / "model.safetensors", stored);
  folder.write("config.json", config());
}

double TinyModel::factor(double value) const {
  return narrow_products ? static_cast<float>(BFloat16(static_cast<float>(value))) : value;
}

TinyModel::Rows TinyModel::rounded(Rows x) const {
  for (std::vector<double>& row : x)
    for (double& e : row) e = factor(e);
  return x;
}

TinyModel::Rows TinyModel::linear(const std::string& name, const Rows& x) const {
  const TinyTensor &weight = tensors.at(name + ".weight"), &bias = tensors.at(name + ".bias");
  const auto out = static_cast<std::size_t>(weight.shape[0]), in = static_cast<std::size_t>(weight.shape[1]);
  Rows y(x.size(), std::vector<double>(out));
  for (std::size_t r = 0; r < x.size(); ++r)
    for (std::size_t o = 0; o < out; ++o) {
      y[r][o] = factor(bias.values[o]);
      for (std::size_t i = 0; i < in; ++i) y[r][o] += factor(x[r][i]) * factor(weight.values[o * in + i]);
    }
  return y;
}

TinyModel::Rows TinyModel::normed(const std::string& name, const Rows& x, const Rows& residual) const {
  const std::vector<float>&weight = tensors.at(name + ".weight").values, &bias = tensors.at(name + ".bias").values;
  Rows y = x;
  const auto n = static_cast<double>(width);
  for (std::size_t r = 0; r < y.size(); ++r) {
    double mean = 0, variance = 0;
    for (std::size_t c = 0; c < y[r].size(); ++c) {
      y[r][c] += residual.empty() ? 0 : residual[r][c];
      mean += y[r][c] / n;
    }
    for (double e : y[r]) variance += (e - mean) * (e - mean) / n;
    for (std::size_t c = 0; c < y[r].size(); ++c)
      y[r][c] = (y[r][c] - mean) / std::sqrt(variance + eps) * weight[c] + bias[c];
  }
  return y;
}

double TinyModel::activated(double x) const {
  if (activation == "relu") return x > 0 ? x : 0;
  if (activation == "silu" || activation == "swish") return x / (1 + std::exp(-x));
  if (activation == "gelu") return x * std::erfc(-x / std::sqrt(2.0)) / 2;
  return x / 2 * (1 + std::tanh(std::sqrt(2 / 3.141592653589793) * (x + 0.044715 * x * x * x)));
}

TinyTruth TinyModel::run(const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& token_types) const {
  const auto w = static_cast<std::size_t>(width), n = ids.size(), d = w / static_cast<std::size_t>(heads);
  const auto row = [&](const std::string& name, std::int64_t at, std::size_t c) {
    return static_cast<double>(
        tensors.at("embeddings." + name + ".weight").values[static_cast<std::size_t>(at) * w + c]);
  };
  Rows x(n, std::vector<double>(w));
  std::int64_t next = roberta() ? 2 : 0;
  for (std::size_t t = 0; t < n; ++t) {
    const std::int64_t place = roberta() && ids[t] == 1 ? 1 : next++;
    for (std::size_t c = 0; c < w; ++c)
      x[t][c] = row("word_embeddings", ids[t], c) + row("position_embeddings", place, c) +
                (distilbert() ? 0 : row("token_type_embeddings", token_types.empty() ? 0 : token_types[t], c));
  }
  TinyTruth truth;
  x = normed("embeddings.LayerNorm", x, {});
  truth.states.push_back(x);
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string at = layer(i) + "attention.";
    const bool s = distilbert();
    const Rows q = rounded(linear(at + (s ? "q_lin" : "self.query"), x));
    const Rows k = rounded(linear(at + (s ? "k_lin" : "self.key"), x));
    const Rows v = rounded(linear(at + (s ? "v_lin" : "self.value"), x));
    Rows concat(n, std::vector<double>(w));
    auto& weights = truth.weights.emplace_back();
    for (std::size_t h = 0; h < w / d; ++h) {
      Rows& p = weights.emplace_back(n, std::vector<double>(n));
      for (std::size_t a = 0; a < n; ++a) {
        double sum = 0;
        for (std::size_t b = 0; b < n; ++b) {
          double score = 0;
          for (std::size_t c = h * d; c < (h + 1) * d; ++c) score += q[a][c] * k[b][c];
          sum += p[a][b] = std::exp(score / std::sqrt(static_cast<double>(d)));
        }
        for (std::size_t b = 0; b < n; ++b) {
          p[a][b] /= sum;
          for (std::size_t c = h * d; c < (h + 1) * d; ++c) concat[a][c] += p[a][b] * v[b][c];
        }
      }
    }
    x = normed(s ? layer(i) + "sa_layer_norm" : at + "output.LayerNorm",
               rounded(linear(at + (s ? "out_lin" : "output.dense"), concat)), x);
    Rows middle = linear(layer(i) + (s ? "ffn.lin1" : "intermediate.dense"), x);
    for (std::vector<double>& r : middle)
      for (double& e : r) e = activated(e);
    x = normed(layer(i) + (s ? "output_layer_norm" : "output.LayerNorm"),
               linear(layer(i) + (s ? "ffn.lin2" : "output.dense"), middle), x);
    truth.states.push_back(x);
  }
  return truth;
}

}  // namespace multihead::testing
