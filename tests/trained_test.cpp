// SPDX-License-Identifier: Apache-2.0
// The learned models that the project ships: their results are those stated beside them, and their heads do what the
// documentation says. And one training, from the start to its thresholds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "multihead/tasks.hpp"
#include "test_dir.hpp"
#include "train/tasks/stories.hpp"

namespace multihead::testing {
namespace {

std::filesystem::path shipped(const std::string& task) { return test_dir().parent_path() / "trained" / task; }

nlohmann::json stated(const std::string& task) {
  std::ifstream file(shipped(task) / "results.json");
  return nlohmann::json::parse(file);
}

std::map<std::string, double> measured(const Learned& learned, Transformer<float>& model) {
  const auto results = learned.task->evaluate(model, true, {});
  return {results.begin(), results.end()};
}

// What was to be reached and was not, as docs/learning.md says.
const std::set<std::pair<std::string, std::string>> kMissed{{"language", "stories_drawn"}};

// avx2, avx512 and neon have one result; baseline rounds otherwise, which may turn an answer or two.
class Shipped : public ::testing::TestWithParam<const char*> {};

TEST_P(Shipped, ReachesWhatIsStated) {
  Learned learned = load_learned(shipped(GetParam()));
  const nlohmann::json wanted = stated(GetParam());
  EXPECT_EQ(learned.task->name(), GetParam());
  EXPECT_EQ(wanted["heads"], learned.heads);
  EXPECT_EQ(wanted["seed"], learned.seed);
  EXPECT_EQ(wanted["parameters"], learned.model.parameters().elements());
  const std::map<std::string, double> results = measured(learned, learned.model);
  const double bound = chosen_target() == Target::baseline ? 0.005 : 0;
  ASSERT_EQ(wanted["results"].size(), results.size());
  for (const auto& [name, value] : wanted["results"].items()) EXPECT_NEAR(results.at(name), value, bound) << name;
  for (const Threshold& threshold : learned.task->thresholds(learned.heads)) {
    if (kMissed.count({GetParam(), threshold.metric}) > 0) continue;
    if (threshold.at_least)
      EXPECT_GE(results.at(threshold.metric), threshold.value) << threshold.metric;
    else
      EXPECT_LE(results.at(threshold.metric), threshold.value) << threshold.metric;
  }
}

TEST_P(Shipped, HeadsDoWhatIsStated) {
  Learned learned = load_learned(shipped(GetParam()));
  const nlohmann::json wanted = stated(GetParam())["ablation"];
  const Ablation found = learned.task->ablate(learned.model, {});
  const double bound = chosen_target() == Target::baseline ? 0.01 : 0;
  ASSERT_EQ(wanted["heads"].size(), found.heads.size());
  for (std::size_t head = 0; head < found.heads.size(); ++head) {
    const nlohmann::json& one = wanted["heads"][head];
    EXPECT_EQ(one["head"], found.heads[head]);
    EXPECT_EQ(one["label"], found.labels[head]);
    for (std::size_t skill = 0; skill < found.skills.size(); ++skill)
      EXPECT_NEAR(one["drop"][skill], found.drop(static_cast<std::int64_t>(head), static_cast<std::int64_t>(skill)),
                  bound);
  }
}

TEST_P(Shipped, FilesAreSmall) {
  EXPECT_LT(std::filesystem::file_size(shipped(GetParam()) / "model.safetensors"), 2'000'000u);
  for (const char* name : {"metrics.jsonl", "plot.svg", "command.txt"})
    EXPECT_TRUE(std::filesystem::exists(shipped(GetParam()) / name)) << name;
}

INSTANTIATE_TEST_SUITE_P(Models, Shipped,
                         ::testing::Values("four-relations", "grammar", "translation", "noise", "language"),
                         [](const auto& task) {
                           std::string name = task.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Seed 1 is at 0.99 by step 750 of 1500: whole, the training takes about 15 seconds of one core.
TEST(FourRelationsTraining, ReachesItsThresholds) {
#ifndef NDEBUG
  GTEST_SKIP() << "a training of 15 seconds takes minutes where kernels are not optimised";
#endif
  if (const char* share = std::getenv("MULTIHEAD_TEST_SHARE"); share && std::string(share) == "quick")
    GTEST_SKIP() << "a training of 15 seconds is left to the full share of the tests";
  const std::unique_ptr<Task> task = make_task("four-relations");
  Transformer<float> model(task->config(4), 1);
  TrainOptions options = task->options();
  options.report_every = options.steps;
  const multihead::Run run = run_task(*task, model, 1, options);
  ASSERT_EQ(run.judged.size(), 5u);
  for (const auto& [threshold, met] : run.judged) EXPECT_TRUE(met) << threshold.metric;
  // The shipped model is this one.
  if (chosen_target() != Target::baseline) {
    const Learned learned = load_learned(shipped("four-relations"));
    ASSERT_EQ(learned.seed, 1u);
    for (std::size_t i = 0; i < model.parameters().all().size(); ++i)
      EXPECT_EQ(model.parameters().all()[i].value, learned.model.parameters().all()[i].value);
  }
}

TEST(FourRelations, ShowsAnExample) {
  Learned learned = load_learned(shipped("four-relations"));
  const LearnedExample own = learned.task->example(learned.model, "");
  EXPECT_EQ(own.output, own.wanted);
  EXPECT_EQ(learned.task->example(learned.model, own.input).output, own.output);
  ASSERT_EQ(own.layers.size(), 1u);
  EXPECT_EQ(own.layers[0].q_tokens.size(), 16u);
  EXPECT_EQ(own.layers[0].weights.size(), 4u * 16 * 16);
  for (const char* text : {"A1", "Q1", "A16", "A1 A2 A3 A4 B1 B2 C1 C2 D1 D2 E1 E2 F1 F2 G1 G2"})
    EXPECT_THROW(learned.task->example(learned.model, text), Error) << text;
}

TEST(Language, ShowsAnExample) {
  Learned learned = load_learned(shipped("language"));
  const LearnedExample own = learned.task->example(learned.model, "");
  EXPECT_EQ(own.input, "The old farmer");
  EXPECT_EQ(stories::read(own.output).ways, 1) << own.output;
  EXPECT_EQ(own.layers.size(), 3u);
  const std::size_t tokens = own.layers[0].q_tokens.size();
  EXPECT_EQ(own.layers[0].weights.size(), 4 * tokens * tokens);
  std::string joined;
  for (const std::string& token : own.layers[2].kv_tokens) joined += token;
  EXPECT_EQ(joined, own.output);
  EXPECT_EQ(learned.task->example(learned.model, own.output).input, own.output);
  for (const std::string& text : {std::string("caf\xc3\xa9"), std::string("two  blanks"), std::string(200, 'x')})
    EXPECT_THROW(learned.task->example(learned.model, text), Error) << text;
}

TEST(Grammar, ShowsAnExample) {
  Learned learned = load_learned(shipped("grammar"));
  const LearnedExample own = learned.task->example(learned.model, "");
  EXPECT_EQ(own.output, own.wanted);
  EXPECT_EQ(learned.task->example(learned.model, own.input).output, own.output);
  const auto says = [&](const char* text) { return learned.task->example(learned.model, text).output; };
  EXPECT_EQ(says("the keys near the cabinet behind the window _ never dull but the garden _ pleasant"),
            "are, praise; is, praise");
  EXPECT_EQ(says("the key near the cabinets _ dull and the birds with the child _ not brave"), "is, blame; are, blame");
  EXPECT_THROW(says("the dragon _ dull and the bird _ brave"), Error);
}

}  // namespace
}  // namespace multihead::testing
