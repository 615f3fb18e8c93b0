// SPDX-License-Identifier: Apache-2.0
// Generator: the same request gives the same text in any company; where texts end; what is drawn.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "byte_letters.hpp"
#include "models/tiny_decoder.hpp"
#include "multihead/generate.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

struct Asked {
  std::string prompt;
  GenerateOptions options;
};

std::vector<Asked> requests() {
  std::vector<Asked> all;
  for (std::size_t i = 0; i < 8; ++i) {
    GenerateOptions options;
    options.max_tokens = static_cast<std::int64_t>(5 + 9 * i);
    options.temperature = i % 3 == 0 ? 0.0 : 0.7 * static_cast<double>(i);
    if (i % 2) options.top_k = 40;
    if (i % 4 > 1) options.top_p = 0.8;
    options.seed = i / 2;
    if (i == 5) options.stop = {"e", "  "};
    all.push_back({std::string(1 + 13 * i, static_cast<char>('a' + i)) + " b", options});
  }
  return all;
}

struct Said {
  std::string text;
  std::vector<std::int64_t> ids;
  std::optional<Finish> finish;
  bool operator==(const Said&) const = default;
};

void take(std::map<std::int64_t, Said>& said, const std::vector<Generated>& tokens) {
  for (const Generated& token : tokens) {
    Said& own = said[token.request];
    EXPECT_FALSE(own.finish);
    own.text += token.text, own.ids.push_back(token.id), own.finish = token.finish;
  }
}

Said alone(const Decoder& decoder, const Asked& asked, GeneratorOptions options) {
  options.positions = 256;
  Generator generator(decoder, BytePair(bytes_alone()), options);
  generator.add(asked.prompt, asked.options);
  std::map<std::int64_t, Said> said;
  while (!generator.done()) take(said, generator.step());
  return said[0];
}

class GeneratorText : public ::testing::TestWithParam<std::tuple<const char*, KvStorage>> {};

TEST_P(GeneratorText, IsTheSameInAnyCompany) {
  const auto [type, storage] = GetParam();
  const Decoder decoder = TinyDecoder(type).decoder();
  const std::vector<Asked> all = requests();
  std::vector<Said> wanted;
  GeneratorOptions options;
  options.storage = storage, options.end_ids = {269};
  for (const Asked& asked : all) wanted.push_back(alone(decoder, asked, options));
  std::mt19937 random(2);
  for (int turn = 0; turn < 4; ++turn) {
    options.positions = turn == 0 ? 256 : 128 * static_cast<std::int64_t>(2 + random() % 9);  // few: they wait
    options.prompt_tokens = turn == 1 ? 1 : static_cast<std::int64_t>(1 + random() % 60);
    options.layer.threads = 1 + turn % 3;
    Generator generator(decoder, BytePair(bytes_alone()), options);
    std::vector<std::size_t> order(all.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    std::map<std::int64_t, Said> said;
    for (std::size_t i : order) {  // they join while others speak
      generator.add(all[i].prompt, all[i].options);
      for (auto steps = random() % 6; steps > 0; --steps) take(said, generator.step());
    }
    while (!generator.done()) take(said, generator.step());
    for (std::size_t i = 0; i < order.size(); ++i)
      EXPECT_EQ(said[static_cast<std::int64_t>(i)], wanted[order[i]]) << "request " << order[i] << ", turn " << turn;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GeneratorText,
                         ::testing::Combine(::testing::Values("gpt2", "llama"),
                                            ::testing::Values(KvStorage::float32, KvStorage::bfloat16,
                                                              KvStorage::int8)));

TEST(Generator, EndsByEachRule) {
  const Decoder decoder = TinyDecoder("llama").decoder();
  const Asked asked{"once", {.max_tokens = 30, .temperature = 3, .seed = 4}};
  const Said whole = alone(decoder, asked, {});
  EXPECT_EQ(whole.finish, Finish::length);
  EXPECT_EQ(whole.ids.size(), 30u);
  GeneratorOptions options;
  options.end_ids = {whole.ids[7], whole.ids[9]};
  const auto first =
      std::find_first_of(whole.ids.begin(), whole.ids.end(), options.end_ids.begin(), options.end_ids.end());
  const Said ended = alone(decoder, asked, options);
  EXPECT_EQ(ended.finish, Finish::end);
  EXPECT_EQ(ended.ids, std::vector<std::int64_t>(whole.ids.begin(), first + 1));
  EXPECT_TRUE(whole.text.starts_with(ended.text) || ended.text.ends_with("\ufffd"));
  Asked stopped = asked;
  const std::size_t middle = whole.text.size() / 2;
  std::size_t begin = middle;  // of a letter
  while ((whole.text[begin] & 0xC0) == 0x80) --begin;
  stopped.options.stop = {whole.text.substr(begin)};
  const Said cut = alone(decoder, stopped, {});
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stopped.options.stop[0])));
  EXPECT_EQ(cut.finish, Finish::stop);
}

TEST(Generator, EndsWithThePositions) {
  const Decoder decoder = TinyDecoder("gpt2").decoder();
  const Said said = alone(decoder, {std::string(195, 'a'), {.max_tokens = 1000}}, {});
  EXPECT_EQ(said.ids.size(), 5u);
  EXPECT_EQ(said.finish, Finish::length);
}

