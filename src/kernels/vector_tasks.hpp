// SPDX-License-Identifier: Apache-2.0
// Tasks over many vectors of one width: rotary embedding, norms, lengths, activations.
#pragma once

#include <cstdint>

#include "multihead/linear.hpp"

namespace multihead {

// Vectors of one width, (rows, heads, width), strides between rows and between heads; a vector is contiguous.
template <class T>
struct VectorGrid {
  T* data;
  std::int64_t row_stride, head_stride;
  std::int64_t rows, heads;
};

// Turns pairs of channels of y = x by the angles of each row: docs/numerics.md. y may be x.
template <class T>
struct RotaryTask {
  VectorGrid<const T> x;
  VectorGrid<T> y;
  std::int64_t width, half;  // channels; pairs that are turned
  bool interleaved;          // pairs (2t, 2t + 1), otherwise (t, t + half)
  const T *cos, *sin;        // row p of a table: cos + p * stride
  std::int64_t cos_stride, sin_stride;
  const std::int64_t* positions;  // of each row: the table's row
  std::int64_t position_stride;
  bool back = false;  // by the negative angles
};

// Each vector in place to x / rms(x) * weight, or to (x - mean) / deviation * weight + bias. With from, x is first
// made: from + residual, rounded once, or from. Both are grids like x and may be x itself.
template <class T>
struct NormTask {
  VectorGrid<T> x;
  std::int64_t width;
  bool centered;
  T epsilon;
  const T *weight, *bias;                        // (width) or null: ones, no bias
  bool plus_1 = false;                           // the weight counts from 1
  VectorGrid<const T> from = {}, residual = {};  // data null: there is none
  bool sum_alone = false;                        // no norm: x is what it was made from
};

// Gradients of a NormTask's y = norm(x), from those of y. d_x may be d_y.
template <class T>
struct NormBackTask {
  VectorGrid<const T> x, d_y;
  VectorGrid<T> d_x;  // data null: not asked for
  std::int64_t width;
  bool centered;
  T epsilon;
  const T* weight;       // (width) or null
  bool plus_1;           // the weight counts from 1
  T *d_weight, *d_bias;  // (width) or null: sums over the vectors in order, which are added to what is there
};

// y = activation(x) for count elements, or with d_y its gradient: y = d_y activation'(x). y may be x or d_y.
template <class T>
struct ActivationTask {
  const T *x, *d_y;
  T* y;
  std::int64_t count;
  Activation activation;
};

// norms[row * norm_stride] = the Euclidean length of each vector of one head.
template <class T>
struct LengthTask {
  VectorGrid<const T> x;
  std::int64_t width;
  T* norms;
  std::int64_t norm_stride;
};

}  // namespace multihead
