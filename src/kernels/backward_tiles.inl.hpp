// SPDX-License-Identifier: Apache-2.0
// The backward pass of bfloat16 by products of tiles: backward_pairs.inl.hpp, where all five products are TDPBF16PS.
//
//            A, 16 rows of 32 elements at a time     B, 16 lines of pairs          C, 16 x 16 floats
//   S, dP    keys, values as they are stored         Q, dO: panels of channels     [key][48], from zero
//   dV, dK   P Z, dx rounded: a line of rows a key   dO, Q two by two: rows        [key][channel], grows in place
//   dQ       dx rounded, a line of keys a row        K two by two: keys            [row][channel], grows in place
//
// A gradient's sums are loaded, grow by a product each 32 rows, or keys, and are stored: a step of a chain is what one
// TDPBF16PS adds (tile_twin.inl.hpp), and steps count from the first row of the row block, or key of the key block. The
// 48 rows of a step are a tile and a half: what lacks are zeros on both sides, as for rows after the last and keys that
// no row sees. A tile none of whose pairs is seen is left out.

static_assert(kGradientInner == kTileInner && kRowBlock == 3 * kTileRows && kKeyBlock % kTileInner == 0);

// The rows that are missing from every step.
template <class T>
void open_factors(const BackwardRows<T>& rows) {
  auto* line = reinterpret_cast<std::uint16_t*>(rows.factors) + kRowBlock;
  for (int i = 0; i < 2 * kKeyBlock; ++i, line += kStepRows) std::fill_n(line, kStepRows - kRowBlock, std::uint16_t{0});
}

// dx of keys `whole`, rounded and in pairs, row by row.
template <class T>
void turn_factors(const BackwardTask<T>& task, const RowState<T>& state, const BackwardRows<T>& rows, KeyRange whole) {
  const std::int64_t first = whole.begin / 2, count = whole.end / 2 - first;
  if (task.d_q)
    unpack_panel<T>(rows.products + first * kRowBlock, task.attention.rows, count,
                    places_of_factors(state, rows).queries + first, kKeyBlock / 2);
}

// What S and dP are made of.
template <class T>
TileOperands score_tile_operands(const Walk<T>& walk, const BackwardRows<T>& rows) {
  return {walk.pairs.keys, walk.pairs.k_stride, 0, rows.panels, 0};
}
template <class T>
TileOperands upward_tile_operands(const BackwardRows<T>& rows) {
  return {reinterpret_cast<const std::uint16_t*>(rows.values), rows.v_width, 0,
          rows.panels + rows.q_width / 2 * kRowBlock, 0};
}

// dP of 16 keys.
template <class T>
void multiply_upward(const Walk<T>& walk, const BackwardRows<T>& rows, const Group& group, int key) {
  const TileOperands by = upward_tile_operands(rows);
  const TileProduct product = product_of_tile(group, by, walk.task.value_dim, rows.products, key);
  if (product.c) multiply_tiles<1>(product);
}

// S, as products until a term asks for scores, and dP.
template <class T>
void score_tiles(const Walk<T>& walk, const BackwardRows<T>& rows, const Group& group) {
  multiply_keys<1>(walk, group, score_tile_operands(walk, rows));
  if (walk.terms()) finish_tile_scores(walk, group);
}
template <class T>
void upward_tiles(const Walk<T>& walk, const BackwardRows<T>& rows, const Group& group) {
  for (int key = group.begin / kTileRows * kTileRows; key < group.end; key += kTileRows)
    multiply_upward(walk, rows, group, key);
}

// Up to two tiles by two of a gradient: rows of A elements apart, lines of B and rows of C floats apart.
struct GradientTiles {
  const std::uint16_t* a;
  std::int64_t a_stride;
  const float* b;
  std::int64_t b_stride;
  float* c;
  std::int64_t c_stride;
  unsigned steps;  // of kTileInner elements, those that take part, a bit each
};

