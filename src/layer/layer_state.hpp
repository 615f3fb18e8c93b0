// SPDX-License-Identifier: Apache-2.0
// What a MultiHeadAttention holds: its extents, and its parameters packed. Weights and extra keys are stored as T, what
// is added to sums or multiplied onto them as Sum<T>.
#pragma once

#include <vector>

#include "layer/packed_linear.hpp"
#include "multihead/multi_head_attention.hpp"

namespace multihead {

constexpr const char* kLayer = "MultiHeadAttention";

template <class S>
struct PackedNorm {
  HeadNorm norm;
  Buffer<S> weight, bias;  // (head_dim) or empty
};

template <class T>
struct MultiHeadAttention<T>::State {
  MultiHeadSpec spec;
  MultiHeadExtents e;
  PackedLinear<T> q, k, v, out;
  PackedNorm<Sum<T>> q_norm, k_norm;
  Buffer<T> extra_k, extra_v;  // (kv_heads, extra_keys, head_dim), (kv_heads, extra_keys, value_dim)
  Buffer<Sum<T>> cos, sin;     // (max_positions, rotary_dim / 2)
  std::int64_t rotary_half = 0;
  std::vector<std::int64_t> positions;  // 0, 1, .. max_positions - 1
};

// Every rule of a layer's parameters, then the state. A state that was read before from parameters of the same extents,
// and by the same spec, takes the values of now into the memory it has.
template <class T>
void read_layer(const MultiHeadSpec& spec, const MultiHeadWeights<T>& weights,
                typename MultiHeadAttention<T>::State& state);

// Which outputs of a fused weight are those of one part: output `column` of the part is this column of the weight.
enum class Part { q, k, v };
std::int64_t fused_column(const MultiHeadExtents& e, FusedOrder order, Part part, std::int64_t column);

}  // namespace multihead
