// SPDX-License-Identifier: Apache-2.0
// Masks as key ranges: before a kernel runs, causal alignment and lengths become [begin, end) for each query row.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/table.hpp"
#include "multihead/attention.hpp"

namespace multihead {

// What the rows of one sequence see.
struct Visibility {
  std::int64_t length;  // keys that are valid
  bool causal = false;
  std::int64_t offset = 0;  // row i sees keys up to i + offset

  Visibility(const AttentionShape& shape, const AttentionOptions& options, std::int64_t sequence)
      : length(options.lengths.empty() ? shape.kv_len : options.lengths[static_cast<std::size_t>(sequence)]) {
    using Kind = Causal::Kind;
    const Kind kind = options.causal.kind();
    causal = kind != Kind::none;
    if (kind == Kind::bottom_right) offset = length - shape.q_len;
    if (kind == Kind::offset) offset = options.causal.query_offset();
  }

  KeyRange row(std::int64_t i) const {
    const std::int64_t end = causal ? std::clamp<std::int64_t>(i + offset + 1, 0, length) : length;
    return {0, end};
  }
};

}  // namespace multihead
