// SPDX-License-Identifier: Apache-2.0
// tokenizer.json of byte-level tokenizers: what it becomes, and every rule of its reader.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "multihead/model_files.hpp"
#include "safetensors_file.hpp"

namespace multihead {
namespace {

using testing::bytes_of;
using testing::expect_refusal;
using Words = std::vector<std::string>;
using Ids = std::vector<std::int64_t>;

const std::string kLevel =
    R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})";
const std::string kAdded = R"("added_tokens": [{"id": 5, "special": true, "content": "<s>", "single_word": false,
    "lstrip": false, "rstrip": false, "normalized": false}],)";
const std::string kPre = R"("pre_tokenizer": )" + kLevel + ",";
const std::string kPost = R"("post_processor": )" + kLevel + ",";
const std::string kMerges = R"("merges": ["a b", "ab c"])";
const std::string kModel = R"("model": {"type": "BPE", "dropout": null, "unk_token": null,
    "continuing_subword_prefix": "", "end_of_word_suffix": "", "byte_fallback": false,
    "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, )" +
                           kMerges + "}";
const std::string kWhole =
    "{" + kAdded + R"("normalizer": null,)" + kPre + kPost + R"("decoder": )" + kLevel + "," + kModel + "}";
const std::string kTemplate =
    R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "a", "type_id": 0}}], "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]},
      "a": {"id": "a", "ids": [0], "tokens": ["a"]}}})";
const std::string kSplit = R"re({"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    }})re";
const std::string kBare = R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})";

std::string with(const std::string& piece, const std::string& other, std::string text = kWhole) {
  const std::size_t at = text.find(piece);
  EXPECT_NE(at, std::string::npos) << piece;
  return at == std::string::npos ? text : text.replace(at, piece.size(), other);
}
std::string with_pre(const std::string& pre) { return with(kPre, R"("pre_tokenizer": )" + pre + ","); }
std::string with_post(const std::string& post) { return with(kPost, R"("post_processor": )" + post + ","); }
std::string sequence(const char* parts, const std::string& first, const std::string& second) {
  return R"({"type": "Sequence", ")" + std::string(parts) + R"(": [)" + first + "," + second + "]}";
}

BytePairModel parsed(const std::string& text) { return parse_byte_pair_json(bytes_of(text), "tokenizer.json"); }

TEST(BytePairJson, OfGpt2) {
  const BytePairModel model = parsed(kWhole);
  EXPECT_EQ(model.vocabulary, (Words{"a", "b", "c", "ab", "abc"}));
  ASSERT_EQ(model.merges.size(), 2u);
  EXPECT_EQ(model.merges[1].first, 3);
  EXPECT_EQ(model.merges[1].second, 2);
  EXPECT_EQ(model.merges[1].merged, 4);
  EXPECT_EQ(model.pattern, WordPattern::gpt2);
  EXPECT_FALSE(model.prefix_space || model.whole_words);
  EXPECT_TRUE(model.before.empty() && model.after.empty());
  ASSERT_EQ(model.added.size(), 1u);
  EXPECT_EQ(model.added[0].id, 5);
}

TEST(BytePairJson, OfLlama3) {
  std::string text = with_pre(sequence("pretokenizers", kSplit, kBare));
  text = with(kPost, R"("post_processor": )" + sequence("processors", kLevel, kTemplate) + ",", text);
  text = with(R"(["a b", "ab c"])", R"([["a", "b"], ["ab", "c"]])", text);
  text = with(R"("byte_fallback": false)", R"("byte_fallback": false, "ignore_merges": true)", text);
  const BytePairModel model = parsed(text);
  EXPECT_EQ(model.pattern, WordPattern::llama3);
  EXPECT_EQ(model.before, Ids{5});
  EXPECT_EQ(model.after, Ids{0});
  EXPECT_EQ(model.merges.size(), 2u);
  EXPECT_TRUE(model.whole_words);
}

TEST(BytePairJson, Forms) {
  EXPECT_EQ(parsed(with_pre(kBare)).pattern, WordPattern::none);
  EXPECT_TRUE(parsed(with_pre(R"({"type": "ByteLevel"})")).prefix_space);
  EXPECT_EQ(parsed(with_post(kTemplate)).before, Ids{5});
  EXPECT_TRUE(parsed(with(kPost, "")).before.empty());
  EXPECT_EQ(parsed(with(R"("type": "BPE", )", "")).merges.size(), 2u);  // older files
}

