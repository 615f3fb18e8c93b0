// SPDX-License-Identifier: Apache-2.0
// The C face behind the signatures of C++: what a test does with the one it can do with the other. Failures are thrown.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "bindings/c/tensors.hpp"
#include "multihead/multihead.h"
#include "multihead/multihead.hpp"

namespace multihead::testing::c_face {

// Throws what the status and this thread's sentence say. MH_BAD_ARGUMENT, of which C++ knows a null view alone, is
// shape_mismatch.
void require(mh_status status);

// A view as a tensor; one without data and extents is not given unless it must be.
template <class T, int Rank>
mh_tensor tensor_of(const View<T, Rank>& view, bool needed = false) {
  mh_tensor tensor{};
  if (!needed && !view.data() && view.extents() == typename View<T, Rank>::Extents{}) return tensor;
  tensor.data = const_cast<std::remove_const_t<T>*>(view.data());
  tensor.type = c::kCType<std::remove_const_t<T>>;
  tensor.rank = Rank;
  for (int axis = 0; axis < Rank; ++axis)
    tensor.shape[axis] = view.extent(axis), tensor.strides[axis] = view.stride(axis);
  return tensor;
}
template <class T>
mh_tensor tensor_of(std::span<const T> list) {
  if (list.empty()) return {};
  return tensor_of(View<const T, 1>(list.data(), {static_cast<std::int64_t>(list.size())}), true);
}
mh_target number_of(std::optional<Target> target);

struct Run {
  explicit Run(const LayerOptions& options);
  mh_run_options run;
};

struct Attention {
  explicit Attention(const AttentionOptions& from);
  Attention(const Attention&) = delete;
  mh_attention_options options;

 private:
  const mh_tensor* keep(const mh_tensor& tensor);
  const mh_tensor* broadcast(const BroadcastView& view, mh_type type);
  Run run_;
  std::array<mh_tensor, 13> tensors_{};
  std::size_t count_ = 0;
};

template <class T>
struct Weights {
  explicit Weights(const WeightsRequest<T>& from)
      : tensors_{tensor_of(from.heads), tensor_of(from.rows),          tensor_of(from.per_head),
                 tensor_of(from.mean),  tensor_of(from.norm_weighted), tensor_of(from.norms)} {
    mh_weights_request_init(&request, sizeof request);
    constexpr mh_weights_point kPoints[] = {MH_WEIGHTS_SCALED, MH_WEIGHTS_CAPPED, MH_WEIGHTS_BIASED,
                                            MH_WEIGHTS_NORMALISED};
    request.point = kPoints[static_cast<int>(from.point)];
    const mh_tensor** const places[] = {&request.heads, &request.rows,          &request.per_head,
                                        &request.mean,  &request.norm_weighted, &request.norms};
    for (std::size_t i = 0; i < tensors_.size(); ++i) *places[i] = &tensors_[i];
    // C++ looks at none of these where no output is asked for.
    if (!c::is_given(request.per_head) && !c::is_given(request.mean) && !c::is_given(request.norm_weighted))
      request.point = MH_WEIGHTS_NORMALISED, request.heads = request.rows = nullptr;
  }
  Weights(const Weights&) = delete;
  mh_weights_request request;

 private:
  std::array<mh_tensor, 6> tensors_;
};

template <class T>
struct RowStatistics {
  explicit RowStatistics(const multihead::RowStatistics<T>& from)
      : tensors_{tensor_of(from.visible),    tensor_of(from.entropy),        tensor_of(from.sum_squares),
                 tensor_of(from.distance),   tensor_of(from.offset_mass),    tensor_of(from.key_mass),
                 tensor_of(from.class_mass), tensor_of(from.duplicate_mass), tensor_of(from.induction_mass),
                 tensor_of(from.top_keys),   tensor_of(from.top_weights),    tensor_of(from.received),
                 tensor_of(from.map)} {
    mh_row_statistics_init(&rows, sizeof rows);
    const mh_tensor** const places[] = {
        &rows.visible,    &rows.entropy,        &rows.sum_squares,    &rows.distance, &rows.offset_mass, &rows.key_mass,
        &rows.class_mass, &rows.duplicate_mass, &rows.induction_mass, &rows.top_keys, &rows.top_weights, &rows.received,
        &rows.map};
    for (std::size_t i = 0; i < tensors_.size(); ++i) *places[i] = &tensors_[i];
  }
  RowStatistics(const RowStatistics&) = delete;
  mh_row_statistics rows;

