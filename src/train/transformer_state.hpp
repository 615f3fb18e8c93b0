// SPDX-License-Identifier: Apache-2.0
// What a Transformer is made of and what it keeps of its last forward.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "multihead/transformer.hpp"
#include "train/blocks.hpp"

namespace multihead {

// A TokenBatch of the model's own, so that the caller's may go before backward.
struct PackedTokens {
  std::int64_t tables = 0;
  std::vector<std::int64_t> ids, cu_seqlens, positions;

  void keep(const TokenBatch& batch);
  // The positions of cu_seqlens: 0, 1, .. of each sequence.
  void count_positions();
  std::int64_t tokens() const { return static_cast<std::int64_t>(positions.size()); }
  MatrixView<const std::int64_t> id_rows() const { return {ids.data(), {tables, tokens()}}; }
};

// What a stack goes over in one call.
template <class T>
struct StackCall {
  const PackedTokens& tokens;
  bool causal = false;
  MatrixView<const T> memory = {};  // (tokens of the encoder, model_dim)
  std::span<const std::int64_t> cross_cu_q = {},
                                memory_cu = {};  // runs of queries and the memory's that each looks into
  const Matrix<double>* gates = nullptr;         // (layers of all stacks, heads), or no rows
  std::span<const AttentionRequest> weights = {};
};

// Embeddings, layers and a norm.
template <class T>
class Stack {
 public:
  Stack(Drawn<T> drawn, const std::string& name, const TransformerConfig& config, bool decoder);
  // (tokens, model_dim), valid until the next call.
  MatrixView<const T> forward(const StackCall<T>& call, const Pass& pass);
  // d: of the output, lost; d_memory: added to, read only where there is cross-attention.
  void backward(MatrixView<T> d, MatrixView<T> d_memory, Workspace<T>& workspace, const Pass& pass);
  Parameter<T>& table() { return embedding_.table(0); }

 private:
  struct Layer {
    AttentionPartOf<T> self;
    std::optional<AttentionPartOf<T>> cross;
    std::optional<FeedForwardPart<T>> feed_forward;
  };
  // The attention of one layer as call has it.
  Sequences sequences(const StackCall<T>& call, AttentionPart part, std::int64_t layer) const;

  AttentionPart self_;
  bool rotary_;
  std::int64_t first_self_, first_cross_;  // rows of gates
  EmbeddingPart<T> embedding_;
  std::deque<Layer> layers_;
  std::optional<NormPart<T>> norm_;
};

template <class T>
struct Transformer<T>::State {
  State(const TransformerConfig& wanted, std::uint64_t seed);

  // Keeps what a call goes over; returns how its parts run.
  void keep(const TokenBatch& source_batch, const TransformerOptions& options);
  void encode(const TransformerOptions& options);
  // The output of the decoder over target, with runs of queries for the cross-attention.
  MatrixView<const T> decode(std::span<const std::int64_t> cross_cu_q, const TransformerOptions& options);
  void to_logits(MatrixView<const T> rows, MatrixView<T> logits);

  TransformerConfig config;
  Parameters<T> parameters;
  std::optional<Stack<T>> encoder, decoder;
  Parameter<T>*head = nullptr, *head_bias = nullptr;  // head_bias null: tied
  PackedTokens source, target;
  Matrix<double> gates;
  Pass pass;
  MatrixView<const T> memory = {}, last = {};  // outputs of the encoder and of the last stack
  bool ready = false;                          // backward has what it reads
  Workspace<T> workspace;
  Reused<T> d_last, d_memory;
};

// Rules of a config and of a call. Throw shape_mismatch, bad_option.
void check_config(const TransformerConfig& config);
void check_source(const char* function, const TransformerConfig& config, const TokenBatch& source);
void check_target(const char* function, const TransformerConfig& config, const TokenBatch& source,
                  const TokenBatch& target);
void check_options(const char* function, const TransformerConfig& config, const TransformerOptions& options);
// The weights asked for, of float models.
void check_requests(const char* function, const TransformerConfig& config, const TransformerOptions& options,
                    std::int64_t source_tokens, std::int64_t target_tokens);

// Layers of each stack that kind has, and of all attention.
std::int64_t encoder_layers(const TransformerConfig& config) noexcept;
std::int64_t decoder_layers(const TransformerConfig& config) noexcept;
std::int64_t attention_layers(const TransformerConfig& config) noexcept;

extern template class Stack<float>;
extern template class Stack<double>;

}  // namespace multihead
