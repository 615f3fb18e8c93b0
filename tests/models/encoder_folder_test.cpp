// SPDX-License-Identifier: Apache-2.0
// Every rule of an encoder's folder: its configuration, and the names and extents of its tensors.
#include <gtest/gtest.h>

#include "models/tiny_model.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

constexpr ErrorCode kMalformed = ErrorCode::file_malformed, kUnsupported = ErrorCode::unsupported;

struct FolderCase {
  const char* name;
  const char* family;
  std::function<void(TinyModel&, std::map<std::string, TinyTensor>&)> change;
  ErrorCode code;
  Words words;

  friend void PrintTo(const FolderCase& c, std::ostream* out) { *out << c.name; }
};
using Beside = std::map<std::string, TinyTensor>;

const TinyTensor kOne{{1}, {1}};

// Names that are unknown or missing.
std::vector<FolderCase> name_cases() {
  return {
      {"model_type",
       "bert",
       [](TinyModel& m, Beside&) { m.model_type = "gpt2"; },
       kUnsupported,
       {"model_type is 'gpt2'", "bert, distilbert, roberta, xlm-roberta"}},
      {"activation",
       "bert",
       [](TinyModel& m, Beside&) { m.activation = "mish"; },
       kUnsupported,
       {"hidden_act is 'mish'", "gelu, gelu_new, gelu_pytorch_tanh, relu, silu, swish"}},
      {"no_words",
       "bert",
       [](TinyModel& m, Beside&) { m.tensors.erase("embeddings.word_embeddings.weight"); },
       kMalformed,
       {"'embeddings.word_embeddings.weight' is missing"}},
      {"two_words",
       "bert",
       [](TinyModel& m, Beside& b) {
         m.prefix = "b.";
         b["a.embeddings.word_embeddings.weight"] = kOne;
       },
       kMalformed,
       {"'b.embeddings.word_embeddings.weight'", "'a.embeddings.word_embeddings.weight'", "must be one"}},
      {"no_positions",
       "bert",
       [](TinyModel& m, Beside&) { m.tensors.erase("embeddings.position_embeddings.weight"); },
       kMalformed,
       {"'embeddings.position_embeddings.weight' is missing"}},
      {"no_types",
       "roberta",
       [](TinyModel& m, Beside&) { m.tensors.erase("embeddings.token_type_embeddings.weight"); },
       kMalformed,
       {"'embeddings.token_type_embeddings.weight' is missing"}},
      {"no_query",
       "bert",
       [](TinyModel& m, Beside&) { m.tensors.erase("encoder.layer.1.attention.self.query.weight"); },
       kMalformed,
       {"'encoder.layer.1.attention.self.query.weight' is missing"}},
      {"no_bias",
       "distilbert",
       [](TinyModel& m, Beside&) { m.tensors.erase("transformer.layer.0.ffn.lin2.bias"); },
       kMalformed,
       {"'transformer.layer.0.ffn.lin2.bias' is missing"}},
      {"no_norm",
       "bert",
       [](TinyModel& m, Beside&) { m.tensors.erase("encoder.layer.0.output.LayerNorm.bias"); },
       kMalformed,
       {"'encoder.layer.0.output.LayerNorm.bias' is missing"}},
  };
}

// Tensors that the encoder has not.
std::vector<FolderCase> surplus_cases() {
  return {
      {"surplus",
       "bert",
       [](TinyModel&, Beside& b) { b["encoder.layer.0.attention.self.distance_embedding.weight"] = kOne; },
       kMalformed,
       {"'encoder.layer.0.attention.self.distance_embedding.weight'", "is no part of a bert encoder"}},
      {"surplus_embedding",
       "distilbert",
       [](TinyModel&, Beside& b) { b["embeddings.token_type_embeddings.weight"] = kOne; },
       kMalformed,
       {"'embeddings.token_type_embeddings.weight'", "is no part of a distilbert encoder"}},
      {"old_and_new_names",
       "bert",
       [](TinyModel&, Beside& b) {
         b["embeddings.LayerNorm.gamma"] = {{15}, std::vector<float>(15)};
       },
       kMalformed,
       {"'embeddings.LayerNorm.gamma'", "is no part"}},
  };
}

