// SPDX-License-Identifier: Apache-2.0
// A step of the backward pass: up to kRowBlock query rows of a head against one block of keys.
//
// As in the forward pass queries stand in lanes, so S = Q K^T and dP = dO V^T are the same tile over two panels, and
// all that belongs to a row (lse, D, range) is a lane. From them, a panel each,
//
//   P = exp(S - L), of which the values get P Z, and dS = P (Z dP - D)
//
// Three products give what is added to the gradients: of keys and values a row each key, broadcasting the panel's
// elements along rows, of queries a row each query, along keys. The other factor is read row by row, as it is stored,
// with channels in lanes:
//
//   dV[key][c] += sum of PZ[key][row] dO[row][c]    dK[key][c] += sum of dx[key][row] Q[row][c]
//   dQ[row][c] += sum of dx[key][row] K[key][c]
//
// An element gets one chain over the step's rows, or keys, from zero, then joins the sum in memory: the order is that
// of the steps, whatever the tile. What a row does not see adds exact zeros, which may be left out.

// The working memory of a step beside that of RowState, where out serves as the panel of dO.
template <class T>
struct BackwardRows {
  T* lse;          // of the rows
  T* term;         // D
  T* largest;      // what tiles of dP leave for a maximum
  T* products;     // [kKeyBlock]: dP, then dS, then dx
  T* cap_slopes;   // [kKeyBlock]: 1 - tanh^2 of the products, or null
  T* by_distance;  // [kDistanceLines]: sums of dS, at the places of RowState's distances
  T* q;            // [kRowBlock][q_width]; of pairs [kRowBlock / 2], and behind it the rows as they are stored
  T* d_out;        // [kRowBlock][v_width], alike
  T* keys;         // [kKeyBlock][q_width], alike, from step to step
  T* values;       // [kKeyBlock][v_width]; of pairs as they are stored
  T* keys_finite;  // 1 where all keys are
  T* rows_finite;  // 1 where queries and d_out are: where pairs are multiplied
  std::int64_t q_width, v_width;

  explicit BackwardRows(const BackwardTask<T>& task)
      : q_width(padded_width(task.attention.head_dim)), v_width(padded_width(task.attention.value_dim)) {
    T* next = task.work;
    const auto take = [&](std::int64_t count) { return std::exchange(next, next + count); };
    lse = take(kRowBlock), term = take(kRowBlock), largest = take(kRowBlock);
    products = take(kKeyBlock * kRowBlock);
    cap_slopes = task.attention.terms.cap != 0 ? take(kKeyBlock * kRowBlock) : nullptr;
    by_distance = take(kDistanceLines * kRowBlock);
    q = take(kRowBlock * q_width), d_out = take(kRowBlock * v_width);
    keys = take(kKeyBlock * q_width), values = take(kKeyBlock * v_width);
    keys_finite = take(1), rows_finite = take(1);
  }
};

// A product of the step: element (n, k) of the panel a is that of key n and row k, or of row n and key k; k counts
// pairs where a target multiplies them (backward_pairs.inl.hpp).
template <class T>
struct GradientProduct {
  const T* a;
  const T* b;  // rows, read in whole registers
  std::int64_t b_stride;
  T* c;  // rows, sums that grow
  std::int64_t c_stride;
  int columns;
};

// The elements that the gradients' products broadcast: of dV, dK and dQ.
template <class T>
struct GradientFactors {
  const T *values, *keys, *queries;
};

constexpr int kGradientRows = 6;
constexpr int kGradientVecs = kTileBroadcasts > 4 ? 4 : 2;  // 6 x 4 or 6 x 2 accumulators, and as many operands
constexpr int kGradientInner = kPairs ? 2 : 1;              // rows or keys that a step of a chain takes

struct GradientStep {
  template <class Lanes>
  static MULTIHEAD_INLINE Lanes add(Lanes a, Lanes b, Lanes sum) {
    if constexpr (kPairs)
      return dot_pairs(a, b, sum);
    else
      return MultiplyAdd::add(a, b, sum);
  }
};

// Steps that take all of [inner.begin, inner.end).
inline KeyRange gradient_steps(KeyRange inner) {
  return {inner.begin / kGradientInner, (inner.end + kGradientInner - 1) / kGradientInner};
}

// N rows n of c from row first, V registers from a column, over k in [inner.begin, inner.end).
template <class T, bool kByKey, int N, int V>
MULTIHEAD_NOINLINE void gradient_tile(const GradientProduct<T>& product, int first, KeyRange inner, int column) {
  constexpr int kLanes = Vec<T>::kLanes;
  constexpr std::int64_t kStepN = kByKey ? kRowBlock / kGradientInner : 1, kStepK = kByKey ? 1 : kRowBlock;
  Vec<T> sums[N][V];
  clear<T, N, V>(sums);
  accumulate<T, N, 0, V, V, GradientStep>(sums, product.a + first * kStepN + inner.begin * kStepK, kStepN, kStepK,
                                          product.b + inner.begin * product.b_stride + column, inner.end - inner.begin,
                                          product.b_stride);
  const int last = product.columns - column - (V - 1) * kLanes;
  T* const c = product.c + first * product.c_stride + column;
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) {
      T* const to = c + n * product.c_stride + v * kLanes;
      if (v < V - 1 || last >= kLanes)
        (Vec<T>::load(to) + sums[n][v]).store(to);
      else
        (Vec<T>::load_first(to, last) + sums[n][v]).store_first(to, last);
    }
  }
}

