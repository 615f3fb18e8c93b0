// SPDX-License-Identifier: Apache-2.0
// Loss and gradients of a task's answers.
#include "train/tasks/learn.hpp"

#include <algorithm>

#include "multihead/gradients.hpp"

namespace multihead {

Metrics learn(Transformer<float>& model, const Matrix<float>& logits, std::span<const Answer> answers) {
  Metrics metrics;
  for (const Answer& answer : answers)
    metrics.tokens +=
        std::count_if(answer.wanted.begin(), answer.wanted.end(), [](std::int64_t wanted) { return wanted >= 0; });
  std::int64_t correct = 0;
  for (const Answer& answer : answers) {
    const CrossEntropy measured =
        cross_entropy<float>(answer.logits, answer.wanted, 0, answer.logits, 1 / static_cast<double>(metrics.tokens));
    metrics.loss += measured.loss / static_cast<double>(answers.size());
    correct += measured.correct;
  }
  metrics.accuracy = static_cast<double>(correct) / static_cast<double>(metrics.tokens);
  model.backward(logits);
  return metrics;
}

}  // namespace multihead