 private:
  std::array<mh_tensor, 13> tensors_;
};

template <class T>
struct Statistics {
  explicit Statistics(const StatisticsRequest<T>& from)
      : plain_(from.plain), weighted_(from.norm_weighted), tensors_{tensor_of(from.offsets),
                                                                    tensor_of(from.keys),
                                                                    tensor_of(from.key_classes),
                                                                    tensor_of(from.q_tokens),
                                                                    tensor_of(from.kv_tokens),
                                                                    tensor_of(from.norms)} {
    mh_statistics_request_init(&request, sizeof request);
    // C++ looks at lists that no output reads no more than at others that are not given.
    const auto read = [&](auto member) {
      return c::is_given(plain_.rows.*member) || c::is_given(weighted_.rows.*member);
    };
    if (read(&mh_row_statistics::offset_mass)) request.offsets = &tensors_[0];
    if (read(&mh_row_statistics::key_mass)) request.keys = &tensors_[1];
    if (read(&mh_row_statistics::class_mass)) request.key_classes = &tensors_[2];
    if (read(&mh_row_statistics::duplicate_mass) || read(&mh_row_statistics::induction_mass))
      request.q_tokens = &tensors_[3], request.kv_tokens = &tensors_[4];
    if (read(&mh_row_statistics::map)) request.bin = from.bin;
    request.norms = &tensors_[5];
    request.plain = &plain_.rows, request.norm_weighted = &weighted_.rows;
  }
  Statistics(const Statistics&) = delete;
  mh_statistics_request request;

 private:
  RowStatistics<T> plain_, weighted_;
  std::array<mh_tensor, 6> tensors_;
};

template <class T>
void attention(View4<const T> q, View4<const T> k, View4<const T> v, View4<T> out, View3<Sum<T>> lse,
               const WeightsRequest<Sum<T>>& weights, const StatisticsRequest<Sum<T>>& statistics,
               const AttentionOptions& options) {
  const mh_tensor tensors[] = {tensor_of(q, true), tensor_of(k, true), tensor_of(v, true), tensor_of(out, true),
                               tensor_of(lse)};
  const Weights<Sum<T>> asked(weights);
  const Statistics<Sum<T>> beside(statistics);
  const Attention structs(options);
  require(mh_attention_statistics(&tensors[0], &tensors[1], &tensors[2], &tensors[3], &tensors[4], &asked.request,
                                  &beside.request, &structs.options));
}

template <class T>
void attention(View4<const T> q, View4<const T> k, View4<const T> v, View4<T> out, View3<Sum<T>> lse,
               const WeightsRequest<Sum<T>>& weights, const AttentionOptions& options) {
  const mh_tensor tensors[] = {tensor_of(q, true), tensor_of(k, true), tensor_of(v, true), tensor_of(out, true),
                               tensor_of(lse)};
  const Weights<Sum<T>> asked(weights);
  const Attention structs(options);
  require(
      mh_attention(&tensors[0], &tensors[1], &tensors[2], &tensors[3], &tensors[4], &asked.request, &structs.options));
}

template <class T>
void attention_weights(View4<const T> q, View4<const T> k, View3<const T> lse, const WeightsRequest<T>& weights,
                       const AttentionOptions& options) {
  const mh_tensor tensors[] = {tensor_of(q, true), tensor_of(k, true), tensor_of(lse)};
  const Weights<T> asked(weights);
  const Attention structs(options);
  require(mh_attention_weights(&tensors[0], &tensors[1], &tensors[2], &asked.request, &structs.options));
}

// out_a, lse_a, out_b, lse_b, out, lse.
template <class T>
void merge(View4<const T> out_a, View3<const T> lse_a, View4<const T> out_b, View3<const T> lse_b, View4<T> out,
           View3<T> lse, std::optional<Target> target) {
  const mh_tensor tensors[] = {tensor_of(out_a, true), tensor_of(lse_a, true), tensor_of(out_b, true),
                               tensor_of(lse_b, true), tensor_of(out, true),   tensor_of(lse, true)};
  mh_run_options run;
  mh_run_options_init(&run, sizeof run);
  run.target = number_of(target);
  require(mh_merge(&tensors[0], &tensors[1], &tensors[2], &tensors[3], &tensors[4], &tensors[5], &run));
}

template <class T>
struct Gradients {
  explicit Gradients(const AttentionGradients<T>& from)
      : tensors_{tensor_of(from.q),
                 tensor_of(from.k),
                 tensor_of(from.v),
                 tensor_of(from.bias),
                 tensor_of(std::span<const double>(from.alibi_slopes)),
                 tensor_of(from.relative_bias),
                 tensor_of(std::span<const double>(from.sinks)),
                 tensor_of(std::span<const double>(from.scale, from.scale ? 1 : 0))} {
    mh_attention_gradients_init(&gradients, sizeof gradients);
    const mh_tensor** const places[] = {&gradients.q,
                                        &gradients.k,
                                        &gradients.v,
                                        &gradients.bias,
                                        &gradients.alibi_slopes,
                                        &gradients.relative_bias,
                                        &gradients.sinks,
                                        &gradients.scale};
    for (std::size_t i = 0; i < tensors_.size(); ++i) *places[i] = &tensors_[i];
  }
  Gradients(const Gradients&) = delete;
  mh_attention_gradients gradients;

