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

constexpr int kGradientInner = !kPairs ? 1 : kTiles ? 32 : 2;  // rows or keys that a step of a chain takes
constexpr int kStepRows = (kRowBlock + kGradientInner - 1) / kGradientInner * kGradientInner;

// The working memory of a step beside that of RowState, where out serves as the panel of dO but to tiles.
template <class T>
struct BackwardRows {
  T* lse;          // of the rows
  T* term;         // D
  T* products;     // [kKeyBlock]: dP, then dS, then dx
  T* cap_slopes;   // [kKeyBlock]: 1 - tanh^2 of the products, or null
  T* by_distance;  // [kDistanceLines]: sums of dS, at the places of RowState's distances
  T* q;            // [kStepRows][q_width]; of pairs [kStepRows / 2], and behind it the rows as they are stored
  T* d_out;        // [kStepRows][v_width], alike
  T* keys;         // [kKeyBlock][q_width], alike, from step to step
  T* values;       // [kKeyBlock][v_width]; of pairs as they are stored
  T* panels;       // of tiles: q as [q_width / 2] pairs, then d_out alike
  T* factors;      // of tiles, rounded: P Z as [kKeyBlock][kStepRows], zeros after kRowBlock; dx alike, and by rows
  T* edge;         // of tiles: of dQ what reaches past the last row or column
  T* keys_finite;  // 1 where all keys are
  T* rows_finite;  // 1 where queries and d_out are: where pairs are multiplied
  std::int64_t q_width, v_width;

  explicit BackwardRows(const BackwardTask<T>& task)
      : BackwardRows(task, BackwardExtents(task.attention.head_dim, task.attention.value_dim, kTiles)) {}
  BackwardRows(const BackwardTask<T>& task, const BackwardExtents& extents)
      : q_width(extents.q_width), v_width(extents.v_width) {
    T* next = task.work;
    const auto take = [&](std::int64_t count) { return std::exchange(next, next + count); };
    lse = take(kRowBlock), term = take(kRowBlock);
    products = take(kKeyBlock * kRowBlock);
    cap_slopes = task.attention.terms.cap != 0 ? take(kKeyBlock * kRowBlock) : nullptr;
    by_distance = take(kDistanceLines * kRowBlock);
    q = take(kStepRows * q_width), d_out = take(kStepRows * v_width);
    keys = take(kKeyBlock * q_width), values = take(kKeyBlock * v_width);
    panels = take(extents.panels), factors = take(extents.factors), edge = take(extents.edge);
    keys_finite = take(1), rows_finite = take(1);
  }
};

// Where S and dP go, scaled or as they are. No maximum and no mask: lse is known, and P and dS are taken by selection
// where a pair may be hidden.
template <class T, bool kScaled>
struct ProductsTo {
  T* to;  // a panel: [kKeyBlock]
  T scale;

  template <int N, int V>
  MULTIHEAD_INLINE void put(const Vec<T> (&sums)[N][V], int lane, int key) const {
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) {
      MULTIHEAD_UNROLL
      for (int v = 0; v < V; ++v)
        (kScaled ? sums[n][v] * Vec<T>::splat(scale) : sums[n][v])
            .store(to + (key + n) * kRowBlock + lane + v * Vec<T>::kLanes);
    }
  }
};

// Of a group of registers with the keys that each sees, and a few more.
template <class T, class Product, class Place>
void product_group(const Group& group, const Product& product, const Place& place) {
  for (const Segment& run : segments_of(group, 1)) {
    const int lane = (group.first + run.low) * Vec<T>::kLanes;
    by_width(run.high - run.low, [&]<int V>() { product_run<T, V>(product, place, lane, {run.begin, run.end}); });
  }
}

// A product of the step: element (n, k) of the panel a is that of key n and row k, or of row n and key k; k counts
// pairs where a target multiplies them (backward_pairs.inl.hpp). Of tiles a is rows of n (backward_tiles.inl.hpp).
template <class T>
struct GradientProduct {
  const T* a;
  const T* b;  // rows, read in whole registers
  std::int64_t b_stride;
  T* c;  // rows, sums that grow
  std::int64_t c_stride;
  int columns;
  StoredRows next{};  // of gradients of keys or values: of the same columns, the rows that the next step reads
};

// The elements that the gradients' products broadcast: of dV, dK and dQ.
template <class T>
struct GradientFactors {
  T *values, *keys, *queries;
};

constexpr int kGradientRows = 6;
constexpr int kGradientVecs = kTileBroadcasts > 4 ? 4 : 2;  // 6 x 4 or 6 x 2 accumulators, and as many operands

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

// Rows of a product that are computed together, and what they are summed over.
struct Strip {
  int first, count;
  KeyRange inner;
};
struct Strips {
  int count = 0;
  Strip all[kKeyBlock / kGradientRows + kGradientRows];
};

