// SPDX-License-Identifier: Apache-2.0
// bfloat16 on tiles: what pairs.inl.hpp leaves to a target with kTiles. Its operands are those of pairs, but padded by
// zeros to whole tiles where rows, channels or columns end before one does.

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
void tile_score_block(const Walk<T>& walk, const Group& group) {
  const TileScratch scratch(walk.task, walk.rows.tiles);
  multiply_keys<1>(walk, group, {walk.pairs.keys, walk.pairs.k_stride, 0, scratch.queries, 0});
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
  const auto* const values = reinterpret_cast<const std::uint16_t*>(walk.pairs.values);
  for (int column = 0; column < walk.task.value_dim; column += kTileRows) {
    const std::uint16_t* a = values + column * kKeyBlock;
    if (const int columns = walk.task.value_dim - column; columns < kTileRows) {
      std::copy_n(a, columns * kKeyBlock, scratch.values);
      std::fill_n(scratch.values + columns * kKeyBlock, (kTileRows - columns) * kKeyBlock, std::uint16_t{0});
      a = scratch.values;
    }
    multiply_tiles<1>({a, kKeyBlock, 0, rows.scores, 0}, steps, scratch.block + column * kRowBlock);
  }
  merge_tile_output(walk, group, scratch.block);
}