// Extents that config.json does not say.
std::vector<FolderCase> extent_cases() {
  return {
      {"vocabulary",
       "bert",
       [](TinyModel& m, Beside&) { m.vocabulary = 38; },
       kMalformed,
       {"'embeddings.word_embeddings.weight' has shape [37, 15]", "it must be [38, 15]"}},
      {"intermediate",
       "bert",
       [](TinyModel& m, Beside&) { m.intermediate = 23; },
       kMalformed,
       {"'encoder.layer.0.intermediate.dense.weight' has shape [22, 15]", "[23, 15]"}},
      {"positions",
       "bert",
       [](TinyModel& m, Beside&) { m.positions = 24; },
       kMalformed,
       {"'embeddings.position_embeddings.weight' has shape [20, 15]", "[24, 15]"}},
      {"types",
       "bert",
       [](TinyModel& m, Beside&) { m.types = 3; },
       kMalformed,
       {"'embeddings.token_type_embeddings.weight' has shape [2, 15]", "[3, 15]"}},
      {"no_type_rows",
       "bert",
       [](TinyModel& m, Beside&) {
         m.tensors["embeddings.token_type_embeddings.weight"] = {{m.types = 0, 15}, {}};
       },
       kMalformed,
       {"'embeddings.token_type_embeddings.weight' has no rows", "type 0"}},
      {"rank",
       "bert",
       [](TinyModel& m, Beside&) {
         m.tensors["encoder.layer.1.output.dense.weight"].shape = {15, 22, 1};
       },
       kMalformed,
       {"'encoder.layer.1.output.dense.weight' has shape [15, 22, 1]", "[15, 22]"}},
      {"out_bias",
       "bert",
       [](TinyModel& m, Beside&) { m.tensors["encoder.layer.1.attention.output.dense.bias"] = kOne; },
       kMalformed,
       {"'encoder.layer.1.attention.output.dense.bias' has shape [1]", "[15]"}},
      {"fewer_layers",
       "bert",
       [](TinyModel& m, Beside&) { m.layers = 3; },
       kMalformed,
       {"'encoder.layer.2.attention.self.query.weight' is missing"}},
      {"more_layers",
       "bert",
       [](TinyModel& m, Beside&) { m.layers = 1; },
       kMalformed,
       {"'encoder.layer.1.", "is no part of a bert encoder"}},
      {"few_positions",
       "roberta",
       [](TinyModel& m, Beside&) {
         m.tensors["embeddings.position_embeddings.weight"] = {{m.positions = 2, 15}, std::vector<float>(30)};
       },
       kMalformed,
       {"pad_token_id is 1", "2 positions", "none is left"}},
  };
}

class AtEncoderFolder : public ::testing::TestWithParam<FolderCase> {};
TEST_P(AtEncoderFolder, Refused) {
  TinyModel model(GetParam().family);
  std::map<std::string, TinyTensor> beside;
  GetParam().change(model, beside);
  const TemporaryFolder folder;
  model.write(folder, beside);
  expect_error("Encoder", GetParam().code, GetParam().words, [&] { Encoder encoder(folder.path()); });
}
INSTANTIATE_TEST_SUITE_P(Names, AtEncoderFolder, ::testing::ValuesIn(name_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Surplus, AtEncoderFolder, ::testing::ValuesIn(surplus_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Extents, AtEncoderFolder, ::testing::ValuesIn(extent_cases()), name_of);

TEST(EncoderValidation, Configuration) {
  const TinyModel model("bert");
  const TemporaryFolder folder;
  model.write(folder);
  const Checkpoint checkpoint(folder.path());
  const ModelConfig legal = read_config(folder.path() / "config.json");
  EXPECT_NO_THROW(Encoder(legal, checkpoint));
  const auto refused = [&](const std::function<void(ModelConfig&)>& change, ErrorCode code, const Words& words) {
    ModelConfig config = legal;
    change(config);
    expect_error("Encoder", code, words, [&] { Encoder encoder(config, checkpoint); });
  };
  refused([](ModelConfig& c) { c.position_embedding_type = "relative_key"; }, kUnsupported,
          {"position_embedding_type is 'relative_key'", "absolute"});
  refused([](ModelConfig& c) { c.is_decoder = true; }, kUnsupported, {"is_decoder is true", "must be false"});
  refused([](ModelConfig& c) { c.layers = 0; }, kMalformed, {"number of layers is 0"});
  refused([](ModelConfig& c) { c.heads = -3; }, kMalformed, {"number of heads is -3"});
  refused([](ModelConfig& c) { c.model_dim = 0; }, kMalformed, {"width is 0"});
  refused([](ModelConfig& c) { c.head_dim = 4; }, kMalformed, {"heads is 3", "head_dim 4", "15"});
  refused([](ModelConfig& c) { c.kv_heads = 1; }, kMalformed, {"kv_heads 1"});
  refused([](ModelConfig& c) { c.norm_eps = -1; }, kMalformed, {"layer_norm_eps is -1", "0 to 1"});
  // What config.json leaves out, tensors say.
  ModelConfig bare = legal;
  bare.intermediate_dim = bare.vocab_size = bare.max_positions = bare.token_types = {};
  bare.activation.clear();
  const Encoder encoder(bare, checkpoint);
  EXPECT_EQ(encoder.extents().intermediate_dim, 22);
  EXPECT_EQ(encoder.extents().vocab_size, 37);
}

TEST(EncoderValidation, OtherElementTypes) {
  TinyModel model("bert");
  const TemporaryFolder folder;
  model.write(folder);
  std::vector<StoredTensor> stored;
  std::vector<std::int64_t> whole(15, 1);
  for (const auto& [name, tensor] : model.tensors)
    stored.push_back({name, "F32", tensor.shape, std::as_bytes(std::span(tensor.values))});
  for (StoredTensor& tensor : stored)
    if (tensor.name == "embeddings.LayerNorm.weight")
      tensor.dtype = "I64", tensor.bytes = std::as_bytes(std::span(whole));
  write_safetensors(folder.path() / "model.safetensors", stored);
  try {
    Encoder encoder(folder.path());
    ADD_FAILURE() << "threw nothing";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), kUnsupported);
    EXPECT_NE(std::string(error.what()).find("embeddings.LayerNorm.weight"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace multihead::testing
