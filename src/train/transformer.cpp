// SPDX-License-Identifier: Apache-2.0
// The whole model: stacks, logits, and the way back.
#include "multihead/transformer.hpp"

#include <algorithm>

#include "core/validate.hpp"
#include "train/transformer_state.hpp"

namespace multihead {

using Kind = TransformerConfig::Kind;

std::int64_t encoder_layers(const TransformerConfig& config) noexcept {
  return config.kind == Kind::decoder ? 0 : config.encoder_layers;
}
std::int64_t decoder_layers(const TransformerConfig& config) noexcept {
  return config.kind == Kind::encoder ? 0 : config.decoder_layers;
}
std::int64_t attention_layers(const TransformerConfig& config) noexcept {
  return encoder_layers(config) + decoder_layers(config) * (config.kind == Kind::encoder_decoder ? 2 : 1);
}

template <class T>
Transformer<T>::State::State(const TransformerConfig& wanted, std::uint64_t seed) : config(wanted) {
  check_config(config);
  Random random(seed, 0);
  const Drawn<T> drawn{parameters, random};
  if (config.kind != Kind::decoder) encoder.emplace(drawn, "encoder", config, false);
  if (config.kind != Kind::encoder) decoder.emplace(drawn, "decoder", config, true);
  if (config.tied) {
    head = &(decoder ? *decoder : *encoder).table();
  } else {
    head = &Drawn<T>(drawn).weight("logits.weight", config.model_dim, config.classes);
    head_bias = &Drawn<T>(drawn).vector("logits.bias", config.classes, 0);
  }
}

template <class T>
void Transformer<T>::State::keep(const TokenBatch& source_batch, const TransformerOptions& options) {
  ready = false;
  (encoder ? source : target).keep(source_batch);
  const MatrixView<const double>& wanted = options.gates;
  if (wanted.extent(0) != gates.rows() || wanted.extent(1) != gates.columns())
    gates = Matrix<double>(wanted.extent(0), wanted.extent(1));
  for (std::int64_t row = 0; row < gates.rows(); ++row)
    for (std::int64_t head_at = 0; head_at < gates.columns(); ++head_at) gates(row, head_at) = wanted(row, head_at);
  pass.layer.threads = options.threads, pass.layer.target = options.target;
  pass.dropout = options.training ? config.dropout : 0;
  pass.seed = options.seed;
}

template <class T>
void Transformer<T>::State::encode(const TransformerOptions& options) {
  StackCall<T> call{source};
  call.gates = &gates, call.weights = options.weights;
  memory = encoder->forward(call, pass);
}

template <class T>
MatrixView<const T> Transformer<T>::State::decode(std::span<const std::int64_t> cross_cu_q,
                                                  const TransformerOptions& options) {
  StackCall<T> call{target};
  call.causal = true;
  call.memory = memory, call.cross_cu_q = cross_cu_q, call.memory_cu = source.cu_seqlens;
  call.gates = &gates, call.weights = options.weights;
  return decoder->forward(call, pass);
}

template <class T>
void Transformer<T>::State::to_logits(MatrixView<const T> rows, MatrixView<T> logits) {
  linear<T>(rows, std::as_const(head->value), config.tied ? WeightOrder::out_in : WeightOrder::in_out,
            head_bias ? head_bias->value.values() : std::span<const T>{}, logits, pass.layer);
}

template <class T>
Transformer<T>::Transformer(const TransformerConfig& config, std::uint64_t seed)
    : state_(std::make_unique<State>(config, seed)) {}
template <class T>
Transformer<T>::~Transformer() = default;
template <class T>
Transformer<T>::Transformer(Transformer&&) noexcept = default;
template <class T>
Transformer<T>& Transformer<T>::operator=(Transformer&&) noexcept = default;

template <class T>
const TransformerConfig& Transformer<T>::config() const noexcept {
  return state_->config;
}
template <class T>
Parameters<T>& Transformer<T>::parameters() noexcept {
  return state_->parameters;
}
template <class T>
const Parameters<T>& Transformer<T>::parameters() const noexcept {
  return state_->parameters;
}

template <class T>
void Transformer<T>::forward(const TokenBatch& source, const TokenBatch& target, MatrixView<T> logits,
                             const TransformerOptions& options) {
  constexpr const char* kForward = "transformer forward";
  State& state = *state_;
  const TransformerConfig& config = state.config;
  check_source(kForward, config, source);
  check_target(kForward, config, source, target);
  check_options(kForward, config, options);
  if (sizeof(T) != sizeof(float) && !options.weights.empty())
    fail(ErrorCode::unsupported,
         std::string(kForward) + ": weights are asked of a float64 model; only float32 gives them");
  check_requests(kForward, config, options, source.ids.extent(1), target.ids.extent(1));
  const bool both = config.kind == Kind::encoder_decoder;
  check_view(kForward, operand("logits", logits));
  check_contiguous(kForward, operand("logits", logits));
  check_writable(kForward, operand("logits", logits));
  check_equal(kForward, "logits", "has rows", logits.extent(0), both ? "target has tokens" : "source has tokens",
              (both ? target : source).ids.extent(1));
  check_equal(kForward, "logits", "has columns", logits.extent(1), "the model has classes", config.classes);

  state.keep(source, options);
  if (both) state.target.keep(target);
  if (state.encoder) state.encode(options);
  state.last = state.decoder ? state.decode(state.target.cu_seqlens, options) : state.memory;
  state.to_logits(state.last, logits);
  state.ready = true;
}

template <class T>
void Transformer<T>::backward(MatrixView<const T> d_logits) {
  constexpr const char* kBackward = "transformer backward";
  State& state = *state_;
  if (!state.ready)
    fail(ErrorCode::bad_option, std::string(kBackward) + ": there is no forward; call it before each backward");
  check_view(kBackward, operand("d_logits", d_logits));
  check_contiguous(kBackward, operand("d_logits", d_logits));
  const std::int64_t rows = state.last.extent(0), width = state.config.model_dim;
  check_equal(kBackward, "d_logits", "has rows", d_logits.extent(0), "forward's logits had", rows);
  check_equal(kBackward, "d_logits", "has columns", d_logits.extent(1), "the model has classes", state.config.classes);

  state.ready = false;
  const MatrixView<T> d = state.d_last.matrix(rows, width);
  LinearGradients<T> gradients{d, state.head->gradient, {}};
  if (state.head_bias)
    gradients.bias = {state.head_bias->gradient.data(), static_cast<std::size_t>(state.config.classes)};
  linear_backward<T>(state.last, std::as_const(state.head->value),
                     state.config.tied ? WeightOrder::out_in : WeightOrder::in_out, d_logits, gradients,
                     state.pass.layer);
  if (!state.decoder) {
    state.encoder->backward(d, {}, state.workspace, state.pass);
    return;
  }
  const MatrixView<T> d_memory = state.d_memory.matrix(state.encoder ? state.memory.extent(0) : 0, width);
  std::fill_n(d_memory.data(), d_memory.extent(0) * width, T(0));
  state.decoder->backward(d, d_memory, state.workspace, state.pass);
  if (state.encoder) state.encoder->backward(d_memory, {}, state.workspace, state.pass);
}

template class Transformer<float>;
template class Transformer<double>;

}  // namespace multihead
