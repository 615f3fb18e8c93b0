// SPDX-License-Identifier: Apache-2.0
// A decode task: a few query rows against the cached keys and values of one kv head, and the fold of what it leaves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/table.hpp"

namespace multihead {

constexpr int kDecodeRows = kRowBlock;  // rows of a task, at most

// Queries of a sequence that are decoded, at most. The attention kernel takes for a row of some queries of a head what
// decode takes from about this number on: its lanes are then full enough.
constexpr std::int64_t kDecodeQueries = 12;

// What is left of a row: a head of kDecodeHead floats, then value_dim sums of weighted values. The head holds the
// largest score in units of log 2, the sum of 2^(score - that) and the sum that the row is divided by, which differs
// where weights are rounded before they are multiplied.
constexpr int kDecodeHead = 4;
constexpr std::int64_t decode_state_elements(std::int64_t value_dim) { return kDecodeHead + value_dim; }

// A query row: one query head of one token. Positions count from the first key of its sequence.
struct DecodeRow {
  const void* q;              // (head_dim), of the task's type
  void* out = nullptr;        // (value_dim), of the task's type: written by the task that finishes the row
  float* lse = nullptr;       // or null: written with out
  float* state = nullptr;     // decode_state_elements(value_dim), or partials: see DecodeTask
  KeyRange visible;           // positions that the row sees; as in the finishing task in each of its tasks
  std::int64_t first = 0;     // positions [0, first) are seen too
  std::int64_t position = 0;  // of the query, for the slope
  float slope = 0;            // ALiBi in units of log 2: slope |position - key| is added
  bool has_sink = false;      // counted where the row begins anew, or by the fold
  double sink = 0;            // a logit
};

// Rows against the blocks of kKeyBlock positions [first_block, last_block) of what each sees. A row has the bits of
// attention() on the same keys, whatever rows share the task and however its blocks are cut into tasks.
struct DecodeTask {
  // begins     rows begin anew, or go on from their state, left by the task of the blocks before.
  // leaves     output: rows are finished: out and lse. state: into the rows' state. partials: nothing is carried from
  //            block to block: that of block b goes to state + (b - first_block) * partial_stride, for DecodeFold.
  enum class Leaves { output, state, partials };
  bool begins = true;
  Leaves leaves = Leaves::output;
  std::int64_t partial_stride = 0;  // floats, at least decode_state_elements(value_dim)

  const DecodeRow* rows;
  int count;         // 1 to kDecodeRows
  Type type;         // of q and out: that of the cache, or any of float32, bfloat16, float16 where it holds int8
  CachedRows cache;  // pages of positions that no row sees are not read and may be -1
  int head_dim, value_dim;
  std::int64_t first_block, last_block;
  float scale;                         // of the products, in units of log 2, or that of score / cap
  float cap = 0;                       // in units of log 2: score = cap tanh(score); 0: none
  float* scratch;                      // decode_scratch_elements(count, head_dim, value_dim)
  std::optional<Target> handed_on_by;  // the target that was asked, where it leaves the task to another
};

// Merges a row's partials in ascending order and finishes it.
struct DecodeFold {
  DecodeRow row;  // q and slope are not read; state: the first partial
  Type type;      // of out
  int value_dim;
  std::int64_t blocks, partial_stride;    // those of the partials
  const float* channel_scales = nullptr;  // CachedRows::v_scales where it is by_channel, else null
  float* scratch;                         // decode_scratch_elements(1, 0, value_dim)
};

// Lines of kRowBlock floats that a task keeps of its rows.
constexpr int kDecodeLines = 8;

constexpr std::size_t decode_scratch_elements(std::int64_t count, std::int64_t head_dim, std::int64_t value_dim) {
  const std::int64_t columns = (value_dim + 15) / 16 * 16;
  const std::int64_t of_rows = count * (head_dim + 1 + kKeyBlock + kKeyBlock / 2 + 2 * columns);
  const std::int64_t staged = kCacheBlock * (head_dim + 1 + value_dim) + kRowBlock * (head_dim + 1) + columns;
  return static_cast<std::size_t>(kDecodeLines * kRowBlock + 2 * kKeyBlock + of_rows + staged);
}

}  // namespace multihead
