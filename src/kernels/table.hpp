// SPDX-License-Identifier: Apache-2.0
// What a target offers: the tasks of the arithmetic as function pointers, one table a target.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/math_function.hpp"
#include "multihead/target.hpp"

namespace multihead {

// The cuts that fix the order of every sum, alike on all targets (docs/kernels.md).
constexpr int kRowBlock = 48;     // query rows of a task: the lanes of 3 zmm, 6 ymm or 12 neon registers
constexpr int kKeyBlock = 128;    // keys of a block, counted from the first key of the sequence
constexpr int kSumChains = 16;    // chains of a sum along a row
constexpr int kInnerBlock = 256;  // input channels of a projection's block

// The keys [begin, end) that a query row sees; begin == end sees none.
struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// Up to kRowBlock query rows of one head against its keys. Strides count elements between rows; rows are contiguous.
template <class T>
struct AttentionTask {
  const T* q;  // (rows, head_dim)
  const T* k;  // (kv_len, head_dim)
  const T* v;  // (kv_len, value_dim)
  T* out;      // (rows, value_dim)
  std::int64_t q_stride, k_stride, v_stride, out_stride;
  T* lse;  // (rows) or null
  std::int64_t lse_stride;
  T* row_max;               // (rows) or null: the largest visible score in units of log 2, for weights_task
  T* row_sum;               // (rows) or null: the sum of 2^(score - row_max)
  const KeyRange* visible;  // (rows)
  int rows, head_dim, value_dim;
  double scale;
  T* scratch;  // attention_scratch_elements()
};

// The weights of the same rows, from the row_max and row_sum that the attention task left.
//   weights (rows, kv_len) = factor * weight, added to what stands there when add is set
template <class T>
struct WeightsTask {
  AttentionTask<T> attention;
  std::int64_t kv_len;
  T* weights;
  std::int64_t weights_stride;
  std::int64_t key_stride;
  T factor;
  bool add;
};

// A block of C = A B: rows [0, rows) x columns [0, columns), columns at most kRowBlock.
template <class T>
struct MatmulTask {
  const T* a;  // (rows, inner), rows a_stride apart
  const T* b;  // (inner, columns): element (i, j) at b[i * b_inner_stride + j * b_column_stride]
  T* c;        // (rows, columns), rows c_stride apart
  std::int64_t a_stride, b_inner_stride, b_column_stride, c_stride;
  std::int64_t rows, inner;
  int columns;
  T* scratch;  // kMatmulScratch elements
};
constexpr std::size_t kMatmulScratch = static_cast<std::size_t>(kInnerBlock) * kRowBlock;

constexpr std::size_t attention_scratch_elements(std::int64_t head_dim, std::int64_t value_dim) {
  return static_cast<std::size_t>(kRowBlock) * static_cast<std::size_t>(head_dim + value_dim + kKeyBlock + 8);
}

// The entry points of a target for one element type.
template <class T>
struct Kernels {
  void (*attention)(const AttentionTask<T>&) noexcept;
  void (*weights)(const WeightsTask<T>&) noexcept;
  void (*matmul)(const MatmulTask<T>&) noexcept;
  void (*map)(MathFunction, const T* in, T* out, std::int64_t count) noexcept;
};

struct KernelTable {
  Target target;
  bool (*available)() noexcept;
  const char* tile_f32;  // the score tile: "8 keys x 48 queries"
  const char* tile_f64;
  Kernels<float> f32;
  Kernels<double> f64;

  template <class T>
  const Kernels<T>& kernels() const noexcept {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

extern const KernelTable baseline_table, avx2_table, avx512_table, neon_table;

// Counts a task for tasks_run(). Compiled outside the regions.
void count_task(Target target) noexcept;

// The table of a target, or null where this build or machine cannot run it. Thread-safe.
const KernelTable* find_kernels(Target target) noexcept;

// The table of chosen_target(pinned). Throws as chosen_target does.
const KernelTable& choose_kernels(std::optional<Target> pinned);

}  // namespace multihead
