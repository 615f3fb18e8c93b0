// SPDX-License-Identifier: Apache-2.0
// Encoders of the BERT family from their folders, and the vectors of sentences. Library multihead_models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "multihead/attention.hpp"
#include "multihead/layer.hpp"
#include "multihead/model_files.hpp"
#include "multihead/safetensors.hpp"
#include "multihead/tensor.hpp"
#include "multihead/types.hpp"
#include "multihead/wordpiece.hpp"

namespace multihead {

struct EncoderExtents {
  std::int64_t layers, heads, head_dim, model_dim, intermediate_dim, vocab_size, token_types;
  std::int64_t max_tokens;  // of a sequence: as many as there are positions
};

// Sequences of any lengths, packed one after the other: no token is padding, and none is computed.
struct EncoderInput {
  std::span<const std::int64_t> ids = {};          // (tokens)
  std::span<const std::int64_t> cu_seqlens = {};   // (sequences + 1): 0 .. tokens, ascending; empty: one sequence
  std::span<const std::int64_t> token_types = {};  // (tokens), zeros unless given
  MatrixView<const double> gates = {};  // (layers, heads) multiplied onto the heads' outputs; ones unless given
};

// Beside the output, on request; none changes a bit of it.
struct EncoderRequests {
  View3<float> hidden_states = {};  // (layers + 1, tokens, model_dim): the embeddings, then after each layer
  // One a layer, as MultiHeadAttention takes it; batch is 1, queries and keys are all tokens, and a key of another
  // sequence has weight 0 (-inf at the point biased; at scaled and capped, which know no sequences, its score).
  std::span<const WeightsRequest<float>> weights = {};
  // One a layer likewise; top_keys and received count along all tokens. Without norms: the layers compute them.
  std::span<const StatisticsRequest<float>> statistics = {};
  // (layers, heads, tokens): the layers' norms, |gate| x the length of a token's value vector after its head's rows of
  // the out weight. Times the weights of one head they are its norm-weighted ones.
  View3<float> norms = {};
};

// How an encoder takes its weights, and in what it multiplies.
struct EncoderOptions {
  // Each weight, bias and embedding is rounded to this type and kept as float32; sums are made in float32 all the same.
  // float32, bfloat16 or float16 (whose rounding makes what is 65,520 or larger infinite).
  Type precision = Type::float32;
  // bfloat16: the weights and biases of attention and of the feed-forward layers are kept as bfloat16, half the memory;
  // what enters a product of theirs is rounded to bfloat16, and so are queries, keys, values, heads' outputs and what
  // attention gives. Sums, norms, embeddings and the hidden states between layers stay float32. float32 or bfloat16.
  Type products = Type::float32;
};

// A bidirectional encoder, in float32 unless its products are of bfloat16: bert (and what shares its form: MiniLM, E5,
// BGE ..), roberta, xlm-roberta, distilbert. hidden_0 = norm(word + position + token type); in each layer (post-norm,
// Devlin et al. 2019)
//   a = norm(x + attention(x)),  x' = norm(a + W2 activation(W1 a + b1) + b2)
// A token's bits depend on its own sequence alone: not on the batch, its place in it, threads or requests. Immutable,
// cheap to copy; may be called from many threads.
class Encoder {
 public:
  // config.json and the weights of a folder. Weights in F16, BF16 or F64 are converted to float32; the embeddings of
  // words stay in the file unless a precision rounds them. Throws Error: what Checkpoint and read_config throw;
  // unsupported, by name, for another model_type, position_embedding_type or activation, and for is_decoder;
  // file_malformed for a tensor that is missing, has another shape than config.json says or is none of the encoder's
  // though it lies among them, by its name, and for heads that do not make model_dim; bad_option for a precision or
  // products that are none of theirs.
  explicit Encoder(const std::filesystem::path& folder, const EncoderOptions& options = {});
  Encoder(const ModelConfig& config, const Checkpoint& checkpoint, const EncoderOptions& options = {});

  const EncoderExtents& extents() const noexcept;
  // Tensors of the folder that are no part of the encoder, such as a pooler or a head for another task.
  std::span<const std::string> unused_tensors() const noexcept;

  // output (tokens, model_dim): the hidden states after the last layer. Last axes of it and of hidden_states are
  // contiguous; what is written overlaps nothing else. Throws Error before anything is written: an id or type out of
  // range, a sequence longer than max_tokens. Allocates nothing after a thread's first calls of a size; options.scratch
  // is not used.
  void forward(const EncoderInput& input, MatrixView<float> output, const LayerOptions& options = {},
               const EncoderRequests& requests = {}) const;

  struct State;

 private:
  std::shared_ptr<const State> state_;
};

// vectors (sequences, model_dim): the mean of each sequence's rows, divided by its length (L2) where normalise is set;
// sums in float32 along a sequence's own positions. cu_seqlens as EncoderInput has it. A sequence without tokens has
// the zero vector. Throws Error before anything is written.
void mean_pool(MatrixView<const float> hidden, std::span<const std::int64_t> cu_seqlens, bool normalise,
               MatrixView<float> vectors);

// Sentences to vectors, as sentence-transformers computes them: tokens, encoder, mean, and length 1 where the folder's
// modules.json has Normalize or is absent.
class SentenceEncoder {
 public:
  // options: the encoder's. Throws Error as WordPiece, Encoder and their readers do; unsupported for another pooling
  // than the mean, for a module after it that is not Normalize, and for a prompt before every sentence.
  explicit SentenceEncoder(const std::filesystem::path& folder, const EncoderOptions& options = {});

  const WordPiece& tokenizer() const noexcept { return tokenizer_; }
  const Encoder& encoder() const noexcept { return encoder_; }
  std::int64_t max_tokens() const noexcept { return max_tokens_; }  // of a sentence; its end is left out beyond

  // vectors (sentences, model_dim). A sentence's bits depend on itself alone. Memory is bounded: sentences are encoded
  // a few thousand tokens at a time.
  Matrix<float> encode(std::span<const std::string> sentences, const LayerOptions& options = {}) const;

 private:
  WordPiece tokenizer_;
  Encoder encoder_;
  std::int64_t max_tokens_;
  bool normalise_;
};

}  // namespace multihead
