// SPDX-License-Identifier: Apache-2.0
// Encoders and decoders that multiply in bfloat16: where they round, what it does to the results, and the memory.
#include <gtest/gtest.h>

#include <cmath>

#include "models/tiny_decoder.hpp"
#include "models/tiny_model.hpp"
#include "multihead/linear.hpp"
#include "multihead/multi_head_attention.hpp"

namespace multihead::testing {
namespace {

constexpr EncoderOptions kEncoderProducts{.products = Type::bfloat16};
constexpr DecoderOptions kDecoderProducts{.products = Type::bfloat16};

struct Rows {
  std::int64_t count, width;
  std::vector<float> values = std::vector<float>(static_cast<std::size_t>(count * width));

  MatrixView<float> view() { return {values.data(), {count, width}}; }
};

std::vector<BFloat16> narrow(std::span<const float> values) {
  std::vector<BFloat16> result;
  for (const float value : values) result.emplace_back(value);
  return result;
}

// What a model holds, by the layers that a user can make of it.
template <class Model>
struct Parts {
  const Model& model;

  const TinyTensor& tensor(const std::string& name) const { return model.tensors.at(name); }
  Linear<BFloat16> linear(const std::string& name, WeightOrder order) const {
    const TinyTensor& weight = tensor(name + ".weight");
    const std::vector<BFloat16> values = narrow(weight.values);
    const auto bias = model.tensors.find(name + ".bias");
    return {{values.data(), {weight.shape[0], weight.shape[1]}},
            order,
            bias == model.tensors.end() ? std::vector<BFloat16>() : narrow(bias->second.values)};
  }
  // y not rounded.
  Rows map(const std::string& name, Rows& x, WeightOrder order, Activation activation = Activation::none) const {
    const Linear<BFloat16> weights = linear(name, order);
    Rows y{x.count, weights.out()};
    const std::vector<BFloat16> from = narrow(x.values);
    weights.forward(MatrixView<const BFloat16>(from.data(), {x.count, x.width}), y.view(), activation);
    return y;
  }
  void norm(const std::string& name, const HeadNorm& how, Rows& x, MatrixView<const float> residual) const {
    const std::vector<float>& weight = tensor(name + ".weight").values;
    const auto bias = model.tensors.find(name + ".bias");
    row_norm(x.view(), residual,
             {how, weight, bias == model.tensors.end() ? std::span<const float>() : bias->second.values}, x.view());
  }
};

struct HandMadeEncoder : Parts<TinyModel> {
  HeadNorm layer_norm{HeadNorm::Kind::layer, model.eps};

  void attend(const std::string& at, Rows& x) const {
    std::vector<std::vector<BFloat16>> kept;
    const auto weight = [&](const char* name) {
      kept.push_back(narrow(tensor(at + name + ".weight").values));
      return MatrixView<const BFloat16>(kept.back().data(), {model.width, model.width});
    };
    const auto bias = [&](const char* name) {
      kept.push_back(narrow(tensor(at + name + ".bias").values));
      return std::span<const BFloat16>(kept.back());
    };
    kept.reserve(8);
    const MultiHeadAttention<BFloat16> layer({.heads = model.heads, .order = WeightOrder::out_in},
                                             {.q = weight("self.query"),
                                              .k = weight("self.key"),
                                              .v = weight("self.value"),
                                              .out = weight("output.dense"),
                                              .q_bias = bias("self.query"),
                                              .k_bias = bias("self.key"),
                                              .v_bias = bias("self.value"),
                                              .out_bias = bias("output.dense")});
    const std::vector<BFloat16> from = narrow(x.values);
    std::vector<BFloat16> to(from.size());
    layer.forward(View3<const BFloat16>(from.data(), {1, x.count, x.width}),
                  View3<BFloat16>(to.data(), {1, x.count, x.width}));
    for (std::size_t i = 0; i < to.size(); ++i) x.values[i] = static_cast<float>(to[i]);
  }