// M tiles of rows by N of columns: sums in tiles 0 to 3, those of A in 4 and 5, of B in 6 and 7.
template <int M, int N>
MULTIHEAD_NOINLINE void add_gradient_tiles(const GradientTiles& by) {
  const std::int64_t a_bytes = 2 * by.a_stride, b_bytes = 4 * by.b_stride, c_bytes = 4 * by.c_stride;
  float* const below = by.c + kTileRows * by.c_stride;
  Tiles tiles;
  tiles.template load<0>(by.c, c_bytes);
  if constexpr (N == 2) tiles.template load<1>(by.c + kTilePairs, c_bytes);
  if constexpr (M == 2) tiles.template load<2>(below, c_bytes);
  if constexpr (M == 2 && N == 2) tiles.template load<3>(below + kTilePairs, c_bytes);
  const std::uint16_t* a = by.a;
  const float* b = by.b;
  for (unsigned steps = by.steps; steps != 0; steps >>= 1, a += kTileInner, b += kTilePairs * by.b_stride) {
    if ((steps & 1) == 0) continue;
    tiles.template load<4>(a, a_bytes);
    tiles.template load<6>(b, b_bytes);
    tiles.template dot<0, 4, 6>();
    if constexpr (N == 2) tiles.template load<7>(b + kTilePairs, b_bytes), tiles.template dot<1, 4, 7>();
    if constexpr (M == 2) {
      tiles.template load<5>(a + kTileRows * by.a_stride, a_bytes);
      tiles.template dot<2, 5, 6>();
      if constexpr (N == 2) tiles.template dot<3, 5, 7>();
    }
  }
  tiles.template store<0>(by.c, c_bytes);
  if constexpr (N == 2) tiles.template store<1>(by.c + kTilePairs, c_bytes);
  if constexpr (M == 2) tiles.template store<2>(below, c_bytes);
  if constexpr (M == 2 && N == 2) tiles.template store<3>(below + kTilePairs, c_bytes);
}

inline void add_gradient_tiles(const GradientTiles& by, bool tall, bool wide) {
  if (tall)
    (wide ? add_gradient_tiles<2, 2> : add_gradient_tiles<2, 1>)(by);
  else
    (wide ? add_gradient_tiles<1, 2> : add_gradient_tiles<1, 1>)(by);
}

// The same where only so many rows and columns of C are the gradient's own: by way of a place of kTileInner columns.
MULTIHEAD_NOINLINE inline void add_gradient_edge(GradientTiles by, int rows, int columns, float* edge) {
  float* const c = std::exchange(by.c, edge);
  const std::int64_t c_stride = std::exchange(by.c_stride, kTileInner);
  std::fill_n(edge, kTileInner * kTileInner, 0.0f);
  for (int row = 0; row < rows; ++row) std::copy_n(c + row * c_stride, columns, edge + row * kTileInner);
  add_gradient_tiles(by, rows > kTileRows, columns > kTilePairs);
  for (int row = 0; row < rows; ++row) std::copy_n(edge + row * kTileInner, columns, c + row * c_stride);
}

// The steps in which some row of a register sees a key of a tile: of keys from n on along the rows, or of rows alike
// along the keys.
template <class T, bool kByKey>
unsigned steps_of_tile(const Walk<T>& walk, std::int64_t start, int n) {
  unsigned steps = 0;
  if constexpr (kByKey) {
    for (int vec = 0; vec < walk.vecs; ++vec)
      if (walk.sees(vec, start, n, n + kTileRows)) steps |= 1u << (vec * kTileRows / kTileInner);
  } else {
    for (int step = 0; step < kKeyBlock / kTileInner; ++step)
      if (walk.sees(n / kTileRows, start, step * kTileInner, (step + 1) * kTileInner)) steps |= 1u << step;
  }
  return steps;
}

// The elements of A's lines.
template <bool kByKey>
constexpr std::int64_t kFactorLine = kByKey ? kStepRows : kKeyBlock;

// The block's first key, those of its keys that some row sees, and whether what is hidden must be left out one by one.
struct StepKeys {
  std::int64_t start;
  KeyRange seen;
  bool careful;
};

// Up to two tiles of rows of C, from n on, and the steps in which they see something.
struct GradientRows {
  int n, count;
  unsigned steps;
};

template <class T, bool kByKey>
GradientRows rows_from(const Walk<T>& walk, const StepKeys& keys, int n) {
  const int end = kByKey ? static_cast<int>(keys.seen.end) : walk.task.rows;
  GradientRows rows{n, std::min(end - n, 2 * kTileRows), steps_of_tile<T, kByKey>(walk, keys.start, n)};
  if (rows.count > kTileRows) rows.steps |= steps_of_tile<T, kByKey>(walk, keys.start, n + kTileRows);
  return rows;
}

