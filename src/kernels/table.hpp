// SPDX-License-Identifier: Apache-2.0
// What a target offers: the tasks of the arithmetic as function pointers, one table a target.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/cached_rows.hpp"
#include "kernels/math_function.hpp"
#include "kernels/vector_tasks.hpp"
#include "multihead/linear.hpp"
#include "multihead/target.hpp"
#include "multihead/types.hpp"

namespace multihead {

// The cuts that fix the order of every sum, alike on all targets (docs/kernels.md).
constexpr int kRowBlock = 48;     // query rows of a task: the lanes of 3 zmm, 6 ymm or 12 neon registers
constexpr int kKeyBlock = 128;    // keys of a block, counted from the first key of the sequence
constexpr int kSumChains = 16;    // chains of a sum along a row
constexpr int kInnerBlock = 256;  // input channels of a projection's block

// The keys [begin, end) that a query row sees, but for a gap (ScoreTerms::gap); begin == end sees none.
struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  bool empty() const { return begin >= end; }
  bool operator==(const KeyRange&) const = default;
};

// Rows of a storage type: element (i, c) is the c-th after data + i * stride.
struct StoredRows {
  const void* data;
  std::int64_t stride;
  Type type;

  // Whether they lie as those of many heads side by side do: what a tile reads of a block of rows then takes more sets
  // of the nearest cache, and more pages, than it has room for.
  bool lie_apart() const {
    constexpr std::int64_t kFar = 2048;  // bytes: with less, copies cost what they save
    return (stride < 0 ? -stride : stride) * static_cast<std::int64_t>(size_of(type)) >= kFar;
  }
};

// A mask or bias of one head as (rows, keys), strides free. data null: there is none.
struct DenseTerm {
  const void* data = nullptr;
  std::int64_t row_stride = 0, key_stride = 0;
  Type type = Type::float32;  // of a bias
};

// What becomes of a score after scaling. All numbers are in the unit of the scores: units of log 2 for the softmax.
template <class T>
struct ScoreTerms {
  T cap = 0;                       // score = cap tanh(score), the scale being that of score / cap; 0: none
  T slope = 0;                     // ALiBi: slope |position - key| is added; 0: none
  const T* by_distance = nullptr;  // what is added at distance key - position from -max_distance to max_distance
  std::int64_t max_distance = 0;   // farther keys get what the ends get
  std::int64_t position = 0;       // of the first row
  DenseTerm bias, keep, drop;      // bias: bias_unit * bias is added, -inf hides; keep, drop: bytes
  T bias_unit = 1;
  T bias_floor = 0;           // a lower finite bias counts as this one, whose product with bias_unit is still finite
  const T* by_key = nullptr;  // (kv_len), from the sequence's first key: what is added to every row's score of a key
  // Of a window that keeps first keys: row r sees none of [first, position + r - left), which lie within its range.
  std::int64_t first = 0, left = 0;  // first 0: there is no gap

  KeyRange gap(std::int64_t row) const { return {first, first > 0 ? std::max(first, position + row - left) : first}; }
  bool masks() const { return keep.data || drop.data; }
  bool dense() const { return bias.data || masks(); }
  bool any() const { return cap != 0 || slope != 0 || by_distance || by_key || dense(); }
};

// Dropout of the rows' weights; factor 0: none. Counted in the tensors: b * heads + h, the task's first row and the
// sequence's first key.
template <class T>
struct DropoutTask {
  std::uint32_t bound = 0;  // a word below it is dropped
  T factor = 0;             // of the weights that stay
  std::uint64_t seed = 0;
  std::uint32_t stream = 0, bh = 0, row = 0;
  std::int64_t key = 0;

  bool any() const { return factor != 0; }
};

// What a task needs beside its rows, for the size of its scratch.
struct TaskNeeds {
  std::int64_t head_dim, value_dim;
  Type type;  // of q, k, v and out
  bool bias = false, masks = false, distances = false;
  bool bias_staged = false;  // a bias that must be converted or gathered first
  bool weights = false;
  bool dropout = false;
  std::int64_t statistics_lines = 0;  // statistics_lines()
  bool tiles = false;                 // KernelTable::tiles, of sums in float
  bool cached = false;                // keys and values are CachedRows
  // Keys and values are widened, or lie far apart: copies are kept for the head's other tasks. Of a call: may be.
  bool keeps_rows = false;
};

template <class T>
struct StatisticsTask;

