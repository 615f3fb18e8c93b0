// SPDX-License-Identifier: Apache-2.0
// Texts that a decoder goes on with: how a token is drawn, and many requests that share each step. Library
// multihead_models.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/byte_pair.hpp"
#include "multihead/decoder.hpp"
#include "multihead/kv_cache.hpp"
#include "multihead/layer.hpp"

namespace multihead {

struct GenerateOptions {
  std::int64_t max_tokens = 128;           // new tokens, at least 1; fewer where the decoder has no more positions
  double temperature = 0;                  // logits are divided by it; 0: the likeliest token each time
  std::optional<std::int64_t> top_k = {};  // only so many, the likeliest; at least 1
  std::optional<double> top_p = {};  // of those only the likeliest that together have this much, above 0, at most 1
  std::uint64_t seed = 0;
  std::vector<std::string> stop = {};  // texts that end it, and are left out; none is empty
};

// The token that follows, at this position of its sequence (counted from 0). Drawn from softmax(logits / temperature)
// after top_k and top_p, by a number that seed and position alone decide; of equal logits the one of the lower id comes
// first. Sums are made in float64 in a fixed order, so the same on every machine. Throws bad_option as the options say,
// non_finite where the largest logit is not finite or one is NaN.
std::int64_t next_token(std::span<const float> logits, const GenerateOptions& options, std::int64_t position);

// Why a text ended: a token that ends texts, a stop text, or the number of tokens.
enum class Finish { end, stop, length };

// A new token of a request. text: what is now whole and no part of a stop text, of this token and those before it; no
// text belongs to special tokens.
struct Generated {
  std::int64_t request;
  std::int64_t id;
  std::string text;
  std::optional<Finish> finish;
};

struct GeneratorOptions {
  std::int64_t positions = 4096;  // of the cache, for all requests together; whole pages of 128
  KvStorage storage = KvStorage::float32;
  std::int64_t prompt_tokens = 512;           // of prompts, that one step takes at most; at least 1
  std::vector<std::int64_t> end_ids = {};     // tokens that end a text: read_eos_token_ids()
  std::optional<std::int64_t> begin_id = {};  // stands for a prompt without tokens
  LayerOptions layer = {};
};

// Requests that go on together. Each step feeds the next token of every one that speaks, and of the others a part of
// their prompts; they join as soon as the cache has room for all that they may become, in the order in which they came.
// A request's text depends on its prompt, options, decoder and storage alone: not on the others or on when it joined,
// prompt_tokens or threads. Not for many threads at once.
class Generator {
 public:
  // Copies share the decoder's and the tokenizer's weights. Throws bad_option as the options say; file_malformed where
  // the tokenizer has more ids than the decoder.
  Generator(const Decoder& decoder, const BytePair& tokenizer, const GeneratorOptions& options = {});
  ~Generator();
  Generator(Generator&&) noexcept;
  Generator& operator=(Generator&&) noexcept;

  // A request's number: 0, 1, 2 .. Throws bad_option: options, a prompt without tokens or with too many for the decoder
  // (one must be left) or with max_tokens for the whole cache; an id out of range.
  std::int64_t add(std::string_view prompt, const GenerateOptions& options = {});
  std::int64_t add(std::span<const std::int64_t> prompt, const GenerateOptions& options = {});
  void cancel(std::int64_t request);  // does nothing to one that has ended

  bool done() const noexcept;  // no request is left
  // In ascending order of requests; those whose prompts are not read yet have none. Throws what Decoder::forward
  // throws, everything being as it was; non_finite as next_token, no request being left.
  std::vector<Generated> step();

  struct State;

 private:
  std::unique_ptr<State> state_;
};

// Who is told of each token as it comes.
using TokenReceiver = std::function<void(const Generated&)>;

// The texts that follow several prompts, as Generator makes them. The
// cache has the options' positions, or what the longest prompt needs where that is more. Throws as Generator does.
std::vector<std::string> generate(const Decoder& decoder, const BytePair& tokenizer,
                                  std::span<const std::string> prompts, const GenerateOptions& options = {},
                                  const GeneratorOptions& generator = {}, const TokenReceiver& each = {});

}  // namespace multihead
