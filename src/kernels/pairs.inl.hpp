// SPDX-License-Identifier: Apache-2.0
// Attention of bfloat16 by products of pairs: what a target with kPairs does in the place of widening.
//
// One operation, for rows of A and the lanes of a panel:
//
//   C[n][lane] += sum over pairs p of  A[n][2p + 1] B[p][lane].odd + A[n][2p] B[p][lane].even
//
//   A  rows of bfloat16, elements side by side: a pair is 32 bits, broadcast from where it stands
//   B  a panel, kRowBlock lanes of 32 bits a line, one line a pair: the even element in the lower half
//   C  a panel of floats: what product_tiles and output_tiles leave
//
//               A                                         B                                C
//   scores      keys as the caller stores them            queries, packed once a task      scores [key][48]
//               [key][head_dim], k.stride apart           [pair of channels][48]
//   output      values turned round, once a head's block  weights, rounded and packed      output [column][48]
//               [value_dim][kKeyBlock]                    [pair of keys][48]
//
// The second element of a pair that has none is zero: of an odd head_dim the keys are copied for that, of an odd number
// of keys weights and values are zero. Pairs of keys count from the block's first, so a row's bits know nothing of the
// rows beside it: a hidden key of a pair has the weight 0, and adds exact zeros.
//
// A target brings, on Vec<float> whose lanes are 32 bits:
//   splat_pair(p)              the two elements from p on, in every lane
//   dot_pairs(a, b, sum)       sum + a.odd b.odd + a.even b.even, in this order, each step rounded once
//   pack_pairs(even, odd)      two lines of floats, rounded to bfloat16
//   store_rounded(a, b, ..)    the same to two places, the elements of each line side by side
// or instead of the tiles here its own: pair_score_block and pair_output_block are all that the task calls.

// sums[n][v] += pairs [0, count) of row n of A times the panel: one chain an element.
template <int N, int Low, int High, int V>
MULTIHEAD_INLINE void accumulate_pairs(Vec<float> (&sums)[N][V], const std::uint16_t* a, std::int64_t stride,
                                       const float* panel, int count) {
  for (int p = 0; p < count; ++p) {
    Vec<float> lanes[V];
    MULTIHEAD_UNROLL
    for (int v = Low; v < High; ++v) lanes[v] = Vec<float>::load(panel + p * kRowBlock + v * Vec<float>::kLanes);
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) {
      const Vec<float> pair = splat_pair(a + n * stride + 2 * p);
      MULTIHEAD_UNROLL
      for (int v = Low; v < High; ++v) sums[n][v] = dot_pairs(pair, lanes[v], sums[n][v]);
    }
  }
}

MULTIHEAD_INLINE int pairs_of(int elements) { return (elements + 1) / 2; }

// Rows [range.begin, range.end) after the first one, zeros after the last column, to the same places of copies, which
// lie padded elements apart.
MULTIHEAD_INLINE void copy_padded(const StoredRows& stored, std::int64_t first, KeyRange range, std::int64_t columns,
                                  std::int64_t padded, std::uint16_t* copies) {
  for (std::int64_t row = range.begin; row < range.end; ++row) {
    std::uint16_t* const to = copies + row * padded;
    std::memcpy(to, element(stored.data, stored.type, (first + row) * stored.stride),
                2 * static_cast<std::size_t>(columns));
    std::fill(to + columns, to + padded, std::uint16_t{0});
  }
}

// The same, each with a zero after an odd number of elements alone.
MULTIHEAD_INLINE void copy_pairs(const StoredRows& stored, std::int64_t first, KeyRange range, int width,
                                 std::uint16_t* copies) {
  copy_padded(stored, first, range, width, 2 * pairs_of(width), copies);
}

// The rows of a task as pairs, in the place of the panel of floats.
template <class T>
void pack_query_pairs(const AttentionTask<T>& task, const RowState<T>& rows) {
  if constexpr (kTiles) return pack_query_tiles(task, rows);
  const int pairs = pairs_of(task.head_dim);
  auto* const copies = reinterpret_cast<std::uint16_t*>(rows.keys);
  copy_pairs(task.q, 0, {0, task.rows}, task.head_dim, copies);
  pack_panel<float>(rows.keys, pairs, task.rows, pairs, rows.q);
}

