// SPDX-License-Identifier: Apache-2.0
// The small files of a sentence-transformers folder: both forms, none of them, and every rule.
#include <gtest/gtest.h>

#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "multihead/model_files.hpp"
#include "safetensors_file.hpp"

namespace multihead {
namespace {

using testing::expect_refusal;
using Words = std::vector<std::string>;

const std::string kModules =
    R"([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
  {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
  {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}])";
const std::string kPooling = R"({"word_embedding_dimension": 384, "pooling_mode_cls_token": false,
  "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false, "pooling_mode_mean_sqrt_len_tokens": false})";

class SentenceFiles : public testing::InFolder {
 protected:
  SentenceConfig read(const std::string& modules, const std::string& pooling, const std::string& transformer = "") {
    std::filesystem::create_directories(folder_ / "1_Pooling");
    if (!modules.empty()) put("modules.json", modules);
    if (!pooling.empty()) put("1_Pooling/config.json", pooling);
    if (!transformer.empty()) put("sentence_bert_config.json", transformer);
    return read_sentence_config(folder_);
  }
};

TEST_F(SentenceFiles, MiniLM) {
  const SentenceConfig config = read(kModules, kPooling, R"({"max_seq_length": 256, "do_lower_case": false})");
  EXPECT_EQ(config.max_tokens, 256);
  EXPECT_EQ(config.modules, (Words{"Transformer", "Pooling", "Normalize"}));
  EXPECT_EQ(config.pooling, Words{"mean_tokens"});
  EXPECT_FALSE(config.lowercase);
  EXPECT_TRUE(read("", "", R"({"do_lower_case": true})").lowercase);
}

TEST_F(SentenceFiles, NoneIsTheDefaults) {
  const SentenceConfig config = read_sentence_config(folder_);
  EXPECT_FALSE(config.max_tokens);
  EXPECT_TRUE(config.modules.empty() && config.pooling.empty());
  EXPECT_FALSE(read("", "", R"({"max_seq_length": null})").max_tokens);
  EXPECT_TRUE(read("[]", kPooling).pooling.empty());  // no module leads to it
}

TEST_F(SentenceFiles, ModesOfBothForms) {
  const auto modes = [&](const std::string& text) { return read(kModules, text).pooling; };
  EXPECT_EQ(modes(R"({"embedding_dimension": 8, "pooling_mode": "mean"})"), Words{"mean_tokens"});
  EXPECT_EQ(modes(R"({"pooling_mode": "cls"})"), Words{"cls_token"});
  EXPECT_EQ(modes(R"({"pooling_mode": "max"})"), Words{"max_tokens"});
  EXPECT_EQ(modes(R"({"pooling_mode": "weightedmean"})"), Words{"weightedmean_tokens"});
  EXPECT_EQ(modes(R"({"pooling_mode": "lasttoken"})"), Words{"lasttoken"});
  EXPECT_EQ(modes(R"({"pooling_mode": "mean_sqrt_len_tokens"})"), Words{"mean_sqrt_len_tokens"});
  EXPECT_EQ(modes(R"({"pooling_mode": ["mean", "cls"]})"), (Words{"mean_tokens", "cls_token"}));
  EXPECT_EQ(modes(R"({"pooling_mode": "mean", "pooling_mode_cls_token": false})"), Words{"mean_tokens"});
  EXPECT_EQ(modes(R"({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true})"),
            (Words{"cls_token", "max_tokens"}));
}

struct Bad {
  const char* name;
  std::string modules, pooling, transformer;
  const char* file;
  const char* words;
  ErrorCode code = ErrorCode::file_malformed;
  friend void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }
};

std::string pooling_at(const std::string& path) { return R"([{"type": "a.Pooling", "path": )" + path + "}]"; }

