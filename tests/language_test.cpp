// SPDX-License-Identifier: Apache-2.0
// Task "language": tokens, the counts it is held against, a short training, how stories are continued, its folder.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "multihead/tasks.hpp"
#include "train/gpt2_folder.hpp"
#include "train/tasks/language_model.hpp"
#include "train/tasks/language_tokens.hpp"
#include "train/tasks/trigram.hpp"

namespace multihead::testing {
namespace {

using namespace language;
using Ids = std::vector<std::int64_t>;

TEST(LanguageTokens, GiveTheTextBack) {
  EXPECT_EQ(vocabulary(), 512);
  EXPECT_EQ(text_of_token(kEnd), "<|endoftext|>");
  std::size_t tokens = 0, words = 0, most = 0;
  for (const Part part : {Part::training, Part::held_out})
    for (std::uint64_t i = 0; i < 1000; ++i) {
      const stories::Story story = stories::story(8, i, part);
      const StoryTokens told = tokens_of(story);
      const std::string text = stories::text_of(story.words);
      EXPECT_EQ(encode(text), Ids(told.ids.begin() + 1, told.ids.end() - 1));
      EXPECT_EQ(decode(std::span(told.ids).subspan(1, told.ids.size() - 2)), text);
      EXPECT_EQ(told.ids.front(), kEnd);
      EXPECT_EQ(told.ids.back(), kEnd);
      tokens += told.ids.size(), words += story.words.size(), most = std::max(most, told.ids.size());
    }
  EXPECT_LT(static_cast<double>(tokens), 1.7 * static_cast<double>(words));
  EXPECT_LE(most, 128u);
}

TEST(LanguageTokens, RefuseWhatNoStoryHas) {
  for (const char* text : {"The  farmer", "The farmer ", " ", "a\nb", "caf\xc3\xa9", "it's", "7 boats", "what?"})
    EXPECT_THROW(encode(text), Error) << text;
  EXPECT_EQ(encode(""), Ids{});
  EXPECT_EQ(decode(encode("xylophone, quartz.")), "xylophone, quartz.");
}

// By hand: after nothing, 1 follows once of two tokens of two kinds, (1 + 2/2) / (2 + 2); after 0, (1 + 1/2) / (1 + 1).
TEST(Trigram, CountsAsByHand) {
  Trigram trigram(2);
  trigram.add(Ids{0, 1});
  EXPECT_NEAR(trigram.nats(Ids{0, 1}), -std::log(0.75), 1e-15);
  EXPECT_NEAR(trigram.nats(Ids{0, 0}), -std::log(0.25), 1e-15);
  EXPECT_NEAR(trigram.nats(Ids{0, 1, 0}), -std::log(0.75) - std::log(0.5), 1e-15);
  EXPECT_EQ(trigram.nats(Ids{0}), 0);
}

TEST(Trigram, GivesProbabilities) {
  Trigram trigram(5);
  trigram.add(Ids{0, 1, 2, 3, 1, 2, 4, 0, 1, 2, 3, 3});
  for (const Ids& before : {Ids{1, 2}, Ids{3, 3}, Ids{4, 4}, Ids{2}}) {
    double sum = 0;
    for (std::int64_t token = 0; token < 5; ++token) {
      Ids ids = before;
      const double given = trigram.nats(ids);
      ids.push_back(token);
      sum += std::exp(given - trigram.nats(ids));
    }
    EXPECT_NEAR(sum, 1, 1e-14);
  }
}

std::unique_ptr<Task> task() { return make_task("language"); }

// A model of the task's form, narrow enough for tests.
TransformerConfig narrow() {
  TransformerConfig config = task()->config(4);
  config.model_dim = 32, config.feed_forward = 64, config.decoder_layers = 2;
  return config;
}

TEST(Language, LearnsAtOnce) {
  Transformer<float> model(narrow(), 1);
  TrainOptions options = task()->options();
  options.steps = 40, options.report_every = 40, options.schedule = {Schedule::Kind::constant, 0, 0, 0};
  AdamW<float> optimizer(model.parameters(), {.rate = 1e-2});
  const auto metrics = train(model.parameters(), optimizer, options,
                             [&](std::int64_t step, std::int64_t) { return task()->train_batch(model, step, 1, {}); });
  EXPECT_GT(metrics.front().loss, 6);
  EXPECT_LT(metrics.back().loss, 4);
}

TEST(Language, TrainsOnStoriesWithAndWithoutTheirBeginning) {
  Transformer<float> model(narrow(), 1);
  std::int64_t tokens = 0;
  for (std::uint64_t i = 0; i < 32; ++i)
    tokens +=
        std::ssize(tokens_of(stories::story(2, 32 + i, Part::training)).ids) - 1 - static_cast<std::int64_t>(i % 2);
  EXPECT_EQ(task()->train_batch(model, 1, 2, {}).tokens, tokens);
}

TEST(Language, ContinuesAlikeWhateverElseIsContinued) {
  Transformer<float> model(narrow(), 3);
  const std::vector<Ids> all{encode("The old farmer"), {kEnd}, encode("Clara, a young"), Ids(128, 5), Ids(127, 6)};
  for (const std::optional<std::uint64_t> seed : {std::optional<std::uint64_t>{}, std::optional<std::uint64_t>{7}}) {
    const std::vector<Ids> told = continued(model, all, seed, {});
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_TRUE(std::equal(all[i].begin(), all[i].end(), told[i].begin()));
      EXPECT_LE(told[i].size(), 128u);
      if (!seed || i == 0) {
        EXPECT_EQ(continued(model, std::span(all).subspan(i, 1), seed, {}).front(), told[i]);
      }
    }
    EXPECT_EQ(told[3], all[3]);
    EXPECT_GT(told[0].size(), all[0].size());
  }
}

// As likely as the model says: of one token's distribution.
TEST(Language, DrawsAsTheModelSays) {
  TransformerConfig config = narrow();
  config.max_tokens = 2;
  Transformer<float> model(config, 5);
  for (Parameter<float>& parameter : model.parameters().all())
    if (parameter.name == "decoder.norm.weight")
      for (std::int64_t i = 0; i < 32; ++i) parameter.value(0, i) = 20;  // a distribution that is not even
  const Ids one{kEnd};
  Matrix<float> logits(1, config.classes);
  const std::int64_t starts[] = {0, 1};
  model.forward({{one.data(), {1, 1}}, starts}, {}, logits);
  double sum = 0;
  for (const float logit : logits.values()) sum += std::exp(static_cast<double>(logit));
  std::vector<double> counts(512);
  const std::size_t draws = 4000;
  for (const Ids& told : continued(model, std::vector<Ids>(draws, one), 9, {}))
    ++counts[told.size() > 1 ? told[1] : kEnd];
  double away = 0;
  for (std::size_t token = 0; token < counts.size(); ++token) {
    const double wanted = std::exp(static_cast<double>(logits.values()[token])) / sum * static_cast<double>(draws);
    away += (counts[token] - wanted) * (counts[token] - wanted) / std::max(wanted, 1e-3);
  }
  EXPECT_LT(away, 512 + 6 * std::sqrt(2.0 * 512));
}

class LanguageFolder : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(folder); }
  std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "multihead_language_folder";
};

