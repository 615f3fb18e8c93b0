// SPDX-License-Identifier: Apache-2.0
// Every rule of Decoder: of its folder, and of its calls, which leave the cache as it was.
#include <gtest/gtest.h>

#include "models/tiny_decoder.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

using Ids = std::vector<std::int64_t>;

void refused_folder(const char* type, ErrorCode code, const Words& words,
                    const std::function<void(TinyDecoder&)>& change) {
  TinyDecoder model(type);
  change(model);
  const TemporaryFolder folder;
  model.write(folder);
  expect_error("Decoder", code, words, [&] { Decoder decoder(folder.path()); });
}

constexpr ErrorCode kUnsupported = ErrorCode::unsupported, kMalformed = ErrorCode::file_malformed;

TEST(DecoderFolder, WhatIsNotSupportedByName) {
  const auto refused = [](const char* type, const char* field, const char* value, const Words& words) {
    refused_folder(type, kUnsupported, words, [&](TinyDecoder& m) { m.config[field] = value; });
  };
  refused("gpt2", "model_type", "\"gpt_neox\"", {"model_type is 'gpt_neox'", "gpt2, llama"});
  refused("gpt2", "activation_function", "\"mish\"", {"hidden_act is 'mish'"});
  refused("gpt2", "add_cross_attention", "true", {"add_cross_attention"});
  refused("llama", "sliding_window", "64", {"sliding_window is 64"});
  refused("llama", "attn_logit_softcapping", "30", {"attn_logit_softcapping"});
  refused("llama", "partial_rotary_factor", "0.5", {"partial_rotary_factor"});
  refused("llama", "layer_types", R"(["full_attention", "sliding_attention"])", {"sliding_attention"});
  refused("llama", "head_dim", "1025", {"head_dim is 1025"});
  refused("llama", "head_dim", "5", {"head_dim is 5", "even"});
}

TEST(DecoderFolder, ScalingOfRotation) {
  TinyDecoder model("llama");
  model.config["rope_scaling"] = R"({"rope_type": "yarn", "factor": 4.0})";
  const TemporaryFolder folder;
  model.write(folder);
  try {
    Decoder decoder(folder.path());
    ADD_FAILURE() << "yarn was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("yarn"), std::string::npos) << error.what();
  }
}

TEST(DecoderFolder, Tensors) {
  const auto refused = [](const char* type, const Words& words, const std::function<void(TinyDecoder&)>& change) {
    refused_folder(type, kMalformed, words, change);
  };
  refused("gpt2", {"wte.weight", "is missing"}, [](TinyDecoder& m) { m.tensors.erase("wte.weight"); });
  refused("gpt2", {"h.1.mlp.c_fc.bias", "is missing"}, [](TinyDecoder& m) { m.tensors.erase("h.1.mlp.c_fc.bias"); });
  refused("gpt2", {"wpe.weight", "[200, 24]", "[100, 24]"}, [](TinyDecoder& m) { m.config["n_positions"] = "100"; });
  refused("gpt2", {"h.2.ln_1.weight", "is no part of a gpt2 decoder"},
          [](TinyDecoder& m) { m.tensors["h.2.ln_1.weight"] = m.tensors["h.1.ln_1.weight"]; });
  refused("gpt2", {"lm_head.weight", "is missing"}, [](TinyDecoder& m) { m.config["tie_word_embeddings"] = "false"; });
  refused("llama", {"lm_head.weight", "is missing"}, [](TinyDecoder& m) { m.tensors.erase("lm_head.weight"); });
  refused("llama", {"q_proj.bias", "is missing"}, [](TinyDecoder& m) { m.config["attention_bias"] = "true"; });
  refused("llama", {"gate_proj.bias", "is missing"}, [](TinyDecoder& m) { m.config["mlp_bias"] = "true"; });
  refused("llama", {"k_proj.weight", "[12, 24]", "[6, 24]"},
          [](TinyDecoder& m) { m.config["num_key_value_heads"] = "1"; });
  refused("gpt2", {"heads, kv_heads and head_dim of a gpt2"}, [](TinyDecoder& m) { m.config["head_dim"] = "8"; });
}

TEST(DecoderFolder, WhatIsNotItsOwn) {
  TinyDecoder model("gpt2");
  model.tensors["h.0.attn.bias"] = {{1, 1, 2, 2}, {1, 0, 1, 1}};
  model.tensors["h.0.attn.masked_bias"] = {{1}, {-1e4f}};
  model.tensors["score.weight"] = {{1}, {1}};
  const Decoder decoder = model.decoder();
  const auto unused = decoder.unused_tensors();
  EXPECT_EQ(std::vector<std::string>(unused.begin(), unused.end()), std::vector<std::string>{"score.weight"});
  EXPECT_EQ(decoder.extents().max_tokens, 200);
  EXPECT_EQ(decoder.extents().intermediate_dim, 20);
}

// Two sequences, of 3 and 1 tokens.
struct Call {
  Ids ids{1, 2, 3, 4}, starts{0, 3, 4};
  std::vector<KvSequence> sequences;
  std::vector<float> floats = std::vector<float>(8000, 0.5f);
  MatrixView<float> logits{floats.data(), {2, 270}};
  DecoderRequests requests{{floats.data() + 1000, {4, 270}}, {floats.data() + 3000, {3, 4, 24}}};
  LayerOptions options;