// Points to the block's keys, or to copies of those that are seen where a pair would reach past the row.
template <class T>
void set_key_pairs(Walk<T>& walk, std::int64_t start, KeyRange seen) {
  if constexpr (kTiles) return set_key_tiles(walk, start, seen);
  const AttentionTask<T>& task = walk.task;
  PairBlock<T>& block = walk.pairs;
  if (task.cache) {
    auto* const copies = reinterpret_cast<std::uint16_t*>(walk.rows.keys);
    block.keys = copies;
    block.k_stride = 2 * pairs_of(task.head_dim);
    return copy_cached_pairs(walk, start, seen, block.k_stride, copies);
  }
  if (task.head_dim % 2 == 0) {
    block.keys = static_cast<const std::uint16_t*>(element(task.k.data, task.k.type, start * task.k.stride));
    block.k_stride = task.k.stride;
    return;
  }
  auto* const copies = reinterpret_cast<std::uint16_t*>(walk.rows.keys);
  copy_pairs(task.k, start, seen, task.head_dim, copies);
  block.keys = copies;
  block.k_stride = task.head_dim + 1;
}

// Keys and columns of a piece that reaches past the last of either, among zeros.
MULTIHEAD_NOINLINE void copy_edge(const std::uint16_t* from, std::int64_t stride, std::int64_t keys, int columns,
                                  std::uint16_t (&edge)[2 * Vec<float>::kLanes][Vec<float>::kLanes]) {
  std::memset(edge, 0, sizeof edge);
  for (std::int64_t key = 0; key < keys; ++key) std::copy_n(from + key * stride, columns, edge[key]);
}

// Turns the values of keys [seen.begin, seen.end) of the block round, in steps of whole registers. finite_only: others
// become zeros. Returns whether all were finite.
template <class T>
MULTIHEAD_NOINLINE bool turn_values(const AttentionTask<T>& task, std::int64_t start, KeyRange seen, bool finite_only,
                                    float* turned) {
  using Lanes = Vec<float>;
  constexpr int kLanes = Lanes::kLanes, kKeys = 2 * kLanes, kLine = kKeyBlock / 2;
  const Lanes zero = Lanes::splat(0);
  Lanes zeros[2] = {zero, zero};
  std::uint16_t edge[kKeys][kLanes];
  for (std::int64_t first = seen.begin / kKeys * kKeys; first < seen.end; first += kKeys)
    for (int column = 0; column < task.value_dim; column += kLanes) {
      const std::int64_t keys = std::min<std::int64_t>(task.kv_len - start - first, kKeys);
      const int columns = std::min(task.value_dim - column, kLanes);
      std::int64_t stride = task.v.stride;
      const std::uint16_t* from = edge[0];
      if (task.cache) {
        copy_cached_edge(task, start + first, keys, KeyRange{column, column + columns}, edge);
        stride = kLanes;
      } else {
        from = static_cast<const std::uint16_t*>(element(task.v.data, task.v.type, (start + first) * stride)) + column;
        if (keys < kKeys || columns < kLanes) {
          copy_edge(from, stride, keys, columns, edge);
          from = edge[0], stride = kLanes;
        }
      }
      Lanes x[kLanes];
      MULTIHEAD_UNROLL
      for (int i = 0; i < kLanes; ++i) {
        Lanes even = Lanes::load_bfloat16(from + 2 * i * stride);
        Lanes odd = Lanes::load_bfloat16(from + (2 * i + 1) * stride);
        zeros[0] = Lanes::fma(even, zero, zeros[0]), zeros[1] = Lanes::fma(odd, zero, zeros[1]);
        if (finite_only) {
          even = Lanes::select(even - even == zero, even, zero);
          odd = Lanes::select(odd - odd == zero, odd, zero);
        }
        x[i] = Lanes::template shift_right<16>(even) | odd;
      }
      transpose<float>(x);
      float* const to = turned + column * kLine + first / 2;
      MULTIHEAD_UNROLL
      for (int i = 0; i < kLanes; ++i)
        if (i < columns) x[i].store(to + i * kLine);
    }
  return all_zero(zeros[0] + zeros[1]);
}

