// SPDX-License-Identifier: Apache-2.0
// Gradients of attention(): from the output's, and the log-sum-exp's, to those of whatever the call reads.
#pragma once

#include <cstddef>
#include <span>

#include "multihead/attention.hpp"
#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

// Where gradients go; what has no extents (no pointer) is not asked for and costs nothing. Each is overwritten, not
// added to. The last axes of q, k and v must be contiguous; strides are otherwise free, and no two may overlap, nor
// overlap anything that is read.
template <class T>
struct AttentionGradients {
  View4<T> q = {}, k = {}, v = {};  // of the extents of q, k and v
  // (batch or 1, heads or 1, q_len or 1, kv_len or 1): of options.bias, summed over each axis of extent 1. An axis that
  // the bias itself repeats must have extent 1 here.
  View4<Sum<T>> bias = {};
  std::span<double> alibi_slopes = {};    // (heads)
  MatrixView<Sum<T>> relative_bias = {};  // (buckets, heads): of the table
  std::span<double> sinks = {};           // (heads)
  double* scale = nullptr;                // of the scale, one number for the call
};

// What attention() read and gave, and the gradients that come from above.
//   q, k, v, out, lse   as in attention(), lse included: the row's log-sum-exp is what the pass starts from
//   d_out               (batch, heads, q_len, value_dim), last axis contiguous
//   d_lse               (batch, heads, q_len), strides free, or without extents: nothing depends on lse
template <class T>
struct AttentionForward {
  View4<const T> q, k, v, out;
  View3<const Sum<T>> lse;
  View4<const T> d_out;
  View3<const Sum<T>> d_lse = {};
};

// Gradients of every option that runs forward, by recomputing the weights block by block from lse: memory is linear in
// length (Dao et al. 2022, algorithm 4; Dao 2023, algorithm 2), and no buffer is kept per thread that has the size of a
// gradient. With P the softmax, Z the dropout's factors and D_i = sum_c dO_ic O_ic - dL_i:
//   dV_j = sum_i P_ij Z_ij dO_i    dS_ij = P_ij (Z_ij dO_i . v_j - D_i)    dx_ij = dS_ij (1 - tanh^2(x_ij / cap))
//   dQ_i = scale sum_j dx_ij k_j   dK_j = scale sum_i dx_ij q_i            (K and V: summed over the heads they serve)
//   dbias_ij = dS_ij   dslope_h = -sum dS_ij |p_i - j|   dtable = sum of dS_ij by bucket
//   dsink_h = -sum_i exp(sink_h - L_i) D_i               dscale = sum dx_ij q_i . k_j
// options must be those of the forward call. A row that sees no key gives and gets zeros, whatever its d_out holds, but
// to its head's sink. A weight is as good as lse, whose rounding grows with |lse|, and at most about 1. NaN or Inf in a
// row of q or d_out never reaches keys that the row does not see, nor one in a key or value the rows that do not see
// it. Bits do not depend on threads, scheduling or repetition; avx2, avx512 and neon agree. BFloat16 and Float16 are
// storage: sums are float, rounded once at the end; avx512bf16 and amx round P Z and dx of BFloat16 too, to multiply.
// Thread-safe for distinct outputs. Allocates nothing after a thread's first calls of a size. Throws before it writes.
void attention_backward(const AttentionForward<float>& forward, const AttentionGradients<float>& gradients,
                        const AttentionOptions& options = {});
void attention_backward(const AttentionForward<double>& forward, const AttentionGradients<double>& gradients,
                        const AttentionOptions& options = {});
void attention_backward(const AttentionForward<BFloat16>& forward, const AttentionGradients<BFloat16>& gradients,
                        const AttentionOptions& options = {});
void attention_backward(const AttentionForward<Float16>& forward, const AttentionGradients<Float16>& gradients,
                        const AttentionOptions& options = {});

// The gradients as they are defined, in float64, with nothing clever: dense, for tests.
void attention_backward_reference(const AttentionForward<double>& forward, const AttentionGradients<double>& gradients,
                                  const AttentionOptions& options = {});

// Bytes of scratch (AttentionOptions::scratch) that attention_backward() takes with these extents, options, threads and
// any gradients asked for. Throws as it does.
std::size_t attention_backward_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options = {});

// What would run and why; flops are those of five products, 2 x visible_pairs x (3 head_dim + 2 value_dim).
AttentionPlan explain_backward(const AttentionShape& shape, const AttentionOptions& options = {});

}  // namespace multihead
