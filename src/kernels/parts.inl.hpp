// SPDX-License-Identifier: Apache-2.0
// Attention of floats by products of tiles: what a target does in the place of multiply-adds.
//
// A float of 24 digits is the sum of three bfloat16 of 8, each rounded to nearest: x = high + middle + low, exactly,
// and x y = the six products of tile_products.inl.hpp but for three, which together are about 2^-23 of it at most.
// Keys, values and weights are split once a block, queries once a task. Channels c + i and c + 16 + i of 32 are a pair
// of a score, so that neither keys nor queries are shuffled; keys 2 i and 2 i + 1 one of an output.
//
// Tiles take no number below the normal range and would add what is not finite, or hidden, to zeros. So
//   a score      whose key or row has an element that is not below kLargestFactor in magnitude (a NaN, say), and all of
//                a call whose scale is above kLargestScale
//   an output    of a block in which the row sees a value that is neither 0 nor of a magnitude from kSmallestValue to
//                kLargestValue
// is the one that multiply-adds give, by selection; other rows get zeros for such values. A row's bits know nothing of
// its neighbours and of what it does not see.
//
// Smaller elements of keys and queries lose parts below 2^-126: of a scaled score at most head_dim 2^-126
// kLargestFactor kLargestScale a part, below 2^-30. Parts of products that vanish are below 2^-126 too: 2^-46 of the
// smallest value.

constexpr int kTileParts = 3;
constexpr float kLargestFactor = 0x1p50f, kLargestScale = 0x1p30f;
constexpr float kSmallestValue = 0x1p-80f, kLargestValue = 0x1p90f;

// The 8 leading digits of x, rounded to nearest, halves away from zero.
MULTIHEAD_INLINE Vec<float> leading_digits(Vec<float> x) {
  const __m512i rounded = _mm512_add_epi32(_mm512_castps_si512(x.r), _mm512_set1_epi32(0x8000));
  return Vec<float>{_mm512_castsi512_ps(rounded)} & Vec<float>::splat(std::bit_cast<float>(0xFFFF0000u));
}

// Two lines of floats as a line of pairs in three parts, part floats apart.
MULTIHEAD_INLINE void store_parts(Vec<float> even, Vec<float> odd, float* to, std::int64_t part) {
  const Vec<float> upper_half = Vec<float>::splat(std::bit_cast<float>(0xFFFF0000u));
  MULTIHEAD_UNROLL
  for (int i = 0; i < 3; ++i) {
    const bool last = i == 2;  // 8 digits are left
    const Vec<float> even_part = last ? even : leading_digits(even), odd_part = last ? odd : leading_digits(odd);
    (Vec<float>::shift_right<16>(even_part) | (odd_part & upper_half)).store(to + i * part);
    even = even - even_part, odd = odd - odd_part;
  }
}

// Up to kLanes floats, zeros after the last of count.
MULTIHEAD_INLINE Vec<float> load_some(const float* from, std::int64_t count) {
  if (count >= Vec<float>::kLanes) return Vec<float>::load(from);
  return count > 0 ? Vec<float>::load_first(from, static_cast<int>(count)) : Vec<float>::splat(0);
}

// The keys of a block, counted from its start.
template <class T>
KeyRange valid_keys(const AttentionTask<T>& task, std::int64_t start) {
  return {0, std::min<std::int64_t>(kKeyBlock, task.kv_len - start)};
}

template <class T>
MULTIHEAD_NOINLINE void pack_query_pairs(const AttentionTask<T>& task, const RowState<T>& rows) {
  using Lanes = Vec<T>;
  const TileScratch scratch(task, rows.tiles);
  pack_query_panel(task, rows);
  for (int lane = 0; lane < task.rows; lane += Lanes::kLanes) {
    Lanes marked = Lanes::splat(0);
    const auto line = [&](std::int64_t channel) {
      if (channel >= task.head_dim) return Lanes::splat(0);
      const Lanes x = Lanes::load(rows.q + channel * kRowBlock + lane);
      marked = Lanes::select(magnitude_of<float>(x) < Lanes::splat(kLargestFactor), marked, Lanes::splat(1));
      return x;
    };
    for (std::int64_t pair = 0; pair < scratch.extents.head_dim / 2; ++pair) {
      const std::int64_t channel = pair / kTilePairs * kTileInner + pair % kTilePairs;
      const Lanes even = line(channel), odd = line(channel + kTilePairs);
      store_parts(even, odd, scratch.queries + pair * kRowBlock + lane, scratch.query_part());
    }
    marked.store(scratch.marked + lane);
  }
}

