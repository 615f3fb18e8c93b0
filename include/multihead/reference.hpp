// SPDX-License-Identifier: Apache-2.0
// The definition as code: dense, float64, one loop a sum. Every fast path is judged by it.
#pragma once

#include "multihead/attention.hpp"

namespace multihead {

// The same function as attention(), with shapes, options and errors as there, computed from the whole score matrix.
// An lse without extents asks for none. threads, parallel_for, target and scratch change nothing: it runs in the
// calling thread and allocates its scores.
void attention_reference(View4<const double> q, View4<const double> k, View4<const double> v, View4<double> out,
                         View3<double> lse, const AttentionOptions& options = {});

// softmax(Q K^T / sqrt(head_dim)) per head, concatenated, times Wo, with plain loops; shapes as multi_head_attention().
// weights (num_heads, n, n) on request, or an empty view.
void multi_head_attention_reference(MatrixView<const double> X, MatrixView<const double> Wq,
                                    MatrixView<const double> Wk, MatrixView<const double> Wv,
                                    MatrixView<const double> Wo, int num_heads, MatrixView<double> output,
                                    View3<double> weights = {});

}  // namespace multihead