  void run(const Decoder& decoder, KvCache& cache) const {
    decoder.forward({.ids = ids, .cu_seqlens = starts, .sequences = sequences}, cache, logits, options, requests);
  }
};

void refused_call(ErrorCode code, const Words& words, const std::function<void(Call&, KvCache&)>& change) {
  static const Decoder decoder = TinyDecoder("llama").decoder();
  KvCache cache(decoder.cache_spec(512));
  Call call;
  call.sequences = {cache.add(), cache.add()};
  const std::vector<KvSequence> own = call.sequences;
  const std::vector<float> before = call.floats;
  change(call, cache);
  expect_error("Decoder", code, words, [&] { call.run(decoder, cache); });
  EXPECT_EQ(call.floats, before);
  for (KvSequence sequence : own) EXPECT_EQ(cache.length(sequence), 0);
}

TEST(DecoderCall, Rules) {
  refused_call(kOption, {"an id is 270", "0 to 269"}, [](Call& c, KvCache&) { c.ids[2] = 270; });
  refused_call(kOption, {"an id is -1"}, [](Call& c, KvCache&) { c.ids[0] = -1; });
  refused_call(kOption, {"cu_seqlens begins with 1"}, [](Call& c, KvCache&) { c.starts = {1, 3, 4}; });
  refused_call(kOption, {"a sequence has no token"}, [](Call& c, KvCache&) { c.starts = {0, 4, 4}; });
  refused_call(kShape, {"cu_seqlens ends with 3"}, [](Call& c, KvCache&) { c.starts = {0, 2, 3}; });
  refused_call(kShape, {"sequences has 1"}, [](Call& c, KvCache&) { c.sequences.pop_back(); });
  refused_call(kOption, {"threads is 0"}, [](Call& c, KvCache&) { c.options.threads = 0; });
  refused_call(kOption, {"of 0 tokens gets 201 more", "at most 200"}, [](Call& c, KvCache&) {
    c.ids.assign(204, 7), c.starts = {0, 201, 204};
  });
  refused_call(kShape, {"logits has extents (1, 270)", "(2, 270)"}, [](Call& c, KvCache&) {
    c.logits = {c.floats.data(), {1, 270}};
  });
  refused_call(kShape, {"every_logit has extents"}, [](Call& c, KvCache&) {
    c.requests.every_logit = {c.floats.data() + 1000, {2, 270}};
  });
  refused_call(kShape, {"hidden_states has extents"}, [](Call& c, KvCache&) {
    c.requests.hidden_states = {c.floats.data() + 3000, {2, 4, 24}};
  });
  refused_call(kShape, {"every_logit overlaps logits"}, [](Call& c, KvCache&) {
    c.requests.every_logit = {c.floats.data() + 500, {4, 270}};
  });
  refused_call(kShape, {"logits is null"}, [](Call& c, KvCache&) { c.logits = {nullptr, {2, 270}}; });
}

TEST(DecoderCall, TheCacheIsTheDecodersOwn) {
  const Decoder decoder = TinyDecoder("llama").decoder();
  const auto refused = [&](ErrorCode code, const Words& words, const std::function<void(KvCacheSpec&)>& change) {
    KvCacheSpec spec = decoder.cache_spec(512);
    change(spec);
    KvCache cache(spec);
    Call call;
    call.sequences = {cache.add(), cache.add()};
    expect_error("Decoder", code, words, [&] { call.run(decoder, cache); });
  };
  refused(kShape, {"layers 3", "must be 2"}, [](KvCacheSpec& s) { s.layers = 3; });
  refused(kShape, {"kv_heads 4", "must be 2"}, [](KvCacheSpec& s) { s.kv_heads = 4; });
  refused(kShape, {"head_dim 8", "must be 6"}, [](KvCacheSpec& s) { s.head_dim = 8, s.value_dim = 6; });
  refused(kShape, {"value_dim 8", "must be 6"}, [](KvCacheSpec& s) { s.value_dim = 8; });
  refused(kOption, {"the cache has a window"}, [](KvCacheSpec& s) { s.window = 64; });
  expect_error("Decoder", kOption, {"positions is 0"}, [&] { decoder.cache_spec(0); });
}

TEST(DecoderCall, ACacheThatIsFullStaysAsItWas) {
  const Decoder decoder = TinyDecoder("llama").decoder();
  KvCacheSpec spec = decoder.cache_spec(256);  // two pages
  KvCache cache(spec);
  Call call;
  call.sequences = {cache.add(), cache.add()};
  call.ids.assign(140, 7), call.starts = {0, 139, 140}, call.requests = {};
  EXPECT_ANY_THROW(call.run(decoder, cache));
  for (KvSequence sequence : call.sequences)
    for (std::int64_t layer = 0; layer < 2; ++layer) EXPECT_EQ(cache.length(sequence, layer), 0);
  call.ids.assign(120, 7), call.starts = {0, 119, 120};
  EXPECT_NO_THROW(call.run(decoder, cache));
}

}  // namespace
}  // namespace multihead::testing