// Up to kRowBlock query rows of one head against the keys of their sequence.
template <class T>
struct AttentionTask {
  StoredRows q;             // (rows, head_dim)
  StoredRows k;             // (kv_len, head_dim), from the first key of the sequence
  StoredRows v;             // (kv_len, value_dim)
  const CachedRows* cache;  // or null: keys and values in the place of k and v; of q's type or int8. In float alone.
  void* out;                // (rows, value_dim), of q's type; null: no output, v is not read and value_dim is 0
  std::int64_t out_stride;
  T* lse;  // (rows) or null
  std::int64_t lse_stride;
  T* row_max;               // (rows) or null: the largest visible score in units of log 2, for weights_task
  T* row_sum;               // (rows) or null: the sum of 2^(score - row_max); 1 for rows that see no key
  const KeyRange* visible;  // (rows), but for the gaps of terms; without one, neither end falls but to an empty range
  std::int64_t kv_len;      // valid keys of the sequence
  // What this worker knows of blocks of values in this call: (block_id << 1 | all finite) + 2 at place block_id /
  // kKeyBlock mod entries, or 0. block_id: first_block_id + the block's first key, no two blocks having the same.
  std::uint64_t* finite;
  std::int64_t finite_entries;  // 0: nothing is remembered
  std::uint64_t first_block_id;
  // The first blocks of a sequence's values turned round (pairs.inl.hpp), or of its keys and values in parts
  // (parts.inl.hpp) or some of them as rows side by side (Walk), as this worker last met them: block i at kept + i *
  // kept_elements(needs), (block_id + 1) << 1 | a bit of theirs at kept_ids[i].
  T* kept;
  std::uint64_t* kept_ids;
  std::int64_t kept_blocks;  // 0: none is kept
  int rows, head_dim, value_dim;
  T scale;  // of the products, in the unit of the scores
  ScoreTerms<T> terms;
  DropoutTask<T> dropout;
  bool has_sink;
  // Whether keys are taken in several calls (goes_in_parts()), kept_blocks blocks at a time, and whether another one
  // follows this, which takes the part of that number. In between a task is what its scratch holds.
  bool in_parts, pauses;
  int part;
  double sink;  // a logit
  TaskNeeds needs;
  const StatisticsTask<T>* statistics;  // or null
  T* scratch;                           // attention_scratch_elements()
  std::optional<Target> handed_on_by;   // the target that was asked, where it leaves the task to another

  std::int64_t first_kept() const { return in_parts ? part * kept_blocks : 0; }  // of the blocks that are kept
};

// Whether a target of tiles multiplies between the steps of the softmax (tile_pipeline.inl.hpp): where scores are
// scaled products, hidden by ranges at most, nothing else asks for the weights, and keys stand in rows, since those of
// a cache are copied by way of the scores. Such a task may take its keys in parts.
template <class T>
bool goes_in_parts(const AttentionTask<T>& task) {
  constexpr T kLargestScale = 0x1p30f;
  return task.out && !task.cache && !task.statistics && !task.dropout.any() && !task.terms.any() &&
         task.terms.first == 0 && 0 < task.scale && task.scale <= kLargestScale;
}

// Where weights go: element (row, key) at data[row * row_stride + key * key_stride]. data null: nowhere.
template <class T>
struct WeightsOutput {
  T* data = nullptr;
  std::int64_t row_stride = 0, key_stride = 0;
};

// The scores or weights of the same rows over the keys [0, kv_len) of their batch entry.
//   per_head = x    mean = or += x * mean_factor    norm_weighted = or += x * norms, added when add is set
template <class T>
struct WeightsTask {
  AttentionTask<T> attention;  // normalised: with the row_max and row_sum that its task left
  bool normalised;
  T hidden;                             // what stands for keys that the row does not see
  std::int64_t kv_len, k_begin, k_len;  // columns; the first of the sequence's keys; their number
  WeightsOutput<T> per_head, mean, norm_weighted;
  T mean_factor;
  const T* norms;  // (kv_len) with a stride
  std::int64_t norms_stride;
  bool add;
};

// What the keys of whole blocks [k_begin, k_end) get from the rows of one task.
template <class T>
struct ColumnsTask {
  AttentionTask<T> attention;  // with the row_max and row_sum that its task left
  std::int64_t row;            // of the sequence, the first of the task's
  std::int64_t k_begin, k_end;
  T* chains;  // (k_end - k_begin, kSumChains) sums of weights, which grow; or null
  T* map;     // of the head: element (row bin, key bin), a sum that grows; or null
  std::int64_t map_row_stride, map_key_stride;
  std::int64_t bin;  // rows and keys: divides kKeyBlock or is a multiple of it
};

