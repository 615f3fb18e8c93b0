// SPDX-License-Identifier: Apache-2.0
// Attention for other rooms: checked operands in, tasks run, nothing validated or allocated.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/table.hpp"
#include "multihead/attention.hpp"

namespace multihead {

template <class T>
struct AttentionCall {
  View4<const T> q, k, v;  // as attention()
  View4<T> out;
  View3<T> lse;  // or empty
  T* row_max;    // (batch, heads, q_len) or null: statistics for weights_task
  T* row_sum;
};

// Bytes of scratch of one task; a multiple of a cache line.
std::size_t attention_task_scratch(const AttentionShape& shape);

// The task of rows [row, row + kRowBlock) of head (batch-major), without ranges and scratch.
template <class T>
AttentionTask<T> task_of(const AttentionCall<T>& call, const AttentionShape& shape, double scale, std::int64_t head,
                         std::int64_t row);

// Runs the call. scratch: attention_task_scratch() for each of min(threads, tasks) workers, aligned to a cache line.
template <class T>
void run_attention(const AttentionCall<T>& call, const AttentionShape& shape, const AttentionOptions& options,
                   const KernelTable& table, std::byte* scratch);

}  // namespace multihead
