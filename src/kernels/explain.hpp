// SPDX-License-Identifier: Apache-2.0
// What the plans of the forward and the backward pass share.
#pragma once

#include "multihead/attention.hpp"

namespace multihead {

// Checks, then all of the plan but its flops and scratch; tasks are the forward pass's.
AttentionPlan plan_of(const char* function, const char* kernel, const AttentionShape& shape,
                      const AttentionOptions& options);

}  // namespace multihead