// Adds a tile's sums to rows of c. last: elements of the last register that there are, or more.
template <class T, int N, int V>
MULTIHEAD_INLINE void add_to_rows(const Vec<T> (&sums)[N][V], T* c, std::int64_t stride, int last) {
  constexpr int kLanes = Vec<T>::kLanes;
  const int whole = last < kLanes ? V - 1 : V;
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n, c += stride) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V - 1; ++v) (Vec<T>::load(c + v * kLanes) + sums[n][v]).store(c + v * kLanes);
    T* const end = c + (V - 1) * kLanes;
    if (whole == V)
      (Vec<T>::load(end) + sums[n][V - 1]).store(end);
    else
      (Vec<T>::load_first(end, last) + sums[n][V - 1]).store_first(end, last);
  }
}

// While keys get their sums, asks for the rows that the next step reads: for each two keys a row, of the columns at
// hand.
template <class T, int N, int V>
MULTIHEAD_INLINE void ask_for_rows(const char* next, std::int64_t row_bytes, std::int64_t size, int first) {
  constexpr int kLine = static_cast<int>(kLineBytes / sizeof(T));
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; n += 2) {
    MULTIHEAD_UNROLL
    for (int at = 0; at < V * Vec<T>::kLanes; at += kLine)
      __builtin_prefetch(next + (first + n) / 2 * row_bytes + at * size, 0, 3);
  }
}

// V registers of c from a column of `count` strips of N rows each. One strip after another and not a call each: where a
// core takes little more in a cycle than the multiply-adds and their operands, what stands between them is seen.
template <class T, bool kByKey, int N, int V>
MULTIHEAD_NOINLINE void gradient_tiles(const GradientProduct<T>& product, const Strip* strips, int count, int column) {
  constexpr std::int64_t kStepN = kByKey ? kRowBlock / kGradientInner : 1, kStepK = kByKey ? 1 : kRowBlock;
  const int last = product.columns - column - (V - 1) * Vec<T>::kLanes;
  const T *const a = product.a, *const b = product.b + column;
  T* const c = product.c + column;
  const std::int64_t b_stride = product.b_stride, c_stride = product.c_stride;
  const auto size = static_cast<std::int64_t>(size_of(product.next.type)), next_bytes = product.next.stride * size;
  const char* const next = static_cast<const char*>(product.next.data) + column * size;
  for (const Strip* strip = strips; strip < strips + count; ++strip) {
    const KeyRange inner = strip->inner;
    T* const to = c + strip->first * c_stride;
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) __builtin_prefetch(to + n * c_stride, 1, 3);
    if constexpr (kByKey) ask_for_rows<T, N, V>(next, next_bytes, size, strip->first);
    Vec<T> sums[N][V];
    clear<T, N, V>(sums);
    accumulate<T, N, 0, V, V, GradientStep>(sums, a + strip->first * kStepN + inner.begin * kStepK, kStepN, kStepK,
                                            b + inner.begin * b_stride, inner.end - inner.begin, b_stride);
    add_to_rows<T, N, V>(sums, to, c_stride, last);
  }
}

// Of so many rows: 8 are twice 4, since 2 leave few chains.
constexpr int rows_of_strip(int left) {
  return left >= kGradientRows && left != 8 ? kGradientRows : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// Strips of [begin, end); those with nothing to sum are left out. range(first, count): rows or keys to be summed over.
template <class Range>
void cut_strips(int begin, int end, const Range& range, Strips& strips) {
  strips.count = 0;
  for (int first = begin; first < end;) {
    const int left = end - first, count = rows_of_strip(left);
    const KeyRange inner = gradient_steps(range(first, count));
    if (inner.begin < inner.end) strips.all[strips.count++] = {first, count, inner};
    first += count;
  }
}

template <class T, bool kByKey, int V>
void gradient_columns(const GradientProduct<T>& product, const Strips& strips, int column) {
  for (int first = 0, end = 0; first < strips.count; first = end) {
    const Strip* const run = strips.all + first;
    while (end < strips.count && strips.all[end].count == run->count) ++end;
    if (run->count == kGradientRows)
      gradient_tiles<T, kByKey, kGradientRows, V>(product, run, end - first, column);
    else if (run->count == 4)
      gradient_tiles<T, kByKey, 4, V>(product, run, end - first, column);
    else if (run->count == 2)
      gradient_tiles<T, kByKey, 2, V>(product, run, end - first, column);
    else
      gradient_tiles<T, kByKey, 1, V>(product, run, end - first, column);
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
  T scale;  // of scores that tiles left and that nothing was done to
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
    Lanes score = Lanes::load(scores + i * kRowBlock);
    if constexpr (kTiles) score = score * Lanes::splat(step.scale);
    const Lanes t = Lanes::fma(step.lse, unit, score);
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
      if (state.lows) {
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
