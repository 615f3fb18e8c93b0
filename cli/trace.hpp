// SPDX-License-Identifier: Apache-2.0
// Multi-head attention in plain loops, every number between X and the output kept and shown.
#pragma once

#include <ostream>
#include <vector>

#include "heatmap.hpp"
#include "multihead/tensor.hpp"

namespace multihead::cli {

// X (n, model_dim), Wq and Wk (model_dim, heads * head_dim), Wv (model_dim, heads * value_dim), Wo (heads * value_dim,
// out_dim).
struct Inputs {
  MatrixView<const double> X, Wq, Wk, Wv, Wo;
  int heads = 1;
};

struct HeadTrace {
  MatrixView<const double> Wq, Wk, Wv;  // the head's columns
  Matrix<double> Q, K, V;               // (n, head_dim), (n, head_dim), (n, value_dim)
  Matrix<double> scores, weights;       // (n, n): Q K^T / sqrt(head_dim), and the softmax of its rows
  Matrix<double> output;                // (n, value_dim): weights V
};

struct Trace {
  std::vector<HeadTrace> heads;
  Matrix<double> concat;  // (n, heads * value_dim): the heads' outputs side by side
  Matrix<double> output;  // (n, out_dim): concat Wo
};

// heads must divide the widths. The views in the result are those of the inputs.
Trace trace_of(const Inputs& in);

// Each step with its title and shapes; all but the output.
void print_trace(std::ostream& out, const Inputs& in, const Trace& trace, ColorDepth depth);

}  // namespace multihead::cli