// Two tiles of columns of these rows. Keys have room for whole tiles, and columns of theirs too; of rows and their
// columns only dQ's own may be written.
template <class T, bool kByKey>
void multiply_columns(const GradientProduct<T>& product, const GradientRows& rows, int column, T* edge) {
  constexpr std::int64_t kLine = kFactorLine<kByKey>;
  if (rows.steps == 0) return;
  const int columns = std::min(product.columns - column, 2 * kTilePairs);
  const GradientTiles by{reinterpret_cast<const std::uint16_t*>(product.a) + rows.n * kLine,
                         kLine,
                         product.b + column,
                         product.b_stride,
                         product.c + rows.n * product.c_stride + column,
                         product.c_stride,
                         rows.steps};
  if (!kByKey && (rows.count % kTileRows != 0 || columns % kTilePairs != 0))
    add_gradient_edge(by, rows.count, columns, edge);
  else
    add_gradient_tiles(by, rows.count > kTileRows, columns > kTilePairs);
}

template <class T, bool kByKey>
void multiply_gradient_tiles(const Walk<T>& walk, const StepKeys& keys, const GradientProduct<T>& product, T* edge) {
  const int begin = kByKey ? static_cast<int>(keys.seen.begin) / kTileRows * kTileRows : 0;
  const int end = kByKey ? static_cast<int>(keys.seen.end) : walk.task.rows;
  for (int n = begin; n < end; n += 2 * kTileRows) {
    const GradientRows rows = rows_from<T, kByKey>(walk, keys, n);
    for (int column = 0; column < product.columns; column += 2 * kTilePairs)
      multiply_columns<T, kByKey>(product, rows, column, edge);
  }
}

// multiply_careful() by tiles: each row of C by itself, with what it does not see left out of B.
template <class T, bool kByKey>
MULTIHEAD_NOINLINE void multiply_gradient_carefully(const Walk<T>& walk, const StepKeys& keys,
                                                    const GradientProduct<T>& product) {
  const KeyRange all_rows{0, walk.task.rows}, &outer = kByKey ? keys.seen : all_rows;
  const KeyRange& inner = kByKey ? all_rows : keys.seen;
  const auto first = static_cast<int>(inner.begin) / kTileInner;
  const auto last = static_cast<int>(whole_steps(inner.end)) / kTileInner;
  alignas(64) T sums[kTileRows][kTilePairs] = {}, b[kTilePairs][kTilePairs];
  Tiles tiles;
  for (auto n = static_cast<int>(outer.begin); n < outer.end; ++n) {
    bool sees[kKeyBlock] = {};
    for (auto k = static_cast<int>(inner.begin); k < inner.end; ++k)
      sees[k] = row_sees(walk, keys.start, kByKey ? k : n, kByKey ? n : k);
    const auto* const a = reinterpret_cast<const std::uint16_t*>(product.a) + n * kFactorLine<kByKey>;
    for (int column = 0; column < product.columns; column += kTilePairs) {
      const int columns = std::min(product.columns - column, kTilePairs);
      T* const c = product.c + n * product.c_stride + column;
      std::copy_n(c, columns, sums[0]);
      tiles.template load<0>(sums, sizeof sums[0]);
      for (int step = first; step < last; ++step) {
        for (int p = 0; p < kTilePairs; ++p) {
          const int pair = step * kTilePairs + p;
          const Vec<T> both = Vec<T>::load(product.b + pair * product.b_stride + column);
          only_of_pairs(both, sees[2 * pair], sees[2 * pair + 1]).store(b[p]);
        }
        tiles.template load<1>(a + step * kTileInner, 0);  // sixteen times the row
        tiles.template load<2>(b, sizeof b[0]);
        tiles.template dot<0, 1, 2>();
      }
      tiles.template store<0>(sums, sizeof sums[0]);
      std::copy_n(sums[0], columns, c);
    }
  }
}

template <class T, bool kByKey>
void multiply_gradient(const Walk<T>& walk, const BackwardRows<T>& rows, const StepKeys& keys,
                       const GradientProduct<T>& product) {
  if (keys.careful)
    multiply_gradient_carefully<T, kByKey>(walk, keys, product);
  else
    multiply_gradient_tiles<T, kByKey>(walk, keys, product, rows.edge);
}
