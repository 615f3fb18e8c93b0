// SPDX-License-Identifier: Apache-2.0
// How stories go through a Transformer: batches, what is measured, how a story is continued.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "multihead/transformer.hpp"
#include "train/tasks/packed.hpp"
#include "train/tasks/stories.hpp"

namespace multihead::language {

// A story's tokens, kEnd before them and behind them, and where each of its words begins.
struct StoryTokens {
  std::vector<std::int64_t> ids;
  std::vector<std::size_t> words;
};
StoryTokens tokens_of(const stories::Story& story);

// Tokens that go in and the ones that must come out.
struct StoryBatch {
  Packed tokens;
  std::vector<std::int64_t> wanted;  // (tokens)

  void add(std::span<const std::int64_t> ids);  // of two tokens or more
};

// The sum over the stories of -log of what the model gives their tokens, kEnd at the end counted, at the start not.
double nats_of(Transformer<float>& model, std::span<const StoryTokens> list, const TransformerOptions& machine);

// (kSkills): the share of words that ask for a skill whose form the model finds likelier than every other form, given
// the story so far: by the first token in which the two differ. NaN without such a word.
std::vector<double> skill_accuracy(Transformer<float>& model, std::span<const stories::Story> list,
                                   const TransformerOptions& machine);

// What the model says after each beginning, up to kEnd, which is left out, or until it can take no more: the likeliest
// token each time (the lower of equals), or with a seed one drawn as it is likely, the same whatever else is continued.
// Beginnings have a token and at most the model's max_tokens.
std::vector<std::vector<std::int64_t>> continued(Transformer<float>& model,
                                                 std::span<const std::vector<std::int64_t>> beginnings,
                                                 std::optional<std::uint64_t> seed, const TransformerOptions& machine);

}  // namespace multihead::language
