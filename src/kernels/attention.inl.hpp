// SPDX-License-Identifier: Apache-2.0
// One attention task: up to kRowBlock query rows of a head against its keys.
//
// Queries stand in lanes. Q is packed once as a panel [head_dim][48]; a key's elements are broadcast, so neither K nor
// V is ever packed, and all that belongs to a row (maximum, sum, range) is a lane of a register: nothing is ever
// summed across lanes. Keys come in blocks of kKeyBlock. A block is three steps over 24 KB of scores:
//
//   score_tile    S[key][row] = (q . k) * scale / ln 2, hidden keys -inf, and the block's maximum m_b of each row
//   softmax       P = 2^(S - m_b), l_b = sum of P in 16 chains; then the factors that merge the block:
//                 m' = max(m, m_b), a = 2^(m - m'), b = 2^(m_b - m')
//   output_tile   O_b = P^T V from zero, merged as it leaves the registers: O = O a + O_b b
//
// (Milakov and Gimelshein 2018, section 3; Dao 2023, algorithm 1, with the block's own maximum, so that blocks are
// independent until the merge.) The order of every sum is fixed by a row's own positions: a score is one chain over
// head_dim, an output element one chain over its block's keys, sums run in chains by key mod 16, blocks merge in
// ascending order. A key that a row does not see adds exact zeros, so it does not matter which rows share a task. The
// sign of a zero is the one trace it could leave; the last step adds +0 and removes it.

template <class T>
constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

// The working memory of a task, all of it kRowBlock lanes wide.
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

  RowState(T* scratch, int head_dim, int value_dim) {
    const auto take = [&](int lines) { return std::exchange(scratch, scratch + lines * kRowBlock); };
    q = take(head_dim), scores = take(kKeyBlock), out = take(value_dim);
    max = take(1), sum = take(1), block_max = take(1), old_factor = take(1), block_factor = take(1);
    begin = take(1), end = take(1);
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

// Scores of N keys and V registers of rows; visible == nullptr: every row sees every key.
template <class T, int N, int V>
MULTIHEAD_NOINLINE void score_tile(const T* k, std::int64_t k_stride, const T* q, int head_dim, T scale,
                                   const RowState<T>& rows, int lane, int key, bool masked) {
  using Lanes = Vec<T>;
  Lanes sums[N][V];
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[n][v] = Lanes::splat(0);
  }
  accumulate<T, N, 0, V>(sums, k, k_stride, 1, q, head_dim);
  MULTIHEAD_UNROLL
  for (int v = 0; v < V; ++v) {
    const int at = lane + v * Lanes::kLanes;
    Lanes largest = Lanes::load(rows.block_max + at);
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) {
      Lanes score = sums[n][v] * Lanes::splat(scale);
      if (masked) {
        const Lanes position = Lanes::splat(static_cast<T>(key + n));
        const auto seen = Lanes::both(Lanes::load(rows.begin + at) <= position, position < Lanes::load(rows.end + at));
        score = Lanes::select(seen, score, Lanes::splat(kMinusInfinity<T>));
      }
      largest = Lanes::max(score, largest);
      score.store(rows.scores + (key + n) * kRowBlock + at);
    }
    largest.store(rows.block_max + at);
  }
}