const char* const kPath = "it must be the plain name of a folder";
const char* const kOne = "modules.json";
const char* const kTwo = "1_Pooling/config.json";
const char* const kThree = "sentence_bert_config.json";
const std::vector<Bad> kBad{
    {"ModulesAnObject", "{}", "", "", kOne, "it is of type object; it must be an array of modules"},
    {"ModuleANumber", "[1]", "", "", kOne, "[0] is 1; it must be an object"},
    {"ModuleWithoutType", R"([{"path": ""}])", "", "", kOne, "field '[0].type' is missing"},
    {"TypeANumber", R"([{"type": 1}])", "", "", kOne, "field '[0].type' is 1; it must be a string"},
    {"PathANumber", pooling_at("1"), "", "", kOne, "field '[0].path' is 1; it must be a string"},
    {"TransformerElsewhere", R"([{"type": "a.Transformer", "path": "0_Transformer"}])", "", "", kOne,
     "field '[0].path' is '0_Transformer'; a Transformer must be in the folder itself", ErrorCode::unsupported},
    {"PathUp", pooling_at(R"("..")"), "", "", kOne, kPath},
    {"PathHere", pooling_at(R"(".")"), "", "", kOne, kPath},
    {"PathWithSlash", pooling_at(R"("a/b")"), "", "", kOne, kPath},
    {"PathAbsolute", pooling_at(R"("/etc")"), "", "", kOne, kPath},
    {"PathUpAndAway", pooling_at(R"("../a")"), "", "", kOne, kPath},
    {"PathWithBackslash", pooling_at(R"("a\\b")"), "", "", kOne, kPath},
    {"PathWithNul", pooling_at(R"("a\u0000b")"), "", "", kOne, kPath},
    {"PoolingWithoutPath", R"([{"type": "a.Pooling"}])", "", "", kOne, "'[0].path' is missing or empty; that of a"},
    {"PoolingWithEmptyPath", pooling_at(R"("")"), "", "", kOne, "'[0].path' is missing or empty; that of a Pool"},
    {"TwoPoolings", R"([{"type": "Pooling", "path": "1_Pooling"}, {"type": "Pooling", "path": "2"}])", kPooling, "",
     kOne, "field '[1].type' is Pooling once more; there must be one at most"},
    {"PoolingNotThere", kModules, "", "", kTwo, "cannot be opened", ErrorCode::file_missing},
    {"PoolingAnArray", kModules, "[]", "", kTwo, "it is of type array; it must be an object"},
    {"PoolingModesOff", kModules, R"({"pooling_mode_cls_token": false})", "", kTwo,
     "no pooling_mode_ is on; one must be"},
    {"PoolingModesNone", kModules, R"({"pooling_mode": []})", "", kTwo, "no pooling_mode_ is on; one must be"},
    {"PoolingFlagANumber", kModules, R"({"pooling_mode_cls_token": 1})", "", kTwo,
     "field 'pooling_mode_cls_token' is 1; it must be true or false"},
    {"PoolingModeANumber", kModules, R"({"pooling_mode": 1})", "", kTwo, "'pooling_mode' is 1; it must be a string"},
    {"PoolingModeOfNumbers", kModules, R"({"pooling_mode": [1]})", "", kTwo,
     "'pooling_mode' is 1; it must be an array"},
    {"PoolingBothForms", kModules, R"({"pooling_mode": "mean", "pooling_mode_mean_tokens": true})", "", kTwo,
     "'pooling_mode' stands beside pooling_mode_mean_tokens; it must be one form or the other"},
    {"PoolingCut", kModules, "{", "", kTwo, "byte 1: this is not JSON"},
    {"LengthZero", "", "", R"({"max_seq_length": 0})", kThree,
     "'max_seq_length' is 0; it must be a whole number from 1"},
    {"LengthText", "", "", R"({"max_seq_length": "256"})", kThree, "'max_seq_length' is of type string; it must be"},
    {"LowerCaseANumber", "", "", R"({"do_lower_case": 0})", kThree, "'do_lower_case' is 0; it must be true or false"},
    {"LengthAlone", "", "", "256", kThree, "it is 256; it must be an object"}};

class SentenceFilesRefuse : public SentenceFiles, public ::testing::WithParamInterface<Bad> {};
INSTANTIATE_TEST_SUITE_P(Files, SentenceFilesRefuse, ::testing::ValuesIn(kBad),
                         [](const auto& i) { return i.param.name; });

TEST_P(SentenceFilesRefuse, ByFileFieldAndRule) {
  const Bad& bad = GetParam();
  const std::string start = "read_sentence_config: " + (folder_ / bad.file).string() + ": ";
  expect_refusal(bad.code, [&] { read(bad.modules, bad.pooling, bad.transformer); }, {start, bad.words});
}

TEST_F(SentenceFiles, Prompt) {
  const auto prompt = [&](const std::string& fields) {
    put("config_sentence_transformers.json", R"({"prompts": {"query": "find: ", "n": 1})" + fields + "}");
    return read_sentence_config(folder_).prompt;
  };
  EXPECT_EQ(prompt(""), "");
  EXPECT_EQ(prompt(R"(, "default_prompt_name": null)"), "");
  EXPECT_EQ(prompt(R"(, "default_prompt_name": "query")"), "find: ");
  const auto refused = [&](const char* fields, const char* words) {
    expect_refusal(ErrorCode::file_malformed, [&] { prompt(fields); }, {"config_sentence_transformers.json: ", words});
  };
  refused(R"(, "default_prompt_name": 1)", "'default_prompt_name' is 1; it must be a string");
  refused(R"(, "default_prompt_name": "title")", "'prompts.title' is missing");
  refused(R"(, "default_prompt_name": "n")", "'prompts.n' is 1; it must be a string");
  put("config_sentence_transformers.json", R"({"default_prompt_name": "query"})");
  expect_refusal(ErrorCode::file_malformed, [&] { read_sentence_config(folder_); }, {"field 'prompts' is missing"});
}

TEST_F(SentenceFiles, LinkThatLeadsNowhereIsTold) {
  std::filesystem::create_symlink("nowhere", folder_ / "modules.json");
  expect_refusal(ErrorCode::file_missing, [&] { read_sentence_config(folder_); }, {"modules.json: cannot be opened"});
}

}  // namespace
}  // namespace multihead
