// SPDX-License-Identifier: Apache-2.0
// One attention task: up to kRowBlock query rows of a head against its keys.
//
// Queries stand in lanes. Q is packed once as a panel [head_dim][48]; a key's elements are broadcast, so neither K nor
// V is ever packed, and all that belongs to a row (maximum, sum, range) is a lane of a register: nothing is ever
// summed across lanes. Keys come in blocks of kKeyBlock. A block is three steps over 24 KB of scores:
//
//   scores        S[key][row] = (q . k) * scale / ln 2, hidden keys -inf, and the block's maximum m_b of each row;
//                 with a softcap, biases or masks, score_terms makes S of the products and finds m_b
//   softmax       P = 2^(S - m_b), l_b = sum of P in 16 chains; then the factors that merge the block:
//                 m' = max(m, m_b), a = 2^(m - m'), b = 2^(m_b - m')
//                 with dropout, P is then taken times its factors; sums, statistics and lse are those before it
//   output        O_b = P^T V from zero, merged as it leaves the registers: O = O a + O_b b
//
// (Milakov and Gimelshein 2018, section 3; Dao 2023, algorithm 1, with the block's own maximum, so that blocks are
// independent until the merge.) The order of every sum is fixed by a row's own positions: a score is one chain over
// head_dim, an output element one chain over its block's keys, sums run in chains by key mod 16, blocks merge in
// ascending order. A key that a row does not see adds exact zeros, so it does not matter which rows share a task. The
// sign of a zero is the one trace it could leave; the last step adds +0 and removes it.

template <class T>
constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

// The working memory of a task, all but the last two kRowBlock lanes wide. What a task does not need is null.
template <class T>
struct RowState {
  T* q;           // [head_dim]
  T* scores;      // [kKeyBlock]
  T* out;         // [value_dim]
  T* max;         // running maximum, in units of log 2
  T* sum;         // running sum of 2^(score - max)
  T* block_max;   // of the block at hand
  T* old_factor;  // a and b of the merge
  T* block_factor;
  T* begin;  // the visible keys, counted from the block's first
  T* end;
  T* place;       // the position, counted from the block's first key
  T* found;       // 1 once a row has seen a key by the dense terms
  T* bias;        // [kKeyBlock]
  T* seen;        // [kMaskWords]: bit k of word w is set where a row may see key 32 w + k, as integers
  T* distances;   // [kDistanceLines]: what is added at distance key - row, at place row - key + kKeyBlock - 1
  T* staged;      // [kRowBlock][kKeyBlock]: rows of bias or weights
  T* dropout;     // [kKeyBlock]: factors
  T* scales;      // [kKeyBlock] of keys, then of values, that a cache holds as int8
  T* statistics;  // StatisticsRows
  T* keys;        // [kKeyBlock][head_dim]: widened, where stored in two bytes or cached
  T* values;      // [kKeyBlock][value_dim]
  T* tiles;       // TileScratch
  // Whether an element of the block's bias lies below the lowest that counts, as -inf does, which hides.
  bool lows = false;

  explicit RowState(const AttentionTask<T>& task) {
    const TaskNeeds& needs = task.needs;
    T* next = task.scratch;
    const auto take = [&](bool needed, int lines) {
      return needed ? std::exchange(next, next + lines * kRowBlock) : nullptr;
    };
    const bool widened = needs.type == Type::bfloat16 || needs.type == Type::float16 || needs.cached;
    q = take(true, task.head_dim), scores = take(true, kKeyBlock), out = take(true, task.value_dim);
    max = take(true, 1), sum = take(true, 1), block_max = take(true, 1);
    old_factor = take(true, 1), block_factor = take(true, 1);
    begin = take(true, 1), end = take(true, 1), place = take(true, 1), found = take(true, 1);
    bias = take(needs.bias, kKeyBlock), seen = take(needs.masks, kMaskWords);
    distances = take(needs.distances, kDistanceLines);
    staged = take(needs.bias_staged || needs.weights, kKeyBlock);
    dropout = take(needs.dropout, kKeyBlock);
    scales = take(needs.cached, kScaleLines);
    statistics = take(needs.statistics_lines > 0, static_cast<int>(needs.statistics_lines));
    keys = widened ? next : nullptr, values = widened ? next + kKeyBlock * task.head_dim : nullptr;
    tiles = needs.tiles ? next + (widened ? kKeyBlock * (task.head_dim + task.value_dim) : 0) : nullptr;
  }
};