  std::vector<float> run(const std::vector<std::int64_t>& ids) const {
    const auto count = static_cast<std::int64_t>(ids.size());
    Rows x{count, model.width};
    for (std::int64_t t = 0; t < count; ++t)
      for (std::int64_t c = 0; c < model.width; ++c) {
        const auto at = [&](const char* name, std::int64_t row) {
          return tensor(std::string("embeddings.") + name + ".weight")
              .values[static_cast<std::size_t>(row * model.width + c)];
        };
        x.view()(t, c) = at("word_embeddings", ids[static_cast<std::size_t>(t)]) + at("position_embeddings", t) +
                         at("token_type_embeddings", 0);
      }
    norm("embeddings.LayerNorm", layer_norm, x, {});
    for (std::int64_t i = 0; i < model.layers; ++i) {
      const std::string at = "encoder.layer." + std::to_string(i) + ".";
      Rows before = x;
      attend(at + "attention.", x);
      norm(at + "attention.output.LayerNorm", layer_norm, x, before.view());
      before = x;
      Rows middle = map(at + "intermediate.dense", x, WeightOrder::out_in, Activation::gelu);
      x = map(at + "output.dense", middle, WeightOrder::out_in);
      norm(at + "output.LayerNorm", layer_norm, x, before.view());
    }
    return x.values;
  }
};

std::vector<float> states(const Encoder& encoder, const std::vector<std::int64_t>& ids,
                          const LayerOptions& options = {}) {
  Rows output{static_cast<std::int64_t>(ids.size()), encoder.extents().model_dim};
  encoder.forward({.ids = ids}, output.view(), options);
  return output.values;
}

const std::vector<std::int64_t> kIds{2, 9, 31, 4, 9, 17, 5};

TEST(Products, AnEncoderIsItsLayersOfBFloat16InBits) {
  const TinyModel model("bert", 11);
  const TemporaryFolder folder;
  model.write(folder);
  EXPECT_EQ(states(Encoder(folder.path(), kEncoderProducts), kIds), HandMadeEncoder{{model}}.run(kIds));
}

// GPT-2's form with one token, whose attention is its value.
TEST(Products, ADecoderIsItsMapsOfBFloat16InBits) {
  const TinyDecoder model("gpt2", 12);
  const Parts<TinyDecoder> parts{model};
  const HeadNorm layer_norm{HeadNorm::Kind::layer, 1e-5};
  Rows x{1, model.width};
  for (std::size_t c = 0; c < x.values.size(); ++c)
    x.values[c] = parts.tensor("wte.weight").values[7 * x.values.size() + c] + parts.tensor("wpe.weight").values[c];
  const auto add = [](Rows& to, const Rows& from) {
    for (std::size_t i = 0; i < to.values.size(); ++i) to.values[i] += from.values[i];
  };
  for (std::int64_t i = 0; i < model.layers; ++i) {
    const std::string at = "h." + std::to_string(i) + ".";
    Rows n = x;
    parts.norm(at + "ln_1", layer_norm, n, {});
    const Rows qkv = parts.map(at + "attn.c_attn", n, WeightOrder::in_out);
    std::copy(qkv.values.end() - model.width, qkv.values.end(), n.values.begin());
    add(x, parts.map(at + "attn.c_proj", n, WeightOrder::in_out));
    n = x;
    parts.norm(at + "ln_2", layer_norm, n, {});
    Rows middle = parts.map(at + "mlp.c_fc", n, WeightOrder::in_out, Activation::gelu_tanh);
    add(x, parts.map(at + "mlp.c_proj", middle, WeightOrder::in_out));
  }
  parts.norm("ln_f", layer_norm, x, {});
  const Rows wanted = parts.map("wte", x, WeightOrder::out_in);

  const Decoder decoder = model.decoder(kDecoderProducts);
  KvCache cache(decoder.cache_spec(128));
  const std::vector<KvSequence> sequences{cache.add()};
  const std::vector<std::int64_t> ids{7};
  Rows logits{1, model.words};
  decoder.forward({.ids = ids, .sequences = sequences}, cache, logits.view());
  EXPECT_EQ(logits.values, wanted.values);
}

double worst(const std::vector<float>& states, const TinyTruth& truth) {
  double away = 0;
  const auto& last = truth.states.back();
  for (std::size_t t = 0; t < last.size(); ++t)
    for (std::size_t c = 0; c < last[t].size(); ++c)
      away = std::max(away, distance(states[t * last[t].size() + c], last[t][c]));
  return away;
}

double largest(const TinyTruth& truth) {
  double most = 0;
  for (const auto& row : truth.states.back())
    for (const double e : row) most = std::max(most, std::abs(e));
  return most;
}

// The definition in float64 that rounds where the encoder does, and the one that rounds nowhere. From the first it is
// as far as in float32, but on targets that round weights too and sum pairs, where a rounding may fall the other way;
// then, as from the second always, at most half as far as all roundings together reach: 12 a layer, each 2^-8 of the
// largest state.
TEST(Products, AnEncoderInFloat64WithItsRoundings) {
  double of_them = 0, of_pairs = 0, share = 0;
  for (const char* family : {"bert", "roberta", "distilbert"})
    for (unsigned seed = 1; seed <= 5; ++seed) {
      TinyModel model(family, seed);
      const TemporaryFolder folder;
      model.write(folder);
      const Encoder encoder(folder.path(), kEncoderProducts);
      const TinyTruth of_float64 = model.run(kIds, {});
      model.narrow_products = true;
      const TinyTruth of_roundings = model.run(kIds, {});
      for (Target target : available_targets()) {
        const std::vector<float> got = states(encoder, kIds, {.target = target});
        const double reach = static_cast<double>(12 * model.layers) * 0x1p-8 * largest(of_float64);
        if (multiplies_pairs(target, Type::bfloat16))
          of_pairs = std::max(of_pairs, worst(got, of_roundings) / reach);
        else
          of_them = std::max(of_them, worst(got, of_roundings));
        share = std::max(share, worst(got, of_float64) / reach);
      }
    }
  EXPECT_LE(of_them, 2e-5);
  EXPECT_LE(of_pairs, 0.5);
  EXPECT_LE(share, 0.5);
  EXPECT_GT(share, 0.02) << "nothing was rounded";
  std::printf(
      "products of bfloat16: worst error of a state %.2g from the roundings (by pairs %.2g of the reach), %.2g of the "
      "reach\n",
      of_them, of_pairs, share);
}

// Only the linear maps are rounded: a folder that holds them rounded gives the same bits, one with every tensor rounded
// those of both options.
TEST(Products, AndPrecision) {
  for (const char* family : {"bert", "distilbert"}) {
    TinyModel model(family, 13);
    const TemporaryFolder exact, maps, all;
    model.write(exact);
    const auto round_if = [&](const auto& wanted) {
      for (auto& [name, tensor] : model.tensors)
        if (wanted(name))
          for (float& value : tensor.values) value = static_cast<float>(BFloat16(value));
    };
    round_if([](const std::string& name) {
      return name.find("Norm.") == std::string::npos && name.find("_norm.") == std::string::npos &&
             name.find("embeddings") == std::string::npos;
    });
    model.write(maps);
    round_if([](const std::string&) { return true; });
    model.write(all);
    const std::vector<float> wanted = states(Encoder(exact.path(), kEncoderProducts), kIds);
    EXPECT_EQ(states(Encoder(maps.path(), kEncoderProducts), kIds), wanted);
    const std::vector<float> both =
        states(Encoder(exact.path(), {.precision = Type::bfloat16, .products = Type::bfloat16}), kIds);
    EXPECT_EQ(states(Encoder(all.path(), kEncoderProducts), kIds), both);
    EXPECT_NE(both, wanted);
    EXPECT_NE(states(Encoder(exact.path(), {.precision = Type::bfloat16}), kIds), both);
  }
}

template <class Model, class Options>
std::string refusal(const std::filesystem::path& folder, const Options& options) {
  try {
    const Model model(folder, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_option);
    return error.what();
  }
  return "";
}

TEST(Products, OtherTypesAreRefused) {
  const TemporaryFolder encoder, decoder;
  TinyModel("bert").write(encoder);
  TinyDecoder("gpt2").write(decoder);
  EXPECT_EQ(refusal<Encoder>(encoder.path(), EncoderOptions{.products = Type::float16}),
            "Encoder: products is float16; it must be float32 or bfloat16");
  EXPECT_EQ(refusal<Decoder>(decoder.path(), DecoderOptions{.products = Type::float64}),
            "Decoder: products is float64; it must be float32 or bfloat16");
}

}  // namespace
}  // namespace multihead::testing