// N value columns of the group's rows over the block's keys, merged into what earlier blocks gave.
template <class T, int N>
MULTIHEAD_NOINLINE void output_tile(const T* v, std::int64_t v_stride, const RowState<T>& rows, int lane, int column,
                                    const Segment* segments, int segment_count) {
  using Lanes = Vec<T>;
  Lanes sums[N][kTileVecs];
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTileVecs; ++i) sums[n][i] = Lanes::splat(0);
  }
  const T* weights = rows.scores + lane;
  for (const Segment* run = segments; run < segments + segment_count; ++run) {
    const T* values = v + run->begin * v_stride + column;
    const T* panel = weights + run->begin * kRowBlock;
    const int count = run->end - run->begin;
    if constexpr (kTileVecs == 3) {
      if (run->low == 0 && run->high == 3)
        accumulate<T, N, 0, 3>(sums, values, 1, v_stride, panel, count);
      else if (run->low <= 1 && run->high == 3)
        accumulate<T, N, 1, 3>(sums, values, 1, v_stride, panel, count);
      else if (run->high == 3)
        accumulate<T, N, 2, 3>(sums, values, 1, v_stride, panel, count);
    }
    if (run->high == 2 && run->low == 0)
      accumulate<T, N, 0, 2>(sums, values, 1, v_stride, panel, count);
    else if (run->high == 2)
      accumulate<T, N, 1, 2>(sums, values, 1, v_stride, panel, count);
    else if (run->high == 1)
      accumulate<T, N, 0, 1>(sums, values, 1, v_stride, panel, count);
  }
  MULTIHEAD_UNROLL
  for (int i = 0; i < kTileVecs; ++i) {
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

// The same for values that are not finite in a block that some row sees only in part: zero times NaN is NaN, so a
// hidden key is left out by selection. For the keys a row sees it is the chain of output_tile, bit for bit.
template <class T>
MULTIHEAD_NOINLINE void output_careful(const T* v, std::int64_t v_stride, const RowState<T>& rows, int lane,
                                       int columns, int begin, int end) {
  using Lanes = Vec<T>;
  const Lanes from = Lanes::load(rows.begin + lane), to = Lanes::load(rows.end + lane);
  for (int column = 0; column < columns; ++column) {
    Lanes sum = Lanes::splat(0);
    for (int key = begin; key < end; ++key) {
      const Lanes position = Lanes::splat(static_cast<T>(key));
      const Lanes next =
          Lanes::fma(Lanes::splat(v[key * v_stride + column]), Lanes::load(rows.scores + key * kRowBlock + lane), sum);
      sum = Lanes::select(Lanes::both(from <= position, position < to), next, sum);
    }
    T* out = rows.out + column * kRowBlock + lane;
    Lanes::fma(Lanes::load(out), Lanes::load(rows.old_factor + lane), sum * Lanes::load(rows.block_factor + lane))
        .store(out);
  }
}

template <class T>
MULTIHEAD_NOINLINE bool all_finite(const T* values, std::int64_t stride, int rows, int columns) {
  using Lanes = Vec<T>;
  Lanes zeros = Lanes::splat(0);  // NaN once a value is not finite
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; column += Lanes::kLanes) {
      const T* at = values + row * stride + column;
      const int valid = columns - column;
      const Lanes x = valid >= Lanes::kLanes ? Lanes::load(at) : Lanes::load_first(at, valid);
      zeros = Lanes::fma(x, Lanes::splat(0), zeros);
    }
  T lanes[Lanes::kLanes];
  zeros.store(lanes);
  T total = 0;
  for (T x : lanes) total += x;
  return total == 0;
}

// What stands in a register's chains, joined by the fixed tree.
template <class T>
MULTIHEAD_INLINE Vec<T> join_chains(Vec<T> (&chains)[kSumChains]) {
  MULTIHEAD_UNROLL
  for (int step = kSumChains / 2; step > 0; step /= 2) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < step; ++i) chains[i] = chains[i] + chains[i + step];
  }
  return chains[0];
}

// Scores of one register of rows to weights, their sum, and the factors of the merge. Keys [begin, end) of the block
// are those that some of these rows see.
template <class T>
MULTIHEAD_NOINLINE void softmax(const RowState<T>& rows, int lane, int begin, int end) {
  using Lanes = Vec<T>;
  const Lanes lowest = Lanes::splat(kMinusInfinity<T>), zero = Lanes::splat(0);
  const Lanes block_max = Lanes::load(rows.block_max + lane), old_max = Lanes::load(rows.max + lane);
  // (-inf) - (-inf) would be NaN: a row that sees nothing yet counts from 0, and 2^(-inf) is 0.
  const auto finite_or_zero = [&](Lanes m) { return Lanes::select(m == lowest, zero, m); };
  const Lanes reference = finite_or_zero(block_max);
  const int first = begin / kSumChains * kSumChains;
  const int last = (end + kSumChains - 1) / kSumChains * kSumChains;
  T* scores = rows.scores + lane;
  for (int key = first; key < begin; ++key) lowest.store(scores + key * kRowBlock);
  for (int key = end; key < last; ++key) lowest.store(scores + key * kRowBlock);

  constexpr int kTogether = 4;  // chains at a time: enough to hide the latency of the polynomial
  Lanes chains[kSumChains];
  MULTIHEAD_UNROLL
  for (int chain = 0; chain < kSumChains; chain += kTogether) {
    Lanes sums[kTogether] = {zero, zero, zero, zero};
    for (int key = first + chain; key < last; key += kSumChains) {
      MULTIHEAD_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        T* at = scores + (key + i) * kRowBlock;
        const Lanes weight = exp2_nonpositive<T>(Lanes::load(at) - reference);
        weight.store(at);
        sums[i] = sums[i] + weight;
      }
    }
    MULTIHEAD_UNROLL
    for (int i = 0; i < kTogether; ++i) chains[chain + i] = sums[i];
  }

  const Lanes max = Lanes::max(block_max, old_max);
  const Lanes merged = finite_or_zero(max);
  const Lanes old_factor = exp2_nonpositive<T>(old_max - merged);
  const Lanes block_factor = exp2_nonpositive<T>(block_max - merged);
  const Lanes sum = join_chains<T>(chains) * block_factor;
  Lanes::fma(Lanes::load(rows.sum + lane), old_factor, sum).store(rows.sum + lane);
  max.store(rows.max + lane);
  old_factor.store(rows.old_factor + lane);
  block_factor.store(rows.block_factor + lane);
}