TEST(BytePairJson, WhatIsNotSupportedByName) {
  const auto refused = [](const std::string& text, std::initializer_list<std::string> words) {
    expect_refusal(
        ErrorCode::unsupported, [&] { parsed(text); }, words);
  };
  refused(with(R"("type": "BPE")", R"("type": "Unigram")"), {"model is Unigram", "must be BPE"});
  refused(with(R"("normalizer": null)", R"("normalizer": {"type": "NFC"})"), {"normalizer is NFC"});
  refused(with(R"("decoder": )" + kLevel, R"("decoder": {"type": "WordPiece"})"), {"decoder is WordPiece"});
  refused(with(kPre, ""), {"no pre_tokenizer"});
  refused(with_pre(R"({"type": "Metaspace"})"), {"pre_tokenizer is Metaspace"});
  refused(with_pre(sequence("pretokenizers", kBare, kBare)), {"another Sequence"});
  refused(with_pre(sequence("pretokenizers", kSplit, kLevel)), {"neither use_regex nor add_prefix_space"});
  refused(with_pre(sequence("pretokenizers", with("Isolated", "Removed", kSplit), kBare)), {"behavior Isolated"});
  refused(with_pre(sequence("pretokenizers", with("1,3", "1,2", kSplit), kBare)), {"the pattern", "Llama 3's"});
  refused(with_post(R"({"type": "RobertaProcessing"})"), {"post_processor is RobertaProcessing"});
  refused(with_post(sequence("processors", kTemplate, kTemplate)), {"post_processor is TemplateProcessing"});
  refused(with(R"("dropout": null)", R"("dropout": 0.1)"), {"dropout"});
  refused(with(R"("byte_fallback": false)", R"("byte_fallback": true)"), {"byte_fallback"});
  refused(with(R"("continuing_subword_prefix": "")", R"("continuing_subword_prefix": "##")"), {"'##'"});
  refused(with(R"("end_of_word_suffix": "")", R"("end_of_word_suffix": "</w>")"), {"'</w>'"});
}

TEST(BytePairJson, Malformed) {
  const auto refused = [](const std::string& text, std::initializer_list<std::string> words) {
    expect_refusal(
        ErrorCode::file_malformed, [&] { parsed(text); }, words);
  };
  refused("{}", {"model", "is missing"});
  refused(with(", " + kMerges, ""), {"model.merges", "is missing"});
  refused(with(R"("a b")", R"("a  b")"), {"merges[0]", "one space between"});
  refused(with(R"("a b")", R"("ab")"), {"merges[0]", "one space between"});
  refused(with(R"("a b")", "7"), {"merges[0]", "two tokens"});
  refused(with(R"("a b")", R"(["a", "b", "c"])"), {"merges[0]", "two tokens"});
  refused(with(R"("a b")", R"("a x")"), {"merges[0]", "'x'", "vocabulary lacks"});
  refused(with(R"("a b")", R"("b a")"), {"merges[0]", "'ba'", "vocabulary lacks"});
  refused(with(R"("ab c")", R"("a b")"), {"merges[1]", "stands there already"});
  refused(with(R"("b": 1)", R"("b": 0)"), {"has id 0", "ids must differ"});
  refused(with(R"("id": 5)", R"("id": 9)"), {"added_tokens[0].id", "it must be 5"});
  refused(with_post(with(R"("id": "A")", R"("id": "B")", kTemplate)), {"Sequence A once"});
  refused(with_post(with(R"("ids": [5])", R"("ids": [4])", kTemplate)), {"the id of '<s>' in the vocabulary"});
}

TEST(Config, OfDecoders) {
  const std::string start = R"({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "bos_token_id": 1, "mlp_bias": true, )";
  const auto config = [&](const std::string& more) {
    return parse_config(bytes_of(start + more + "}"), "config.json");
  };
  EXPECT_EQ(config(R"("eos_token_id": 2)").eos_token_ids, Ids{2});
  EXPECT_EQ(config(R"("eos_token_id": [2, 7])").eos_token_ids, (Ids{2, 7}));
  EXPECT_EQ(config(R"("eos_token_id": null)").eos_token_ids, Ids{});
  EXPECT_EQ(config(R"("eos_token_id": null)").bos_token_id, 1);
  EXPECT_EQ(config(R"("eos_token_id": null)").mlp_bias, true);
  for (const char* wrong : {R"("eos_token_id": "2")", R"("eos_token_id": -1)", R"("eos_token_id": [1.5])"})
    expect_refusal(ErrorCode::file_malformed, [&] { config(wrong); }, {"eos_token_id"});
}

class EosTokenIds : public testing::InFolder {};

TEST_F(EosTokenIds, OfTheFolder) {
  put("config.json", R"({"eos_token_id": 3})");
  EXPECT_EQ(read_eos_token_ids(folder_), Ids{3});
  put("generation_config.json", R"({"eos_token_id": [4, 5]})");
  EXPECT_EQ(read_eos_token_ids(folder_), (Ids{4, 5}));
  put("generation_config.json", R"({"temperature": 1})");
  EXPECT_EQ(read_eos_token_ids(folder_), Ids{3});
  put("generation_config.json", "[]");
  expect_refusal(ErrorCode::file_malformed, [&] { read_eos_token_ids(folder_); }, {"generation_config.json"});
}

}  // namespace
}  // namespace multihead
