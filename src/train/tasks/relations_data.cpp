// SPDX-License-Identifier: Apache-2.0
// Sequences of the four relations.
#include "train/tasks/relations_data.hpp"

#include <numeric>

namespace multihead::relations {

bool is_held_out(std::span<const std::int64_t> payloads) {
  return std::accumulate(payloads.begin(), payloads.end(), std::int64_t{0}) % kPayloads == kPayloads - 1;
}

Data draw(Random& random, std::int64_t sequences, bool held_out) {
  Data data;
  data.sequences = sequences;
  data.ids.resize(static_cast<std::size_t>(2 * data.positions()));
  data.cu_seqlens.push_back(0);
  std::array<std::int64_t, kTokens> all{};
  std::iota(all.begin(), all.end(), 0);
  for (std::int64_t s = 0; s < sequences; ++s) {
    const std::span tokens(data.ids.data() + s * kLength, kLength);
    const std::span payloads(data.ids.data() + data.positions() + s * kLength, kLength);
    random.shuffle(all);
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = all[i / 2];
    random.shuffle(tokens);
    do {
      for (std::int64_t& payload : payloads) payload = random.below(kPayloads);
    } while (is_held_out(payloads) != held_out);
    data.cu_seqlens.push_back((s + 1) * kLength);
  }
  return data;
}

std::int64_t target_of(std::int64_t relation, std::int64_t i, std::span<const std::int64_t> tokens) {
  if (relation == 0) return (i + kLength - 1) % kLength;
  if (relation == 1) return kLength - 1 - i;
  if (relation == 2) return (i + 3) % kLength;
  std::int64_t other = 0;
  while (other == i || tokens[static_cast<std::size_t>(other)] != tokens[static_cast<std::size_t>(i)]) ++other;
  return other;
}

std::vector<std::int64_t> wanted(const Data& data) {
  std::vector<std::int64_t> payloads;
  payloads.reserve(static_cast<std::size_t>(kRelations * data.positions()));
  for (std::int64_t relation = 0; relation < kRelations; ++relation)
    for (std::int64_t s = 0; s < data.sequences; ++s) {
      const std::span tokens(data.ids.data() + s * kLength, kLength);
      for (std::int64_t i = 0; i < kLength; ++i)
        payloads.push_back(data.payload(s * kLength + target_of(relation, i, tokens)));
    }
  return payloads;
}

}  // namespace multihead::relations
