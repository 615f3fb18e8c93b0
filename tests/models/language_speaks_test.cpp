// SPDX-License-Identifier: Apache-2.0
// The shipped language model as a decoder from its folder: the tokens and logits of the model that learned, and
// stories.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "multihead/generate.hpp"
#include "multihead/tasks.hpp"
#include "test_dir.hpp"
#include "train/tasks/language_model.hpp"
#include "train/tasks/language_tokens.hpp"

namespace multihead::testing {
namespace {

using Ids = std::vector<std::int64_t>;

std::filesystem::path folder() { return test_dir().parent_path() / "trained" / "language"; }

std::vector<std::string> beginnings(std::uint64_t count) {
  std::vector<std::string> all{"The old farmer"};
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string text = stories::text_of(stories::story(12, i, Part::held_out).words);
    all.push_back(text.substr(0, text.find('.', text.find('.') + 1) + 1));
  }
  return all;
}

TEST(LanguageSpeaks, ItsTokensAreThoseOfTraining) {
  const BytePair tokenizer(folder());
  EXPECT_EQ(tokenizer.size(), language::vocabulary());
  EXPECT_TRUE(tokenizer.special(language::kEnd));
  for (std::uint64_t i = 0; i < 200; ++i) {
    const std::string text = stories::text_of(stories::story(11, i, i % 2 ? Part::training : Part::held_out).words);
    EXPECT_EQ(tokenizer.encode(text), language::encode(text)) << text;
  }
  for (const char* text : {"A quartz,xylophone.", "a..b", ". , ,", "AZ az"})
    EXPECT_EQ(tokenizer.encode(text), language::encode(text)) << text;
  EXPECT_EQ(read_eos_token_ids(folder()), Ids{language::kEnd});
}

TEST(LanguageSpeaks, ItsLogitsAreThoseOfTraining) {
  Learned learned = load_learned(folder());
  const Decoder decoder(folder());
  const Ids ids = language::tokens_of(stories::story(11, 3, Part::training)).ids;
  const std::int64_t tokens = std::ssize(ids), classes = language::vocabulary();
  const std::int64_t starts[] = {0, tokens};
  Matrix<float> wanted(tokens, classes), given(tokens, classes), last(1, classes);
  learned.model.forward({{ids.data(), {1, tokens}}, starts}, {}, wanted);
  KvCache cache(decoder.cache_spec(128));
  const KvSequence sequence = cache.add();
  decoder.forward({.ids = ids, .cu_seqlens = {}, .sequences = {&sequence, 1}}, cache, last, {}, {.every_logit = given});
  float largest = 0, away = 0;
  for (std::size_t i = 0; i < wanted.values().size(); ++i) {
    largest = std::max(largest, std::abs(wanted.values()[i]));
    away = std::max(away, std::abs(wanted.values()[i] - given.values()[i]));
  }
  EXPECT_LT(away, 2e-5f * largest);
}

// Products of bfloat16, over a cache of either type.
TEST(LanguageSpeaks, InBFloat16) {
  const Decoder exact(folder()), narrow(folder(), {.products = Type::bfloat16});
  const std::int64_t classes = language::vocabulary();
  const auto logits = [&](const Decoder& decoder, const Ids& ids, KvStorage storage) {
    Matrix<float> every(std::ssize(ids), classes);
    KvCache cache(decoder.cache_spec(128, storage));
    const KvSequence sequence = cache.add();
    decoder.forward({.ids = ids, .cu_seqlens = {}, .sequences = {&sequence, 1}}, cache, {}, {}, {.every_logit = every});
    return every;
  };
  for (const KvStorage storage : {KvStorage::float32, KvStorage::bfloat16}) {
    double largest = 0, away = 0, same = 0, tokens = 0;
    for (std::uint64_t i = 0; i < 40; ++i) {
      const Ids ids = language::tokens_of(stories::story(11, i, Part::held_out)).ids;
      const Matrix<float> wanted = logits(exact, ids, KvStorage::float32), given = logits(narrow, ids, storage);
      for (std::int64_t t = 0; t < std::ssize(ids); ++t, ++tokens) {
        const float *const a = &wanted(t, 0), *const b = &given(t, 0);
        same += std::max_element(a, a + classes) - a == std::max_element(b, b + classes) - b;
        for (std::int64_t c = 0; c < classes; ++c) {
          largest = std::max(largest, double{std::abs(a[c])});
          away = std::max(away, double{std::abs(a[c] - b[c])});
        }
      }
    }
    EXPECT_LT(away, 0.02 * largest);
    EXPECT_GT(same, 0.97 * tokens);
    std::printf("logits of products of bfloat16, cache %s: worst error %.2g of the largest, %.2f %% the same token\n",
                storage == KvStorage::float32 ? "float32" : "bfloat16", away / largest, 100 * same / tokens);
  }
}

// The likeliest token each time makes stories out of beginnings that training never met.
TEST(LanguageSpeaks, TellsStories) {
  const Decoder decoder(folder());
  const BytePair tokenizer(folder());
  GeneratorOptions options;
  options.end_ids = read_eos_token_ids(folder());
  const std::vector<std::string> begun = beginnings(40);
  const std::vector<std::string> rest = generate(decoder, tokenizer, begun, {}, options);
  std::size_t told = 0;
  for (std::size_t i = 0; i < begun.size(); ++i) told += stories::read(begun[i] + rest[i]).ways == 1;
  EXPECT_EQ(stories::read(begun[0] + rest[0]).ways, 1) << begun[0] + rest[0];
  EXPECT_GE(told, 36u);
  // Each alone says the same.
  EXPECT_EQ(generate(decoder, tokenizer, {&begun[7], 1}, {}, options).front(), rest[7]);
}

// And what the learning model itself goes on with is the same text.
TEST(LanguageSpeaks, ItsTextIsThatOfTraining) {
  Learned learned = load_learned(folder());
  GeneratorOptions options;
  options.end_ids = read_eos_token_ids(folder());
  const std::vector<std::string> begun = beginnings(5);
  const std::vector<std::string> rest = generate(Decoder(folder()), BytePair(folder()), begun, {}, options);
  for (std::size_t i = 0; i < begun.size(); ++i)
    EXPECT_EQ(learned.task->example(learned.model, begun[i]).output, begun[i] + rest[i]);
}

}  // namespace
}  // namespace multihead::testing
