// SPDX-License-Identifier: Apache-2.0
// SentenceEncoder: a sentence-transformers folder from text to vectors.
#include <algorithm>

#include "multihead/encoder.hpp"
#include "multihead/error.hpp"

namespace multihead {

namespace {

constexpr std::size_t kTokensTogether = 4096;  // of a call of the encoder

[[noreturn]] void refuse(ErrorCode code, const std::filesystem::path& folder, const std::string& rule) {
  throw Error(code, "SentenceEncoder: " + folder.string() + ": " + rule);
}

// Whether vectors get length 1; throws for what is not a mean, normalised or not.
bool normalised(const std::filesystem::path& folder, const SentenceConfig& config) {
  for (const std::string& mode : config.pooling)
    if (mode != "mean_tokens" || config.pooling.size() > 1)
      refuse(ErrorCode::unsupported, folder, "the pooling is by '" + mode + "'; it must be mean_tokens alone");
  if (config.modules.empty()) return true;
  constexpr const char* kOrder[] = {"Transformer", "Pooling", "Normalize"};
  for (std::size_t i = 0; i < config.modules.size(); ++i)
    if (i >= std::size(kOrder) || config.modules[i] != kOrder[i])
      refuse(ErrorCode::unsupported, folder,
             "module " + std::to_string(i) + " is '" + config.modules[i] +
                 "'; the modules must be Transformer, Pooling and perhaps Normalize");
  if (config.modules.size() < 2)
    refuse(ErrorCode::unsupported, folder,
           "modules.json has no Pooling; the modules must be Transformer, Pooling and "
           "perhaps Normalize");
  return config.modules.size() == std::size(kOrder);
}

WordPiece tokenizer_of(const std::filesystem::path& folder) {
  const WordPieceModel model = read_wordpiece(folder);
  if (read_sentence_config(folder).lowercase && !model.lowercase)
    refuse(ErrorCode::unsupported, folder, "do_lower_case is true beside a tokenizer that keeps capitals");
  return WordPiece(model);
}

}  // namespace

SentenceEncoder::SentenceEncoder(const std::filesystem::path& folder, const EncoderOptions& options)
    : tokenizer_(tokenizer_of(folder)), encoder_(folder, options) {
  const SentenceConfig config = read_sentence_config(folder);
  normalise_ = normalised(folder, config);
  if (!config.prompt.empty())
    refuse(ErrorCode::unsupported, folder,
           "default_prompt_name puts a prompt before every sentence; there must be none");
  const std::int64_t positions = encoder_.extents().max_tokens;
  max_tokens_ = std::min(config.max_tokens.value_or(positions), positions);
  if (max_tokens_ < 2)
    refuse(ErrorCode::file_malformed, folder,
           "a sentence may have " + std::to_string(max_tokens_) + " tokens; it must be at least 2");
  if (tokenizer_.size() > encoder_.extents().vocab_size)
    refuse(ErrorCode::file_malformed, folder,
           "the tokenizer has " + std::to_string(tokenizer_.size()) + " ids, the encoder embeds " +
               std::to_string(encoder_.extents().vocab_size));
}

Matrix<float> SentenceEncoder::encode(std::span<const std::string> sentences, const LayerOptions& options) const {
  const std::int64_t width = encoder_.extents().model_dim;
  Matrix<float> vectors(static_cast<std::int64_t>(sentences.size()), width);
  std::vector<std::int64_t> ids, starts{0};
  std::vector<float> hidden;
  std::int64_t done = 0;  // sentences whose vectors are computed
  const auto flush = [&] {
    const std::int64_t tokens = static_cast<std::int64_t>(ids.size());
    const std::int64_t count = static_cast<std::int64_t>(starts.size()) - 1;
    hidden.resize(std::max(hidden.size(), ids.size() * static_cast<std::size_t>(width)));
    const MatrixView<float> states(hidden.data(), {tokens, width});
    encoder_.forward({.ids = ids, .cu_seqlens = starts}, states, options);
    mean_pool(states, starts, normalise_, MatrixView<float>(vectors.data() + done * width, {count, width}));
    done += count;
    ids.clear(), starts.assign(1, 0);
  };
  for (const std::string& sentence : sentences) {
    const std::vector<Token> tokens = tokenizer_.encode(sentence, max_tokens_);
    if (!ids.empty() && ids.size() + tokens.size() > kTokensTogether) flush();
    for (const Token& token : tokens) ids.push_back(token.id);
    starts.push_back(static_cast<std::int64_t>(ids.size()));
  }
  if (!ids.empty()) flush();
  return vectors;
}

}  // namespace multihead
