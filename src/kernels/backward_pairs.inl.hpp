// SPDX-License-Identifier: Apache-2.0
// The backward pass of bfloat16 by products of pairs: what a target with kPairs does in the place of widening.
//
// All five products are the operation of pairs.inl.hpp. S and dP take keys and values row by row and queries and d_out
// as panels of pairs of channels; P Z and dS are made in floats, as ever. Then both are rounded to bfloat16, and the
// gradients' sums run over pairs of rows, or of keys:
//
//   dV[key][c] += P Z[key][2p + 1] dO[2p + 1][c] + P Z[key][2p] dO[2p][c]        and dK by dx and Q alike
//   dQ[row][c] += dx[2p + 1][row] K[2p + 1][c] + dx[2p][row] K[2p][c]
//
//   A  of dV, dK: a line of elements a key; of dQ: a line of pairs of keys, an element a row     broadcast, 32 bits
//   B  rows two by two: line p has the pairs (row 2p, row 2p + 1) of all channels                read in registers
//
// Pairs count from the first row of the row block and the first key of the key block, so an element's chain is fixed by
// its own place. A pair that has no partner has zeros on both sides; a hidden partner has the factor zero in A.
//
// Tiles take the same operands but for A of dQ, in steps of kGradientInner rows or keys (backward_tiles.inl.hpp): what
// is said of a partner is then said of all that such a step lacks.

MULTIHEAD_INLINE std::int64_t whole_steps(std::int64_t elements) {
  return (elements + kGradientInner - 1) / kGradientInner * kGradientInner;
}

// Rows as they are stored, width elements apart, zeros after the last column and in the place of those that are
// missing.
template <class T>
void read_paired_rows(const StoredRows& stored, std::int64_t first, int rows, std::int64_t columns, std::int64_t width,
                      std::uint16_t* to) {
  copy_padded(stored, first, {0, rows}, columns, width, to);
  std::fill(to + rows * width, to + whole_steps(rows) * width, std::uint16_t{0});
}

// Rows two by two: line p has the pairs of rows 2p and 2p + 1; zeros where pairs are missing. Returns whether all
// elements are finite.
template <class T>
MULTIHEAD_NOINLINE bool pair_rows(const std::uint16_t* rows, int count, std::int64_t width, T* lines) {
  using Lanes = Vec<T>;
  Lanes strange = Lanes::splat(0);  // x - x is zero or NaN
  for (int p = 0; p < pairs_of(count); ++p, rows += 2 * width, lines += width)
    for (std::int64_t column = 0; column < width; column += Lanes::kLanes) {
      const Lanes even = Lanes::load_bfloat16(rows + column), odd = Lanes::load_bfloat16(rows + width + column);
      strange = strange | (even - even) | (odd - odd);
      (Lanes::template shift_right<16>(even) | odd).store(lines + column);
    }
  std::fill_n(lines, (whole_steps(count) / 2 - pairs_of(count)) * width, T(0));
  return all_zero(strange);
}

// Where rows stand as they are stored: behind their pairs, in as much room.
template <class T>
std::uint16_t* stored_behind(T* lines, std::int64_t rows, std::int64_t width) {
  return reinterpret_cast<std::uint16_t*>(lines + rows / 2 * width);
}

// open_keys() in pairs.
template <class T>
void open_key_pairs(const BackwardTask<T>& task, const BackwardRows<T>& rows) {
  const AttentionTask<T>& attention = task.attention;
  const auto count = static_cast<int>(std::min<std::int64_t>(kKeyBlock, attention.kv_len - task.key));
  std::uint16_t* const keys = stored_behind(rows.keys, kKeyBlock, rows.q_width);
  read_paired_rows<T>(attention.k, task.key, count, attention.head_dim, rows.q_width, keys);
  *rows.keys_finite = pair_rows(keys, count, rows.q_width, rows.keys) ? T(1) : T(0);
  if (task.wants_scores)
    read_paired_rows<T>(attention.v, task.key, count, attention.value_dim, rows.v_width,
                        reinterpret_cast<std::uint16_t*>(rows.values));
  if constexpr (kTiles) open_factors(rows);
}

// What read_queries() does to each operand, in pairs: rows two by two, and the panel. Returns whether all are finite.
template <class T>
bool read_query_pairs(const StoredRows& stored, int count, int columns, std::int64_t width, T* lines, T* panel) {
  std::uint16_t* const rows = stored_behind(lines, kStepRows, width);
  read_paired_rows<T>(stored, 0, count, columns, width, rows);
  if (panel)
    pack_panel<T>(reinterpret_cast<const T*>(rows), width / 2, count, kTiles ? width / 2 : pairs_of(columns), panel);
  return pair_rows(rows, count, width, lines);
}

