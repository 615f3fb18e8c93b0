// SPDX-License-Identifier: Apache-2.0
// The rules of a Transformer's config and calls, and the sentences that state them.
#include <cmath>
#include <string>

#include "core/validate.hpp"
#include "train/transformer_state.hpp"

namespace multihead {

using Kind = TransformerConfig::Kind;

namespace {

constexpr const char* kConfig = "transformer";
constexpr std::int64_t kMost = std::int64_t{1} << 24;  // of an extent, so that their products fit

void check_vocab(const char* name, const std::vector<std::int64_t>& vocab, bool wanted) {
  if (vocab.empty() == wanted)
    fail(ErrorCode::bad_option, std::string(kConfig) + ": " + name +
                                    (wanted ? " is empty; it must give the rows of one embedding table or more"
                                            : " is given; only an encoder_decoder has tokens of a target"));
  for (const std::int64_t rows : vocab) check_between(kConfig, std::string(name) + "'s table rows", rows, 1, kMost);
}

// How a batch's members are called.
struct BatchNames {
  const char *ids, *cu_seqlens;
};

[[noreturn]] void refuse(const char* function, const std::string& rest) {
  fail(ErrorCode::bad_option, std::string(function) + ": " + rest);
}

// ids of each table, and sequences that cover them. A check that holds allocates nothing.
void check_batch(const char* function, const BatchNames& names, const TransformerConfig& config,
                 const std::vector<std::int64_t>& vocab, const TokenBatch& batch) {
  const Operand ids = operand(names.ids, batch.ids);
  check_view(function, ids);
  check_contiguous(function, ids);
  check_equal(function, names.ids, "has rows", batch.ids.extent(0), "the model has embedding tables",
              static_cast<std::int64_t>(vocab.size()));
  const std::span<const std::int64_t> cu = batch.cu_seqlens;
  if (cu.empty() || cu.front() != 0) refuse(function, std::string(names.cu_seqlens) + " must begin with 0");
  for (std::size_t s = 0; s + 1 < cu.size(); ++s) {
    if (cu[s + 1] < cu[s])
      refuse(function, std::string(names.cu_seqlens) + " falls at place " + std::to_string(s + 1) + "; it may not");
    if (cu[s + 1] - cu[s] > config.max_tokens)
      refuse(function, std::string(names.cu_seqlens) + " gives sequence " + std::to_string(s) + " the length " +
                           std::to_string(cu[s + 1] - cu[s]) + "; max_tokens is " + std::to_string(config.max_tokens));
  }
  check_equal(function, names.cu_seqlens, "ends with", cu.back(), "the ids have columns", batch.ids.extent(1));
  for (std::int64_t table = 0; table < batch.ids.extent(0); ++table)
    for (std::int64_t i = 0; i < batch.ids.extent(1); ++i)
      if (const std::int64_t id = batch.ids(table, i), rows = vocab[static_cast<std::size_t>(table)];
          id < -1 || id >= rows)
        refuse(function, std::string(names.ids) + " has " + std::to_string(id) + " at (" + std::to_string(table) +
                             ", " + std::to_string(i) + "); it must be -1 to " + std::to_string(rows - 1));
}

}  // namespace

void check_config(const TransformerConfig& config) {
  const bool both = config.kind == Kind::encoder_decoder;
  check_vocab("source_vocab", config.source_vocab, true);
  check_vocab("target_vocab", config.target_vocab, both);
  check_between(kConfig, "classes", config.classes, 1, kMost);
  check_between(kConfig, "max_tokens", config.max_tokens, 1, kMost);
  check_between(kConfig, "heads", config.heads, 1, kMost);
  check_between(kConfig, "model_dim", config.model_dim, 1, kMost);
  if (config.model_dim % config.heads != 0)
    fail(ErrorCode::bad_option, std::string(kConfig) + ": heads is " + std::to_string(config.heads) +
                                    ", model_dim is " + std::to_string(config.model_dim) + "; heads must divide it");
  check_between(kConfig, "head_dim", config.model_dim / config.heads, 1, kMaxHeadDim);
  check_between(kConfig, "feed_forward", config.feed_forward, 0, kMost);
  if (config.kind != Kind::decoder) check_between(kConfig, "encoder_layers", config.encoder_layers, 1, 1 << 16);
  if (config.kind != Kind::encoder) check_between(kConfig, "decoder_layers", config.decoder_layers, 1, 1 << 16);
  if (config.rotary && config.model_dim / config.heads % 2 != 0)
    fail(ErrorCode::bad_option, std::string(kConfig) + ": rotary wants an even head_dim, it is " +
                                    std::to_string(config.model_dim / config.heads));
  const std::int64_t tokens = (both ? config.target_vocab : config.source_vocab)[0];
  if (config.tied)
    check_equal(kConfig, "tied", "has classes", config.classes, "the last stack's first table has rows", tokens);
  const auto within = [](const char* name, double value, bool holds, const char* rule) {
    if (!holds)
      fail(ErrorCode::bad_option,
           std::string(kConfig) + ": " + name + " is " + std::to_string(value) + "; it must be " + rule);
  };
  within("dropout", config.dropout, config.dropout >= 0 && config.dropout < 1, "0 to below 1");
  within("embedding_deviation", config.embedding_deviation,
         std::isfinite(config.embedding_deviation) && config.embedding_deviation > 0, "above 0 and finite");
}

void check_source(const char* function, const TransformerConfig& config, const TokenBatch& source) {
  check_batch(function, {"source.ids", "source.cu_seqlens"}, config, config.source_vocab, source);
}

void check_target(const char* function, const TransformerConfig& config, const TokenBatch& source,
                  const TokenBatch& target) {
  if (config.kind == Kind::encoder_decoder) {
    check_batch(function, {"target.ids", "target.cu_seqlens"}, config, config.target_vocab, target);
    check_equal(function, "target.cu_seqlens", "has elements", static_cast<std::int64_t>(target.cu_seqlens.size()),
                "source.cu_seqlens has", static_cast<std::int64_t>(source.cu_seqlens.size()));
  } else if (given(target.ids) || given(target.cu_seqlens)) {
    fail(ErrorCode::bad_option, std::string(function) + ": target is given; only an encoder_decoder has one");
  }
}

void check_options(const char* function, const TransformerConfig& config, const TransformerOptions& options) {
  check_between(function, "threads", options.threads, 1, 1 << 16);
  chosen_target(options.target);
  if (!given(options.gates)) return;
  check_view(function, operand("gates", options.gates));
  check_equal(function, "gates", "has rows", options.gates.extent(0), "the model has layers of attention",
              attention_layers(config));
  check_equal(function, "gates", "has columns", options.gates.extent(1), "heads is", config.heads);
}

void check_requests(const char* function, const TransformerConfig& config, const TransformerOptions& options,
                    std::int64_t source_tokens, std::int64_t target_tokens) {
  const bool both = config.kind == Kind::encoder_decoder;
  for (const AttentionRequest& request : options.weights) {
    for (const AttentionRequest& other : options.weights)
      if (&other != &request && other.part == request.part && other.layer == request.layer)
        fail(ErrorCode::bad_option, std::string(function) + ": weights names one part's layer " +
                                        std::to_string(request.layer) + " twice; once is all");
    const bool encoder = request.part == AttentionPart::encoder, cross = request.part == AttentionPart::cross;
    const std::int64_t layers = encoder ? encoder_layers(config) : cross && !both ? 0 : decoder_layers(config);
    check_between(function, "weights: layer", request.layer, 0, layers - 1);
    check_view(function, operand("weights", request.weights));
    check_writable(function, operand("weights", request.weights));
    check_equal(function, "weights", "has heads", request.weights.extent(0), "the model has", config.heads);
    const std::int64_t own = both && !encoder ? target_tokens : source_tokens;
    check_equal(function, "weights", "has queries", request.weights.extent(1), "that side has tokens", own);
    check_equal(function, "weights", "has keys", request.weights.extent(2), "that side has tokens",
                cross ? source_tokens : own);
  }
}

}  // namespace multihead
