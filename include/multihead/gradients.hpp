// SPDX-License-Identifier: Apache-2.0
// Gradients of what stands around attention in a Transformer. Library multihead_train.
#pragma once

#include <cstdint>
#include <span>

#include "multihead/dropout.hpp"
#include "multihead/layer.hpp"
#include "multihead/linear.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

// Of all functions here. T: float, double; rows are contiguous along their last axis and otherwise free in strides.
// Gradients of parameters are ADDED to what is there, so that batches accumulate; gradients of inputs are written. What
// has no extents is not asked for. Sums over rows run in the order of the rows, in fixed blocks: bits depend on the
// data alone, not on threads. Sums of float are float, except where double is said. Nothing is written when Error is
// thrown. Thread-safe for distinct outputs. Nothing is allocated after a thread's first calls of a size: scratch is
// kept per thread, and LayerOptions::scratch is not used.

// y = x weight + bias, weight (in, out) or (out, in) as order says: a product with weights that change at every step,
// so nothing is packed beforehand. bias (out) or empty.
template <class T>
void linear(MatrixView<const T> x, MatrixView<const T> weight, WeightOrder order, std::span<const T> bias,
            MatrixView<T> y, const LayerOptions& options = {});

template <class T>
struct LinearGradients {
  MatrixView<T> x = {};       // (rows, in)
  MatrixView<T> weight = {};  // as the weight is laid out
  std::span<T> bias = {};     // (out)
};
// d_x = d_y weight^T, d_weight += x^T d_y, d_bias += the column sums of d_y.
template <class T>
void linear_backward(MatrixView<const T> x, MatrixView<const T> weight, WeightOrder order, MatrixView<const T> d_y,
                     const LinearGradients<T>& gradients, const LayerOptions& options = {});

// y = activation(x), elementwise; y may be x.
template <class T>
void activate(Activation activation, MatrixView<const T> x, MatrixView<T> y, const LayerOptions& options = {});
// d_x = d_y activation'(x); d_x may be d_y. relu'(0) is 0.
template <class T>
void activation_backward(Activation activation, MatrixView<const T> x, MatrixView<const T> d_y, MatrixView<T> d_x,
                         const LayerOptions& options = {});

template <class T>
struct RowNormGradients {
  MatrixView<T> x = {};                 // (rows, width)
  std::span<T> weight = {}, bias = {};  // (width)
};
// Of y = row_norm(x) with norm.kind rms, rms_plus_1 or layer; x is the norm's input (residual included). Means and
// variances are computed again from x. gradients.x may be d_y.
template <class T>
void row_norm_backward(MatrixView<const T> x, const RowNorm<T>& norm, MatrixView<const T> d_y,
                       const RowNormGradients<T>& gradients, const LayerOptions& options = {});

// y = table[ids], row by row; and its gradient: d_table[ids[i]] += d_y[i], in the order of i. An id of -1 gives a row
// of zeros and gets nothing; other ids outside the table are refused.
template <class T>
void embedding(MatrixView<const T> table, std::span<const std::int64_t> ids, MatrixView<T> y);
template <class T>
void embedding_backward(std::span<const std::int64_t> ids, MatrixView<const T> d_y, MatrixView<T> d_table);

// Cross-entropy of softmax(logits) with label smoothing (Szegedy et al. 2016): a row's target distribution is
// (1 - smoothing) at its target plus smoothing / classes everywhere. Rows of target -1 count for nothing.
struct CrossEntropy {
  double loss = 0;           // the mean over the rows that count, in double; 0 without one
  std::int64_t rows = 0;     // that count
  std::int64_t correct = 0;  // of those: the largest logit is the target's (the lower class of equals)
};
// d_logits, of the logits' extents or without: the gradient of the SUM over counted rows, times factor. d_logits may be
// logits. A NaN shows in loss.
template <class T>
CrossEntropy cross_entropy(MatrixView<const T> logits, std::span<const std::int64_t> targets, double smoothing,
                           MatrixView<T> d_logits = {}, double factor = 1);

// Dropout of elements: y = x or 0, kept ones divided by 1 - probability; element n of row i is dropped where word n % 4
// of philox4x32({n / 4, i, 0, stream}, seed) is below probability * 2^32. Its gradient is the same call on d_y. y may
// be x.
template <class T>
void drop_elements(const Dropout& dropout, MatrixView<const T> x, MatrixView<T> y);

}  // namespace multihead
