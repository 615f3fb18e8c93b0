// SPDX-License-Identifier: Apache-2.0
// config.json as Transformers 4 and 5 write it for each family, and every rule of its reader.
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "multihead/model_files.hpp"
#include "safetensors_file.hpp"

namespace multihead {
namespace {

using testing::bytes_of;
using testing::expect_refusal;

ModelConfig parsed(const std::string& text) { return parse_config(bytes_of(text), "config.json"); }

// The least that is taken, and what a test adds.
std::string config(const std::string& more) {
  return R"({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2)" + more + "}";
}

void expect_extents(const ModelConfig& read, std::int64_t model_dim, std::int64_t layers, std::int64_t heads,
                    std::int64_t kv_heads, std::int64_t head_dim) {
  EXPECT_EQ(read.model_dim, model_dim);
  EXPECT_EQ(read.layers, layers);
  EXPECT_EQ(read.heads, heads);
  EXPECT_EQ(read.kv_heads, kv_heads);
  EXPECT_EQ(read.head_dim, head_dim);
}

TEST(Config, LeavesOutWhatIsNotSaid) {
  const ModelConfig read = parsed(config(""));
  expect_extents(read, 8, 2, 2, 2, 4);
  EXPECT_EQ(read.model_type, "bert");
  EXPECT_EQ(read.position_embedding_type, "absolute");
  EXPECT_TRUE(read.architectures.empty() && read.activation.empty() && read.layer_types.empty() && read.dtype.empty());
  EXPECT_FALSE(read.intermediate_dim || read.vocab_size || read.max_positions || read.token_types);
  EXPECT_FALSE(read.pad_token_id || read.sliding_window || read.norm_eps || read.attention_bias);
  EXPECT_FALSE(read.tie_word_embeddings || read.use_sliding_window || read.softcap || read.query_pre_attn_scalar);
  EXPECT_FALSE(read.rope_theta || read.partial_rotary_factor || read.rope_scaling);
  EXPECT_FALSE(read.relative_buckets || read.relative_max_distance || read.is_decoder);
  EXPECT_EQ(parsed(config(R"(, "is_decoder": true)")).is_decoder, true);
}

TEST(Config, MiniLM) {
  const ModelConfig read =
      parsed(R"({"_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": false, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": 384, "initializer_range": 0.02, "intermediate_size": 1536,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
    "num_hidden_layers": 6, "pad_token_id": 0, "position_embedding_type": "relative_key",
    "transformers_version": "4.8.2", "type_vocab_size": 2, "use_cache": true, "vocab_size": 30522})");
  expect_extents(read, 384, 6, 12, 12, 32);
  EXPECT_EQ(read.architectures, std::vector<std::string>{"BertModel"});
  EXPECT_EQ(read.activation, "gelu");
  EXPECT_EQ(read.intermediate_dim, 1536);
  EXPECT_EQ(read.norm_eps, 1e-12);
  EXPECT_EQ(read.max_positions, 512);
  EXPECT_EQ(read.pad_token_id, 0);
  EXPECT_EQ(read.token_types, 2);
  EXPECT_EQ(read.vocab_size, 30522);
  EXPECT_EQ(read.position_embedding_type, "relative_key");
}

TEST(Config, XlmRoberta) {
  const ModelConfig read = parsed(R"({"model_type": "xlm-roberta", "hidden_act": "gelu", "hidden_size": 8,
    "intermediate_size": 12, "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "num_attention_heads": 2,
    "num_hidden_layers": 2, "pad_token_id": 1, "tie_word_embeddings": true, "dtype": "float32", "type_vocab_size": 1,
    "vocab_size": 30})");
  expect_extents(read, 8, 2, 2, 2, 4);
  EXPECT_EQ(read.model_type, "xlm-roberta");
  EXPECT_EQ(read.pad_token_id, 1);
  EXPECT_EQ(read.token_types, 1);
  EXPECT_EQ(read.tie_word_embeddings, true);
  EXPECT_EQ(read.dtype, "float32");
}

TEST(Config, DistilBert) {
  const ModelConfig read = parsed(R"({"activation": "relu", "dim": 8, "hidden_dim": 12, "max_position_embeddings": 512,
    "model_type": "distilbert", "n_heads": 2, "n_layers": 3, "pad_token_id": 0, "sinusoidal_pos_embds": false,
    "torch_dtype": "float16", "vocab_size": 30})");
  expect_extents(read, 8, 3, 2, 2, 4);
  EXPECT_EQ(read.intermediate_dim, 12);
  EXPECT_EQ(read.activation, "relu");
  EXPECT_EQ(read.dtype, "float16");
  EXPECT_FALSE(read.norm_eps);
}

