// SPDX-License-Identifier: Apache-2.0
// The smallest training there is: a line through points, mean of squares, gradients written out.
#pragma once

#include <cmath>
#include <cstdint>

#include "multihead/training.hpp"

namespace multihead::testing {

struct LearningLine {
  static constexpr std::int64_t kDim = 37;

  LearningLine() {
    parameters.add("slope", 1, kDim, true);
    parameters.add("bias", 1, 1, false);
  }

  // Points first .. first + count - 1 of a fixed sequence: y = sum x_i / (i + 1) + 0.3.
  Metrics points(std::int64_t first, std::int64_t count) {
    Parameter<float>&slope = *parameters.find("slope"), &bias = *parameters.find("bias");
    Metrics metrics;
    metrics.tokens = count;
    for (std::int64_t n = first; n < first + count; ++n) {
      Random random(static_cast<std::uint64_t>(n), 9);
      float x[kDim], error = bias.value(0, 0) - 0.3f;
      for (std::int64_t i = 0; i < kDim; ++i) {
        x[i] = static_cast<float>(random.normal());
        error += x[i] * (slope.value(0, i) - 1.0f / static_cast<float>(i + 1));
      }
      metrics.loss += double{error} * double{error} / static_cast<double>(count);
      metrics.accuracy += (std::abs(error) < 0.1f ? 1.0 : 0.0) / static_cast<double>(count);
      const float d = 2 * error / static_cast<float>(count);
      for (std::int64_t i = 0; i < kDim; ++i) slope.gradient(0, i) += d * x[i];
      bias.gradient(0, 0) += d;
    }
    return metrics;
  }

  std::vector<Metrics> train(AdamW<float>& optimizer, const TrainOptions& options, std::int64_t batch = 8) {
    return multihead::train(parameters, optimizer, options, [&](std::int64_t step, std::int64_t number) {
      return points((step * options.accumulate + number) * batch, batch);
    });
  }

  Parameters<float> parameters;
};

inline std::vector<float> values_of(const Parameters<float>& parameters) {
  std::vector<float> all;
  for (const Parameter<float>& parameter : parameters.all())
    all.insert(all.end(), parameter.value.values().begin(), parameter.value.values().end());
  return all;
}

inline std::string lines_of(const std::vector<Metrics>& metrics) {
  std::string text;
  for (const Metrics& one : metrics) text += json_line(one) + '\n';
  return text;
}

}  // namespace multihead::testing