 private:
  std::array<mh_tensor, 8> tensors_;
};

template <class T>
void attention_backward(const AttentionForward<T>& forward, const AttentionGradients<T>& gradients,
                        const AttentionOptions& options) {
  const mh_tensor tensors[] = {tensor_of(forward.q, true),   tensor_of(forward.k, true),
                               tensor_of(forward.v, true),   tensor_of(forward.out, true),
                               tensor_of(forward.lse, true), tensor_of(forward.d_out, true),
                               tensor_of(forward.d_lse)};
  const Gradients<T> to(gradients);
  const Attention structs(options);
  require(mh_attention_backward(&tensors[0], &tensors[1], &tensors[2], &tensors[3], &tensors[4], &tensors[5],
                                &tensors[6], &to.gradients, &structs.options));
}

mh_attention_shape shape_of(const AttentionShape& shape);
std::size_t attention_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options, bool weights);
std::size_t attention_backward_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options);
mh_attention_plan explain(const AttentionShape& shape, const AttentionOptions& options);

template <class T>
void self_attention(MatrixView<const T> X, MatrixView<const T> Wq, MatrixView<const T> Wk, MatrixView<const T> Wv,
                    MatrixView<T> output, const LayerOptions& options, MatrixView<T> weights) {
  const mh_tensor tensors[] = {tensor_of(X, true),  tensor_of(Wq, true),     tensor_of(Wk, true),
                               tensor_of(Wv, true), tensor_of(output, true), tensor_of(weights)};
  const Run run(options);
  require(mh_self_attention(&tensors[0], &tensors[1], &tensors[2], &tensors[3], &tensors[4], &tensors[5], &run.run));
}