TEST(Config, Gpt2) {
  const ModelConfig read = parsed(R"({"activation_function": "gelu_new", "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_inner": null, "n_layer": 3, "n_positions": 1024,
    "n_ctx": 1024, "vocab_size": 50257})");
  expect_extents(read, 8, 3, 2, 2, 4);
  EXPECT_EQ(read.activation, "gelu_new");
  EXPECT_EQ(read.norm_eps, 1e-5);
  EXPECT_EQ(read.max_positions, 1024);
  EXPECT_FALSE(read.intermediate_dim);
  EXPECT_EQ(parsed(config(R"(, "n_inner": 32)")).intermediate_dim, 32);
}

void expect_llama3(const ModelConfig& read) {
  ASSERT_TRUE(read.rope_scaling);
  EXPECT_EQ(read.rope_theta, 500000);
  EXPECT_EQ(read.rope_scaling->type, "llama3");
  EXPECT_EQ(read.rope_scaling->factor, 8);
  EXPECT_EQ(read.rope_scaling->low_freq_factor, 1.5);
  EXPECT_EQ(read.rope_scaling->high_freq_factor, 5);
  EXPECT_EQ(read.rope_scaling->original_max_position_embeddings, 4096);
}

TEST(Config, LlamaInBothForms) {
  const std::string start = R"({"attention_bias": false, "hidden_act": "silu", "hidden_size": 8, "head_dim": 6,
    "intermediate_size": 12, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": -1,
    "rms_norm_eps": 1e-06, "tie_word_embeddings": false, "vocab_size": 30, )";
  const ModelConfig old = parsed(start + R"("rope_scaling": {"factor": 8.0, "high_freq_factor": 5.0,
    "low_freq_factor": 1.5, "original_max_position_embeddings": 4096, "rope_type": "llama3"},
    "rope_theta": 500000.0})");
  const ModelConfig now = parsed(start + R"("rope_parameters": {"factor": 8.0, "high_freq_factor": 5.0,
    "low_freq_factor": 1.5, "original_max_position_embeddings": 4096, "rope_theta": 500000.0,
    "rope_type": "llama3"}})");
  for (const ModelConfig& read : {old, now}) {
    expect_extents(read, 8, 2, 4, 2, 6);
    expect_llama3(read);
    EXPECT_EQ(read.attention_bias, false);
    EXPECT_EQ(read.tie_word_embeddings, false);
    EXPECT_EQ(read.norm_eps, 1e-6);
    EXPECT_FALSE(read.pad_token_id);  // -1 is what some write for none
  }
}

