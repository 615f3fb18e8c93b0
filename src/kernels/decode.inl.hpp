// SPDX-License-Identifier: Apache-2.0
// Decode: a few query rows against a cache. Keys stand in lanes, as the cache has them; a row's elements are broadcast.
//
//   decode_scores   S[row][key], chunk by chunk of kCacheBlock keys: lanes are keys, one chain over head_dim
//   weigh_row       P = 2^(S - m_b) of a row and its block, l_b in 16 chains: lane i of the registers is chain i mod 16
//   decode_output   O_b[row] += P V: lanes are columns of the values as they stand, one chain over the block's keys,
//                   which rests in memory from chunk to chunk
//   merge           rows in lanes: merge_block(), then O = O a + O_b b
//
// These are the operations of attention.inl.hpp on each row, in their order, so a row has the same bits. A chunk of
// keys and one of values stay in L1 while tiles of rows go over them: memory is read once for all rows.

constexpr int kChunks = kKeyBlock / kCacheBlock;
constexpr int kValueAlign = 16;  // sums of columns stand in rows of whole registers

constexpr std::int64_t padded_columns(std::int64_t columns) {
  return (columns + kValueAlign - 1) / kValueAlign * kValueAlign;
}

// Registers of a chunk's keys beside so many rows: a power of two, as many sums as stay in registers.
constexpr int key_vecs(int rows) {
  int vecs = kCacheBlock / Vec<float>::kLanes;
  while (vecs * rows > kTileBroadcasts * kTileVecs) vecs /= 2;
  return vecs;
}
// Registers of columns beside so many rows; even ones where they are split.
constexpr int column_vecs(int rows, bool split) {
  const int vecs = std::min(kTileBroadcasts * kTileVecs / rows, 8);
  return vecs >= 8 ? 8 : vecs >= 4 ? 4 : split ? 2 : vecs;
}
constexpr int fewer_vecs(int vecs) { return vecs % 2 == 0 ? vecs / 2 : vecs - 1; }
// Rows of a tile. A broadcast costs as much as a multiply-add: of few registers most are keys'.
constexpr int kScoreRows = kTileBroadcasts > 4 ? 6 : 3;
constexpr int kOutputRows = kTileBroadcasts > 4 ? 6 : 4;

// The working memory of a task. Lines hold a number a row.
struct DecodeRows {
  float *max, *sum, *block_max, *old_factor, *block_factor, *block_sum;  // as RowState
  float *divisor, *block_divisor;  // sums of weights as they are multiplied, where they are rounded
  float *k_scales, *v_scales;      // [kKeyBlock] of the block's positions
  float *q, *scores, *words;       // [count][words], [count][kKeyBlock], [count][kKeyBlock / 2] pairs of weights
  float *out, *block_out;          // [count][padded value_dim]
  float *keys, *panel;             // [kCacheBlock][head_dim + 1], [head_dim][kRowBlock]: those that lie row by row
  float *values, *zeros;           // [kCacheBlock][value_dim] as stored, [value_dim]
  std::int64_t columns;            // padded value_dim

  DecodeRows(float* scratch, std::int64_t count, std::int64_t head_dim, std::int64_t value_dim)
      : columns(padded_columns(value_dim)) {
    const auto take = [&](std::int64_t elements) { return std::exchange(scratch, scratch + elements); };
    for (float** line : {&max, &sum, &block_max, &old_factor, &block_factor, &block_sum, &divisor, &block_divisor})
      *line = take(kRowBlock);
    k_scales = take(kKeyBlock), v_scales = take(kKeyBlock);
    q = take(count * (head_dim + 1)), scores = take(count * kKeyBlock), words = take(count * kKeyBlock / 2);
    out = take(count * columns), block_out = take(count * columns);
    keys = take(kCacheBlock * (head_dim + 1)), panel = take(kRowBlock * (head_dim + 1));
    values = take(kCacheBlock * value_dim), zeros = take(columns);
  }
};

// What a row sees of a block, counted from its first key: [0, first) and [begin, end), apart; either may be empty.
struct RowKeys {
  int first, begin, end;

  bool none() const { return first == 0 && begin >= end; }
  bool whole(int from, int to) const { return first >= to || (begin <= from && to <= end); }
};

inline RowKeys keys_of_row(const DecodeRow& row, std::int64_t start) {
  const auto in_block = [start](std::int64_t position) {
    return static_cast<int>(std::clamp<std::int64_t>(position - start, 0, kKeyBlock));
  };
  RowKeys keys{in_block(row.first), in_block(row.visible.begin), in_block(row.visible.end)};
  if (keys.begin < keys.end && keys.begin <= keys.first) keys.first = std::max(keys.first, keys.end), keys.end = 0;
  if (keys.begin >= keys.end) keys.begin = keys.end = 0;
  return keys;
}

