// SPDX-License-Identifier: Apache-2.0
// Sequences of the four relations: tokens in pairs, payloads at random, and what each position must name.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "multihead/optimizer.hpp"
#include "multihead/transformer.hpp"

namespace multihead::relations {

constexpr std::int64_t kLength = 16, kTokens = 16, kPayloads = 16, kRelations = 4;
constexpr std::array<const char*, kRelations> kNames{"previous", "mirror", "ahead_3", "same_token"};

// Positions of sequences one after another; a sequence has 8 of the 16 tokens, each twice.
struct Data {
  std::vector<std::int64_t> ids;         // (2, positions): tokens, then payloads
  std::vector<std::int64_t> cu_seqlens;  // sequences of kLength
  std::int64_t sequences = 0;

  std::int64_t positions() const { return sequences * kLength; }
  std::int64_t token(std::int64_t at) const { return ids[static_cast<std::size_t>(at)]; }
  std::int64_t payload(std::int64_t at) const { return ids[static_cast<std::size_t>(positions() + at)]; }
  TokenBatch batch() const { return {{ids.data(), {2, positions()}}, cu_seqlens}; }
};

// Sequences whose payloads add up to 15 modulo 16 are held out: training draws the others, evaluation only these.
bool is_held_out(std::span<const std::int64_t> payloads);
Data draw(Random& random, std::int64_t sequences, bool held_out);

// The position that a relation goes to from position i of a sequence: i - 1, 15 - i and i + 3, the first and the last
// around the ends, and where the same token stands again. tokens (kLength).
std::int64_t target_of(std::int64_t relation, std::int64_t i, std::span<const std::int64_t> tokens);

// (kRelations, positions): the payloads that must be named.
std::vector<std::int64_t> wanted(const Data& data);

}  // namespace multihead::relations