template <class T>
struct BackwardTask;
template <class T>
struct RowTermsTask;

// Joins rows of two attentions: see merge().
template <class T>
struct MergeTask {
  const T *out_a, *out_b;
  T* out;
  std::int64_t a_stride, b_stride, out_stride;
  const T *lse_a, *lse_b;
  T* lse;
  std::int64_t lse_a_stride, lse_b_stride, lse_stride;
  std::int64_t rows, value_dim;
};

// A block of C = A B or C += A B: rows [0, rows) x columns [0, columns), columns at most kRowBlock.
template <class T>
struct MatmulTask {
  const T* a;  // (rows, inner), rows a_stride apart
  const T* b;  // (inner, columns): element (i, j) at b[i * b_inner_stride + j * b_column_stride]
  T* c;        // (rows, columns), rows c_stride apart
  std::int64_t a_stride, b_inner_stride, b_column_stride, c_stride;
  std::int64_t rows, inner;
  int columns;
  T* scratch;                  // kMatmulScratch elements; not touched where b is packed
  const T* packed;             // b as lines of kRowBlock columns, zeros after the last (b is then not read); or null
  std::int64_t columns_after;  // of b, or in packed, that are next to these
  const T* bias;               // (columns), added to each row after its sum; or null
  Activation activation;       // of each element, after the bias
  bool a_turned;               // element (i, k) of a at a[k * a_stride + i], not at a[i * a_stride + k]
  bool add;                    // C += A B
};
constexpr std::size_t kMatmulScratch = static_cast<std::size_t>(kInnerBlock) * kRowBlock;

// The same of matrices stored in two bytes, sums in float32, B packed: float16 as MatmulTask::packed, bfloat16 in lines
// of kRowBlock pairs, line p of a block holding elements 2p and 2p + 1 of each column, a missing one being zero.
struct NarrowMatmulTask {
  Type type;                    // of a and packed: bfloat16 or float16
  Type c_type;                  // of c: that, rounded once, or float32
  const void* a;                // (rows, inner), rows a_stride apart
  const void* packed;           // the first panel's first line
  std::int64_t panel_elements;  // between panels of kRowBlock columns
  const void* packed_end;       // where the last block of the matrix ends
  void* c;                      // (rows, columns), rows c_stride apart
  std::int64_t a_stride, c_stride;
  std::int64_t rows, inner;  // rows at most kNarrowRows
  int columns;               // of kNarrowPanels panels at most
  const float* bias;         // (columns) or null
  Activation activation;
  float* scratch;  // kNarrowMatmulScratch elements
};
constexpr std::int64_t kNarrowRows = 192;     // of a task
constexpr int kNarrowPanels = 4;              // of a task: they share its widened rows, where a target widens
constexpr std::size_t kNarrowMatmulScratch =  // sums of all rows, a widened block of A and a strip of B
    static_cast<std::size_t>(kNarrowRows) * (kNarrowPanels * kRowBlock + kInnerBlock) + kMatmulScratch;

// Where a task keeps what, in lines of kRowBlock elements and rows of other widths. RowState takes them in this order.
constexpr int kMaskWords = kKeyBlock / 32;                                           // lines of bits
constexpr int kDistanceLines = (kKeyBlock + kRowBlock - 1 + kRowBlock) / kRowBlock;  // a block's distances, overlapping
constexpr int kScaleLines = (2 * kKeyBlock + kRowBlock - 1) / kRowBlock;             // of a block's keys and values

// Beside that, where products are those of tiles (tile_products.inl.hpp): operands as bfloat16, in 1 part or 3, padded
// to whole tiles, and what the tiles leave.
struct TileExtents {
  std::int64_t parts, head_dim, value_dim, spare_lines;

  constexpr explicit TileExtents(const TaskNeeds& needs)
      : parts(needs.type == Type::bfloat16 ? 1 : 3),
        head_dim((needs.head_dim + 31) / 32 * 32),
        value_dim((needs.value_dim + 15) / 16 * 16),
        spare_lines(parts == 1              ? 0
                    : value_dim > kKeyBlock ? value_dim
                                            : kKeyBlock) {}