// A block of keys and values in parts, in the task's own memory, or as another task of the worker left it (kept).
struct BlockParts {
  std::uint16_t *keys, *values;
  std::bitset<kKeyBlock>* marked;  // keys, then values, that tiles cannot take
  std::uint64_t* known;            // (block_id + 1) << 1 | whether values are split too; or null: nothing is kept
  std::uint64_t id;

  template <class T>
  BlockParts(const AttentionTask<T>& task, const TileScratch& scratch, std::int64_t start)
      : keys(scratch.keys),
        values(scratch.values),
        marked(scratch.marked_keys),
        known(nullptr),
        id(task.first_block_id + static_cast<std::uint64_t>(start) + 1) {
    const std::int64_t block = start / kKeyBlock - task.first_kept();
    if (block < 0 || block >= task.kept_blocks) return;
    T* const kept = task.kept + block * kept_elements(task.needs);
    keys = reinterpret_cast<std::uint16_t*>(kept);
    values = reinterpret_cast<std::uint16_t*>(kept + scratch.extents.keys());
    marked = reinterpret_cast<std::bitset<kKeyBlock>*>(kept + scratch.extents.keys() + scratch.extents.values());
    known = task.kept_ids + block;
  }
};

// Splits the keys of a range; others of their tiles are zeros.
template <class T>
MULTIHEAD_NOINLINE void split_keys(const Walk<T>& walk, const TileScratch& scratch, const BlockParts& block,
                                   KeyRange range) {
  using Lanes = Vec<T>;
  const int head_dim = walk.task.head_dim;
  const std::int64_t width = scratch.extents.head_dim, part = scratch.key_part();
  std::bitset<kKeyBlock> marked;
  const std::int64_t end = (range.end + kTileRows - 1) / kTileRows * kTileRows;
  for (std::int64_t key = range.begin / kTileRows * kTileRows; key < end; ++key) {
    std::uint16_t* const to = block.keys + key * width;
    if (key < range.begin || key >= range.end) {
      for (int i = 0; i < 3; ++i) std::fill_n(to + i * part, width, std::uint16_t{0});
      continue;
    }
    const T* const from = walk.keys + key * walk.k_stride;
    Lanes large = Lanes::splat(0);
    for (std::int64_t channel = 0; channel < width; channel += kTileInner) {
      const Lanes even = load_some(from + channel, head_dim - channel);
      const Lanes odd = load_some(from + channel + kTilePairs, head_dim - channel - kTilePairs);
      store_parts(even, odd, reinterpret_cast<T*>(to + channel), part / 2);
      const auto small = Lanes::both(magnitude_of<float>(even) < Lanes::splat(kLargestFactor),
                                     magnitude_of<float>(odd) < Lanes::splat(kLargestFactor));
      large = Lanes::select(small, large, Lanes::splat(1));
    }
    if (Lanes::any(Lanes::splat(0) < large)) marked.set(static_cast<std::size_t>(key));
  }
  block.marked[0] = marked;
}

template <class T>
void set_key_pairs(Walk<T>& walk, std::int64_t start, KeyRange seen) {
  const AttentionTask<T>& task = walk.task;
  const TileScratch scratch(task, walk.rows.tiles);
  const BlockParts block(task, scratch, start);
  const bool split = !block.known || *block.known >> 1 != block.id;
  const KeyRange range = block.known && split ? valid_keys(task, start) : seen;
  walk.point_to_keys(start, range);
  if (split) split_keys(walk, scratch, block, range);
  if (split && block.known) *block.known = block.id << 1;
  walk.pairs.keys = block.keys;
  walk.pairs.marked_keys = block.marked[0];
}

