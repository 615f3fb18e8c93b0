// SPDX-License-Identifier: Apache-2.0
// A word's bytes joined to tokens, pair by pair.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "multihead/model_files.hpp"

namespace multihead {

// The pairs that become one token, and how early.
class PairMerges {
 public:
  explicit PairMerges(std::span<const BytePairModel::Merge> merges);

  // Joins tokens while a pair of neighbours is one: the earliest pair first, of equal ones the leftmost. Time is n log
  // n.
  void join(std::vector<std::int64_t>& tokens) const;

 private:
  struct Merge {
    std::size_t rank;
    std::int64_t merged;
  };
  const Merge* find(std::int64_t first, std::int64_t second) const noexcept;

  std::unordered_map<std::uint64_t, Merge> merges_;  // (first << 32 | second)
};

}  // namespace multihead