  constexpr std::int64_t queries() const { return parts * head_dim / 2 * kRowBlock; }
  constexpr std::int64_t keys() const { return parts * kKeyBlock * head_dim / 2; }
  constexpr std::int64_t values() const { return parts * value_dim * kKeyBlock / 2; }
  constexpr std::int64_t weights() const { return 2 * parts * kKeyBlock / 2 * kRowBlock; }  // of two blocks
  constexpr std::int64_t again_lines() const { return parts == 1 ? 0 : kKeyBlock + 5; }
  constexpr std::int64_t block_lines() const { return value_dim + (parts == 1 ? 16 : 0); }  // and sums of weights
  constexpr std::int64_t panels() const { return (block_lines() + spare_lines + again_lines() + 7) * kRowBlock; }
  constexpr std::int64_t elements() const { return queries() + keys() + values() + weights() + panels(); }
};

constexpr std::size_t attention_scratch_elements(const TaskNeeds& needs) {
  const bool widened = needs.type == Type::bfloat16 || needs.type == Type::float16 || needs.cached;
  const std::int64_t lines = needs.head_dim + needs.value_dim + kKeyBlock + 9 + (needs.bias ? kKeyBlock : 0) +
                             (needs.masks ? kMaskWords : 0) + (needs.distances ? kDistanceLines : 0) +
                             (needs.bias_staged || needs.weights ? kKeyBlock : 0) + (needs.dropout ? kKeyBlock : 0) +
                             (needs.cached ? kScaleLines : 0) + needs.statistics_lines;
  return static_cast<std::size_t>(lines * kRowBlock + (widened ? kKeyBlock * (needs.head_dim + needs.value_dim) : 0) +
                                  (needs.tiles ? TileExtents(needs).elements() : 0));
}

// A block of values as pairs of keys.
constexpr std::int64_t turned_elements(std::int64_t value_dim) { return value_dim * kKeyBlock / 2; }

// A block that a worker keeps: rows, that, or keys and values in parts and a line of marks.
constexpr std::int64_t kept_elements(const TaskNeeds& needs) {
  if (needs.keeps_rows) return kKeyBlock * (needs.head_dim + needs.value_dim);
  if (needs.type == Type::bfloat16) return turned_elements(needs.value_dim);
  if (!needs.tiles) return 0;
  return TileExtents(needs).keys() + TileExtents(needs).values() + 16;
}

// The entry points of a target for one element type.
template <class T>
struct Kernels {
  void (*attention)(const AttentionTask<T>&) noexcept;
  void (*weights)(const WeightsTask<T>&) noexcept;
  void (*columns)(const ColumnsTask<T>&) noexcept;
  void (*merge)(const MergeTask<T>&) noexcept;
  void (*matmul)(const MatmulTask<T>&) noexcept;
  void (*map)(MathFunction, const T* in, T* out, std::int64_t count) noexcept;
  void (*rotate)(const RotaryTask<T>&) noexcept;
  void (*normalise)(const NormTask<T>&) noexcept;
  void (*lengths)(const LengthTask<T>&) noexcept;
  void (*normalise_back)(const NormBackTask<T>&) noexcept;
  void (*activate)(const ActivationTask<T>&) noexcept;
  void (*backward)(const BackwardTask<T>&) noexcept;
  void (*row_terms)(const RowTermsTask<T>&) noexcept;
};

struct DecodeTask;
struct DecodeFold;

struct KernelTable {
  Target target;
  bool (*available)() noexcept;
  const char* tile_f32;  // the score tile: "8 keys x 48 queries"
  const char* tile_f64;
  const char* tile_decode;  // "6 queries x 32 keys"; null where decode is
  void (*narrow_matmul)(const NarrowMatmulTask&) noexcept;
  // Rows against a cache (decode_task.hpp); null where attention() multiplies by tiles, whose bits are others: then
  // decode_int8, which is never null, is all that is offered.
  void (*decode)(const DecodeTask&) noexcept;
  void (*decode_int8)(const DecodeTask&) noexcept;
  void (*decode_fold)(const DecodeFold&) noexcept;
  Kernels<float> f32;
  Kernels<double> f64;
  bool turns_values = false;  // attention of bfloat16 multiplies values that are turned round, and may keep them
  bool tiles = false;  // whether attention with sums in float takes its products from tiles, and scratch for them

  template <class T>
  const Kernels<T>& kernels() const noexcept {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

extern const KernelTable baseline_table, avx2_table, avx512_table, avx512bf16_table, amx_table, neon_table;

// Counts a task for tasks_run(). Compiled outside the regions.
void count_task(Target target) noexcept;

// The table of a target, or null where this build or machine cannot run it. Thread-safe.
const KernelTable* find_kernels(Target target) noexcept;

// The table of chosen_target(pinned). Throws as chosen_target does.
const KernelTable& choose_kernels(std::optional<Target> pinned);

}  // namespace multihead
