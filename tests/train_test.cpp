// SPDX-License-Identifier: Apache-2.0
// The loop: it learns, adds batches up, goes on with the same bits, and stops at what is not finite; metrics as lines.
#include <gtest/gtest.h>

#include <limits>
#include <sstream>

#include "learning_line.hpp"
#include "safetensors_file.hpp"

namespace multihead {
namespace {

using testing::expect_refusal;
using testing::LearningLine;
using testing::lines_of;
using testing::values_of;

class TrainFolder : public testing::InFolder {};

TrainOptions options_of(std::int64_t steps) {
  TrainOptions options;
  options.steps = steps;
  options.adamw.rate = 0.05;
  options.report_every = 7;
  return options;
}

TEST(Train, Learns) {
  LearningLine line;
  AdamW<float> optimizer(line.parameters, options_of(300).adamw);
  const std::vector<Metrics> metrics = line.train(optimizer, options_of(300));
  EXPECT_GT(metrics.front().loss, 0.5);
  EXPECT_LT(metrics.back().loss, 1e-3);
  EXPECT_EQ(optimizer.steps(), 300);
  std::vector<std::int64_t> steps;
  for (const Metrics& one : metrics) steps.push_back(one.step);
  EXPECT_EQ(steps.front(), 1);
  EXPECT_EQ(steps[1], 7);
  EXPECT_EQ(steps[steps.size() - 2], 294);
  EXPECT_EQ(steps.back(), 300);
  EXPECT_EQ(metrics.front().rate, 0.05);  // of the optimiser, at the top of the cosine
  EXPECT_LT(metrics.back().rate, 1e-4);
}

TEST(Train, ReportsToLogProgressAndEvaluation) {
  LearningLine line;
  TrainOptions options = options_of(10);
  std::ostringstream log;
  int shown = 0;
  options.log = &log;
  options.progress = [&](const Metrics& metrics, double rate, double left) {
    ++shown;
    EXPECT_GT(rate, 0);
    EXPECT_GE(left, 0);
    EXPECT_EQ(metrics.more.size(), 1u);
  };
  AdamW<float> optimizer(line.parameters, options.adamw);
  const auto metrics = train(
      line.parameters, optimizer, options, [&](std::int64_t step, std::int64_t) { return line.points(step * 8, 8); },
      [](std::int64_t step) {
        return std::vector<std::pair<std::string, double>>{{"half", static_cast<double>(step) / 2}};
      });
  EXPECT_EQ(log.str(), lines_of(metrics));
  EXPECT_EQ(shown, 3);  // steps 1, 7 and 10
  EXPECT_EQ(metrics.back().more[0].second, 5);
  log.setstate(std::ios::badbit);
  optimizer.set_steps(0);
  expect_refusal(ErrorCode::file_missing, [&] { line.train(optimizer, options); }, {"step 1", "log"});
}

// Four batches of 8 points a step against one of 32: the same sums in another order.
TEST(Train, AccumulationIsTheLargerBatch) {
  LearningLine whole, parts;
  TrainOptions options = options_of(20);
  AdamW<float> one(whole.parameters, options.adamw), several(parts.parameters, options.adamw);
  const auto expected = whole.train(one, options, 32);
  options.accumulate = 4;
  const auto metrics = parts.train(several, options, 8);
  EXPECT_EQ(metrics.back().tokens, 32);
  EXPECT_NEAR(metrics.back().loss, expected.back().loss, 1e-5);
  for (std::int64_t i = 0; i < LearningLine::kDim; ++i)
    EXPECT_NEAR(parts.parameters.find("slope")->value(0, i), whole.parameters.find("slope")->value(0, i), 2e-5);
}

// Batches of unequal numbers of targets count by them.
TEST(Train, AccumulationWeighsByTargets) {
  LearningLine whole, parts;
  TrainOptions options = options_of(5);
  AdamW<float> one(whole.parameters, options.adamw), several(parts.parameters, options.adamw);
  whole.train(one, options, 12);
  options.accumulate = 2;
  train(parts.parameters, several, options, [&](std::int64_t step, std::int64_t number) {
    return number == 0 ? parts.points(step * 12, 3) : parts.points(step * 12 + 3, 9);
  });
  for (std::int64_t i = 0; i < LearningLine::kDim; ++i)
    EXPECT_NEAR(parts.parameters.find("slope")->value(0, i), whole.parameters.find("slope")->value(0, i), 2e-5);
}

TEST(Train, StopsAtALossThatIsNotFinite) {
  LearningLine line;
  AdamW<float> optimizer(line.parameters, options_of(9).adamw);
  std::vector<float> before;
  expect_refusal(ErrorCode::non_finite,
                 [&] {
                   train(line.parameters, optimizer, options_of(9), [&](std::int64_t step, std::int64_t) {
                     before = values_of(line.parameters);
                     Metrics metrics = line.points(step * 8, 8);
                     if (step == 4) metrics.loss = std::numeric_limits<double>::quiet_NaN();
                     return metrics;
                   });
                 },
                 {"step 5", "loss"});
  EXPECT_EQ(values_of(line.parameters), before);
  EXPECT_EQ(optimizer.steps(), 4);
}

TEST(Train, StopsAtAGradientThatIsNotFinite) {
  for (const double clip : {0.0, 1.0}) {
    for (const std::int64_t accumulate : {1, 3}) {
      LearningLine line;
      TrainOptions options = options_of(9);
      options.clip = clip, options.accumulate = accumulate;
      AdamW<float> optimizer(line.parameters, options.adamw);
      std::vector<float> before;
      expect_refusal(ErrorCode::non_finite,
                     [&] {
                       train(line.parameters, optimizer, options, [&](std::int64_t step, std::int64_t) {
                         before = values_of(line.parameters);
                         Metrics metrics = line.points(step * 8, 8);
                         if (step == 2) line.parameters.find("bias")->gradient(0, 0) = -INFINITY;
                         return metrics;
                       });
                     },
                     {"step 3", "'bias'"});
      EXPECT_EQ(values_of(line.parameters), before);
    }
  }
}

// Gradients whose squares are beyond float leave parameters as they are and second moments infinite, rates that are too
// large the reverse: neither reaches the checkpoint.
TEST_F(TrainFolder, StopsAtAStepThatOverflows) {
  const auto path = folder_ / "checkpoint.safetensors";
  const auto stops = [&](double rate, float gradient, const char* what) {
    std::filesystem::remove(path);
    LearningLine line;
    TrainOptions options = options_of(6);
    options.clip = 0, options.checkpoint = path, options.checkpoint_every = 1, options.adamw.rate = rate;
    options.adamw.beta1 = 0, options.schedule.kind = Schedule::Kind::constant;
    AdamW<float> optimizer(line.parameters, options.adamw);
    expect_refusal(ErrorCode::non_finite,
                   [&] {
                     train(line.parameters, optimizer, options, [&](std::int64_t step, std::int64_t) {
                       Metrics metrics = line.points(step * 8, 8);
                       metrics.loss = 1;
                       line.parameters.zero_gradients();
                       if (step == 3) line.parameters.find("bias")->gradient(0, 0) = gradient;
                       return metrics;
                     });
                   },
                   {"step 4", what});
    LearningLine kept;
    AdamW<float> again(kept.parameters, options.adamw);
    load_checkpoint(path, kept.parameters, &again);
    EXPECT_EQ(again.steps(), 3);
  };
  stops(0.05, 1e20f, "the second moment of 'bias'");
  stops(3.4e38, 1, "the parameter 'bias'");
}

TEST(Train, RefusesOptions) {
  LearningLine line;
  AdamW<float> optimizer(line.parameters, {});
  const auto refused = [&](auto change, const char* name) {
    TrainOptions options = options_of(3);
    change(options);
    expect_refusal(ErrorCode::bad_option, [&] { line.train(optimizer, options); }, {"train", name});
    EXPECT_EQ(optimizer.steps(), 0);
  };
  refused([](TrainOptions& o) { o.steps = -1; }, "steps");
  refused([](TrainOptions& o) { o.accumulate = 0; }, "accumulate");
  refused([](TrainOptions& o) { o.report_every = 0; }, "report_every");
  refused([](TrainOptions& o) { o.checkpoint_every = -1; }, "checkpoint_every");
  refused([](TrainOptions& o) { o.clip = -1; }, "clip");
  expect_refusal(ErrorCode::bad_option, [&] { line.train(optimizer, options_of(3), 0); }, {"step 1", "no targets"});
}

class MetricsFile : public testing::InFolder {};

TEST_F(MetricsFile, LinesReadBackExactly) {
  const Metrics metrics{12, 0.1 + 0.2, 1.0 / 3, 1e-300, 5e-324, 640, {{"a \"b\"", 1e22}, {"none", std::nan("")}}};
  const std::string line = json_line(metrics);
  EXPECT_EQ(line,
            "{\"step\":12,\"loss\":0.30000000000000004,\"accuracy\":0.3333333333333333,\"gradient_norm\":1e-300,"
            "\"rate\":5e-324,\"tokens\":640,\"a \\\"b\\\"\":1e+22,\"none\":null}");
  const auto path = put("metrics.jsonl", line + "\n");
  const std::vector<Metrics> read = read_metrics(path, 12);
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(json_line(read[0]), line);
}

TEST_F(MetricsFile, WhatWasCutOffIsLeftOut) {
  const std::string first = "{\"step\":1,\"loss\":2.5}\n", second = "{\"step\":2,\"loss\":1.5}\n";
  const auto count = [&](const std::string& text, std::int64_t last) {
    return read_metrics(put("m", text), last).size();
  };
  EXPECT_EQ(count(first + second, 5), 2u);
  EXPECT_EQ(count(first + second, 1), 1u);
  for (std::size_t size = 0; size < second.size(); ++size) EXPECT_EQ(count(first + second.substr(0, size), 5), 1u);
  EXPECT_EQ(count(first + "[1]\n" + second, 5), 1u);
  EXPECT_EQ(count(first + "{\"step\":\"x\"}\n", 5), 1u);
  EXPECT_EQ(count(first + "{\"loss\":1}\n", 5), 1u);
  EXPECT_EQ(count("", 5), 0u);
  expect_refusal(ErrorCode::file_missing, [&] { read_metrics(folder_ / "no", 5); }, {"read_metrics", "no"});
}

}  // namespace
}  // namespace multihead
