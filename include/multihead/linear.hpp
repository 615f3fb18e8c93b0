// SPDX-License-Identifier: Apache-2.0
// What stands around attention in a Transformer: products with packed weights, activations, norms over rows.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <span>

#include "multihead/layer.hpp"
#include "multihead/multi_head_attention.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

enum class Activation {
  none,
  relu,
  gelu,       // x (1 + erf(x / sqrt 2)) / 2 (Hendrycks and Gimpel 2016)
  gelu_tanh,  // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, its approximation: gelu_new, gelu_pytorch_tanh
  silu,       // x / (1 + exp(-x))
};

// The type that sums over a stored type of two bytes are made in.
template <class Y, class T>
concept Unrounded = std::same_as<Y, float> && sizeof(T) == 2;

// y = activation(x W + bias).
//   x (rows, in)   y (rows, out), may not overlap x; last axes contiguous
// The weights are copied and packed by the constructor; the layer is immutable, cheap to copy (copies share them) and
// may be called from many threads. A row's bits depend on itself alone: not on rows, threads or calls. T: float,
// double, BFloat16, Float16; of two bytes, weights stay so when packed, sums, bias and activation are float32, and y is
// rounded once. Nothing is allocated by a call; with two bytes, by a thread's later calls of as many threads (180 KB
// for each). options.scratch is not used.
template <class T>
class Linear {
 public:
  // weight (in, out) or (out, in), as order says, one axis contiguous; bias (out) or empty.
  Linear(MatrixView<const T> weight, WeightOrder order, std::span<const T> bias = {});

  std::int64_t in() const noexcept;
  std::int64_t out() const noexcept;

  void forward(MatrixView<const T> x, MatrixView<T> y, Activation activation = Activation::none,
               const LayerOptions& options = {}) const;
  // The same of two bytes, not rounded: y (rows, out) of float.
  template <Unrounded<T> Y>
  void forward(MatrixView<const T> x, MatrixView<Y> y, Activation activation = Activation::none,
               const LayerOptions& options = {}) const;

  struct State;

 private:
  std::shared_ptr<const State> state_;
};

extern template class Linear<float>;
extern template class Linear<double>;
extern template class Linear<BFloat16>;
extern template class Linear<Float16>;

// A norm over each row, as HeadNorm says. weight, bias (width) or empty: ones, none.
template <class T>
struct RowNorm {
  HeadNorm norm = {};
  std::span<const T> weight = {}, bias = {};
};

// y = norm(x + residual), row by row; residual without extents: norm(x).
//   x, residual, y (rows, width); y may be x or residual; last axes contiguous
void row_norm(MatrixView<const float> x, MatrixView<const float> residual, const RowNorm<float>& norm,
              MatrixView<float> y, const LayerOptions& options = {});
void row_norm(MatrixView<const double> x, MatrixView<const double> residual, const RowNorm<double>& norm,
              MatrixView<double> y, const LayerOptions& options = {});

}  // namespace multihead