TEST(Config, MistralAndQwen) {
  const ModelConfig mistral = parsed(config(R"(, "num_key_value_heads": 1, "sliding_window": 4096,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"})"));
  EXPECT_EQ(mistral.sliding_window, 4096);
  EXPECT_EQ(mistral.kv_heads, 1);
  EXPECT_EQ(mistral.rope_scaling->type, "default");
  const ModelConfig qwen = parsed(config(R"(, "layer_types": ["full_attention", "full_attention"],
    "max_window_layers": 28, "sliding_window": null, "use_sliding_window": false, "rope_scaling": null,
    "rope_theta": 1000000.0, "head_dim": 128)"));
  EXPECT_EQ(qwen.layer_types, (std::vector<std::string>{"full_attention", "full_attention"}));
  EXPECT_EQ(qwen.use_sliding_window, false);
  EXPECT_FALSE(qwen.sliding_window || qwen.rope_scaling);
  EXPECT_EQ(qwen.rope_theta, 1e6);
  EXPECT_EQ(qwen.head_dim, 128);
}

TEST(Config, Gemma2) {
  const ModelConfig read = parsed(config(R"(, "attn_logit_softcapping": 50.0, "query_pre_attn_scalar": 256,
    "hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh", "head_dim": 256, "sliding_window": 4096,
    "layer_types": ["sliding_attention", "full_attention"])"));
  EXPECT_EQ(read.softcap, 50);
  EXPECT_EQ(read.query_pre_attn_scalar, 256);
  EXPECT_EQ(read.activation, "gelu_pytorch_tanh");
  EXPECT_EQ(read.layer_types.front(), "sliding_attention");
}

TEST(Config, T5) {
  const ModelConfig read = parsed(R"({"d_ff": 12, "d_kv": 6, "d_model": 8, "dense_act_fn": "gelu_new",
    "feed_forward_proj": "gated-gelu", "is_gated_act": true, "layer_norm_epsilon": 1e-06, "model_type": "t5",
    "num_heads": 3, "num_layers": 2, "pad_token_id": 0, "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32, "vocab_size": 32128})");
  expect_extents(read, 8, 2, 3, 3, 6);
  EXPECT_EQ(read.intermediate_dim, 12);
  EXPECT_EQ(read.activation, "gated-gelu");
  EXPECT_EQ(read.relative_buckets, 32);
  EXPECT_EQ(read.relative_max_distance, 128);
}

TEST(Config, Phi3AndNeoX) {
  const ModelConfig phi = parsed(config(R"(, "rope_parameters": {"partial_rotary_factor": 0.75, "rope_theta": 10000.0,
    "rope_type": "longrope", "short_factor": [1.0]}, "partial_rotary_factor": 0.75)"));
  EXPECT_EQ(phi.partial_rotary_factor, 0.75);
  EXPECT_EQ(phi.rope_theta, 10000);
  EXPECT_EQ(phi.rope_scaling->type, "longrope");
  EXPECT_EQ(parsed(config(R"(, "rotary_pct": 0.25)")).partial_rotary_factor, 0.25);
  EXPECT_EQ(parsed(config(R"(, "rope_scaling": {"type": "linear", "factor": 2})")).rope_scaling->type, "linear");
}

TEST(Config, OneThingUnderTwoNamesAlike) {
  EXPECT_EQ(parsed(config(R"(, "d_model": 8, "n_head": null)")).model_dim, 8);
  EXPECT_EQ(parsed(config(R"(, "rope_scaling": {"type": "yarn", "rope_type": "yarn"})")).rope_scaling->type, "yarn");
}

struct Bad {
  const char* name;
  std::string text;
  std::vector<const char*> words;
  ErrorCode code = ErrorCode::file_malformed;
  friend void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }
};

// The field's value in place of a good one's.
std::string with(const std::string& field, const std::string& value) {
  std::string text = R"({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2})";
  const std::string key = "\"" + field + "\": ";
  const std::size_t at = text.find(key) + key.size();
  return text.replace(at, text.find_first_of(",}", at) - at, value);
}

const std::vector<Bad> kBad{
    {"NotAnObject", "[]", {"it is of type array; it must be an object"}},
    {"Null", "null", {"it is of type null; it must be an object"}},
    {"Empty", "", {"byte 0: this is not JSON"}},
    {"Cut", R"({"model_type": "bert")", {"this is not JSON"}},
    {"BytesAfterIt", config("") + "x", {"byte 90: this is not JSON"}},
    {"KeyTwice", config(R"(, "hidden_size": 8)"), {"the key 'hidden_size' twice"}},
    {"Deep", config(R"(, "a": )" + std::string(64, '[') + std::string(64, ']')), {"more than 64 values are nested"}},
    {"NoType", with("model_type", "null"), {"field 'model_type' is missing"}},
    {"TypeANumber", with("model_type", "1"), {"field 'model_type' is 1; it must be a string"}},
    {"NoWidth", with("hidden_size", "null"), {"field 'hidden_size' is missing"}},
    {"NoLayers", with("num_hidden_layers", "null"), {"field 'num_hidden_layers' is missing"}},
    {"NoHeads", with("num_attention_heads", "null"), {"field 'num_attention_heads' is missing"}},
    {"WidthZero", with("hidden_size", "0"), {"field 'hidden_size' is 0; it must be a whole number from 1 to"}},
    {"WidthNegative", with("hidden_size", "-8"), {"field 'hidden_size' is -8; it must be a whole number"}},
    {"WidthBroken", with("hidden_size", "1.5"), {"field 'hidden_size' is 1.5; it must be a whole number"}},
    {"WidthAsAReal", with("hidden_size", "1e3"), {"field 'hidden_size' is 1000.0; it must be a whole number"}},
    {"WidthAString", with("hidden_size", "\"8\""), {"field 'hidden_size' is of type string; it must be a whole"}},
    {"WidthTrue", with("hidden_size", "true"), {"field 'hidden_size' is true; it must be a whole number"}},
    {"Width2To41", with("hidden_size", "2199023255552"), {"2199023255552; it must be", "to 1099511627776"}},
    {"Width2To63", with("hidden_size", "9223372036854775808"), {"is 9223372036854775808; it must be a whole"}},
    {"Width2To64", with("hidden_size", "18446744073709551616"), {"is 1.8446744073709552e+19; it must be a whole"}},
    {"ManyLayers", with("num_hidden_layers", "1048577"), {"field 'num_hidden_layers' is 1048577", "to 1048576"}},
    {"ManyHeads", with("num_attention_heads", "2147483649"), {"is 2147483649", "to 2147483648"}},
    {"TwoWidths", config(R"(, "d_model": 9)"), {"'d_model' and field 'hidden_size' mean one thing and differ"}},
    {"KvHeadsZero", config(R"(, "num_key_value_heads": 0)"), {"'num_key_value_heads' is 0; it must be a whole"}},
    {"KvHeadsMore", config(R"(, "num_key_value_heads": 4)"), {"'num_key_value_heads' is 4; it must divide 2 heads"}},
    {"NoHeadDim", with("num_attention_heads", "3"), {"'head_dim' is missing, and 3 heads do not divide 8"}},
    {"HeadDimZero", config(R"(, "head_dim": 0)"), {"field 'head_dim' is 0; it must be a whole number from 1"}},
    {"PadBelowNone", config(R"(, "pad_token_id": -2)"), {"field 'pad_token_id' is -2; it must be", "from -1 to"}},
    {"WindowZero", config(R"(, "sliding_window": 0)"), {"field 'sliding_window' is 0; it must be"}},
    {"TypesNegative", config(R"(, "type_vocab_size": -1)"), {"field 'type_vocab_size' is -1", "from 0 to"}},
    {"EpsNegative", config(R"(, "layer_norm_eps": -1e-5)"), {"'layer_norm_eps' is -1e-05; it must be a number from"}},
    {"EpsAString", config(R"(, "rms_norm_eps": "1e-5")"), {"'rms_norm_eps' is of type string; it must be a number"}},
    {"TwoEps", config(R"(, "layer_norm_eps": 0.5, "rms_norm_eps": 0.25)"), {"'rms_norm_eps' and field 'layer_norm"}},
    {"EpsBeyondFloat64", config(R"(, "layer_norm_eps": 1e999)"), {"a number is beyond what a float64 holds"}},
    {"SoftcapAString", config(R"(, "attn_logit_softcapping": "50")"), {"'attn_logit_softcapping' is of type string"}},
    {"FlagANumber", config(R"(, "attention_bias": 0)"), {"field 'attention_bias' is 0; it must be true or false"}},
    {"ArchitecturesText", config(R"(, "architectures": "B")"), {"'architectures' is of type string; it must be an ar"}},
    {"ArchitecturesOfNumbers", config(R"(, "architectures": [1])"), {"'architectures' is 1; it must be an array"}},
    {"ActivationAnObject", config(R"(, "hidden_act": {})"), {"field 'hidden_act' is of type object; it must be a st"}},
    {"LayerTypesShort",
     config(R"(, "layer_types": ["a"])"),
     {"'layer_types' has 1 entries; it must have one for", "2"}},
    {"RopeText", config(R"(, "rope_scaling": "linear")"), {"rope_scaling is of type string; it must be an object"}},
    {"RopeFactorText", config(R"(, "rope_scaling": {"factor": "8"})"), {"'rope_scaling.factor' is of type string"}},
    {"RopeTypes", config(R"(, "rope_scaling": {"type": "a", "rope_type": "b"})"), {"'rope_scaling.type' and field"}},
    {"RopeTwice", config(R"(, "rope_scaling": {}, "rope_parameters": {})"), {"'rope_scaling' and field 'rope_param"}},
    {"TwoThetas", config(R"(, "rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0})"), {"'rope_theta' and the"}},
    {"RotaryPartOver1", config(R"(, "partial_rotary_factor": 1.5)"), {"is 1.5; it must be a number from 0.0 to 1.0"}},
    {"RopeByLayer",
     config(R"(, "rope_parameters": {"full_attention": {"rope_theta": 160000.0, "rope_type": "default"}})"),
     {"field 'rope_parameters.full_attention' is for one kind of layer", "must be the same"},
     ErrorCode::unsupported},
    {"DtypeAnObject", config(R"(, "dtype": {})"), {"field 'dtype' is of type object; it must be a string"}}};

class ConfigRefuses : public ::testing::TestWithParam<Bad> {};
INSTANTIATE_TEST_SUITE_P(Texts, ConfigRefuses, ::testing::ValuesIn(kBad), [](const auto& i) { return i.param.name; });

TEST_P(ConfigRefuses, ByFileFieldAndRule) {
  const Bad& bad = GetParam();
  for (const char* word : bad.words)
    expect_refusal(bad.code, [&] { parsed(bad.text); }, {"parse_config: config.json: ", word});
}

class ConfigFile : public testing::InFolder {};

TEST_F(ConfigFile, IsReadOrNamed) {
  EXPECT_EQ(read_config(put("config.json", config(""))).heads, 2);
  const auto missing = [&] { read_config(folder_ / "none.json"); };
  expect_refusal(ErrorCode::file_missing, missing, {"read_config: " + (folder_ / "none.json").string() + ": cannot"});
  const auto a_folder = [&] { read_config(folder_); };
  expect_refusal(ErrorCode::file_missing, a_folder, {"read_config: " + folder_.string(), "not a regular file"});
  const auto bad = [&] { read_config(put("bad.json", "{}")); };
  expect_refusal(ErrorCode::file_malformed, bad, {"read_config: ", "bad.json: field 'model_type' is missing"});
  const std::string large(std::size_t{64} << 20, ' ');
  expect_refusal(ErrorCode::file_malformed, [&] { read_config(put("large.json", large + "{}")); },
                 {"large.json: it has 67108866 bytes; at most 67108864 are accepted"});
}

}  // namespace
}  // namespace multihead
