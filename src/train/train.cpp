// SPDX-License-Identifier: Apache-2.0
// The loop: gradients of a step's batches, one step of the optimiser, metrics, checkpoints.
#include <chrono>
#include <cmath>
#include <ostream>
#include <string>

#include "core/float_mode.hpp"
#include "multihead/training.hpp"

namespace multihead {

namespace {

[[noreturn]] void refuse(const std::string& rule) { throw Error(ErrorCode::bad_option, "train: " + rule); }

void check(const TrainOptions& options) {
  const auto at_least = [](const char* name, std::int64_t value, std::int64_t least) {
    if (value < least)
      refuse(std::string(name) + " is " + std::to_string(value) + "; it must be at least " + std::to_string(least));
  };
  at_least("steps", options.steps, 0);
  at_least("accumulate", options.accumulate, 1);
  at_least("report_every", options.report_every, 1);
  at_least("checkpoint_every", options.checkpoint_every, 0);
  if (!(options.clip >= 0) || std::isinf(options.clip))
    refuse("clip is " + std::to_string(options.clip) + "; it must be finite and at least 0");
}

// Where a training stands, for its sentences.
std::string at_step(std::int64_t step) { return "train: step " + std::to_string(step + 1) + ": "; }

[[noreturn]] void stop(std::int64_t step, const std::string& what) {
  throw Error(ErrorCode::non_finite,
              at_step(step) + what + " is not finite; the parameters are those before this step");
}

bool is_finite(const Matrix<float>& matrix) noexcept {
  float sum = 0;  // x * 0 is 0, or NaN of what is not finite
  for (const float value : matrix.values()) sum += value * 0.0f;
  return sum == 0;
}

class Training {
 public:
  Training(Parameters<float>& parameters, AdamW<float>& optimizer, const TrainOptions& options)
      : parameters_(parameters), optimizer_(optimizer), options_(options), schedule_(options.schedule) {
    if (schedule_.total == 0) schedule_.total = options.steps;
    if (options.accumulate > 1)
      for (const Parameter<float>& parameter : parameters.all())
        sums_.emplace_back(parameter.gradient.rows(), parameter.gradient.columns());
  }

  Metrics step(std::int64_t step, const Batch& batch) {
    Metrics metrics = gradients(step, batch);
    metrics.gradient_norm =
        options_.clip > 0 ? clip_gradients(parameters_, options_.clip) : multihead::gradient_norm(parameters_);
    if (!std::isfinite(metrics.gradient_norm))
      stop(step, "the gradient of '" + std::string(parameters_.non_finite_gradient()) + "'");
    const double factor = schedule_.factor(step);
    optimizer_.step(factor);
    check_finite(step);
    metrics.step = step + 1;
    metrics.rate = factor * optimizer_.options().rate;
    return metrics;
  }

  void checkpoint() { save_checkpoint(options_.checkpoint, parameters_, optimizer_, options_.metadata); }

 private:
  // A step may overflow where its gradient did not.
  void check_finite(std::int64_t step) const {
    const auto check = [&](const Matrix<float>& values, const char* what, const std::string& name) {
      if (!is_finite(values))
        throw Error(ErrorCode::non_finite, at_step(step) + what + " '" + name + "' is not finite after it");
    };
    for (std::size_t i = 0; i < optimizer_.first_moments().size(); ++i) {
      const Parameter<float>& parameter = parameters_.all()[i];
      check(parameter.value, "the parameter", parameter.name);
      check(optimizer_.first_moments()[i], "the first moment of", parameter.name);
      check(optimizer_.second_moments()[i], "the second moment of", parameter.name);
    }
  }

  // Of the mean over the targets of all batches.
  Metrics gradients(std::int64_t step, const Batch& batch) {
    Metrics whole;
    for (Matrix<float>& sum : sums_) std::fill_n(sum.data(), sum.values().size(), 0.0f);
    for (std::int64_t number = 0; number < options_.accumulate; ++number) {
      parameters_.zero_gradients();
      Metrics part = batch(step, number);
      if (!std::isfinite(part.loss)) stop(step, "the loss");
      if (part.tokens < 1) refuse("step " + std::to_string(step + 1) + ": a batch has no targets");
      if (options_.accumulate == 1) return part;
      const auto tokens = static_cast<double>(part.tokens);
      whole.loss += part.loss * tokens;
      whole.accuracy += part.accuracy * tokens;
      whole.tokens += part.tokens;
      each_sum([&](float& sum, float& gradient) { sum += static_cast<float>(tokens) * gradient; });
      if (number == 0) whole.more = part.more;
    }
    const auto tokens = static_cast<double>(whole.tokens);
    whole.loss /= tokens;
    whole.accuracy /= tokens;
    each_sum([&](float& sum, float& gradient) { gradient = sum / static_cast<float>(tokens); });
    return whole;
  }

  template <class Do>
  void each_sum(const Do& what) {
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      Matrix<float>& gradient = parameters_.all()[i].gradient;
      const std::size_t count = gradient.values().size();
      for (std::size_t j = 0; j < count; ++j) what(sums_[i].data()[j], gradient.data()[j]);
    }
  }

  Parameters<float>& parameters_;
  AdamW<float>& optimizer_;
  const TrainOptions& options_;
  Schedule schedule_;
  std::vector<Matrix<float>> sums_;  // of gradients times targets, where a step has several batches
};

}  // namespace

std::vector<Metrics> train(Parameters<float>& parameters, AdamW<float>& optimizer, const TrainOptions& options,
                           const Batch& batch, const Evaluate& evaluate) {
  using Clock = std::chrono::steady_clock;
  check(options);
  const FloatMode mode;
  Training training(parameters, optimizer, options);
  std::vector<Metrics> reported;
  const std::int64_t first = optimizer.steps();
  const Clock::time_point begin = Clock::now();
  for (std::int64_t step = first; step < options.steps; ++step) {
    Metrics metrics = training.step(step, batch);
    const std::int64_t taken = step + 1;
    const bool last = taken == options.steps;
    if (step == 0 || last || taken % options.report_every == 0) {
      if (evaluate)
        for (auto& result : evaluate(taken)) metrics.more.push_back(std::move(result));
      if (options.log && !(*options.log << json_line(metrics) << '\n' << std::flush))
        throw Error(ErrorCode::file_missing, "train: step " + std::to_string(taken) + ": the log cannot be written");
      if (options.progress) {
        const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
        const double rate = static_cast<double>(taken - first) / std::max(seconds, 1e-9);
        options.progress(metrics, rate, static_cast<double>(options.steps - taken) / rate);
      }
      reported.push_back(std::move(metrics));
    }
    if (!options.checkpoint.empty() &&
        (last || (options.checkpoint_every > 0 && taken % options.checkpoint_every == 0)))
      training.checkpoint();
  }
  return reported;
}

}  // namespace multihead
