// SPDX-License-Identifier: Apache-2.0
// SentenceEncoder on a small folder: its steps one by one, bits, and every rule of the files that say how.
#include <gtest/gtest.h>

#include "models/tiny_model.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

const std::vector<std::string> kSentences{"a b c", "", "d", "a a b unheard of",
                                          "c, b. a! d d d d d d d d d d d d d d d d"};

// A BERT of 37 words with its vocabulary.
struct SentenceFolder {
  TinyModel model{"bert"};
  TemporaryFolder folder;

  explicit SentenceFolder(int words = 37) {
    model.write(folder);
    std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\nc\nd\n,\n.\n";
    for (int i = 10; i < words; ++i) vocabulary += "w" + std::to_string(i) + "\n";
    folder.write("vocab.txt", vocabulary);
  }
  void modules(const std::string& types, const std::string& pooling = R"("pooling_mode_mean_tokens": true)") const {
    std::string text;
    int index = 0;
    for (std::size_t at = 0; at < types.size();) {
      const std::size_t end = std::min(types.find(' ', at), types.size());
      const std::string type = types.substr(at, end - at), number = std::to_string(index);
      text += (index ? ", " : "") + ("{\"idx\": " + number + ", \"name\": \"" + number + "\", \"path\": \"") +
              (type == "Pooling" ? "1_Pooling" : "") + "\", \"type\": \"sentence_transformers.models." + type + "\"}";
      at = end + 1, ++index;
    }
    folder.write("modules.json", "[" + text + "]");
    std::filesystem::create_directories(folder.path() / "1_Pooling");
    folder.write("1_Pooling/config.json", "{\"word_embedding_dimension\": 15, " + pooling + "}");
  }
};

TEST(SentenceEncoder, IsItsStepsOneByOne) {
  for (const char* modules : {"", "Transformer Pooling", "Transformer Pooling Normalize"}) {
    const SentenceFolder at;
    const std::string kinds = modules;
    if (!kinds.empty()) at.modules(kinds);
    const SentenceEncoder encoder(at.folder.path());
    EXPECT_EQ(encoder.max_tokens(), 20);
    const Matrix<float> vectors = encoder.encode(kSentences);
    EXPECT_EQ(vectors, encoder.encode(kSentences, {.threads = 3}));
    ASSERT_EQ(vectors.rows(), 5);
    for (std::size_t s = 0; s < kSentences.size(); ++s) {
      std::vector<std::int64_t> ids;
      for (const Token& token : encoder.tokenizer().encode(kSentences[s], 20)) ids.push_back(token.id);
      const auto tokens = static_cast<std::int64_t>(ids.size());
      Matrix<float> hidden(tokens, 15), vector(1, 15);
      encoder.encoder().forward({.ids = ids}, hidden);
      mean_pool(MatrixView<const float>(hidden), {}, !kinds.ends_with("Pooling"), vector);
      EXPECT_TRUE(std::equal(vector.values().begin(), vector.values().end(),
                             vectors.data() + static_cast<std::int64_t>(s) * 15))
          << kSentences[s];
    }
  }
}

TEST(SentenceEncoder, BitsOfManySentencesAreTheirOwn) {
  const SentenceFolder at;
  const SentenceEncoder encoder(at.folder.path());
  std::vector<std::string> many;
  for (int i = 0; i < 600; ++i) many.push_back(kSentences[static_cast<std::size_t>(i) % kSentences.size()]);
  const Matrix<float> few = encoder.encode(kSentences), all = encoder.encode(many);
  for (std::int64_t i = 0; i < all.rows(); ++i)
    ASSERT_TRUE(std::equal(&all(i, 0), &all(i, 0) + 15, &few(i % 5, 0))) << i;
  EXPECT_EQ(encoder.encode({}).rows(), 0);
}

TEST(SentenceEncoder, SentencesMayBeShorterThanPositions) {
  const SentenceFolder at;
  at.folder.write("sentence_bert_config.json", R"({"max_seq_length": 4})");
  const SentenceEncoder encoder(at.folder.path());
  EXPECT_EQ(encoder.max_tokens(), 4);
  const std::vector<std::string> two{"a b c d", "a b"};
  const Matrix<float> vectors = encoder.encode(two);
  EXPECT_TRUE(std::equal(&vectors(0, 0), &vectors(0, 0) + 15, &vectors(1, 0)));
}

TEST(SentenceEncoder, Refusals) {
  const auto refused = [](const SentenceFolder& at, ErrorCode code, const Words& words) {
    expect_error("SentenceEncoder", code, words, [&] { SentenceEncoder encoder(at.folder.path()); });
  };
  {
    const SentenceFolder at;
    at.modules("Transformer Pooling", R"("pooling_mode_cls_token": true)");
    refused(at, ErrorCode::unsupported, {"the pooling is by 'cls_token'", "mean_tokens alone"});
  }
  {
    const SentenceFolder at;
    at.modules("Transformer Pooling", R"("pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true)");
    refused(at, ErrorCode::unsupported, {"the pooling is by '", "mean_tokens alone"});
  }
  {
    const SentenceFolder at;
    at.modules("Transformer Pooling Dense");
    refused(at, ErrorCode::unsupported, {"module 2 is 'Dense'", "Normalize"});
  }
  {
    const SentenceFolder at;
    at.folder.write("sentence_bert_config.json", R"({"do_lower_case": true})");
    SentenceEncoder(at.folder.path());
    at.folder.write("tokenizer_config.json", R"({"do_lower_case": false})");
    refused(at, ErrorCode::unsupported, {"do_lower_case is true", "keeps capitals"});
  }
  {
    const SentenceFolder at;
    at.modules("Transformer");
    refused(at, ErrorCode::unsupported, {"no Pooling"});
  }
  {
    const SentenceFolder at;
    at.folder.write("sentence_bert_config.json", R"({"max_seq_length": 1})");
    refused(at, ErrorCode::file_malformed, {"a sentence may have 1 tokens", "at least 2"});
  }
  {
    const SentenceFolder at;
    const std::string prompts = R"({"prompts": {"none": "", "query": "find: "}, "default_prompt_name": )";
    for (const char* name : {"null", "\"none\""}) {
      at.folder.write("config_sentence_transformers.json", prompts + name + "}");
      SentenceEncoder(at.folder.path());
    }
    at.folder.write("config_sentence_transformers.json", prompts + "\"query\"}");
    refused(at, ErrorCode::unsupported, {"default_prompt_name", "there must be none"});
  }
  refused(SentenceFolder(38), ErrorCode::file_malformed, {"the tokenizer has 38 ids", "embeds 37"});
}

}  // namespace
}  // namespace multihead::testing