// The block's values, turned round, or as another task of the worker left them. Zero times a value that is not finite
// is NaN: such a value enters as zero, whatever rows see it, and add_special() gives it to those that do.
template <class T>
void set_value_pairs(Walk<T>& walk, std::int64_t start, KeyRange seen) {
  const AttentionTask<T>& task = walk.task;
  const auto turn = [&](KeyRange keys, T* to) {
    const bool special = !turn_values(task, start, keys, false, to);
    if (special) turn_values(task, start, keys, true, to);
    return special;
  };
  if (const std::int64_t block = start / kKeyBlock; block < task.kept_blocks) {
    T* const kept = task.kept + block * kept_elements(task.needs);
    const std::uint64_t id = task.first_block_id + static_cast<std::uint64_t>(start) + 1;
    std::uint64_t& known = task.kept_ids[block];
    if (known >> 1 != id)
      known = id << 1 | (turn({0, std::min<std::int64_t>(kKeyBlock, task.kv_len - start)}, kept) ? 1u : 0u);
    walk.pairs.special = known & 1;
    walk.pairs.values = kept;
  } else {
    walk.pairs.special = turn(seen, walk.rows.values);
    walk.pairs.values = walk.rows.values;
  }
  if (walk.pairs.special) walk.set_ranges(start);
}

// The sums that rows are divided by: of the weights as they are multiplied. Not with dropout, whose weights are others.
template <class T>
void start_pairs(Walk<T>& walk) {
  const AttentionTask<T>& task = walk.task;
  if (!task.out || task.dropout.any()) return;
  walk.pairs.sums = walk.rows.values + turned_elements(task.value_dim);
  std::copy_n(walk.rows.sum, walk.vecs * Vec<T>::kLanes, walk.pairs.sums);
}

// PanelProduct in pairs.
struct KeyPairProduct {
  const std::uint16_t* rows;
  std::int64_t stride;
  int pairs;
  const float* panel;

  template <int N, int V>
  MULTIHEAD_INLINE void add(Vec<float> (&sums)[N][V], int lane, int key) const {
    accumulate_pairs<N, 0, V>(sums, rows + key * stride, stride, panel + lane, pairs);
  }
};

// score_block() in pairs.
template <class T>
void pair_score_block(const Walk<T>& walk, const Group& group) {
  if constexpr (kTiles) return tile_score_block(walk, group);
  const AttentionTask<T>& task = walk.task;
  product_block(walk, walk.rows,
                KeyPairProduct{walk.pairs.keys, walk.pairs.k_stride, pairs_of(task.head_dim), walk.rows.q},
                scoring_of(walk), group);
}

// Rounds the group's weights and packs pairs of keys, pair p in the place of line p, and adds them up: chains by pair
// mod 8, joined by the fixed tree; tiles do that beside the output. Keys that no row of the group sees weigh zero.
template <class T>
MULTIHEAD_NOINLINE void pack_weights(const Walk<T>& walk, const Group& group) {
  using Lanes = Vec<T>;
  constexpr int kChains = kSumChains / 2;
  constexpr std::uint16_t kOnes[2] = {0x3F80, 0x3F80};
  const RowState<T>& rows = walk.rows;
  const int first = group.begin / kSumChains * kSumChains;
  const int last = (group.end + kSumChains - 1) / kSumChains * kSumChains;
  for (int lane = group.first * Lanes::kLanes; lane < (group.first + group.count) * Lanes::kLanes;
       lane += Lanes::kLanes) {
    T* const weights = rows.scores + lane;
    for (int key = first; key < group.begin; ++key) Lanes::splat(0).store(weights + key * kRowBlock);
    for (int key = group.end; key < last; ++key) Lanes::splat(0).store(weights + key * kRowBlock);
    const Lanes one = splat_pair(kOnes);
    Lanes sums[kChains];
    MULTIHEAD_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = Lanes::splat(0);
    const T* from = weights + first * kRowBlock;
    T* to = weights + first / 2 * kRowBlock;
    for (int key = first; key < last; key += kSumChains, from += kSumChains * kRowBlock, to += kChains * kRowBlock) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kChains; ++i) {
        const T* const line = from + 2 * i * kRowBlock;
        const Lanes pair = pack_pairs(Lanes::load(line), Lanes::load(line + kRowBlock));
        pair.store(to + i * kRowBlock);
        if constexpr (!kTiles) sums[i] = dot_pairs(pair, one, sums[i]);
      }
    }
    if (kTiles || !walk.pairs.sums) continue;
    merge_sum<T>(walk.pairs.sums + lane, Lanes::load(rows.old_factor + lane), Lanes::load(rows.block_factor + lane),
                 join_chains<T>(sums));
  }
}

