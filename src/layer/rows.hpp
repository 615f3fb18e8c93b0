// SPDX-License-Identifier: Apache-2.0
// The rules of what is done to rows, checked under the name of whoever asks.
#pragma once

#include "multihead/linear.hpp"

namespace multihead {

void check_activation(const char* function, Activation activation);

// A norm with or without a weight and a bias.
void check_norm(const char* function, const HeadNorm& norm, bool weight, bool bias);

}  // namespace multihead