TEST(Generator, CancelledRequestsMakeRoom) {
  const Decoder decoder = TinyDecoder("gpt2").decoder();
  Generator generator(decoder, BytePair(bytes_alone()), {.positions = 128});
  const std::int64_t first = generator.add("a", {.max_tokens = 100}), second = generator.add("b", {.max_tokens = 100});
  EXPECT_EQ(generator.step().size(), 1u);
  generator.cancel(first);
  generator.cancel(first);
  const std::vector<Generated> next = generator.step();
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(next[0].request, second);
  generator.cancel(second);
  EXPECT_TRUE(generator.done());
  EXPECT_TRUE(generator.step().empty());
}

TEST(Generator, Refusals) {
  const Decoder decoder = TinyDecoder("gpt2").decoder();
  const BytePair tokenizer(bytes_alone());
  Generator generator(decoder, tokenizer, {.positions = 128});
  const auto refused = [&](const Words& words, const std::string& prompt, const GenerateOptions& options) {
    expect_error("Generator", kOption, words, [&] { generator.add(prompt, options); });
  };
  refused({"the prompt has no token"}, "", {});
  refused({"max_tokens is 0"}, "a", {.max_tokens = 0});
  refused({"temperature is -1"}, "a", {.temperature = -1});
  refused({"temperature is nan"}, "a", {.temperature = std::nan("")});
  refused({"top_k is 0"}, "a", {.top_k = 0});
  refused({"top_p is 0"}, "a", {.top_p = 0.0});
  refused({"top_p is 1.5"}, "a", {.top_p = 1.5});
  refused({"a stop text is empty"}, "a", {.stop = {"b", ""}});
  refused({"has 200 tokens", "200 positions one must be left"}, std::string(200, 'a'), {});
  refused({"max_tokens is 199", "the cache holds 128 positions"}, "a", {.max_tokens = 199});
  const std::vector<std::int64_t> beyond{270};
  expect_error("Generator", kOption, {"an id of the prompt is 270"}, [&] { generator.add(beyond); });
  expect_error("Generator", kOption, {"prompt_tokens is 0"},
               [&] { Generator(decoder, tokenizer, {.prompt_tokens = 0}); });
  BytePairModel large = bytes_alone();
  for (int i = 0; i < 20; ++i) large.vocabulary.push_back("x" + std::to_string(i));
  expect_error("Generator", ErrorCode::file_malformed, {"the tokenizer has 276 ids, the decoder has 270"},
               [&] { Generator(decoder, BytePair(large)); });
  EXPECT_TRUE(generator.done());
  Generator begins(decoder, tokenizer, {.begin_id = 7});
  EXPECT_EQ(begins.add(""), 0);
}

TEST(NextToken, TheLikeliest) {
  const std::vector<float> logits{1, 5, -2, 5};
  EXPECT_EQ(next_token(logits, {}, 0), 1);
  EXPECT_EQ(next_token(logits, {.temperature = 9, .top_k = 1}, 3), 1);
  EXPECT_EQ(next_token(logits, {.temperature = 9, .top_p = 1e-9}, 3), 1);
  EXPECT_EQ(next_token(logits, {.temperature = 1e-300}, 3) % 2, 1);
}

// How often each of a thousand positions has each token, beside what is wanted of it.
TEST(NextToken, DrawsByTheProbabilities) {
  std::vector<float> logits;
  for (double p : {0.1, 0.4, 0.2, 0.3}) logits.push_back(static_cast<float>(2 * std::log(p)));
  const auto check = [&](const GenerateOptions& options, const std::vector<double>& wanted) {
    std::vector<double> found(4);
    constexpr int kDraws = 40000;
    for (int i = 0; i < kDraws; ++i) found[static_cast<std::size_t>(next_token(logits, options, i))] += 1.0 / kDraws;
    for (std::size_t i = 0; i < 4; ++i)
      EXPECT_NEAR(found[i], wanted[i], 5 * std::sqrt(wanted[i] * (1 - wanted[i]) / kDraws)) << i;
  };
  check({.temperature = 2}, {0.1, 0.4, 0.2, 0.3});
  check({.temperature = 2, .seed = 9}, {0.1, 0.4, 0.2, 0.3});
  check({.temperature = 1}, {0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3});
  check({.temperature = 2, .top_k = 3}, {0, 4.0 / 9, 2.0 / 9, 3.0 / 9});
  check({.temperature = 2, .top_p = 0.6}, {0, 4.0 / 7, 0, 3.0 / 7});
  check({.temperature = 2, .top_k = 3, .top_p = 0.5}, {0, 4.0 / 7, 0, 3.0 / 7});
}

TEST(NextToken, WhatIsNotFinite) {
  const float infinite = std::numeric_limits<float>::infinity();
  const auto refused = [](const std::vector<float>& logits, const char* word) {
    expect_error("next_token", ErrorCode::non_finite, {word}, [&] { next_token(logits, {}, 0); });
  };
  refused({1, std::nanf(""), 2}, "logit 1 is NaN");
  refused({1, infinite}, "largest logit is not finite");
  refused({-infinite, -infinite}, "largest logit is not finite");
  for (int i = 0; i < 100; ++i) EXPECT_EQ(next_token(std::vector<float>{-infinite, 0}, {.temperature = 5}, i), 1);
  expect_error("next_token", kShape, {"logits is empty"}, [] { next_token({}, {}, 0); });
}

}  // namespace
}  // namespace multihead::testing
