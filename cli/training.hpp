// SPDX-License-Identifier: Apache-2.0
// One training from the command line: what is to be run, how it shows itself meanwhile, what comes out.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "multihead/tasks.hpp"

namespace multihead::cli {

struct TrainingPlan {
  const Task& task;
  std::int64_t heads;
  std::uint64_t seed;
  TrainOptions options;          // of the task, with the command line's steps
  std::filesystem::path folder;  // of its files; empty: none are written
  bool resume;                   // goes on from the folder's checkpoint; without it a folder that has one is refused
  std::string title;             // before each line of progress; empty: none
  bool quiet = false;            // progress goes to standard error: standard output is for something else
};

struct Trained {
  Transformer<float> model;
  Run run;  // metrics: of the whole training, also of what was run before it was cut off
};

// A task's own, with other steps where they are given.
TrainOptions options_of(const Task& task, std::optional<std::int64_t> steps);

// Trains, showing progress: a line in place on a terminal, else a line a report. With a folder,
// metrics go to metrics.jsonl while it runs, the training to checkpoint.safetensors, the model to model.safetensors at
// the end; what a kill left half written there is removed at the start. Throws Error.
Trained train_plan(const TrainingPlan& plan, const Common& common);

TransformerOptions machine_of(const Common& common);
// Makes a folder. Throws file_missing.
void make_folder(const std::string& option, const std::filesystem::path& folder);

// "at least 0.99".
std::string bound_text(const Threshold& threshold);

// What a training measured as curves: loss, accuracy, and what its task adds.
std::vector<Curve> curves_of(const std::vector<Metrics>& metrics);

// Everything of results.json.
std::string results_json(const TrainingPlan& plan, const Trained& trained, const Ablation* ablation);

}  // namespace multihead::cli