// A run of memory that a tile of rows goes over, step by step.
struct DecodeRun {
  const std::byte* from;
  std::int64_t line;  // bytes from step to step of keys, from row to row of values
  std::int64_t steps;
  const float* words;     // of the first row: queries or weights
  std::int64_t word_row;  // words from row to row
  float* sums;
  std::int64_t sum_row;
  const std::byte* ahead = nullptr;  // what is asked for meanwhile, ahead_step bytes a step, where Far > 0
  std::int64_t ahead_step = 0;
};

// What is to be asked for while tiles are at work: bytes from one on, or of rows that lie apart so many of each.
struct NextBytes {
  const std::byte* from = nullptr;
  std::int64_t bytes = 0, row = 0;  // row: bytes from row to row, or 0
};

// That, spread evenly over all steps of the tiles; of rows a tile asks for some columns, a step for those of one row.
struct AheadLines {
  const std::byte* at = nullptr;
  std::int64_t left = 0, step = 0, row = 0;

  AheadLines(const NextBytes& next, std::int64_t steps)
      : at(next.from), left(at ? next.bytes : 0), step((next.bytes + steps - 1) / steps), row(next.row) {}
  // A tile's share into its run, which reads so many bytes a step. Returns the lines of a step: none, one or several.
  int share(DecodeRun& run, std::int64_t bytes) {
    if (left <= 0) return 0;
    const std::int64_t own = row == 0 ? step * run.steps : bytes;
    run.ahead = at, run.ahead_step = row == 0 ? step : row;
    at += own, left -= own;
    return (row == 0 ? step : bytes) > kLineBytes ? 2 : 1;
  }
};

// Lines asked for a step where a tile is alone with its memory, of so many bytes a step.
constexpr int lines_of(int bytes) { return std::max(2, bytes / static_cast<int>(kLineBytes)); }

template <int Far>
MULTIHEAD_INLINE void prefetch_lines(const std::byte* p) {
  MULTIHEAD_UNROLL
  for (int i = 0; i < Far; ++i) __builtin_prefetch(p + i * kLineBytes, 0, 3);
}

// sums[r][v] = the product of words r and operand v added to it; what there are fewer of is held in registers.
template <class P, int R, int V, class Operand>
MULTIHEAD_INLINE void add_products(Vec<float> (&sums)[R][V], const float* words, std::int64_t word_row,
                                   const Operand& operand) {
  using Lanes = Vec<float>;
  if constexpr (R <= V) {
    Lanes held[R];
    MULTIHEAD_UNROLL
    for (int r = 0; r < R; ++r) held[r] = P::splat(words + r * word_row);
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) {
      const Lanes x = operand(v);
      MULTIHEAD_UNROLL
      for (int r = 0; r < R; ++r) sums[r][v] = P::add(x, held[r], sums[r][v]);
    }
  } else {
    Lanes held[V];
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) held[v] = operand(v);
    MULTIHEAD_UNROLL
    for (int r = 0; r < R; ++r) {
      const Lanes word = P::splat(words + r * word_row);
      MULTIHEAD_UNROLL
      for (int v = 0; v < V; ++v) sums[r][v] = P::add(held[v], word, sums[r][v]);
    }
  }
}

// Adds a part of a line of keys to the sums.
template <class P, int R, int V, int Part>
MULTIHEAD_INLINE void add_line(Vec<float> (&sums)[R][V], const std::byte* from, const float* words,
                               std::int64_t word_row) {
  add_products<P, R, V>(sums, words, word_row,
                        [&](int v) { return P::template keys<Part>(from + v * Vec<float>::kLanes * P::kKeyBytes); });
}

// Sums of R rows over the steps, for V registers of the chunk's keys.
template <class P, int R, int V, int Far>
MULTIHEAD_NOINLINE void decode_scores(const DecodeRun& run) {
  using Lanes = Vec<float>;
  Lanes sums[R][V];
  clear<float, R, V>(sums);
  const std::byte *from = run.from, *ahead = run.ahead;
  for (std::int64_t step = 0; step < run.steps; ++step, from += run.line) {
    if constexpr (Far > 0) prefetch_lines<Far>(ahead), ahead += run.ahead_step;
    add_line<P, R, V, 0>(sums, from, run.words + step * P::kParts, run.word_row);
    if constexpr (P::kParts == 2) add_line<P, R, V, 1>(sums, from, run.words + step * P::kParts + 1, run.word_row);
  }
  MULTIHEAD_UNROLL
  for (int r = 0; r < R; ++r) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[r][v].store(run.sums + r * run.sum_row + v * Lanes::kLanes);
  }
}

