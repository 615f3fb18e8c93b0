// SPDX-License-Identifier: Apache-2.0
// A small Transformer that learns: an encoder, a decoder, or both with cross-attention. Library multihead_train.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "multihead/linear.hpp"
#include "multihead/multi_head_attention.hpp"
#include "multihead/optimizer.hpp"
#include "multihead/tensor.hpp"

namespace multihead {

// Pre-norm blocks (Xiong et al. 2020): x += attention(norm(x)), [x += cross_attention(norm(x), memory),]
// x += W2 activation(W1 norm(x) + b1) + b2; a norm after the last. With feed_forward 0 a block has no such part. Norms
// are layer norms with eps 1e-5 and biases; every matrix, but that of tied logits, has a bias.
struct TransformerConfig {
  enum class Kind { encoder, decoder, encoder_decoder };
  Kind kind = Kind::encoder;
  // Of the encoder's and the decoder's tokens; several tables are looked up and added (token, payload ..), one column
  // of ids each. A decoder alone uses the source's.
  std::vector<std::int64_t> source_vocab = {}, target_vocab = {};
  std::int64_t classes = 0;      // logits a position of the last stack
  std::int64_t max_tokens = 64;  // of a sequence: learned positions
  std::int64_t model_dim = 64, heads = 4, feed_forward = 256;
  std::int64_t encoder_layers = 1, decoder_layers = 1;  // read of the stacks that kind has
  bool final_norm = true;                               // of each stack
  bool rotary = false;  // queries and keys turned by position instead of learned positions
  bool tied = false;    // logits by the last stack's first embedding table instead of a matrix of their own
  double dropout = 0;   // of weights and of each part's output, in training
  Activation activation = Activation::gelu;
  double embedding_deviation = 0.02;  // of the initial tables, learned positions included
};

// Sequences packed one after another: no token is padding, and none is computed.
struct TokenBatch {
  // (tables, tokens), rows contiguous: ids of each embedding table; -1 adds nothing.
  MatrixView<const std::int64_t> ids = {};
  std::span<const std::int64_t> cu_seqlens = {};  // (sequences + 1): 0 .. tokens
};

// The attention of one layer, on request. attention(i, j) over the packed tokens of both sides; weights are zero
// between sequences.
enum class AttentionPart { encoder, decoder, cross };
struct AttentionRequest {
  AttentionPart part;
  std::int64_t layer;
  View3<float> weights;  // (heads, q tokens, kv tokens)
};

struct TransformerOptions {
  int threads = 1;
  std::optional<Target> target = {};
  // (layers of all stacks: encoder, decoder, cross; heads) multiplied onto heads' outputs; ones unless given.
  MatrixView<const double> gates = {};
  bool training = false;                           // dropout is on
  std::uint64_t seed = 0;                          // of dropout: another one each step
  std::span<const AttentionRequest> weights = {};  // float models only; each part and layer once
};

// T: float, or double to check gradients. Forward keeps the activations that backward reads, in memory that grows and
// is used again: nothing is allocated after the first calls of a size. Not for many threads at once. A token's logits
// depend on its sequence alone, not on the batch (but for dropout, which counts the batch's tokens); bits do not depend
// on threads.
template <class T>
class Transformer {
 public:
  // Parameters drawn from Random(seed, 0) in their order: tables normal, matrices uniform (Glorot and Bengio 2010;
  // those of queries, keys and values each by itself), norms one, biases zero. Throws bad_option, naming what does not
  // fit.
  Transformer(const TransformerConfig& config, std::uint64_t seed);
  ~Transformer();
  Transformer(Transformer&&) noexcept;
  Transformer& operator=(Transformer&&) noexcept;

  const TransformerConfig& config() const noexcept;
  Parameters<T>& parameters() noexcept;
  const Parameters<T>& parameters() const noexcept;

  // logits (tokens of the last stack, classes), rows contiguous. target only for encoder_decoder, whose sequences are
  // as many as the source's. The decoder's self-attention is causal. Throws shape_mismatch and bad_option before
  // anything is written.
  void forward(const TokenBatch& source, const TokenBatch& target, MatrixView<T> logits,
               const TransformerOptions& options = {});
  // Of the last forward, once for each; adds to the parameters' gradients. Throws bad_option without one.
  void backward(MatrixView<const T> d_logits);

  struct State;
  State& state() noexcept { return *state_; }  // what decode() goes through

 private:
  std::unique_ptr<State> state_;
};

extern template class Transformer<float>;
extern template class Transformer<double>;

// Greedy decoding and beam search of an encoder_decoder: the tokens of each sequence after begin, up to and without
// end, at most `most` of them. Each step continues the hypotheses of a sequence by every token and keeps the `beam` of
// the largest sum of log-probabilities; those that took end leave. The answer is, of all that ended (of those at `most`
// where none did), the one of the largest sum / ((5 + tokens, end counted) / 6)^alpha (Wu et al. 2016). Beam 1 is
// greedy. Of equals the earlier hypothesis and the lower token.
struct DecodeOptions {
  std::int64_t begin = 1, end = 2, most = 64;  // most is at most max_tokens
  std::int64_t beam = 1;
  double alpha = 0.6;
};
// The encoder runs once; the decoder runs over the tokens so far at each step, all sequences together. The activations
// of the last forward are gone after it. options.training and options.weights must be left out. Throws bad_option.
std::vector<std::vector<std::int64_t>> decode(Transformer<float>& model, const TokenBatch& source,
                                              const DecodeOptions& decoding, const TransformerOptions& options = {});

}  // namespace multihead