// Values turned round, from a column on, times a panel of packed weights. Runs of keys begin and end with pairs.
struct ValuePairs {
  const std::uint16_t* values;
  const float* weights;

  ValuePairs at(int column) const { return {values + column * kKeyBlock, weights}; }
  template <int N, int Low, int High>
  MULTIHEAD_INLINE void add(Vec<float> (&sums)[N][kTileVecs], int begin, int end) const {
    accumulate_pairs<N, Low, High>(sums, values + begin, kKeyBlock, weights + begin / 2 * kRowBlock, (end - begin) / 2);
  }
};

// Values that are not finite, which entered as zero, for the rows that see them.
template <class T>
MULTIHEAD_NOINLINE void add_special(const Walk<T>& walk, const Group& group, int key, int column, T value) {
  using Lanes = Vec<T>;
  const RowState<T>& rows = walk.rows;
  for (int lane = group.first * Lanes::kLanes; lane < (group.first + group.count) * Lanes::kLanes;
       lane += Lanes::kLanes) {
    const Lanes pair = Lanes::load(rows.scores + key / 2 * kRowBlock + lane);
    const Lanes odd = Lanes::template shift_left<16>(Lanes::template shift_right<16>(pair));
    const Lanes weight = key % 2 == 0 ? Lanes::template shift_left<16>(pair) : odd;
    T* const out = rows.out + column * kRowBlock + lane;
    const Lanes before = Lanes::load(out);
    Lanes after = before + weight * Lanes::splat(value) * Lanes::load(rows.block_factor + lane);
    if (rows.lows) after = unless_hidden(Lanes::load(rows.bias + key * kRowBlock + lane), after, before);
    Lanes::select(seen_by_masks(rows, lane, key), after, before).store(out);
  }
}

// Packed weights times values turned round.
template <class T>
void multiply_value_pairs(const Walk<T>& walk, const Group& group) {
  if constexpr (kTiles) return tile_output_block(walk, group);
  const int lane = group.first * Vec<T>::kLanes;
  output_run(ValuePairs{reinterpret_cast<const std::uint16_t*>(walk.pairs.values), walk.rows.scores + lane}, walk.rows,
             lane, walk.task.value_dim, segments_of(group, 2));
}

// Those of a block.
template <class T>
void add_special_values(const Walk<T>& walk, const Group& group) {
  const AttentionTask<T>& task = walk.task;
  for (int key = group.begin; key < group.end; ++key) {
    const auto* const values = static_cast<const BFloat16*>(
        task.cache ? cached_value_row(*task.cache, group.start + key, task.value_dim)
                   : element(task.v.data, task.v.type, (group.start + key) * task.v.stride));
    if (!values) continue;
    for (int column = 0; column < task.value_dim; ++column)
      if (const float x = static_cast<float>(values[column]); !(x - x == 0))
        add_special<T>(walk, group, key, column, x);
  }
}

// output_block() in pairs.
template <class T>
void pair_output_block(const Walk<T>& walk, const Group& group) {
  pack_weights(walk, group);
  multiply_value_pairs(walk, group);
  if (walk.pairs.special) add_special_values(walk, group);
}
