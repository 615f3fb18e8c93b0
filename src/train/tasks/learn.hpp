// SPDX-License-Identifier: Apache-2.0
// The end of a batch, alike in all tasks: loss, gradients, metrics.
#pragma once

#include <cstdint>
#include <span>

#include "multihead/tensor.hpp"
#include "multihead/training.hpp"
#include "multihead/transformer.hpp"

namespace multihead {

// Some columns of the logits, which answer one question, and the right classes; -1 where it is not asked.
struct Answer {
  MatrixView<float> logits;
  std::span<const std::int64_t> wanted;
};

// After the model's forward: the mean cross-entropy of all answers, as many to each question, and its gradients by
// backward. The logits become their gradients.
Metrics learn(Transformer<float>& model, const Matrix<float>& logits, std::span<const Answer> answers);

}  // namespace multihead
