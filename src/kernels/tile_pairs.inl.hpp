// SPDX-License-Identifier: Apache-2.0
// bfloat16 on tiles: what pairs.inl.hpp leaves to a target with kTiles. Its operands are those of pairs, but padded by
// zeros to whole tiles where rows, channels or columns end before one does.

constexpr int kTileParts = 1;

// The rows of a task as pairs.
template <class T>
void pack_query_tiles(const AttentionTask<T>& task, const RowState<T>& rows) {
  const TileScratch scratch(task, rows.tiles);
  const int pairs = pairs_of(task.head_dim);
  copy_pairs(task.q, 0, {0, task.rows}, task.head_dim, reinterpret_cast<std::uint16_t*>(rows.keys));
  pack_panel<float>(rows.keys, pairs, task.rows, pairs, scratch.queries);
  std::fill(scratch.queries + pairs * kRowBlock, scratch.queries + scratch.extents.queries(), 0.0f);
}

// Points to the block's keys, or to copies of those that are seen where a tile would reach past the row or the last
// key.
template <class T>
void set_key_tiles(Walk<T>& walk, std::int64_t start, KeyRange seen) {
  const AttentionTask<T>& task = walk.task;
  const std::int64_t end = (seen.end + kTileRows - 1) / kTileRows * kTileRows;
  if (task.cache) {
    const TileScratch scratch(task, walk.rows.tiles);
    walk.pairs.keys = scratch.keys;
    walk.pairs.k_stride = scratch.extents.head_dim;
    return copy_cached_pairs(walk, start, {seen.begin / kTileRows * kTileRows, end}, scratch.extents.head_dim,
                             scratch.keys);
  }
  if (task.head_dim % kTileInner == 0 && start + end <= task.kv_len) {
    walk.pairs.keys = static_cast<const std::uint16_t*>(element(task.k.data, task.k.type, start * task.k.stride));
    walk.pairs.k_stride = task.k.stride;
    return;
  }
  const TileScratch scratch(task, walk.rows.tiles);
  const std::int64_t width = scratch.extents.head_dim;
  for (std::int64_t key = seen.begin / kTileRows * kTileRows; key < end; ++key) {
    std::uint16_t* const to = scratch.keys + key * width;
    const bool copied = key >= seen.begin && key < seen.end;
    if (copied)
      std::memcpy(to, element(task.k.data, task.k.type, (start + key) * task.k.stride),
                  2 * static_cast<std::size_t>(task.head_dim));
    std::fill(to + (copied ? task.head_dim : 0), to + width, std::uint16_t{0});
  }
  walk.pairs.keys = scratch.keys;
  walk.pairs.k_stride = width;
}

template <class T>
TileOperands score_operands(const Walk<T>& walk, const TileScratch& scratch) {
  return {walk.pairs.keys, walk.pairs.k_stride, 0, scratch.queries, 0};
}

// The columns of the block's output: those of the values and, after them, 16 of ones, whose product is the sum of the
// weights as they are multiplied.
template <class T>
int output_columns(const Walk<T>& walk, const TileScratch& scratch) {
  return static_cast<int>(scratch.extents.value_dim) + (walk.pairs.sums ? kTileRows : 0);
}
template <class T>
void merge_columns(const Walk<T>& walk, const TileScratch& scratch, const Group& group, int begin) {
  if (begin < scratch.extents.value_dim)
    return merge_tile_output(walk, group, scratch.block, begin, std::min(begin + kTileRows, walk.task.value_dim));
  for (int lane = 0; lane < group.count * Vec<T>::kLanes; lane += Vec<T>::kLanes)
    merge_sum<T>(walk.pairs.sums + lane, Vec<T>::load(walk.rows.old_factor + lane),
                 Vec<T>::load(walk.rows.block_factor + lane), Vec<T>::load(scratch.block + begin * kRowBlock + lane));
}

constexpr auto kOnes = [] {
  std::array<std::uint16_t, kKeyBlock> ones{};
  ones.fill(0x3F80);
  return ones;
}();

// 16 columns of values, among zeros where there are fewer, or of ones; and packed weights.
template <class T>
TileOperands output_operands(const Walk<T>& walk, const TileScratch& scratch, const T* weights, int column) {
  if (column >= scratch.extents.value_dim) return {kOnes.data(), 0, 0, weights, 0};
  const auto* a = reinterpret_cast<const std::uint16_t*>(walk.pairs.values) + column * kKeyBlock;
  if (const int columns = walk.task.value_dim - column; columns < kTileRows) {
    std::copy_n(a, columns * kKeyBlock, scratch.values);
    std::fill_n(scratch.values + columns * kKeyBlock, (kTileRows - columns) * kKeyBlock, std::uint16_t{0});
    a = scratch.values;
  }
  return {a, kKeyBlock, 0, weights, 0};
}

template <class T>
void tile_score_block(const Walk<T>& walk, const Group& group) {
  const TileScratch scratch(walk.task, walk.rows.tiles);
  multiply_keys<1>(walk, group, score_operands(walk, scratch));
  finish_tile_scores(walk, group);
}

// Packed weights times values turned round. Keys that no weights are packed for weigh zero.
template <class T>
void tile_output_block(const Walk<T>& walk, const Group& group) {
  const RowState<T>& rows = walk.rows;
  const TileScratch scratch(walk.task, rows.tiles);
  const TileSteps steps = steps_of_keys(walk, group);
  const int first = group.begin / kSumChains * kSumChains / 2;
  const int last = (group.end + kSumChains - 1) / kSumChains * kSumChains / 2;
  const auto clear_lines = [&](int begin, int end) {
    std::fill(rows.scores + begin * kRowBlock, rows.scores + end * kRowBlock, T(0));
  };
  clear_lines(steps.first * kTilePairs, first), clear_lines(last, steps.last * kTilePairs);
  for (int column = 0; column < output_columns(walk, scratch); column += kTileRows) {
    multiply_tiles<1>(
        {output_operands<T>(walk, scratch, rows.scores, column), steps, scratch.block + column * kRowBlock});
    merge_columns(walk, scratch, group, column);
  }
}

// What the pipeline asks (tile_pipeline.inl.hpp).

// Two lines of weights as one of pairs.
MULTIHEAD_INLINE void put_weights(Vec<float> even, Vec<float> odd, float* to) { pack_pairs(even, odd).store(to); }

template <class T>
bool scores_wait(const Walk<T>&, const TileScratch&) {
  return false;
}
template <class T>
void finish_scores(const Walk<T>&, const TileScratch&, const Group&) {}

template <class T>
bool output_waits(const Walk<T>&) {
  return false;
}
template <class T>
void finish_output(Walk<T>& walk, const TileScratch&, const Group& group, T* weights) {
  if (!walk.pairs.special) return;
  walk.set_ranges(group.start);
  Walk<T> packed = walk;
  packed.rows.scores = weights;
  add_special_values(packed, group);
}