// S of a group.
template <class T>
void pair_score_group(const Walk<T>& walk, const Group& group) {
  const AttentionTask<T>& task = walk.task;
  product_group<T>(group, KeyPairProduct{walk.pairs.keys, walk.pairs.k_stride, pairs_of(task.head_dim), walk.rows.q},
                   ProductsTo<T, true>{walk.rows.scores, task.scale});
}

// dP of a group.
template <class T>
void pair_upward_block(const Walk<T>& walk, const BackwardRows<T>& rows, const Group& group) {
  const auto* const values = reinterpret_cast<const std::uint16_t*>(rows.values);
  product_group<T>(group, KeyPairProduct{values, rows.v_width, pairs_of(walk.task.value_dim), walk.rows.out},
                   ProductsTo<T, false>{rows.products, T(1)});
}

// Rounds lines two by two, from pair to pair: each line to its place among those of `rounded`, kStepRows elements
// apart, and if kTurned pairs of lines, pair p in the place of line p.
template <bool kTurned, class T>
MULTIHEAD_NOINLINE void round_lines(T* panel, KeyRange pairs, std::uint16_t* rounded) {
  using Lanes = Vec<T>;
  constexpr int kLanes = Lanes::kLanes, kVecs = kRowBlock / kLanes;
  for (std::int64_t p = pairs.begin; p < pairs.end; ++p) {
    const T* const from = panel + 2 * p * kRowBlock;
    std::uint16_t* const to = rounded + 2 * p * kStepRows;
    Lanes even[kVecs], odd[kVecs];  // all are read before any is written: lines are rounded in place
    MULTIHEAD_UNROLL
    for (int v = 0; v < kVecs; ++v)
      even[v] = Lanes::load(from + v * kLanes), odd[v] = Lanes::load(from + kRowBlock + v * kLanes);
    MULTIHEAD_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      store_rounded(even[v], odd[v], to + v * kLanes, to + kStepRows + v * kLanes);
      if constexpr (kTurned) pack_pairs(even[v], odd[v]).store(panel + p * kRowBlock + v * kLanes);
    }
  }
}

// Lines of keys that are a partner but that no row sees, and the rows after the last that are partners, count as zero.
template <class T>
void clear_partners(T* panel, KeyRange seen, KeyRange whole, int rows) {
  const std::int64_t end = std::min<std::int64_t>(whole_steps(rows), kRowBlock);
  std::fill(panel + whole.begin * kRowBlock, panel + seen.begin * kRowBlock, T(0));
  std::fill(panel + seen.end * kRowBlock, panel + whole.end * kRowBlock, T(0));
  for (std::int64_t key = seen.begin; rows < end && key < seen.end; ++key)
    std::fill(panel + key * kRowBlock + rows, panel + key * kRowBlock + end, T(0));
}

// Where P Z and dx stand once they are rounded: of pairs P Z in the place of the scores, dx behind it, and its pairs of
// keys in its own place; of tiles dx row by row for these.
template <class T>
GradientFactors<T> places_of_factors(const RowState<T>& state, const BackwardRows<T>& rows) {
  T* const by_key = kTiles ? rows.factors : state.scores;
  T* const behind = by_key + kKeyBlock / 2 * kStepRows;
  return {by_key, behind, kTiles ? behind + kKeyBlock / 2 * kStepRows : rows.products};
}

// Rounds keys `whole`, of which some row sees those of seen.
template <class T>
void round_keys(const BackwardTask<T>& task, const RowState<T>& state, const BackwardRows<T>& rows, KeyRange seen,
                KeyRange whole) {
  const GradientFactors<T> to = places_of_factors(state, rows);
  const KeyRange pairs{whole.begin / 2, whole.end / 2};
  clear_partners(state.scores, seen, whole, task.attention.rows);
  round_lines<false>(state.scores, pairs, reinterpret_cast<std::uint16_t*>(to.values));
  if (!task.wants_scores) return;
  clear_partners(rows.products, seen, whole, task.attention.rows);
  round_lines<true>(rows.products, pairs, reinterpret_cast<std::uint16_t*>(to.keys));
}

template <class T>
GradientFactors<T> round_factors(const BackwardTask<T>& task, const RowState<T>& state, const BackwardRows<T>& rows,
                                 KeyRange seen) {
  const KeyRange whole{seen.begin / kGradientInner * kGradientInner, whole_steps(seen.end)};
  round_keys(task, state, rows, seen, whole);
  if constexpr (kTiles) turn_factors(task, state, rows, whole);
  return places_of_factors(state, rows);
}

// Of a register of pairs the elements that are wanted, zeros in the place of others.
template <class T>
MULTIHEAD_INLINE Vec<T> only_of_pairs(Vec<T> pairs, bool even, bool odd) {
  const std::uint32_t bits = (even ? 0x0000FFFFu : 0u) | (odd ? 0xFFFF0000u : 0u);
  return pairs & Vec<T>::splat(std::bit_cast<T>(bits));
}
