// SPDX-License-Identifier: Apache-2.0
// Decoders from their folders, which tell how likely each token is to come next. Library multihead_models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "multihead/kv_cache.hpp"
#include "multihead/layer.hpp"
#include "multihead/model_files.hpp"
#include "multihead/safetensors.hpp"
#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

struct DecoderExtents {
  std::int64_t layers, heads, kv_heads, head_dim, model_dim, intermediate_dim, vocab_size;
  std::int64_t max_tokens;  // of a sequence: as many as config.json says there are positions
};

// How a decoder takes its weights, and in what it multiplies.
struct DecoderOptions {
  Type precision = Type::float32;  // as EncoderOptions
  // bfloat16: the weights and biases of all linear maps, the last one before the logits too, are kept as bfloat16, half
  // the memory and half the reading a token, and what enters them is rounded to bfloat16. Sums, what the maps give,
  // rotary, norms, embeddings, hidden states and logits stay float32; the cache says in what attention multiplies.
  Type products = Type::float32;
};

// The next tokens of sequences that a cache holds, any number of each, packed one after the other: prompts, chunks of
// prompts and single tokens in one call.
struct DecoderInput {
  std::span<const std::int64_t> ids = {};  // (tokens)
  std::span<const std::int64_t> cu_seqlens =
      {};                                      // (sequences + 1): 0 .. tokens, each with a token; empty: one sequence
  std::span<const KvSequence> sequences = {};  // of the cache, each once
};

// Beside the logits, on request; none changes a bit of them.
struct DecoderRequests {
  MatrixView<float> every_logit = {};  // (tokens, vocab_size): after each token
  View3<float> hidden_states =
      {};  // (layers + 1, tokens, model_dim): the embeddings, then after each layer; then no norm
};

// A causal decoder, in float32 unless its products are of bfloat16: gpt2 (Radford et al. 2019) and llama (Touvron et
// al. 2023), pre-norm. In each layer
//   a = x + attention(norm(x)),  x' = a + feed_forward(norm(a));  logits = norm(x_last) words^T, or a head's weight
// gpt2: LayerNorm, learned positions, W2 gelu(W1 x). llama: RMSNorm, rotary positions, W2 (silu(Wg x) W1 x).
// A token's bits depend on its own sequence up to it and on the type of the cache: not on the batch, how the sequence
// was cut into calls, the pages or threads. Immutable, cheap to copy; may be called from many threads, each on a cache
// of its own.
class Decoder {
 public:
  // config.json and the weights of a folder, in one file or several; F16, BF16 and F64 are converted to float32. Throws
  // Error: what Checkpoint and read_config throw; unsupported, by name, for another model_type, activation,
  // rope_scaling (default, linear and llama3 are known), sliding windows, capped scores and cross-attention;
  // file_malformed for a tensor that is missing, has another shape than config.json says or is none of the decoder's
  // though it lies among them; bad_option for a precision or products that are none of theirs.
  explicit Decoder(const std::filesystem::path& folder, const DecoderOptions& options = {});
  Decoder(const ModelConfig& config, const Checkpoint& checkpoint, const DecoderOptions& options = {});

  const DecoderExtents& extents() const noexcept;
  std::span<const std::string> unused_tensors() const noexcept;  // of the folder, that are no part of the decoder

  // What a cache for it is made of, with room for so many positions in all, in pages of 128.
  KvCacheSpec cache_spec(std::int64_t positions, KvStorage storage = KvStorage::float32) const;

  // logits (sequences, vocab_size), after the last token of each; without extents: not asked for. The tokens' keys and
  // values are appended to the cache. Over bfloat16 and float16 queries are rounded too, and so is what attention
  // gives. Throws Error before anything is written: an id out of range, a sequence that would grow beyond max_tokens, a
  // cache of other extents or with a window, and what KvCache throws; the cache is then as it was.
  void forward(const DecoderInput& input, KvCache& cache, MatrixView<float> logits, const LayerOptions& options = {},
               const DecoderRequests& requests = {}) const;

  struct State;

 private:
  std::shared_ptr<const State> state_;
};

}  // namespace multihead