// The visible keys of the rows in one register: those that any row sees, and those that all rows see.
struct VecRange {
  std::int64_t any_begin, any_end, all_begin, all_end;
};

// A run of keys of the block in which the registers [low, high) of the group see something.
struct Segment {
  int begin, end, low, high;
};
struct Segments {
  int registers;  // of the group
  int count = 0;
  Segment all[2 * kTileVecs] = {};

  const Segment* begin() const { return all; }
  const Segment* end() const { return all + count; }
};

// Sums that begin at zero.
template <class T, int N, int V>
MULTIHEAD_INLINE void clear(Vec<T> (&sums)[N][V]) {
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[n][v] = Vec<T>::splat(0);
  }
}

// Rows of keys, or of values, times a panel of queries, or of what stands in its place.
template <class T>
struct PanelProduct {
  const T* rows;
  std::int64_t stride;
  int width;
  const T* panel;

  template <int N, int V>
  MULTIHEAD_INLINE void add(Vec<T> (&sums)[N][V], int lane, int key) const {
    accumulate<T, N, 0, V>(sums, rows + key * stride, stride, 1, panel + lane, width);
  }
};

// Products of keys from one on and V registers of rows from a lane on, N keys at a time while as many are left before
// end. Product: add<N, V>(sums, lane, key). Place: put<N, V>(sums, lane, key). Returns the first key that is left. One
// tile after another and not a call each: where a core takes little more in a cycle than the multiply-adds and their
// operands, what stands between them is seen.
template <class T, int N, int V, class Product, class Place>
MULTIHEAD_NOINLINE int product_tiles(const Product& by, const Place& place, int lane, int key, int end) {
  const Product product = by;
  const Place to = place;
  for (; key + N <= end; key += N) {
    Vec<T> sums[N][V];
    clear<T, N, V>(sums);
    product.template add<N, V>(sums, lane, key);
    to.template put<N, V>(sums, lane, key);
  }
  return key;
}

// Cuts [begin, end) into runs of strips of a width, the widest first: run<N>(first) takes as many as there are and
// returns the first that is left.
template <class Run>
MULTIHEAD_INLINE void in_runs(int begin, int end, const Run& run) {
  int at = begin;
  if (at + kTileBroadcasts <= end) at = run.template operator()<kTileBroadcasts>(at);
  if constexpr (kTileBroadcasts > 4)
    if (at + 4 <= end) at = run.template operator()<4>(at);
  if (at + 2 <= end) at = run.template operator()<2>(at);
  if (at < end) run.template operator()<1>(at);
}

// Of all keys of a range.
template <class T, int V, class Product, class Place>
void product_run(const Product& product, const Place& place, int lane, KeyRange keys) {
  const int end = static_cast<int>(keys.end);
  in_runs(static_cast<int>(keys.begin), end,
          [&]<int N>(int key) { return product_tiles<T, N, V>(product, place, lane, key, end); });
}

// Sums of N value columns over the block's keys, merged into what earlier blocks gave. Of so many registers: those that
// follow are another group's.
template <class T, int N>
MULTIHEAD_INLINE void merge_output(const Vec<T> (&sums)[N][kTileVecs], const RowState<T>& rows, int lane, int column,
                                   int registers) {
  using Lanes = Vec<T>;
  MULTIHEAD_UNROLL
  for (int i = 0; i < kTileVecs; ++i) {
    if (i >= registers) continue;
    const int at = lane + i * Lanes::kLanes;
    const Lanes old_factor = Lanes::load(rows.old_factor + at);
    const Lanes block_factor = Lanes::load(rows.block_factor + at);
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) {
      T* out = rows.out + (column + n) * kRowBlock + at;
      Lanes::fma(Lanes::load(out), old_factor, sums[n][i] * block_factor).store(out);
    }
  }
}