template <class T>
void multi_head_attention(MatrixView<const T> X, MatrixView<const T> Wq, MatrixView<const T> Wk, MatrixView<const T> Wv,
                          MatrixView<const T> Wo, std::int64_t num_heads, MatrixView<T> output,
                          const LayerOptions& options, const HeadWeights<T>& weights) {
  const mh_tensor tensors[] = {tensor_of(X, true),          tensor_of(Wq, true),    tensor_of(Wk, true),
                               tensor_of(Wv, true),         tensor_of(Wo, true),    tensor_of(output, true),
                               tensor_of(weights.per_head), tensor_of(weights.mean)};
  const Run run(options);
  require(mh_multi_head_attention(&tensors[0], &tensors[1], &tensors[2], &tensors[3], &tensors[4], num_heads,
                                  &tensors[5], &tensors[6], &tensors[7], &run.run));
}

// A handle, as the layer it is.
class Layer {
 public:
  template <class T>
  Layer(const MultiHeadSpec& spec, const MultiHeadWeights<T>& w) {
    const mh_tensor tensors[] = {
        tensor_of(w.q),        tensor_of(w.k),        tensor_of(w.v),           tensor_of(w.qkv),
        tensor_of(w.out),      tensor_of(w.q_bias),   tensor_of(w.k_bias),      tensor_of(w.v_bias),
        tensor_of(w.qkv_bias), tensor_of(w.out_bias), tensor_of(w.bias_k),      tensor_of(w.bias_v),
        tensor_of(w.q_norm),   tensor_of(w.k_norm),   tensor_of(w.q_norm_bias), tensor_of(w.k_norm_bias)};
    create(spec, c::kCType<T>, tensors);
  }
  ~Layer() { mh_layer_destroy(layer_); }
  Layer(const Layer&) = delete;

  const mh_layer* get() const { return layer_; }
  mh_layer_extents extents() const;

  // key and value without extents: self-attention.
  template <class T>
  void forward(View3<const T> query, View3<const T> key, View3<const T> value, View3<T> output,
               const MultiHeadOptions& options, const MultiHeadRequests<T>& requests) const {
    const mh_tensor tensors[] = {tensor_of(query, true), tensor_of(key), tensor_of(value), tensor_of(output, true)};
    with(options, requests, [&](const mh_layer_options& how, const mh_layer_requests& asked) {
      return mh_layer_forward(layer_, &tensors[0], &tensors[1], &tensors[2], &tensors[3], &how, &asked);
    });
  }
  template <class T>
  std::size_t scratch_bytes(std::int64_t batch, std::int64_t q_len, std::int64_t kv_len, bool self,
                            const MultiHeadOptions& options, const MultiHeadRequests<T>& requests) const {
    std::size_t bytes = 0;
    with(options, requests, [&](const mh_layer_options& how, const mh_layer_requests& asked) {
      return mh_layer_scratch_bytes(layer_, batch, q_len, kv_len, self ? 1 : 0, &how, &asked, &bytes);
    });
    return bytes;
  }

 private:
  // w: in the order of mh_layer_weights.
  void create(const MultiHeadSpec& spec, mh_type type, const mh_tensor* w);
  template <class T, class Call>
  void with(const MultiHeadOptions& options, const MultiHeadRequests<T>& requests, const Call& call) const {
    const Attention attention(options.attention);
    const mh_tensor positions[] = {tensor_of(options.q_positions), tensor_of(options.k_positions)};
    const mh_tensor gates = tensor_of(options.gates), lse = tensor_of(requests.lse), heads = tensor_of(requests.heads),
                    norms = tensor_of(requests.norms);
    const Weights<Sum<T>> weights(requests.weights);
    const Statistics<Sum<T>> statistics(requests.statistics);
    mh_layer_options how;
    mh_layer_options_init(&how, sizeof how);
    how.attention = &attention.options, how.gates = &gates;
    how.q_positions = &positions[0], how.k_positions = &positions[1];
    mh_layer_requests asked;
    mh_layer_requests_init(&asked, sizeof asked);
    asked.lse = &lse, asked.heads = &heads, asked.weights = &weights.request;
    asked.statistics = &statistics.request, asked.norms = &norms;
    require(call(how, asked));
  }
  mh_layer* layer_ = nullptr;
};

mh_layer_spec spec_of(const MultiHeadSpec& spec, mh_type type);

}  // namespace multihead::testing::c_face
