// SPDX-License-Identifier: Apache-2.0
// A stack of layers over packed sequences, forward and backward.
#include <algorithm>

#include "train/transformer_state.hpp"

namespace multihead {

namespace {

// Dropouts of a layer: two of self-attention, two of cross-attention, one of feed-forward.
constexpr std::uint32_t kStreams = 5;

}  // namespace

void PackedTokens::keep(const TokenBatch& batch) {
  tables = batch.ids.extent(0);
  const std::int64_t count = batch.ids.extent(1);
  ids.resize(static_cast<std::size_t>(tables * count));
  for (std::int64_t table = 0; table < tables; ++table)
    std::copy_n(batch.ids.data() + table * batch.ids.stride(0), count, ids.begin() + table * count);
  cu_seqlens.assign(batch.cu_seqlens.begin(), batch.cu_seqlens.end());
  count_positions();
}

void PackedTokens::count_positions() {
  positions.resize(static_cast<std::size_t>(cu_seqlens.back()));
  for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s)
    for (std::int64_t i = cu_seqlens[s]; i < cu_seqlens[s + 1]; ++i)
      positions[static_cast<std::size_t>(i)] = i - cu_seqlens[s];
}

template <class T>
Stack<T>::Stack(Drawn<T> drawn, const std::string& name, const TransformerConfig& config, bool is_decoder)
    : self_(is_decoder ? AttentionPart::decoder : AttentionPart::encoder),
      rotary_(config.rotary),
      first_self_(is_decoder ? encoder_layers(config) : 0),
      first_cross_(encoder_layers(config) + decoder_layers(config)),
      embedding_(drawn, name, config,
                 config.kind == TransformerConfig::Kind::encoder_decoder && is_decoder ? config.target_vocab
                                                                                       : config.source_vocab) {
  const bool has_cross = config.kind == TransformerConfig::Kind::encoder_decoder && is_decoder;
  const std::int64_t count = is_decoder ? config.decoder_layers : config.encoder_layers;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string layer = name + "." + std::to_string(i);
    Layer& added = layers_.emplace_back(
        Layer{AttentionPartOf<T>(drawn, layer + ".attention", config, false), std::nullopt, std::nullopt});
    if (has_cross) added.cross.emplace(drawn, layer + ".cross", config, true);
    if (config.feed_forward > 0) added.feed_forward.emplace(drawn, layer + ".feed_forward", config);
  }
  if (config.final_norm) norm_.emplace(drawn, name + ".norm", config.model_dim);
}

template <class T>
Sequences Stack<T>::sequences(const StackCall<T>& call, AttentionPart part, std::int64_t layer) const {
  const bool cross = part == AttentionPart::cross;
  Sequences over;
  over.cu_q = cross ? call.cross_cu_q : std::span(call.tokens.cu_seqlens);
  over.cu_k = cross ? call.memory_cu : std::span(call.tokens.cu_seqlens);
  over.causal = !cross && call.causal;
  if (rotary_ && !cross) over.positions = {call.tokens.positions.data(), {1, call.tokens.tokens()}};
  if (call.gates->rows() > 0) {
    const std::int64_t row = (cross ? first_cross_ : first_self_) + layer;
    over.gates = call.gates->values().subspan(static_cast<std::size_t>(row * call.gates->columns()),
                                              static_cast<std::size_t>(call.gates->columns()));
  }
  for (const AttentionRequest& request : call.weights)
    if (request.part == part && request.layer == layer) over.weights = request.weights;
  return over;
}

template <class T>
MatrixView<const T> Stack<T>::forward(const StackCall<T>& call, const Pass& pass) {
  MatrixView<const T> x = embedding_.forward(call.tokens.id_rows(), call.tokens.positions);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    const auto at = static_cast<std::int64_t>(i);
    const auto stream = kStreams * static_cast<std::uint32_t>(first_self_ + at);
    x = layer.self.forward(x, {}, sequences(call, self_, at), stream, pass);
    if (layer.cross)
      x = layer.cross->forward(x, call.memory, sequences(call, AttentionPart::cross, at), stream + 2, pass);
    if (layer.feed_forward) x = layer.feed_forward->forward(x, stream + 4, pass);
  }
  return norm_ ? MatrixView<const T>(norm_->forward(x, pass)) : x;
}

template <class T>
void Stack<T>::backward(MatrixView<T> d, MatrixView<T> d_memory, Workspace<T>& workspace, const Pass& pass) {
  if (norm_) norm_->backward(d, pass);
  for (std::size_t i = layers_.size(); i-- > 0;) {
    Layer& layer = layers_[i];
    if (layer.feed_forward) layer.feed_forward->backward(d, workspace, pass);
    if (layer.cross) layer.cross->backward(d, d_memory, workspace, pass);
    layer.self.backward(d, {}, workspace, pass);
  }
  embedding_.backward(d);
}

template class Stack<float>;
template class Stack<double>;

}  // namespace multihead