// Sums of R rows over the steps, for V registers of columns; Tail: the first `columns` of one register.
template <class P, int R, int V, int Far, bool Tail>
MULTIHEAD_NOINLINE void decode_output(const DecodeRun& run, int columns) {
  using Lanes = Vec<float>;
  Lanes sums[R][V];
  MULTIHEAD_UNROLL
  for (int r = 0; r < R; ++r) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[r][v] = Lanes::load(run.sums + r * run.sum_row + v * Lanes::kLanes);
  }
  const std::byte *from = run.from, *ahead = run.ahead;
  for (std::int64_t step = 0; step < run.steps; ++step, from += P::kTogether * run.line) {
    if constexpr (Far > 0) prefetch_lines<Far>(ahead), ahead += run.ahead_step;
    add_products<P, R, V>(sums, run.words + step, run.word_row, [&](int v) {
      if constexpr (Tail)
        return P::values_first(from, run.line, columns);
      else
        return P::template values<V>(from, run.line, v);
    });
  }
  MULTIHEAD_UNROLL
  for (int r = 0; r < R; ++r) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[r][v].store(run.sums + r * run.sum_row + v * Lanes::kLanes);
  }
}

// Runs a tile of so many rows, R at most: run<R>().
template <int R, class Run>
void by_rows(int rows, const Run& run) {
  if (rows == R)
    run.template operator()<R>();
  else if constexpr (R > 1)
    by_rows<R - 1>(rows, run);
}

// Cuts rows into tiles alike, of Most rows at most: run<R>(first).
template <int Most, class Run>
void in_row_tiles(int rows, const Run& run) {
  for (int first = 0, tiles = (rows + Most - 1) / Most; first < rows; --tiles) {
    const int count = (rows - first + tiles - 1) / tiles;
    by_rows<Most>(count, [&]<int R>() { run.template operator()<R>(first); });
    first += count;
  }
}

// Scores of all rows for a chunk: keys from run.from on, sums and words of the first row.
template <class P>
void score_chunk(const DecodeRun& chunk, int rows, const NextBytes& next) {
  constexpr int kVecs = kCacheBlock / Vec<float>::kLanes;
  std::int64_t tiles = 0;
  in_row_tiles<kScoreRows>(rows, [&]<int R>(int) { tiles += kVecs / key_vecs(R); });
  AheadLines lines(next, tiles * chunk.steps);
  in_row_tiles<kScoreRows>(rows, [&]<int R>(int first) {
    constexpr int V = key_vecs(R), kBytes = V * Vec<float>::kLanes * P::kKeyBytes, kLines = lines_of(kBytes);
    DecodeRun run = chunk;
    run.words += first * chunk.word_row, run.sums += first * chunk.sum_row;
    for (int vec = 0; vec < kVecs; vec += V) {
      const int far = lines.share(run, kBytes);
      if (far > 1)
        decode_scores<P, R, V, kLines>(run);
      else if (far == 1)
        decode_scores<P, R, V, 1>(run);
      else
        decode_scores<P, R, V, 0>(run);
      run.from += kBytes, run.sums += V * Vec<float>::kLanes;
    }
  });
}

// Output of a tile of rows for a run of keys: V registers of columns, then fewer, then what is left of one.
template <class P, int R, int V>
void output_columns(DecodeRun run, int columns, AheadLines& lines) {
  constexpr int kLanes = Vec<float>::kLanes, kBytes = V * kLanes * stored_bytes(P::kElement);
  for (; columns >= V * kLanes; columns -= V * kLanes) {
    const int far = lines.share(run, kBytes);
    if (far > 1)
      decode_output<P, R, V, lines_of(kBytes * P::kTogether), false>(run, 0);
    else if (far == 1)
      decode_output<P, R, V, 1, false>(run, 0);
    else
      decode_output<P, R, V, 0, false>(run, 0);
    run.from += kBytes, run.sums += V * kLanes;
  }
  if constexpr (V > 1)
    output_columns<P, R, fewer_vecs(V)>(run, columns, lines);
  else if (columns > 0)
    decode_output<P, R, 1, 0, true>(run, columns);
}

// Output of all rows for a run of keys.
template <class P>
void output_run(const DecodeRun& keys, int rows, int columns, const NextBytes& next) {
  constexpr int kLanes = Vec<float>::kLanes;
  std::int64_t tiles = 0;
  in_row_tiles<kOutputRows>(rows, [&]<int R>(int) {
    constexpr int kWide = column_vecs(R, P::kSplit) * kLanes;
    tiles += (columns + kWide - 1) / kWide;
  });
  AheadLines lines(next, tiles * keys.steps);
  in_row_tiles<kOutputRows>(rows, [&]<int R>(int first) {
    DecodeRun run = keys;
    run.words += first * keys.word_row, run.sums += first * keys.sum_row;
    output_columns<P, R, column_vecs(R, P::kSplit)>(run, columns, lines);
  });
}