// Adds a run of keys to the sums of the registers that see it. Products: add<N, Low, High>(sums, begin, end).
template <class T, int N, class Products>
MULTIHEAD_INLINE void accumulate_run(Vec<T> (&sums)[N][kTileVecs], const Products& products, const Segment& run) {
  if constexpr (kTileVecs == 3) {
    if (run.low == 0 && run.high == 3)
      products.template add<N, 0, 3>(sums, run.begin, run.end);
    else if (run.low <= 1 && run.high == 3)
      products.template add<N, 1, 3>(sums, run.begin, run.end);
    else if (run.high == 3)
      products.template add<N, 2, 3>(sums, run.begin, run.end);
  }
  if (run.high == 2 && run.low == 0)
    products.template add<N, 0, 2>(sums, run.begin, run.end);
  else if (run.high == 2)
    products.template add<N, 1, 2>(sums, run.begin, run.end);
  else if (run.high == 1)
    products.template add<N, 0, 1>(sums, run.begin, run.end);
}

// Values, row by row from the block's first, times a panel of weights.
template <class T>
struct ValueProducts {
  const T* values;
  std::int64_t stride;
  const T* weights;

  ValueProducts at(int column) const { return {values + column, stride, weights}; }
  template <int N, int Low, int High>
  MULTIHEAD_INLINE void add(Vec<T> (&sums)[N][kTileVecs], int begin, int end) const {
    accumulate<T, N, Low, High>(sums, values + begin * stride, 1, stride, weights + begin * kRowBlock, end - begin);
  }
};

// Columns [column, end) of the group's rows over the block's keys, N at a time while as many are left, merged into what
// earlier blocks gave. Products.at(column): those of accumulate_run(). Returns the first column that is left.
template <class T, int N, class Products>
MULTIHEAD_NOINLINE int output_tiles(const Products& values, const RowState<T>& rows, int lane, int column, int end,
                                    const Segments& segments) {
  for (; column + N <= end; column += N) {
    Vec<T> sums[N][kTileVecs];
    clear<T, N, kTileVecs>(sums);
    const Products products = values.at(column);
    for (const Segment& run : segments) accumulate_run<T, N>(sums, products, run);
    merge_output<T, N>(sums, rows, lane, column, segments.registers);
  }
  return column;
}

// Of all columns.
template <class T, class Products>
void output_run(const Products& values, const RowState<T>& rows, int lane, int columns, const Segments& segments) {
  in_runs(0, columns,
          [&]<int N>(int column) { return output_tiles<T, N>(values, rows, lane, column, columns, segments); });
}

// Whether zero stands in every lane.
template <class T>
MULTIHEAD_INLINE bool all_zero(Vec<T> x) {
  T lanes[Vec<T>::kLanes];
  x.store(lanes);
  T total = 0;
  for (T lane : lanes) total += lane;
  return total == 0;
}

// Whether every value is finite: zero times any other is NaN. Four chains, since one would wait for itself.
template <class T>
MULTIHEAD_NOINLINE bool all_finite(const T* values, std::int64_t stride, int rows, int columns) {
  using Lanes = Vec<T>;
  constexpr int kChains = 4;
  const Lanes zero = Lanes::splat(0);
  Lanes zeros[kChains] = {zero, zero, zero, zero};
  for (int row = 0; row < rows; ++row) {
    const T* const from = values + row * stride;
    int column = 0;
    for (; column + kChains * Lanes::kLanes <= columns; column += kChains * Lanes::kLanes) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kChains; ++i)
        zeros[i] = Lanes::fma(Lanes::load(from + column + i * Lanes::kLanes), zero, zeros[i]);
    }
    for (; column < columns; column += Lanes::kLanes) {
      const int valid = columns - column;
      const Lanes x = valid >= Lanes::kLanes ? Lanes::load(from + column) : Lanes::load_first(from + column, valid);
      zeros[0] = Lanes::fma(x, zero, zeros[0]);
    }
  }
  return all_zero<T>((zeros[0] + zeros[1]) + (zeros[2] + zeros[3]));
}

// What stands in a register's chains, joined by the fixed tree.
template <class T, int N>
MULTIHEAD_INLINE Vec<T> join_chains(Vec<T> (&chains)[N]) {
  MULTIHEAD_UNROLL
  for (int step = N / 2; step > 0; step /= 2) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < step; ++i) chains[i] = chains[i] + chains[i + step];
  }
  return chains[0];
}

