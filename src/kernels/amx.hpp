// SPDX-License-Identifier: Apache-2.0
// Target amx in two files, one for each way of multiplying.
#pragma once

#include "kernels/table.hpp"

namespace multihead {

// Attention with sums in float whose operands are split into three bfloat16 (parts.inl.hpp).
void attention_in_parts(const AttentionTask<float>& task) noexcept;
void weights_in_parts(const WeightsTask<float>& task) noexcept;
void columns_in_parts(const ColumnsTask<float>& task) noexcept;

}  // namespace multihead
