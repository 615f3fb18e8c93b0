// SPDX-License-Identifier: Apache-2.0
// Tasks "translation" and "noise": texts of one's own through the shipped models, batches are a function of seed and
// step, what is refused.
#include "multihead/translation.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "multihead/tasks.hpp"
#include "test_dir.hpp"
#include "train/tasks/homonyms.hpp"
#include "train/tasks/translation_model.hpp"

namespace multihead::testing {
namespace {

using bilingual::Sentence;
using bilingual::Wanted;

const std::filesystem::path kTrained = test_dir().parent_path() / "trained";

double stated(const Task& task, const std::string& metric) {
  for (const Threshold& threshold : task.thresholds(task.heads()))
    if (threshold.metric == metric) return threshold.value;
  ADD_FAILURE() << metric;
  return 2;
}

std::vector<Sentence> held_out(std::int64_t count, Wanted wanted) {
  std::vector<Sentence> list;
  for (std::int64_t i = 0; i < count; ++i)
    list.push_back(bilingual::sentence(31, static_cast<std::uint64_t>(i), Part::held_out, wanted));
  return list;
}

// Sentences of another seed than the task's own measure.
TEST(Translation, TheShippedModelReachesWhatWasStated) {
  Learned learned = load_learned(kTrained / "translation");
  ASSERT_EQ(learned.task->name(), "translation");
  const auto french = held_out(300, Wanted::translation), english = held_out(150, Wanted::summary);
  EXPECT_GE(exact_match(french, decode_sentences(learned.model, french, 1, {})), stated(*learned.task, "exact"));
  EXPECT_GE(exact_match(english, decode_sentences(learned.model, english, 1, {})),
            stated(*learned.task, "exact_summary"));
  const std::vector<double> skills = skill_accuracy(learned.model, french, {});
  for (std::size_t skill = 0; skill + 1 < skills.size(); ++skill) EXPECT_GT(skills[skill], 0.98) << skill;
  EXPECT_TRUE(std::isnan(skills.back()));  // no summary among them
}

TEST(Translation, AlignmentIsMeasuredOnTheWordsThemselves) {
  Learned learned = load_learned(kTrained / "translation");
  auto sentences = held_out(40, Wanted::translation);
  const WordAlignment right = align(learned.model, sentences, {});
  ASSERT_EQ(std::ssize(right.heads), learned.heads);
  ASSERT_EQ(right.mean.size(), 1u);
  // With every token right all heads are, with none none.
  for (const std::uint64_t gold : {~std::uint64_t{0}, std::uint64_t{0}}) {
    for (Sentence& sentence : sentences) sentence.gold.assign(sentence.gold.size(), gold);
    const WordAlignment all = align(learned.model, sentences, {});
    for (const double share : all.heads) EXPECT_EQ(share, gold ? 1 : 0);
    EXPECT_EQ(all.mean[0], gold ? 1 : 0);
  }
  EXPECT_GT(right.mean[0], 0.5);
}

TEST(Translation, ASentenceOfOnesOwn) {
  Learned learned = load_learned(kTrained / "translation");
  const LearnedExample example = translate(learned.model, "The small cats sleep.");
  EXPECT_EQ(example.input, "the small cats sleep");
  EXPECT_EQ(example.output, "les petits chats dorment");
  EXPECT_TRUE(example.wanted.empty());
  ASSERT_EQ(example.layers.size(), 3u);
  EXPECT_EQ(example.layers[0].name, "encoder 0");
  EXPECT_EQ(example.layers[1].name, "decoder 0");
  const LearnedExample::Layer& cross = example.layers[2];
  EXPECT_EQ(cross.name, "cross 0");
  EXPECT_EQ(cross.q_tokens, (std::vector<std::string>{"les", "petits", "chats", "dorment", "<end>"}));
  EXPECT_EQ(cross.kv_tokens, (std::vector<std::string>{"<translate>", "the", "small", "cats", "sleep"}));
  for (const LearnedExample::Layer& layer : example.layers) {
    const std::size_t keys = layer.kv_tokens.size();
    ASSERT_EQ(layer.weights.size(), static_cast<std::size_t>(learned.heads) * layer.q_tokens.size() * keys);
    for (std::size_t row = 0; row < layer.weights.size() / keys; ++row) {
      double sum = 0;
      for (std::size_t key = 0; key < keys; ++key) sum += static_cast<double>(layer.weights[row * keys + key]);
      EXPECT_NEAR(sum, 1, 1e-5);
    }
  }
  EXPECT_EQ(translate(learned.model, "the small cats sleep", {.beam = 4}).output, "les petits chats dorment");
  EXPECT_EQ(translate(learned.model, "although he is tired, the cats sleep", {.summarise = true}).output,
            "the cats sleep");
  const LearnedExample own = learned.task->example(learned.model, "");
  EXPECT_EQ(own.output, own.wanted);
}

std::string refusal(Transformer<float>& model, const std::string& text) {
  try {
    translate(model, text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_option);
    return error.what();
  }
  return "";
}

TEST(Translation, WhatIsNotKnownIsNamed) {
  Transformer<float> model(make_task("translation")->config(4), 1);
  EXPECT_EQ(
      refusal(model, "the small catz sleep"),
      "translate: task \"translation\" does not know the word 'catz'; the nearest that it knows are cat, cats and "
      "car");
  EXPECT_NE(refusal(model, "the <translate> sleeps").find("'<translate>'"), std::string::npos);
  EXPECT_EQ(refusal(model, " . "), "translate: the text has 0 words; it must have 1 to 47");
  std::string many;
  for (int i = 0; i < 48; ++i) many += "cat ";
  EXPECT_EQ(refusal(model, many), "translate: the text has 48 words; it must have 1 to 47");
  Transformer<float> other(make_task("noise")->config(4), 1);
  EXPECT_NE(refusal(other, "the cat sleeps").find("vocabularies"), std::string::npos);
}

TEST(Noise, APassageOfOnesOwn) {
  Learned learned = load_learned(kTrained / "noise");
  EXPECT_EQ(learned.task->example(learned.model, "the fisherman reaches the bank").output, "bank: rive");
  EXPECT_EQ(learned.task->example(learned.model, "the clerk robs the bank").output, "bank: banque");
  const LearnedExample own = learned.task->example(learned.model, "");
  EXPECT_EQ(own.output, own.wanted);
  ASSERT_EQ(own.layers.size(), 1u);
  try {
    learned.task->example(learned.model, "the fishermen reaches the bank");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_option);
    EXPECT_NE(std::string(error.what()).find("'fishermen'; the nearest that it knows are fisherman"),
              std::string::npos);
  }
}

// All of a training is a function of its seed: not of threads.
TEST(WordTasks, BitsDoNotDependOnThreads) {
  for (const char* name : {"translation", "noise"}) {
    SCOPED_TRACE(name);
    const std::unique_ptr<Task> task = make_task(name);
    const auto gradients = [&](int threads, std::uint64_t seed, std::int64_t step) {
      Transformer<float> model(task->config(4), 5);
      TransformerOptions options;
      options.threads = threads;
      const Metrics metrics = task->train_batch(model, step, seed, options);
      std::vector<float> all{static_cast<float>(metrics.loss)};
      for (const Parameter<float>& parameter : model.parameters().all())
        all.insert(all.end(), parameter.gradient.values().begin(), parameter.gradient.values().end());
      return all;
    };
    const auto first = gradients(1, 3, 4);
    EXPECT_EQ(first, gradients(2, 3, 4));
    EXPECT_NE(first, gradients(1, 3, 5));
    EXPECT_NE(first, gradients(1, 4, 4));
  }
}

TEST(WordTasks, ParametersAreAsManyForEveryNumberOfHeads) {
  for (const char* name : {"translation", "noise"}) {
    const std::unique_ptr<Task> task = make_task(name);
    std::set<std::int64_t> elements;
    for (const std::int64_t heads : task->study_heads())
      elements.insert(Transformer<float>(task->config(heads), 1).parameters().elements());
    EXPECT_EQ(elements.size(), 1u) << name;
    for (const std::int64_t heads : {0, 3, -4}) EXPECT_THROW(task->config(heads), Error) << name;
  }
}

TEST(WordTasks, AFewStepsLearn) {
  for (const auto& [name, steps] : {std::pair{"noise", 60}, std::pair{"translation", 60}}) {
    const std::unique_ptr<Task> task = make_task(name);
    Transformer<float> model(task->config(4), 1);
    AdamW<float> optimizer(model.parameters(), task->options().adamw);
    TrainOptions options = task->options();
    options.steps = options.report_every = steps;
    const auto metrics = train(model.parameters(), optimizer, options,
                               [&](std::int64_t step, std::int64_t) { return task->train_batch(model, step, 1, {}); });
    EXPECT_LT(metrics.back().loss, 0.8 * metrics.front().loss) << name;
  }
}

}  // namespace
}  // namespace multihead::testing