// x, or zeros for what tiles cannot take, which is marked.
MULTIHEAD_INLINE Vec<float> usual_value(Vec<float> x, Vec<float>& marked) {
  using Lanes = Vec<float>;
  const Lanes magnitude = magnitude_of<float>(x), zero = Lanes::splat(0);
  const auto usual = Lanes::both(Lanes::splat(kSmallestValue) <= magnitude, magnitude < Lanes::splat(kLargestValue));
  const Lanes kept = Lanes::select(usual, x, zero);
  marked = Lanes::select(kept == x, marked, Lanes::splat(1));
  return kept;
}

// Splits the values of whole steps of keys and turns them round, 16 pairs of keys by 16 columns at a time.
template <class T>
MULTIHEAD_NOINLINE void split_values(const Walk<T>& walk, const TileScratch& scratch, const BlockParts& block,
                                     std::int64_t valid, KeyRange range) {
  using Lanes = Vec<T>;
  const int value_dim = walk.task.value_dim;
  std::bitset<kKeyBlock> found;
  for (std::int64_t first = range.begin / kTileInner * kTileInner; first < range.end; first += kTileInner)
    for (std::int64_t column = 0; column < value_dim; column += kTileRows) {
      alignas(64) T lines[3][kTilePairs][Lanes::kLanes];
      const auto load = [&](std::int64_t key) {
        if (key >= valid) return Lanes::splat(0);
        Lanes marked = Lanes::splat(0);
        const T* const from = walk.values + key * walk.v_stride + column;
        const Lanes x = usual_value(load_some(from, value_dim - column), marked);
        if (Lanes::any(Lanes::splat(0) < marked)) found.set(static_cast<std::size_t>(key));
        return x;
      };
      for (int i = 0; i < kTilePairs; ++i) {
        const Lanes even = load(first + 2 * i), odd = load(first + 2 * i + 1);
        store_parts(even, odd, lines[0][i], kTilePairs * Lanes::kLanes);
      }
      for (int i = 0; i < 3; ++i) {
        Lanes x[kTilePairs];
        MULTIHEAD_UNROLL
        for (int j = 0; j < kTilePairs; ++j) x[j] = Lanes::load(lines[i][j]);
        transpose<T>(x);
        T* const to = reinterpret_cast<T*>(block.values + i * scratch.value_part() + column * kKeyBlock + first);
        MULTIHEAD_UNROLL
        for (int j = 0; j < kTilePairs; ++j) x[j].store(to + j * kKeyBlock / 2);
      }
    }
  block.marked[1] = found;
}

template <class T>
void set_value_pairs(Walk<T>& walk, std::int64_t start, KeyRange seen) {
  const AttentionTask<T>& task = walk.task;
  const TileScratch scratch(task, walk.rows.tiles);
  const BlockParts block(task, scratch, start);
  const KeyRange valid = valid_keys(task, start);
  walk.point_to_values(start, valid);
  if (!block.known || !(*block.known & 1)) split_values(walk, scratch, block, valid.end, block.known ? valid : seen);
  if (block.known) *block.known |= 1;
  walk.pairs.values = reinterpret_cast<const T*>(block.values);
  walk.pairs.marked_values = block.marked[1];
  if (walk.pairs.marked_values.any()) walk.set_ranges(start);
}

// The sums of the softmax serve.
template <class T>
void start_pairs(Walk<T>&) {}

