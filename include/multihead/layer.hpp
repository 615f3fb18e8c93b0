// SPDX-License-Identifier: Apache-2.0
// Multi-head attention from X to the output: project, split by head, attend, concatenate, project.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "multihead/parallel.hpp"
#include "multihead/target.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

struct LayerOptions {
  int threads = 1;                    // at least 1; heads, rows and columns are shared out; with 1 no thread is created
  ParallelFor parallel_for = {};      // the caller's loop instead of the pool
  std::optional<Target> target = {};  // pin a target; otherwise chosen_target()
  std::span<std::byte> scratch =
      {};  // multi_head_attention_scratch_bytes() of it, or empty: kept per thread and reused
};

template <class T>
struct SelfAttention {
  Matrix<T> output;   // (n, value width)
  Matrix<T> weights;  // (n, n), rows sum to 1
};

// One head: Q = X Wq, K = X Wk, V = X Wv; weights = softmax(Q K^T / sqrt(head_dim)), output = weights V.
//   X (n, model_dim)   Wq, Wk (model_dim, head_dim)   Wv (model_dim, value_dim)       weight order [in, out]
// head_dim and value_dim 1 to 1024. Returning the weights changes no bit of the output.
SelfAttention<float> self_attention(MatrixView<const float> X, MatrixView<const float> Wq, MatrixView<const float> Wk,
                                    MatrixView<const float> Wv, const LayerOptions& options = {});
SelfAttention<double> self_attention(MatrixView<const double> X, MatrixView<const double> Wq,
                                     MatrixView<const double> Wk, MatrixView<const double> Wv,
                                     const LayerOptions& options = {});
// The same into output (n, value_dim) and, where it is given, weights (n, n), neither of which may overlap anything
// else. Allocates nothing after a thread's first calls of a size; scratch is multi_head_attention's of one head.
void self_attention(MatrixView<const float> X, MatrixView<const float> Wq, MatrixView<const float> Wk,
                    MatrixView<const float> Wv, MatrixView<float> output, const LayerOptions& options = {},
                    MatrixView<float> weights = {});
void self_attention(MatrixView<const double> X, MatrixView<const double> Wq, MatrixView<const double> Wk,
                    MatrixView<const double> Wv, MatrixView<double> output, const LayerOptions& options = {},
                    MatrixView<double> weights = {});

// Weights on request; an empty view asks for nothing.
template <class T>
struct HeadWeights {
  View3<T> per_head = {};   // (num_heads, n, n): what each head looks at
  MatrixView<T> mean = {};  // (n, n): the mean over heads
};

// Vaswani et al. 2017, section 3.2.2. Wq, Wk and Wv are split on their last axis into num_heads equal column blocks;
// head h is self-attention with its blocks; the heads' outputs (not their weights) are concatenated and multiplied by
// Wo.
//   X (n, model_dim)   Wq, Wk (model_dim, num_heads * head_dim)   Wv (model_dim, num_heads * value_dim)
//   Wo (num_heads * value_dim, out_dim)   output (n, out_dim), may overlap neither an input nor the weights
// Equal, bit for bit, to self_attention on the column slices, concatenated, times Wo. num_heads must divide the widths;
// widths are otherwise free, head_dim and value_dim 1 to 1024. A weight may also be the transposed view of one in
// [out, in] order. Bits do not depend on threads; asking for weights changes none. Thread-safe for distinct outputs.
// The writing overloads allocate nothing after a thread's first calls of a size. Throws Error before anything is
// written.
Matrix<float> multi_head_attention(MatrixView<const float> X, MatrixView<const float> Wq, MatrixView<const float> Wk,
                                   MatrixView<const float> Wv, MatrixView<const float> Wo, int num_heads,
                                   const LayerOptions& options = {});
Matrix<double> multi_head_attention(MatrixView<const double> X, MatrixView<const double> Wq,
                                    MatrixView<const double> Wk, MatrixView<const double> Wv,
                                    MatrixView<const double> Wo, int num_heads, const LayerOptions& options = {});
void multi_head_attention(MatrixView<const float> X, MatrixView<const float> Wq, MatrixView<const float> Wk,
                          MatrixView<const float> Wv, MatrixView<const float> Wo, int num_heads,
                          MatrixView<float> output, const LayerOptions& options = {},
                          const HeadWeights<float>& weights = {});
void multi_head_attention(MatrixView<const double> X, MatrixView<const double> Wq, MatrixView<const double> Wk,
                          MatrixView<const double> Wv, MatrixView<const double> Wo, int num_heads,
                          MatrixView<double> output, const LayerOptions& options = {},
                          const HeadWeights<double>& weights = {});

// The same for rows as a student writes them: std::vector<std::vector<double>>.
template <class T>
SelfAttention<T> self_attention(const Rows<T>& X, const Rows<T>& Wq, const Rows<T>& Wk, const Rows<T>& Wv,
                                const LayerOptions& options = {}) {
  return self_attention(Matrix<T>(X), Matrix<T>(Wq), Matrix<T>(Wk), Matrix<T>(Wv), options);
}
template <class T>
Matrix<T> multi_head_attention(const Rows<T>& X, const Rows<T>& Wq, const Rows<T>& Wk, const Rows<T>& Wv,
                               const Rows<T>& Wo, int num_heads, const LayerOptions& options = {}) {
  return multi_head_attention(Matrix<T>(X), Matrix<T>(Wq), Matrix<T>(Wk), Matrix<T>(Wv), Matrix<T>(Wo), num_heads,
                              options);
}

// Bytes of scratch that multi_head_attention takes; element_size is sizeof(float) or sizeof(double); weights: whether
// any are asked for. Throws as multi_head_attention does.
std::size_t multi_head_attention_scratch_bytes(std::size_t element_size, std::int64_t n, std::int64_t model_dim,
                                               std::int64_t qk_width, std::int64_t v_width, std::int64_t out_dim,
                                               int num_heads, const LayerOptions& options = {}, bool weights = false);

}  // namespace multihead
