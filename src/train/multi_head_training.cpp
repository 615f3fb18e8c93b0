// SPDX-License-Identifier: Apache-2.0
// MultiHeadTraining: its parameters, and the forward pass that keeps what lies between the inputs and the output.
#include "multihead/multi_head_training.hpp"

#include "train/multi_head_state.hpp"

namespace multihead {

namespace {

// The weights are read again by backward().
template <class T>
void check_apart_from_parameters(const Operand& output, const MultiHeadWeights<T>& w) {
  for (const auto& [name, weight] : {std::pair{"q", &w.q}, {"k", &w.k}, {"v", &w.v}, {"qkv", &w.qkv}, {"out", &w.out}})
    check_apart(kTraining, output, operand(name, *weight));
  for (const auto& [name, values] : {std::pair{"q_bias", &w.q_bias},
                                     {"k_bias", &w.k_bias},
                                     {"v_bias", &w.v_bias},
                                     {"qkv_bias", &w.qkv_bias},
                                     {"out_bias", &w.out_bias},
                                     {"bias_k", &w.bias_k},
                                     {"bias_v", &w.bias_v},
                                     {"q_norm", &w.q_norm},
                                     {"k_norm", &w.k_norm},
                                     {"q_norm_bias", &w.q_norm_bias},
                                     {"k_norm_bias", &w.k_norm_bias}}) {
    const View<const T, 1> parameter(values->data(), {static_cast<std::int64_t>(values->size())});
    check_apart(kTraining, output, operand(name, parameter));
  }
}

}  // namespace

template <class T>
MultiHeadTraining<T>::MultiHeadTraining(const MultiHeadSpec& spec, const MultiHeadWeights<T>& weights)
    : state_(std::make_unique<State>()) {
  state_->spec = spec, state_->weights = weights;
  read_layer(spec, weights, state_->layer);
}

template <class T>
MultiHeadTraining<T>::~MultiHeadTraining() = default;
template <class T>
MultiHeadTraining<T>::MultiHeadTraining(MultiHeadTraining&&) noexcept = default;
template <class T>
MultiHeadTraining<T>& MultiHeadTraining<T>::operator=(MultiHeadTraining&&) noexcept = default;

template <class T>
const MultiHeadExtents& MultiHeadTraining<T>::extents() const noexcept {
  return state_->layer.e;
}

template <class T>
void MultiHeadTraining<T>::forward(View3<const T> query, View3<const T> key, View3<const T> value, View3<T> output,
                                   const MultiHeadOptions& options, const MultiHeadRequests<T>& requests) {
  State& state = *state_;
  const LayerCall<T> call{state.layer,
                          query,
                          key,
                          value,
                          output,
                          options,
                          requests,
                          query.extent(0),
                          query.extent(1),
                          key.extent(1),
                          is_self(query, key, value),
                          true};
  check_layer_operands(call);
  check_apart_from_parameters(operand("output", output), state.weights);
  const KernelTable& table = choose_kernels(options.attention.target);
  const std::size_t bytes = LayerBuffers<T>::bytes(call);
  state.ready = false;
  Scratch scratch(bytes, state.forward_memory.of(bytes + kCacheLine), kTraining);
  read_layer(state.spec, state.weights, state.layer);
  state.kept = LayerBuffers<T>(scratch, call);
  run_layer(call, table, state.kept);
  state.query = query, state.key = key, state.value = value, state.options = options;
  state.ready = true;
}

template class MultiHeadTraining<float>;
template class MultiHeadTraining<double>;

}  // namespace multihead