// Scores of marked keys, and of all keys for marked rows, by multiply-adds.
template <class T>
MULTIHEAD_NOINLINE void put_marked_scores(const Walk<T>& walk, const TileScratch& scratch, const Group& group) {
  using Lanes = Vec<T>;
  const AttentionTask<T>& task = walk.task;
  RowState<T> rows = walk.rows;
  rows.block_max = scratch.unread;
  std::fill_n(scratch.unread, kRowBlock, T(0));
  const PanelProduct<T> product{walk.keys, walk.k_stride, task.head_dim, rows.q};
  for (int key = group.begin; key < group.end; ++key)
    if (walk.pairs.marked_keys[static_cast<std::size_t>(key)])
      by_width(group.count, [&]<int V>() {
        product_tiles<T, 1, V>(product, ScoresTo<T>{rows, {1, nullptr}, false}, 0, key, key + 1);
      });
  const Lanes zero = Lanes::splat(0);
  Lanes any = zero;
  for (int vec = 0; vec < group.count; ++vec) any = any + Lanes::load(scratch.marked + vec * Lanes::kLanes);
  if (!Lanes::any(zero < any)) return;
  rows.scores = scratch.spare;
  product_block(walk, rows, product, {1, nullptr}, group);
  for (int vec = 0; vec < group.count; ++vec) {
    const int lane = vec * Lanes::kLanes;
    const auto marked = zero < Lanes::load(scratch.marked + lane);
    for (int key = walk.block_begin(vec, group.start); key < walk.block_end(vec, group.start); ++key) {
      T* const score = walk.rows.scores + key * kRowBlock + lane;
      Lanes::select(marked, Lanes::load(scratch.spare + key * kRowBlock + lane), Lanes::load(score)).store(score);
    }
  }
}

template <class T>
TileOperands score_operands(const Walk<T>& walk, const TileScratch& scratch) {
  return {walk.pairs.keys, scratch.extents.head_dim, scratch.key_part(), scratch.queries, scratch.query_part()};
}

template <class T>
void pair_score_block(const Walk<T>& walk, const Group& group) {
  const AttentionTask<T>& task = walk.task;
  if (!(-kLargestScale <= task.scale && task.scale <= kLargestScale))
    return product_block(walk, walk.rows, PanelProduct<T>{walk.keys, walk.k_stride, task.head_dim, walk.rows.q},
                         scoring_of(walk), group);
  const TileScratch scratch(task, walk.rows.tiles);
  multiply_keys<3>(walk, group, score_operands(walk, scratch));
  put_marked_scores(walk, scratch, group);
  finish_tile_scores(walk, group);
}

// Splits the group's weights; keys that no row of it sees weigh zero.
template <class T>
MULTIHEAD_NOINLINE void split_weights(const Walk<T>& walk, const TileScratch& scratch, const Group& group) {
  using Lanes = Vec<T>;
  for (int lane = 0; lane < group.count * Lanes::kLanes; lane += Lanes::kLanes) {
    const auto line = [&](int key) {
      const bool seen = key >= group.begin && key < group.end;
      return seen ? Lanes::load(walk.rows.scores + key * kRowBlock + lane) : Lanes::splat(0);
    };
    for (int key = group.begin / kTileInner * kTileInner; key < (group.end + kTileInner - 1) / kTileInner * kTileInner;
         key += 2)
      store_parts(line(key), line(key + 1), scratch.weights + key / 2 * kRowBlock + lane, TileScratch::kWeightPart);
  }
}

// The block's output of rows that see a marked value, by multiply-adds.
template <class T>
MULTIHEAD_NOINLINE void put_marked_output(const Walk<T>& walk, const TileScratch& scratch, const Group& group) {
  using Lanes = Vec<T>;
  const RowState<T>& rows = walk.rows;
  const Lanes zero = Lanes::splat(0), one = Lanes::splat(1);
  bool any = false;
  for (int lane = 0; lane < group.count * Lanes::kLanes; lane += Lanes::kLanes) {
    Lanes sees = zero;
    for (int key = group.begin; key < group.end; ++key) {
      if (!walk.pairs.marked_values[static_cast<std::size_t>(key)]) continue;
      Lanes flag = Lanes::select(seen_by_masks(rows, lane, key), one, sees);
      if (rows.lows) flag = unless_hidden(Lanes::load(rows.bias + key * kRowBlock + lane), flag, sees);
      sees = flag;
    }
    sees.store(scratch.sees + lane);
    any |= Lanes::any(zero < sees);
  }
  if (!any) return;
  Walk<T> alone = walk;
  alone.rows.out = scratch.spare, alone.rows.old_factor = scratch.zeros, alone.rows.block_factor = scratch.ones;
  std::fill_n(scratch.zeros, kRowBlock, T(0)), std::fill_n(scratch.ones, kRowBlock, T(1));
  std::fill_n(scratch.spare, walk.task.value_dim * kRowBlock, T(0));
  multiply_values(alone, group);
  for (int lane = 0; lane < group.count * Lanes::kLanes; lane += Lanes::kLanes) {
    const auto sees = zero < Lanes::load(scratch.sees + lane);
    for (int at = lane; at < walk.task.value_dim * kRowBlock; at += kRowBlock)
      Lanes::select(sees, Lanes::load(scratch.spare + at), Lanes::load(scratch.block + at)).store(scratch.block + at);
  }
}

