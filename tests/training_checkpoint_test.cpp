// SPDX-License-Identifier: Apache-2.0
// Checkpoints of a training: the same bits after them, whole files whatever happens, and refusals that change nothing.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <ctime>

#include "full_disk.hpp"
#include "learning_line.hpp"
#include "safetensors_file.hpp"

namespace multihead {
namespace {

using testing::expect_refusal;
using testing::LearningLine;
using testing::lines_of;
using testing::values_of;

class TrainingCheckpoint : public testing::InFolder {
 protected:
  TrainOptions options_of(std::int64_t steps) const {
    TrainOptions options;
    options.steps = steps;
    options.schedule.total = 60;
    options.report_every = 5;
    options.checkpoint = path();
    options.metadata = {{"task", "line"}};
    return options;
  }
  std::filesystem::path path() const { return folder_ / "checkpoint.safetensors"; }
};

TEST_F(TrainingCheckpoint, GoesOnWithTheSameBits) {
  LearningLine whole;
  AdamW<float> steady(whole.parameters, {});
  TrainOptions options = options_of(60);
  options.checkpoint.clear();
  const std::vector<Metrics> expected = whole.train(steady, options);
  for (const std::int64_t cut : {5, 30, 55}) {
    LearningLine first, second;
    AdamW<float> one(first.parameters, {}), two(second.parameters, {});
    std::vector<Metrics> metrics = first.train(one, options_of(cut));
    const Metadata metadata = load_checkpoint(path(), second.parameters, &two);
    EXPECT_EQ(metadata, (Metadata{{"task", "line"}}));
    EXPECT_EQ(two.steps(), cut);
    for (const Metrics& one_more : second.train(two, options_of(60))) metrics.push_back(one_more);
    EXPECT_EQ(lines_of(metrics), lines_of(expected));
    EXPECT_EQ(values_of(second.parameters), values_of(whole.parameters));
  }
}

TEST_F(TrainingCheckpoint, ParametersAlone) {
  LearningLine line, read;
  AdamW<float> optimizer(line.parameters, {});
  line.train(optimizer, options_of(5));
  load_checkpoint(path(), read.parameters, nullptr);
  EXPECT_EQ(values_of(read.parameters), values_of(line.parameters));
}

TEST_F(TrainingCheckpoint, AFullDiskLeavesTheLastOne) {
  LearningLine line;
  line.parameters.add("large", 64, 64, true);
  AdamW<float> optimizer(line.parameters, {});
  line.train(optimizer, options_of(5));
  const std::string before = get(path());
  {
    const FullDisk full;
    expect_refusal(ErrorCode::file_missing, [&] { line.train(optimizer, options_of(10)); }, {"cannot be written"});
  }
  EXPECT_EQ(get(path()), before);
  EXPECT_EQ(files(), 1);
}

TEST_F(TrainingCheckpoint, NoneOfWhatIsNotFinite) {
  LearningLine line;
  TrainOptions options = options_of(5);
  AdamW<float> optimizer(line.parameters, options.adamw);
  line.train(optimizer, options);
  const std::string before = get(path());
  AdamWOptions huge;
  huge.rate = 1e38;
  huge.decay = 1e38;
  AdamW<float> wild(line.parameters, huge);
  options.checkpoint_every = 1;
  expect_refusal(ErrorCode::non_finite, [&] { line.train(wild, options); },
                 {"step 1", "'slope'", "not finite after it"});
  EXPECT_EQ(get(path()), before);
}

// A training that writes a checkpoint each step, killed at many moments: what is there is always whole, and going on
// from the last one ends with the bits of a training that nobody disturbed.
TEST_F(TrainingCheckpoint, AKillAtAnyMomentLeavesOneThatCanBeRead) {
  constexpr std::int64_t kSteps = 400;
  TrainOptions options = options_of(kSteps);
  options.checkpoint_every = 1;
  const auto build = [](LearningLine& line) { line.parameters.add("large", 32, 64, true); };
  const auto go_on = [&](LearningLine& line) {
    build(line);
    AdamW<float> optimizer(line.parameters, {});
    if (std::filesystem::exists(path())) load_checkpoint(path(), line.parameters, &optimizer);
    const std::int64_t before = optimizer.steps();
    line.train(optimizer, options);
    return before;
  };
  Random random(1, 0);
  std::int64_t last = 0, kills = 0;
  for (int attempt = 0; attempt < 60; ++attempt) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      LearningLine line;
      go_on(line);
      _exit(0);
    }
    const timespec wait{0, static_cast<long>(random.below(6'000'000))};
    nanosleep(&wait, nullptr);
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    kills += WIFSIGNALED(status) ? 1 : 0;
    if (!std::filesystem::exists(path())) continue;
    LearningLine line;
    build(line);
    AdamW<float> optimizer(line.parameters, {});
    load_checkpoint(path(), line.parameters, &optimizer);
    EXPECT_GE(optimizer.steps(), last);
    last = optimizer.steps();
    if (last == kSteps) break;
  }
  EXPECT_GT(kills, 3);
  LearningLine resumed, steady;
  EXPECT_GT(go_on(resumed), 0);
  std::filesystem::remove(path());
  EXPECT_EQ(go_on(steady), 0);
  EXPECT_EQ(values_of(resumed.parameters), values_of(steady.parameters));
}