// Rows of a product that are computed together, and what they are summed over.
struct Strip {
  int first, count;
  KeyRange inner;
};
struct Strips {
  int count = 0;
  Strip all[kKeyBlock / kGradientRows + kGradientRows];
};

// Strips of [begin, end); those with nothing to sum are left out. range(first, count): rows or keys to be summed over.
template <class Range>
void cut_strips(int begin, int end, const Range& range, Strips& strips) {
  strips.count = 0;
  for (int first = begin; first < end;) {
    const int left = end - first, count = left >= kGradientRows ? kGradientRows : left >= 2 ? 2 : 1;
    const KeyRange inner = gradient_steps(range(first, count));
    if (inner.begin < inner.end) strips.all[strips.count++] = {first, count, inner};
    first += count;
  }
}

template <class T, bool kByKey, int V>
void gradient_columns(const GradientProduct<T>& product, const Strips& strips, int column) {
  for (int i = 0; i < strips.count; ++i) {
    const Strip& strip = strips.all[i];
    if (strip.count == kGradientRows)
      gradient_tile<T, kByKey, kGradientRows, V>(product, strip.first, strip.inner, column);
    else if (strip.count == 2)
      gradient_tile<T, kByKey, 2, V>(product, strip.first, strip.inner, column);
    else
      gradient_tile<T, kByKey, 1, V>(product, strip.first, strip.inner, column);
  }
}

template <class T, bool kByKey>
void multiply_strips(const GradientProduct<T>& product, const Strips& strips) {
  constexpr int kLanes = Vec<T>::kLanes;
  for (int column = 0; column < product.columns;) {
    const int vecs = (product.columns - column + kLanes - 1) / kLanes;
    if (vecs >= kGradientVecs)
      gradient_columns<T, kByKey, kGradientVecs>(product, strips, column), column += kGradientVecs * kLanes;
    else if (vecs >= 2)
      gradient_columns<T, kByKey, 2>(product, strips, column), column += 2 * kLanes;
    else
      gradient_columns<T, kByKey, 1>(product, strips, column), column += kLanes;
  }
}

// Whether a row sees a key of the block, by everything that decides it.
template <class T>
bool row_sees(const Walk<T>& walk, std::int64_t start, int row, int key) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const KeyRange range = walk.row_keys(row, start);
  if (key < range.begin || key >= range.end) return false;
  if (walk.rows.seen) {
    Bits bits;
    __builtin_memcpy(&bits, walk.rows.seen + key / 32 * kRowBlock + row, sizeof bits);
    if (!(bits >> (key % 32) & 1)) return false;
  }
  return !walk.rows.bias || walk.rows.bias[key * kRowBlock + row] != kMinusInfinity<T>;
}

// Of a step of a chain what the row, or the key, of its other factor sees.
template <class T, bool kByKey>
Vec<T> seen_factor(const Walk<T>& walk, std::int64_t start, int n, int step, Vec<T> factor, bool& any) {
  bool sees[kGradientInner];
  any = false;
  for (int i = 0; i < kGradientInner; ++i) {
    const int k = step * kGradientInner + i, row = kByKey ? k : n, key = kByKey ? n : k;
    sees[i] = row < walk.task.rows && row_sees(walk, start, row, key);
    any |= sees[i];
  }
  if constexpr (kPairs)
    return only_of_pairs(factor, sees[0], sees[1]);
  else
    return factor;
}

// multiply_strips for factors that are not finite in a block that some row sees only in part: what is hidden is left
// out. For what is seen it is the same chain, bit for bit.
template <class T, bool kByKey>
MULTIHEAD_NOINLINE void multiply_careful(const Walk<T>& walk, std::int64_t start, KeyRange seen,
                                         const GradientProduct<T>& product) {
  constexpr int kLanes = Vec<T>::kLanes;
  constexpr std::int64_t kStepN = kByKey ? kRowBlock / kGradientInner : 1, kStepK = kByKey ? 1 : kRowBlock;
  const KeyRange all_rows{0, walk.task.rows}, &outer = kByKey ? seen : all_rows;
  const KeyRange steps = gradient_steps(kByKey ? all_rows : seen);
  for (auto n = static_cast<int>(outer.begin); n < outer.end; ++n)
    for (int column = 0; column < product.columns; column += kLanes) {
      const int valid = std::min(product.columns - column, kLanes);
      Vec<T> sum = Vec<T>::splat(0);
      for (auto k = static_cast<int>(steps.begin); k < steps.end; ++k) {
        bool any = false;
        const Vec<T> b = Vec<T>::load(product.b + k * product.b_stride + column);
        const Vec<T> factor = seen_factor<T, kByKey>(walk, start, n, k, b, any);
        if (any) sum = GradientStep::add(Vec<T>::splat(product.a[n * kStepN + k * kStepK]), factor, sum);
      }
      T* const to = product.c + n * product.c_stride + column;
      (Vec<T>::load_first(to, valid) + sum).store_first(to, valid);
    }
}