template <class T>
int output_columns(const Walk<T>&, const TileScratch& scratch) {
  return static_cast<int>(scratch.extents.value_dim);
}
template <class T>
void merge_columns(const Walk<T>& walk, const TileScratch& scratch, const Group& group, int begin) {
  merge_tile_output(walk, group, scratch.block, begin, std::min(begin + kTileRows, walk.task.value_dim));
}

template <class T>
TileOperands output_operands(const Walk<T>& walk, const TileScratch& scratch, const T* weights, int column) {
  const auto* const values = reinterpret_cast<const std::uint16_t*>(walk.pairs.values);
  return {values + column * kKeyBlock, kKeyBlock, scratch.value_part(), weights, TileScratch::kWeightPart};
}

template <class T>
void pair_output_block(const Walk<T>& walk, const Group& group) {
  const TileScratch scratch(walk.task, walk.rows.tiles);
  split_weights(walk, scratch, group);
  const TileSteps steps = steps_of_keys(walk, group);
  for (int column = 0; column < walk.task.value_dim; column += kTileRows)
    multiply_tiles<3>(
        {output_operands(walk, scratch, scratch.weights, column), steps, scratch.block + column * kRowBlock});
  if (walk.pairs.marked_values.any()) put_marked_output(walk, scratch, group);
  merge_tile_output(walk, group, scratch.block, 0, walk.task.value_dim);
}

// What the pipeline asks (tile_pipeline.inl.hpp).

// Two lines of weights as pairs in three parts.
MULTIHEAD_INLINE void put_weights(Vec<float> even, Vec<float> odd, float* to) {
  store_parts(even, odd, to, TileScratch::kWeightPart);
}

// Whether scores of the block, or rows, are for multiply-adds: then nothing is done to any before all stand.
template <class T>
bool scores_wait(const Walk<T>& walk, const TileScratch& scratch) {
  const auto is_marked = [](T flag) { return flag != 0; };
  return walk.pairs.marked_keys.any() || std::any_of(scratch.marked, scratch.marked + walk.task.rows, is_marked);
}
template <class T>
void finish_scores(const Walk<T>& walk, const TileScratch& scratch, const Group& group) {
  put_marked_scores(walk, scratch, group);
}

template <class T>
bool output_waits(const Walk<T>& walk) {
  return walk.pairs.marked_values.any();
}

// Marked values once more by the weights as they were before they were split: scores of another block stand in their
// place, so they are computed again.
template <class T>
void finish_output(Walk<T>& walk, const TileScratch& scratch, const Group& group, T*) {
  if (!output_waits(walk)) return;
  walk.set_ranges(group.start);
  walk.point_to_values(group.start, valid_keys(walk.task, group.start));
  Walk<T> again = walk;
  T* next = scratch.again + kKeyBlock * kRowBlock;
  for (T** line :
       {&again.rows.max, &again.rows.sum, &again.rows.block_max, &again.rows.old_factor, &again.rows.block_factor})
    *line = std::exchange(next, next + kRowBlock);
  again.rows.scores = scratch.again;
  std::fill(again.rows.max, next, kMinusInfinity<T>);
  again.set_keys(group.start, {group.begin, group.end});
  pair_score_block(again, group);
  softmax_block(again, group);
  put_marked_output(again, scratch, group);
  merge_tile_output(walk, group, scratch.block, 0, walk.task.value_dim);
}
