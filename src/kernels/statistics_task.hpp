// SPDX-License-Identifier: Apache-2.0
// Statistics of one task's rows: what is wanted, and the lines of memory that gathering it takes.
#pragma once

#include <cstdint>

#include "kernels/table.hpp"

namespace multihead {

// Where numbers of the task's rows go: element (row, item) at data[row * row_stride + item * item_stride]. data null:
// not wanted.
template <class T>
struct RowsOutput {
  T* data = nullptr;
  std::int64_t row_stride = 0, item_stride = 0;

  T& at(std::int64_t row, std::int64_t item) const { return data[row * row_stride + item * item_stride]; }
};

// How many numbers a row has of each kind.
struct StatisticsCounts {
  std::int64_t offsets = 0, keys = 0, classes = 0, top = 0;
};

// See RowStatistics. Keys count from the sequence's first.
template <class T>
struct StatisticsTask {
  RowsOutput<T> visible, entropy, sum_squares, distance, duplicate_mass, induction_mass;  // one item
  RowsOutput<T> offset_mass, key_mass, class_mass, top_weights;
  RowsOutput<std::int64_t> top_keys;
  StatisticsCounts counts;
  const std::int64_t* offsets = nullptr;
  const std::int64_t* keys = nullptr;
  const std::uint32_t* key_classes = nullptr;  // of the sequence's first key
  const std::int64_t* q_tokens = nullptr;      // of the task's first row
  const std::int64_t* kv_tokens = nullptr;     // of the sequence's first key
  std::int64_t key_classes_stride = 0, q_tokens_stride = 0, kv_tokens_stride = 0;
  std::int64_t position = 0;  // of the first row
  std::int64_t k_begin = 0;   // the sequence's first key in the batch entry, for top_keys
};

constexpr std::int64_t kTokenLines =
    (kKeyBlock + 1 + kRowBlock - 1) / kRowBlock;  // of the block's keys, and one before
constexpr std::int64_t kClassLines = 3;           // 32 classes x kMaskWords words of 4 bytes: 512 bytes
constexpr std::int64_t kFlagLines = (kKeyBlock + kRowBlock - 1) / kRowBlock;  // of a class's keys
constexpr std::int64_t kSingleLines = 8;
static_assert(kClassLines * kRowBlock * 4 >= 32 * kMaskWords * 4);

constexpr std::int64_t statistics_lines(const StatisticsCounts& counts) {
  return kSingleLines + kTokenLines + kClassLines + counts.offsets + counts.keys + (1 + kFlagLines) * counts.classes +
         2 * counts.top;
}

}  // namespace multihead
