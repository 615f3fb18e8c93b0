// SPDX-License-Identifier: Apache-2.0
// Multi-head attention as a layer with weights of its own: packed once, then called any number of times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "multihead/attention.hpp"
#include "multihead/rotary.hpp"
#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

enum class WeightOrder {
  in_out,  // y = x W:    (in, out), as in the papers, GPT-2, Keras and Flax
  out_in,  // y = x W^T:  (out, in), as in torch.nn.Linear
};

// The order of outputs in one fused weight of queries, keys and values.
enum class FusedOrder {
  blocks,  // queries of all heads, keys of all kv heads, values of all kv heads: torch's in_proj, GPT-2, Phi-3
  groups,  // kv head by kv head: the queries of its heads, its key, its value: GPT-NeoX, BLOOM, Falcon
};

// What is done to each head's query and key after its projection, before rotary.
struct HeadNorm {
  enum class Kind {
    none,
    rms,         // x / sqrt(mean(x^2) + eps) * weight (Qwen3)
    rms_plus_1,  // x / sqrt(mean(x^2) + eps) * (1 + weight) (Gemma 3)
    layer,       // (x - mean) / sqrt(variance + eps) * weight + bias (Flax's normalize_qk)
  };
  Kind kind = Kind::none;
  double eps = 1e-6;  // at least 0
};

// What the weights do not say by their extents.
struct MultiHeadSpec {
  std::int64_t heads = 0;
  std::optional<std::int64_t> kv_heads = {};   // divides heads; heads unless given
  std::optional<std::int64_t> value_dim = {};  // of a fused weight: head_dim unless given; otherwise what v says
  std::optional<WeightOrder> order = {};       // of every weight: must be named
  FusedOrder fused_order = FusedOrder::blocks;
  std::optional<double> scale = {};  // of scores, unless a call gives one; 1/sqrt(head_dim) unless given
  HeadNorm q_norm = {}, k_norm = {};
  std::optional<RotaryOptions> rotary = {};  // queries and keys are turned by position
  std::int64_t max_positions = 4096;  // read with rotary: positions 0 .. max_positions - 1 have their angles kept
  bool add_zero_attn = false;         // a zero key with a zero value at the end, seen by every row
};

// The parameters, in [in, out] terms; with WeightOrder::out_in the same matrices transposed. Either q, k and v, or qkv.
// A view or span without extents is not given.
//   q (model_dim, heads * head_dim)   k (kdim, kv_heads * head_dim)   v (vdim, kv_heads * value_dim)
//   qkv (model_dim, heads * head_dim + kv_heads * head_dim + kv_heads * value_dim), in the spec's FusedOrder
//   out (heads * value_dim, out_dim)
// Strides are free but for one axis, which must be contiguous. head_dim and value_dim 1 to 1024; heads * head_dim need
// not be model_dim.
template <class T>
struct MultiHeadWeights {
  MatrixView<const T> q = {}, k = {}, v = {}, qkv = {}, out = {};
  std::span<const T> q_bias = {}, k_bias = {}, v_bias = {};  // one element an output; with separate or fused weights
  std::span<const T> qkv_bias = {};                          // as qkv is ordered; with separate weights as blocks
  std::span<const T> out_bias = {};
  // One learned key (kv_heads * head_dim) and its value (kv_heads * value_dim) at the end of every sequence, seen by
  // every row whatever the masks, neither normed nor turned (torch's add_bias_kv). Both or neither.
  std::span<const T> bias_k = {}, bias_v = {};
  std::span<const T> q_norm = {}, k_norm = {};            // (head_dim) the norms' weights; ones unless given
  std::span<const T> q_norm_bias = {}, k_norm_bias = {};  // (head_dim), with HeadNorm::Kind::layer
};

// The extents of a layer.
struct MultiHeadExtents {
  std::int64_t model_dim, kdim, vdim, heads, kv_heads, head_dim, value_dim, out_dim;
  std::int64_t extra_keys;  // at the end of every sequence: of bias_k, then of add_zero_attn
};