TEST_F(LanguageFolder, IsOneOfGpt2AndComesBack) {
  const std::unique_ptr<Task> language = task();
  Transformer<float> model(language->config(2), 4);
  save_learned(folder, *language, model, 4);
  const Safetensors file(folder / "model.safetensors");
  EXPECT_EQ(file.tensors().size(), 2u + 3 * 12 + 2);
  const auto shape = [&](const char* name) {
    const StoredTensor* const tensor = file.find(std::string("transformer.") + name);
    return tensor ? tensor->shape : Ids{};
  };
  EXPECT_EQ(shape("wte.weight"), (Ids{512, 64}));
  EXPECT_EQ(shape("wpe.weight"), (Ids{128, 64}));
  EXPECT_EQ(shape("h.0.attn.c_attn.weight"), (Ids{64, 192}));
  EXPECT_EQ(shape("h.1.attn.c_proj.bias"), (Ids{64}));
  EXPECT_EQ(shape("h.2.mlp.c_fc.weight"), (Ids{64, 256}));
  EXPECT_EQ(shape("h.2.mlp.c_proj.weight"), (Ids{256, 64}));
  EXPECT_EQ(shape("h.2.ln_2.weight"), (Ids{64}));
  EXPECT_EQ(shape("ln_f.bias"), (Ids{64}));
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.json"})
    EXPECT_TRUE(std::filesystem::exists(folder / name)) << name;

  Learned learned = load_learned(folder);
  EXPECT_EQ(learned.heads, 2);
  EXPECT_EQ(learned.seed, 4u);
  for (std::size_t i = 0; i < model.parameters().all().size(); ++i)
    EXPECT_EQ(learned.model.parameters().all()[i].value, model.parameters().all()[i].value);
}

TEST_F(LanguageFolder, RefusesWhatIsNoGpt2) {
  std::filesystem::create_directories(folder);
  const auto refused = [&](auto change) {
    TransformerConfig config = narrow();
    change(config);
    EXPECT_THROW(save_gpt2(folder, Transformer<float>(config, 1), "{}", 0, {}), Error);
  };
  refused([](TransformerConfig& config) { config.kind = TransformerConfig::Kind::encoder; });
  refused([](TransformerConfig& config) { config.source_vocab = {512, 3}; });
  refused([](TransformerConfig& config) { config.rotary = true; });
  refused([](TransformerConfig& config) { config.tied = false; });
  refused([](TransformerConfig& config) { config.final_norm = false; });
  refused([](TransformerConfig& config) { config.feed_forward = 0; });
  refused([](TransformerConfig& config) { config.activation = Activation::gelu; });
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  Transformer<float> model(narrow(), 1), other(narrow(), 2);
  save_gpt2(folder, model, "{}", 0, {});
  load_gpt2(folder / "model.safetensors", other);
  EXPECT_EQ(other.parameters().all()[0].value, model.parameters().all()[0].value);
  TransformerConfig deeper = narrow();
  deeper.decoder_layers = 3;
  Transformer<float> third(deeper, 1);
  EXPECT_THROW(load_gpt2(folder / "model.safetensors", third), Error);
}

}  // namespace
}  // namespace multihead::testing