// m, or 0 where it is -inf: (-inf) - (-inf) would be NaN; a row that sees nothing yet counts from 0, and 2^(-inf) is 0.
template <class T>
MULTIHEAD_INLINE Vec<T> finite_or_zero(Vec<T> m) {
  return Vec<T>::select(m == Vec<T>::splat(kMinusInfinity<T>), Vec<T>::splat(0), m);
}

// The keys [begin, end) widened to the start of a round of the chains and to a whole number of steps of so many keys;
// the scores of those added are hidden. What is left of the last round weighs zero, as their powers would.
template <class T>
MULTIHEAD_INLINE KeyRange whole_rounds(T* scores, int begin, int end, int step) {
  const Vec<T> lowest = Vec<T>::splat(kMinusInfinity<T>), zero = Vec<T>::splat(0);
  const int first = begin / kSumChains * kSumChains, last = (end + step - 1) / step * step;
  const int round = (end + kSumChains - 1) / kSumChains * kSumChains;
  for (int key = first; key < begin; ++key) lowest.store(scores + key * kRowBlock);
  for (int key = end; key < last; ++key) lowest.store(scores + key * kRowBlock);
  for (int key = last; key < round; ++key) zero.store(scores + key * kRowBlock);
  return {first, last};
}

// How far the maxima of earlier blocks and of this one lie below the larger of the two, 2 to these powers, and the
// block's sum by its factor.
template <class T>
struct BlockMerge {
  Vec<T> old_below, block_below, old_factor, block_factor, sum;
};

// Merges the block's sum into that of the rows, and leaves the maximum and the factors for the output.
template <class T, class Rows>
MULTIHEAD_INLINE BlockMerge<T> merge_block(const Rows& rows, int lane, Vec<T> block_sum) {
  using Lanes = Vec<T>;
  const Lanes block_max = Lanes::load(rows.block_max + lane), old_max = Lanes::load(rows.max + lane);
  const Lanes max = Lanes::max(block_max, old_max), merged = finite_or_zero<T>(max);
  const Lanes old_below = old_max - merged, block_below = block_max - merged;
  const Lanes old_factor = exp2_nonpositive<T>(old_below), block_factor = exp2_nonpositive<T>(block_below);
  const Lanes sum = block_sum * block_factor;
  Lanes::fma(Lanes::load(rows.sum + lane), old_factor, sum).store(rows.sum + lane);
  max.store(rows.max + lane);
  old_factor.store(rows.old_factor + lane);
  block_factor.store(rows.block_factor + lane);
  return {old_below, block_below, old_factor, block_factor, sum};
}

constexpr int kSoftmaxTogether = kTileBroadcasts > 4 ? 4 : 2;  // chains at a time, as many as registers hold in step

// Scores of one register of rows to weights, their sum, and the factors of the merge. Keys [begin, end) of the block
// are those that some of these rows see.
template <class T>
MULTIHEAD_NOINLINE void softmax(const RowState<T>& rows, int lane, int begin, int end) {
  using Lanes = Vec<T>;
  constexpr int kTogether = kSoftmaxTogether;
  const Lanes zero = Lanes::splat(0), reference = finite_or_zero<T>(Lanes::load(rows.block_max + lane));
  T* const scores = rows.scores + lane;
  const KeyRange keys = whole_rounds<T>(scores, begin, end, kTogether);
  Lanes chains[kSumChains];
  MULTIHEAD_UNROLL
  for (int chain = 0; chain < kSumChains; chain += kTogether) {
    Lanes sums[kTogether];
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) sums[i] = zero;
    for (auto key = static_cast<int>(keys.begin) + chain; key < keys.end; key += kSumChains) {
      T* const at = scores + key * kRowBlock;
      Lanes weights[kTogether];
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i) weights[i] = Lanes::load(at + i * kRowBlock) - reference;
      exp2_nonpositive<T>(weights);
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        weights[i].store(at + i * kRowBlock);
        sums[i] = sums[i] + weights[i];
      }
    }
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) chains[chain + i] = sums[i];
  }
  merge_block<T>(rows, lane, join_chains<T>(chains));
}
