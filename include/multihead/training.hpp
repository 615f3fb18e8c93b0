// SPDX-License-Identifier: Apache-2.0
// The loop: steps, metrics, checkpoints, and what stops it. Library multihead_train.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "multihead/optimizer.hpp"
#include "multihead/safetensors.hpp"
#include "multihead/transformer.hpp"

namespace multihead {

// What one step of training, or one evaluation, measured.
struct Metrics {
  std::int64_t step = 0;          // steps taken, this one among them
  double loss = 0, accuracy = 0;  // mean over the targets that count
  double gradient_norm = 0, rate = 0;
  std::int64_t tokens = 0;                                // targets of the step
  std::vector<std::pair<std::string, double>> more = {};  // what a task adds: "held_out", "relation_1" ..
};
// {"step":10,"loss":2.31, ..}: one line of JSON without its end, numbers as they read back exactly, NaN and infinity as
// null.
std::string json_line(const Metrics& metrics);
// Lines of json_line() back, up to the first that is none or whose step is beyond last_step: what a log holds for sure
// when its training was cut off. null reads as NaN. Throws file_missing where there is no such file.
std::vector<Metrics> read_metrics(const std::filesystem::path& path, std::int64_t last_step);

// Everything that a training needs to go on with the same bits: parameters, moments, steps; as .safetensors, written
// beside and renamed, so that a full disk or a kill at any moment leaves the previous file as it was. Moments stand as
// "first_moment/NAME" and "second_moment/NAME", steps as the metadata's "adamw_steps": no parameter and no metadata may
// be called so (bad_option). metadata: what the caller wants to find again (config, seed, task).
void save_checkpoint(const std::filesystem::path& path, const Parameters<float>& parameters, AdamW<float>& optimizer,
                     const Metadata& metadata);
// Into parameters and, unless it is null, optimizer, whose parameters they are. Throws file_missing, file_malformed
// (also for moments that no training makes); shape_mismatch, by name, for a parameter or moment that is missing,
// unknown, of another extent or not stored as F32: then nothing was changed. Returns the metadata, without
// "adamw_steps".
Metadata load_checkpoint(const std::filesystem::path& path, Parameters<float>& parameters, AdamW<float>* optimizer);

struct TrainOptions {
  std::int64_t steps = 1000;
  std::int64_t accumulate = 1;            // batches a step
  double clip = 1.0;                      // of the global norm; 0: none
  AdamWOptions adamw = {};                // of run_task(): train() is given its optimiser
  Schedule schedule = {};                 // total 0: steps
  std::int64_t report_every = 50;         // steps between metrics; the first and the last step always have some
  std::int64_t checkpoint_every = 0;      // 0: none but the last
  std::filesystem::path checkpoint = {};  // empty: none
  bool resume = false;                    // of run_task(): goes on from checkpoint where that is there
  Metadata metadata = {};                 // into checkpoints
  std::ostream* log = nullptr;            // JSON lines
  std::function<void(const Metrics&, double steps_per_second, double seconds_left)> progress = {};
};

// One batch: forward, loss, backward (gradients added), for step 0, 1, .. and batch 0 .. accumulate - 1. Its metrics'
// loss and accuracy are means, tokens their count; of several batches a step, more is the first one's.
using Batch = std::function<Metrics(std::int64_t step, std::int64_t batch)>;
// What is measured at each report beside the training's own numbers; added to Metrics::more.
using Evaluate = std::function<std::vector<std::pair<std::string, double>>(std::int64_t step)>;

// Runs steps first_step .. steps - 1 (first_step: optimizer.steps(), so a loaded checkpoint goes on). A step's
// gradients are those of the mean over the targets of all its batches. Returns what was reported. Throws Error
// non_finite, naming step and tensor, when the loss or a gradient is NaN or infinite: parameters are then those before
// the step; or when the step itself made a parameter or moment so: those after it. The last checkpoint is untouched.
// bad_option for an option out of range and a batch without targets; file_missing where log or checkpoint cannot be
// written.
std::vector<Metrics> train(Parameters<float>& parameters, AdamW<float>& optimizer, const TrainOptions& options,
                           const Batch& batch, const Evaluate& evaluate = {});

// Lines over steps as a picture: SVG of its own, and 12 lines of text for a terminal, about so many columns wide, the
// last naming the signs. Points that are not finite are left out.
struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;
};
std::string plot_svg(const std::string& title, const std::string& x, const std::string& y,
                     std::span<const Curve> curves);
std::vector<std::string> plot_text(std::span<const Curve> curves, std::size_t columns);

}  // namespace multihead
