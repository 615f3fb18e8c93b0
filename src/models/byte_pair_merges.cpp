// SPDX-License-Identifier: Apache-2.0
// Pairs wait in a heap by their rank; a token that joined its neighbour leaves its place empty in a chain.
#include "models/byte_pair_merges.hpp"

#include <functional>
#include <queue>
#include <tuple>

namespace multihead {

namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);
constexpr std::int64_t kGone = -1;

// Two neighbours that may join: what they were when the pair was found tells whether they still are.
struct Waiting {
  std::size_t rank, left, right;
  std::int64_t first, second, merged;
  bool operator>(const Waiting& other) const noexcept {
    return std::tie(rank, left) > std::tie(other.rank, other.left);
  }
};

}  // namespace

PairMerges::PairMerges(std::span<const BytePairModel::Merge> merges) {
  merges_.reserve(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const BytePairModel::Merge& merge = merges[rank];
    const auto key = static_cast<std::uint64_t>(merge.first) << 32 | static_cast<std::uint64_t>(merge.second);
    merges_.emplace(key, Merge{rank, merge.merged});
  }
}

const PairMerges::Merge* PairMerges::find(std::int64_t first, std::int64_t second) const noexcept {
  const auto found = merges_.find(static_cast<std::uint64_t>(first) << 32 | static_cast<std::uint64_t>(second));
  return found == merges_.end() ? nullptr : &found->second;
}

void PairMerges::join(std::vector<std::int64_t>& tokens) const {
  const std::size_t count = tokens.size();
  std::vector<std::size_t> before(count), after(count);
  for (std::size_t i = 0; i < count; ++i) before[i] = i == 0 ? kNone : i - 1, after[i] = i + 1 < count ? i + 1 : kNone;
  std::priority_queue<Waiting, std::vector<Waiting>, std::greater<>> waiting;
  const auto offer = [&](std::size_t left, std::size_t right) {
    if (left == kNone || right == kNone) return;
    if (const Merge* merge = find(tokens[left], tokens[right]))
      waiting.push({merge->rank, left, right, tokens[left], tokens[right], merge->merged});
  };
  for (std::size_t i = 0; i + 1 < count; ++i) offer(i, i + 1);
  while (!waiting.empty()) {
    const Waiting next = waiting.top();
    waiting.pop();
    if (tokens[next.left] != next.first || tokens[next.right] != next.second || after[next.left] != next.right)
      continue;
    tokens[next.left] = next.merged, tokens[next.right] = kGone;
    after[next.left] = after[next.right];
    if (after[next.left] != kNone) before[after[next.left]] = next.left;
    offer(before[next.left], next.left);
    offer(next.left, after[next.left]);
  }
  std::erase(tokens, kGone);
}

}  // namespace multihead
