// SPDX-License-Identifier: Apache-2.0
// Sentences one after the other, as a Transformer takes them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "multihead/transformer.hpp"

namespace multihead {

struct Packed {
  std::vector<std::int64_t> ids, starts{0};

  void add(std::span<const std::int64_t> tokens) {
    ids.insert(ids.end(), tokens.begin(), tokens.end());
    starts.push_back(std::ssize(ids));
  }
  // add() for the next token of the last sequence, which end() ends.
  void push(std::int64_t token) { ids.push_back(token); }
  void end() { starts.push_back(std::ssize(ids)); }
  std::int64_t tokens() const { return std::ssize(ids); }
  TokenBatch batch() const { return {{ids.data(), {1, tokens()}}, starts}; }
};

}  // namespace multihead
