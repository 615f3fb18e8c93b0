// SPDX-License-Identifier: Apache-2.0
// Masks as key ranges: a call becomes sequences, and causal, window, prefix and lengths become [begin, end) for each
// query row of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/table.hpp"
#include "multihead/attention.hpp"

namespace multihead {

// The row blocks, and so the tasks of a head, that so many rows make.
std::int64_t blocks_of(std::int64_t rows);

// What is the same for every sequence of a call.
struct RangeRules {
  bool causal;
  std::int64_t left, right;  // the window; no bound is a number beyond every position
  std::int64_t first;        // leading keys that left hides from no row; without a bound left 0

  explicit RangeRules(const AttentionOptions& options);
};

// A run of query rows and the run of keys that belongs to it.
struct Sequence {
  std::int64_t batch = 0;
  std::int64_t q_begin = 0, q_len = 0;   // rows of the batch entry
  std::int64_t k_begin = 0, kv_len = 0;  // its valid keys
  std::int64_t offset = 0;               // the position of its first query; its first key has position 0
  std::int64_t prefix = 0;
  std::int64_t first_block = 0;  // row blocks of the sequences before it

  // The keys, counted from k_begin, that row i sees, all but those of its gap: with rules.first the range begins at 0.
  // One that is not empty begins with a key that is seen.
  KeyRange row(std::int64_t i, const RangeRules& rules) const;
  // Whether the keys of row(i) that key is one of are seen: it lies in no gap.
  bool outside_gap(std::int64_t i, std::int64_t key, const RangeRules& rules) const;
  // The keys that row i sees without rules.first, where there is none too: neither end falls from row to row, and the
  // begin may lie beyond the end.
  KeyRange range(std::int64_t i, const RangeRules& rules) const;
  // The rows [begin, end) outside of which none sees a key of [k_from, k_to).
  KeyRange rows_of(std::int64_t k_from, std::int64_t k_to, const RangeRules& rules) const;
  // The sum of their number over the rows. In double, since it may be more than an integer holds.
  double pairs(const RangeRules& rules) const;
};

// The sequences of a call, in the order of batch and rows. Entries of the batch and cu_seqlens are read where they
// stand; the runs of segments are found once, into memory of scratch_bytes().
class Sequences {
 public:
  Sequences(const AttentionShape& shape, const AttentionOptions& options);
  std::size_t scratch_bytes() const;
  std::int64_t count() const { return count_; }
  std::int64_t row_blocks() const { return row_blocks_; }

  // Before anything below. Throws bad_option where an id of a segment stands in two runs, or a run must name its
  // alignment.
  void prepare(const char* function, std::byte* scratch);
  Sequence at(std::int64_t index) const;
  // The sequence that holds a row block, 0 <= block < row_blocks().
  Sequence of_block(std::int64_t block) const;
  // The sequence that holds a row of a batch entry.
  Sequence of_row(std::int64_t batch, std::int64_t row) const;
  // Sums row pairs of every sequence, over batch but not heads.
  double pairs(const RangeRules& rules) const;

 private:
  bool packed() const { return !options_.cu_seqlens_q.empty(); }
  bool segmented() const { return options_.q_segments.data() != nullptr; }
  Sequence from_batch(std::int64_t batch) const;
  Sequence from_cu_seqlens(std::int64_t index) const;
  void find_segments(const char* function, std::byte* scratch);
  void align(Sequence& sequence, std::int64_t counted) const;

  const AttentionShape& shape_;
  const AttentionOptions& options_;
  std::int64_t count_ = 0, row_blocks_ = 0;
  std::int64_t most_runs_ = 0;            // bound of the runs of segments in a batch entry
  std::span<Sequence> found_;             // segments
  std::span<std::int64_t> first_blocks_;  // cu_seqlens
};

}  // namespace multihead
