// SPDX-License-Identifier: Apache-2.0
// Multi-head attention with weights that learn: forward that keeps what backward needs, and backward. Library
// multihead_train.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "multihead/multi_head_attention.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

// Gradients of the parameters, each laid out as its parameter in MultiHeadWeights, ADDED to what is there; what has no
// extents is not asked for.
template <class T>
struct MultiHeadGradients {
  MatrixView<T> q = {}, k = {}, v = {}, qkv = {}, out = {};
  std::span<T> q_bias = {}, k_bias = {}, v_bias = {}, qkv_bias = {}, out_bias = {};
  std::span<T> bias_k = {}, bias_v = {};
  std::span<T> q_norm = {}, k_norm = {}, q_norm_bias = {}, k_norm_bias = {};
  std::span<double> gates = {};  // (heads), of MultiHeadOptions::gates, of ones where none are given; written
  // Of what the options hold (AttentionGradients): written.
  View4<Sum<T>> attention_bias = {};
  std::span<double> alibi_slopes = {};
  MatrixView<Sum<T>> relative_bias = {};
  std::span<double> sinks = {};
};

// Gradients of the inputs, written. In self-attention query's is that of x and the others must be without extents.
template <class T>
struct MultiHeadInputGradients {
  View3<T> query = {}, key = {}, value = {};
};

// MultiHeadAttention for training. T: float, double. spec and shapes are MultiHeadAttention's, every one of its
// features included; the weights are read where they lie at each call, so that an optimiser changes them between calls.
// The object keeps the activations of its last forward: not for many threads at once.
template <class T>
class MultiHeadTraining {
 public:
  // Throws as MultiHeadAttention does, and in its name.
  MultiHeadTraining(const MultiHeadSpec& spec, const MultiHeadWeights<T>& weights);
  ~MultiHeadTraining();
  MultiHeadTraining(MultiHeadTraining&&) noexcept;
  MultiHeadTraining& operator=(MultiHeadTraining&&) noexcept;

  const MultiHeadExtents& extents() const noexcept;

  // MultiHeadAttention<T>::forward, and keeps what backward() reads; the inputs, weights, options and what these point
  // at must stay unchanged until then. requests as there. The bits are MultiHeadAttention's. Dropout is refused where
  // there are extra keys. options.attention.scratch is not used: memory is the object's, and grows with the largest
  // call.
  void forward(View3<const T> query, View3<const T> key, View3<const T> value, View3<T> output,
               const MultiHeadOptions& options = {}, const MultiHeadRequests<T>& requests = {});
  void forward(View3<const T> x, View3<T> output, const MultiHeadOptions& options = {},
               const MultiHeadRequests<T>& requests = {}) {
    forward(x, x, x, output, options, requests);
  }

  // Of the last forward, once for each; throws bad_option without one. d_output (batch, q_len, out_dim), last axis
  // contiguous, as are those of the inputs' gradients; a weight's gradient has one axis contiguous. What is written may
  // overlap nothing else. Bits do not depend on threads. Throws Error before anything is written. Neither call
  // allocates after the first ones of a size.
  void backward(View3<const T> d_output, const MultiHeadInputGradients<T>& inputs,
                const MultiHeadGradients<T>& parameters);

  struct State;

 private:
  std::unique_ptr<State> state_;
};

extern template class MultiHeadTraining<float>;
extern template class MultiHeadTraining<double>;

}  // namespace multihead
