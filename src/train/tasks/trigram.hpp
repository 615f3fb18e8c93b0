// SPDX-License-Identifier: Apache-2.0
// What two tokens before it tell of a token: the count that a model which looks further back must beat.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>

namespace multihead {

// Counts of one, two and three tokens, each smoothed by the next shorter one (Witten and Bell 1991, method C), the
// shortest by equal shares of the vocabulary.
class Trigram {
 public:
  explicit Trigram(std::int64_t vocabulary) : vocabulary_(vocabulary) {}
  void add(std::span<const std::int64_t> ids);
  // -log of the probability of ids[1], ids[2] .. each after those before it, two at most.
  double nats(std::span<const std::int64_t> ids) const;

 private:
  struct Context {
    std::int64_t tokens = 0, kinds = 0;  // that followed it
  };
  // Of up to two tokens before and, for followers_, the token: a number of its own.
  std::int64_t key(std::span<const std::int64_t> ids) const;
  double probability(std::span<const std::int64_t> before, std::int64_t token) const;

  std::int64_t vocabulary_;
  std::unordered_map<std::int64_t, Context> contexts_;
  std::unordered_map<std::int64_t, std::int64_t> followers_;
};

}  // namespace multihead