// Beside the output, on request; views without extents ask for nothing. None changes a bit of the output.
template <class T>
struct MultiHeadRequests {
  View3<Sum<T>> lse = {};    // (batch, heads, q_len), as attention() gives it, the extra keys included
  View4<Sum<T>> heads = {};  // (batch, heads, q_len, value_dim), last axis contiguous: before gates and out, as stored
  // kv_len counts the extra keys too, which come last. norm_weighted: the norms are |gate| x the length of the value
  // vector after its head's rows of the out weight; the layer computes them, so norms must be without extents.
  WeightsRequest<Sum<T>> weights = {};
  // norms must be without extents: the layer computes those that norm_weighted wants, as above. Not with extra keys.
  StatisticsRequest<Sum<T>> statistics = {};
  // (batch, heads, kv_len), kv_len as in weights: those norms, of every key whether seen or not. Times the weights of
  // one head they are its norm-weighted ones.
  View3<Sum<T>> norms = {};
};

struct MultiHeadOptions {
  // As attention(), the extra keys not counted; dropout not with extra keys. threads, parallel_for, target and scratch
  // are the layer's: scratch is scratch_bytes() or empty.
  AttentionOptions attention = {};
  // (batch, q_len) and (batch, kv_len) with rotary: 0 to max_positions - 1. Left out, both are 0, 1, 2 ..; they must be
  // given where queries and keys differ in number, sequences are packed, or the alignment moves queries.
  MatrixView<const std::int64_t> q_positions = {}, k_positions = {};
  std::span<const double> gates = {};  // (heads) multiplied onto the heads' outputs before out
};

// output = concat_h(gate_h head_h) Wo + bo, head_h = attention(rotary(norm(query Wq_h + bq_h)), .., value Wv_h + bv_h).
//   query (batch, q_len, model_dim)   key (batch, kv_len, kdim)   value (batch, kv_len, vdim)
//   output (batch, q_len, out_dim)
// T is how weights, inputs, q, k, v, heads' outputs and output are stored; sums, norms, angles and lse are Sum<T>.
// BFloat16 and Float16: products of T, and between them attention() of T; q, k and v are rounded once, behind norm and
// rotary, heads' outputs once, and again where gates multiply them or extra keys join them, the output once
// (docs/numerics.md). Of float and double, plain options give multi_head_attention()'s bits. A row's bits depend on its
// query, what it sees and the options: not on batch, neighbours, q_len, threads or requests. The weights are copied and
// packed by the constructor; the layer is immutable, cheap to copy (copies share the packed weights) and may be called
// from many threads. Calls allocate nothing after a thread's first ones of a size. Throws Error before anything is
// written.
template <class T>
class MultiHeadAttention {
 public:
  MultiHeadAttention(const MultiHeadSpec& spec, const MultiHeadWeights<T>& weights);

  const MultiHeadExtents& extents() const noexcept;

  // Cross-attention. The last axes must be contiguous; output may overlap no input.
  void forward(View3<const T> query, View3<const T> key, View3<const T> value, View3<T> output,
               const MultiHeadOptions& options = {}, const MultiHeadRequests<T>& requests = {}) const;
  // Self-attention.
  void forward(View3<const T> x, View3<T> output, const MultiHeadOptions& options = {},
               const MultiHeadRequests<T>& requests = {}) const {
    forward(x, x, x, output, options, requests);
  }

  // Bytes of scratch that forward takes; self: key and value are query itself. Throws as forward does.
  std::size_t scratch_bytes(std::int64_t batch, std::int64_t q_len, std::int64_t kv_len, bool self,
                            const MultiHeadOptions& options = {}, const MultiHeadRequests<T>& requests = {}) const;

  struct State;  // the packed weights

 private:
  std::shared_ptr<const State> state_;
};

extern template class MultiHeadAttention<float>;
extern template class MultiHeadAttention<double>;
extern template class MultiHeadAttention<BFloat16>;
extern template class MultiHeadAttention<Float16>;

}  // namespace multihead