// 1 - tanh^2 of the products of one register, before the terms take them.
template <class T>
MULTIHEAD_NOINLINE void cap_slopes(const Walk<T>& walk, const BackwardRows<T>& rows, int lane, int begin, int end) {
  using Lanes = Vec<T>;
  for (int key = begin; key < end; ++key) {
    const Lanes t = tanh<T>(Lanes::load(walk.rows.scores + key * kRowBlock + lane));
    Lanes::fma(Lanes::splat(0) - t, t, Lanes::splat(1)).store(rows.cap_slopes + key * kRowBlock + lane);
  }
}

// What a register's lanes share while P and dS are made.
template <class T>
struct StepLanes {
  Vec<T> lse, term;
  bool hides, drops, scores;
};

// P Z to scores and dS to products, kCount keys from one on. A weight is at most 1, however little of a lse far from
// zero its last bit tells.
template <class T, int kCount>
MULTIHEAD_INLINE void weigh_keys(const RowState<T>& state, const BackwardRows<T>& rows, const StepLanes<T>& step,
                                 int lane, int key) {
  using Lanes = Vec<T>;
  const Lanes zero = Lanes::splat(0), one = Lanes::splat(1), unit = Lanes::splat(static_cast<T>(-std::numbers::log2e));
  T* const scores = state.scores + key * kRowBlock + lane;
  T* const products = rows.products + key * kRowBlock + lane;
  Lanes p[kCount];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kCount; ++i) {
    const Lanes t = Lanes::fma(step.lse, unit, Lanes::load(scores + i * kRowBlock));
    p[i] = Lanes::zero_where(one < t, t);  // a little above 0 stays: lse is rounded
  }
  exp2_nonpositive<T>(p);
  MULTIHEAD_UNROLL
  for (int i = 0; i < kCount; ++i) {
    Lanes d = step.scores ? Lanes::load(products + i * kRowBlock) : zero;
    Lanes weight = p[i];
    if (step.drops) {
      const Lanes factor = Lanes::load(state.dropout + (key + i) * kRowBlock + lane);
      weight = weight * factor, d = d * factor;
    }
    d = p[i] * (d - step.term);
    if (step.hides) {
      const auto seen = seen_by_masks(state, lane, key + i);
      weight = Lanes::select(seen, weight, zero), d = Lanes::select(seen, d, zero);
      if (state.bias) {
        const Lanes bias = Lanes::load(state.bias + (key + i) * kRowBlock + lane);
        weight = unless_hidden(bias, weight, zero), d = unless_hidden(bias, d, zero);
      }
    }
    weight.store(scores + i * kRowBlock);
    if (step.scores) d.store(products + i * kRowBlock);
  }
}

// The same for the keys of a register, [begin, end) of the block, and zeros for those of seen that it sees nothing of.
template <class T>
MULTIHEAD_NOINLINE void weigh(const RowState<T>& state, const BackwardRows<T>& rows, const StepLanes<T>& step, int lane,
                              KeyRange keys, KeyRange seen) {
  constexpr int kTogether = 4;
  const auto begin = static_cast<int>(keys.begin), end = static_cast<int>(keys.end);
  int key = begin;
  for (; key + kTogether <= end; key += kTogether) weigh_keys<T, kTogether>(state, rows, step, lane, key);
  for (; key < end; ++key) weigh_keys<T, 1>(state, rows, step, lane, key);
  const auto clear = [&](int from, int to) {
    for (int k = from; k < to; ++k) {
      Vec<T>::splat(0).store(state.scores + k * kRowBlock + lane);
      if (step.scores) Vec<T>::splat(0).store(rows.products + k * kRowBlock + lane);
    }
  };
  clear(static_cast<int>(seen.begin), begin);
  clear(end, static_cast<int>(seen.end));
}

// dx = dS (1 - tanh^2), hidden pairs being zeros already.
template <class T>
MULTIHEAD_NOINLINE void uncap(const Walk<T>& walk, const BackwardRows<T>& rows, std::int64_t start, int vec) {
  using Lanes = Vec<T>;
  const int lane = vec * Lanes::kLanes;
  for (int key = walk.block_begin(vec, start); key < walk.block_end(vec, start); ++key) {
    T* const at = rows.products + key * kRowBlock + lane;
    const Lanes d = Lanes::load(at), slope = Lanes::load(rows.cap_slopes + key * kRowBlock + lane);
    Lanes::select(d == Lanes::splat(0), Lanes::splat(0), d * slope).store(at);
  }
}
