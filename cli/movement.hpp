// SPDX-License-Identifier: Apache-2.0
// How far two runs of an encoder lie apart.
#pragma once

#include <cstdint>
#include <span>

#include "multihead/tensor.hpp"

namespace multihead::cli {

struct Movement {
  double vector = 0;  // 1 - cosine of the sentence vectors
  double hidden = 0;  // |b - a| / |a| of the last hidden states, a text's rows as one vector
};

// Means over the texts; hidden states (tokens, model_dim), starts (texts + 1) as cu_seqlens. A sentence vector is the
// mean of a text's rows. NaN for what is not finite, and for the cosine of a zero vector to another.
Movement movement(MatrixView<const float> a, MatrixView<const float> b, std::span<const std::int64_t> starts);

}  // namespace multihead::cli