class Disagreeing : public TrainingCheckpoint {
 protected:
  void SetUp() override {
    TrainingCheckpoint::SetUp();
    AdamW<float> optimizer(line_.parameters, {});
    line_.train(optimizer, options_of(5));
  }
  // Into a model of those parameters, which must stay as it was.
  void expect_refused(ErrorCode code, Parameters<float>& parameters, std::initializer_list<std::string> words) const {
    AdamW<float> optimizer(parameters, {});
    const std::vector<float> before = values_of(parameters);
    expect_refusal(
        code, [&] { load_checkpoint(path(), parameters, &optimizer); }, words);
    EXPECT_EQ(values_of(parameters), before);
    EXPECT_EQ(optimizer.steps(), 0);
    for (const Matrix<float>& m : optimizer.first_moments())
      EXPECT_TRUE(std::all_of(m.values().begin(), m.values().end(), [](float x) { return x == 0; }));
  }
  // The file's tensors and metadata again, with a change.
  template <class Change>
  void rewrite(const Change& change) const {
    const std::string bytes = get(path());
    const Safetensors file = Safetensors::parse(testing::bytes_of(bytes), "bytes");
    std::vector<StoredTensor> tensors(file.tensors().begin(), file.tensors().end());
    Metadata metadata = file.metadata();
    change(tensors, metadata);
    write_safetensors(path(), tensors, metadata);
  }
  LearningLine line_;
};

TEST_F(Disagreeing, AParameterIsMissing) {
  LearningLine line;
  line.parameters.add("more", 1, 1, true);
  expect_refused(ErrorCode::shape_mismatch, line.parameters, {"'more'", "there is no"});
}
TEST_F(Disagreeing, AParameterIsUnknown) {
  Parameters<float> parameters;
  parameters.add("slope", 1, LearningLine::kDim, true);
  expect_refused(ErrorCode::shape_mismatch, parameters, {"bias'", "no parameter"});
}
TEST_F(Disagreeing, AParameterIsOfAnotherExtent) {
  Parameters<float> parameters;
  parameters.add("slope", LearningLine::kDim, 1, true), parameters.add("bias", 1, 1, true);
  expect_refused(ErrorCode::shape_mismatch, parameters, {"'slope'", "(1, 37)", "(37, 1)"});
}
TEST_F(Disagreeing, AParameterIsOfAnotherType) {
  const std::int32_t zero = 0;
  rewrite([&](std::vector<StoredTensor>& tensors, Metadata&) {
    for (StoredTensor& tensor : tensors)
      if (tensor.name == "bias") tensor.dtype = "I32", tensor.bytes = std::as_bytes(std::span(&zero, 1));
  });
  LearningLine line;
  expect_refused(ErrorCode::shape_mismatch, line.parameters, {"'bias'", "I32"});
}
TEST_F(Disagreeing, AMomentIsMissing) {
  rewrite([](std::vector<StoredTensor>& tensors, Metadata&) {
    std::erase_if(tensors, [](const StoredTensor& tensor) { return tensor.name == "second_moment/bias"; });
  });
  LearningLine line;
  expect_refused(ErrorCode::shape_mismatch, line.parameters, {"'second_moment/bias'"});
}
TEST_F(Disagreeing, AMomentThatNoTrainingMakes) {
  for (const float value : {-1e-3f, INFINITY, std::nanf("")}) {
    rewrite([&](std::vector<StoredTensor>& tensors, Metadata&) {
      for (StoredTensor& tensor : tensors)
        if (tensor.name == "second_moment/bias") tensor.bytes = std::as_bytes(std::span(&value, 1));
    });
    LearningLine line;
    expect_refused(ErrorCode::file_malformed, line.parameters, {"'second_moment/bias'", "at least 0"});
  }
}
TEST_F(Disagreeing, StepsThatAreNone) {
  for (const char* const steps : {"", "-1", "5x", "18446744073709551615", "9007199254740993"}) {
    rewrite([&](std::vector<StoredTensor>&, Metadata& metadata) {
      for (auto& [key, value] : metadata)
        if (key == "adamw_steps") value = steps;
    });
    LearningLine line;
    expect_refused(ErrorCode::file_malformed, line.parameters, {"adamw_steps"});
  }
  rewrite([&](std::vector<StoredTensor>&, Metadata& metadata) { metadata = {{"task", "line"}}; });
  LearningLine line;
  expect_refused(ErrorCode::file_malformed, line.parameters, {"no adamw_steps"});
}
TEST_F(Disagreeing, BytesThatAreNoCheckpoint) {
  const std::string whole = get(path());
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{100}, whole.size() - 1}) {
    put("checkpoint.safetensors", whole.substr(0, size));
    LearningLine line;
    expect_refused(ErrorCode::file_malformed, line.parameters, {"checkpoint.safetensors"});
  }
  std::filesystem::remove(path());
  LearningLine line;
  expect_refused(ErrorCode::file_missing, line.parameters, {"checkpoint.safetensors"});
}
TEST_F(Disagreeing, NamesThatAreTaken) {
  Parameters<float> parameters;
  parameters.add("first_moment/x", 1, 1, true);
  AdamW<float> optimizer(parameters, {});
  const std::string before = get(path());
  expect_refusal(ErrorCode::bad_option, [&] { save_checkpoint(path(), parameters, optimizer, {}); },
                 {"first_moment/x"});
  AdamW<float> other(line_.parameters, {});
  expect_refusal(ErrorCode::bad_option,
                 [&] {
                   save_checkpoint(path(), line_.parameters, other, {{"adamw_steps", "3"}});
                 },
                 {"adamw_steps"});
  EXPECT_EQ(get(path()), before);
}

}  // namespace
}  // namespace multihead
