// SPDX-License-Identifier: Apache-2.0
// One call of a MultiHeadAttention: its operands by name, and the rules they keep to.
#pragma once

#include "layer/layer_state.hpp"

namespace multihead {

template <class T>
struct LayerCall {
  const typename MultiHeadAttention<T>::State& layer;
  View3<const T> query, key, value;
  View3<T> output;
  const MultiHeadOptions& options;
  const MultiHeadRequests<T>& requests;
  std::int64_t batch, q_len, kv_len;
  bool self;          // key and value are query
  bool keep = false;  // what a backward pass reads is kept in the buffers

  // Attention over the keys of the call, or over the extra ones.
  AttentionShape shape(std::int64_t keys) const {
    const MultiHeadExtents& e = layer.e;
    return {kTypeOf<T>, batch, e.heads, e.kv_heads, q_len, keys, e.head_dim, e.value_dim};
  }
  // What attention() is asked for: the call's options with the layer's scale, without scratch.
  AttentionOptions attention() const {
    AttentionOptions attention = options.attention;
    attention.scratch = {};
    if (!attention.scale) attention.scale = layer.spec.scale;
    return attention;
  }
  // Queries or keys go through their sums: they are normed or turned before they are stored.
  bool finishes(const HeadNorm& norm) const {
    return norm.kind != HeadNorm::Kind::none || layer.spec.rotary.has_value();
  }
  bool wants_lengths() const {
    return given(requests.norms) || given(requests.weights.norm_weighted) || requests.statistics.norm_weighted.any();
  }
};

// Everything that does not depend on memory: extents, options. Throws Error.
template <class T>
void check_layer_shape(const LayerCall<T>& call);
// The operands themselves.
template <class T>
void check_layer_operands(const LayerCall<T>& call);

}  // namespace multihead
