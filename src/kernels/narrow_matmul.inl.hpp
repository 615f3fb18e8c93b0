// SPDX-License-Identifier: Apache-2.0
// C = activation(A B + bias) where A and B are stored in two bytes and a target has no products of them: both are
// widened, multiplied as in matmul.inl.hpp, and C is rounded once, after the activation, or not at all. Its bits before
// that are those of the product of the widened matrices.
//
// Blocks of A are widened, once for all the panels of a task. Lines of B are widened in registers; where rows are many,
// the first ones leave the widened lines of their strip of columns, a block of the inner axis long, to the others.

// Rows that make up for storing a strip, more than a tile's: a shift or a mask takes less of the multiply-adds' pipes
// than a conversion of float16.
constexpr std::int64_t sharing_rows(Type type) {
  return std::max(type == Type::bfloat16 ? 13 : 5, kTileBroadcasts + 1);
}

constexpr int kLineVecs = kTileBroadcasts > 4 ? 3 : 2;  // registers of columns that 4 rows and a mask leave room for
constexpr int kWideVecs = std::min(2 * kTileVecs, kRowBlock / Vec<float>::kLanes);  // of a row or two: memory's order
constexpr int kStripLanes = kTileVecs * Vec<float>::kLanes;
static_assert(kRowBlock % kStripLanes == 0 && kRowBlock % (kLineVecs * Vec<float>::kLanes) == 0 &&
              kRowBlock % (kWideVecs * Vec<float>::kLanes) == 0);

// Elements between two lines of B: type float32 stands for a strip.
template <Type kType>
constexpr std::int64_t kLine = kType == Type::float32 ? kStripLanes : kRowBlock;
template <Type kType>
using LineOf = std::conditional_t<kType == Type::float32, float, std::uint16_t>;

// The first or second of two elements of the inner axis, of the columns from column on, as floats.
template <Type kType, int kOdd>
MULTIHEAD_INLINE Vec<float> widened_line(const LineOf<kType>* lines, int column) {
  if constexpr (kType == Type::float32) return Vec<float>::load(lines + kOdd * kStripLanes + column);
  if constexpr (kType == Type::float16) return Vec<float>::load_float16(lines + kOdd * kRowBlock + column);
  if constexpr (kType == Type::bfloat16) {
    const Vec<float> pairs = Vec<float>::load(reinterpret_cast<const float*>(lines) + column);
    if constexpr (kOdd == 0) return Vec<float>::template shift_left<16>(pairs);
    return pairs & Vec<float>::splat(std::bit_cast<float>(0xFFFF0000u));
  }
}

// A block of the inner axis: A widened, lines of B from a strip's first column on, and the sums that get it. Rows of A
// lie as far apart as a whole block is long, so that a tile addresses all of them from one register.
template <Type kType>
struct NarrowBlock {
  const float* a;  // (rows, kInnerBlock)
  const LineOf<kType>* lines;
  std::int64_t count;
  float* c;  // (rows, kRowBlock)
  bool add;
  float* strip = nullptr;  // (count, kStripLanes), for a tile that leaves its lines there
};

template <Type kType, int kOdd, int N, int V, bool kLeaves>
MULTIHEAD_INLINE void narrow_step(Vec<float> (&sums)[N][V], const float* a, const LineOf<kType>* lines, float* strip) {
  Vec<float> lanes[V];
  MULTIHEAD_UNROLL
  for (int v = 0; v < V; ++v) lanes[v] = widened_line<kType, kOdd>(lines, v * Vec<float>::kLanes);
  if constexpr (kLeaves) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) lanes[v].store(strip + kOdd * kStripLanes + v * Vec<float>::kLanes);
  }
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    const Vec<float> element = Vec<float>::splat(a[n * kInnerBlock + kOdd]);
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[n][v] = Vec<float>::fma(element, lanes[v], sums[n][v]);
  }
}

// N rows and V registers of columns, each element one chain.
template <Type kType, int N, int V, bool kLeaves = false>
MULTIHEAD_NOINLINE void narrow_tile(const NarrowBlock<kType>& by, std::int64_t row, Ahead<float>& ahead) {
  constexpr std::int64_t kPair = 2 * kLine<kType>;
  Vec<float> sums[N][V];
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[n][v] = Vec<float>::splat(0);
  }
  const float* a = by.a + row * kInnerBlock;
  const LineOf<kType>* lines = by.lines;
  float* strip = by.strip;
  for (std::int64_t left = by.count / 2; left > 0; left -= ahead.between) {
    if (ahead.lines > 0) ahead.ask(), ahead.lines -= ahead.each;
    const float* const end = a + 2 * std::min(left, ahead.between);
    for (; a != end; a += 2, lines += kPair) {
      narrow_step<kType, 0, N, V, kLeaves>(sums, a, lines, strip);
      narrow_step<kType, 1, N, V, kLeaves>(sums, a, lines, strip);
      if constexpr (kLeaves) strip += 2 * kStripLanes;
    }
  }
  if (by.count % 2 != 0) narrow_step<kType, 0, N, V, kLeaves>(sums, a, lines, strip);
  put_narrow_sums<N, V>(sums, by.c + row * kRowBlock, by.add);
}

// Rows of a strip, a tile after the other; behind the last block of the inner axis they are finished, kFinishTogether
// at a time.
struct NarrowRows {
  const NarrowMatmulTask& strip;
  bool last;
  Ahead<float>& ahead;
  std::int64_t row = 0, finished = 0;

  template <Type kType, int N, int V, bool kLeaves = false>
  void tile(const NarrowBlock<kType>& by) {
    narrow_tile<kType, N, V, kLeaves>(by, row, ahead);
    row += N;
    if (!last || (row - finished < kFinishTogether && row < strip.rows)) return;
    finish_narrow(strip, finished, row);
    finished = row;
  }
  // A tile leaves two rows: one alone has too few chains to keep the multiply-adds busy.
  template <Type kType, int V, int kMost>
  void rest(const NarrowBlock<kType>& by) {
    const auto fits = [&](int rows) { return row + rows <= strip.rows && row + rows + 1 != strip.rows; };
    while (fits(kMost)) tile<kType, kMost, V>(by);
    if constexpr (kMost > 4)
      while (fits(4)) tile<kType, 4, V>(by);
    if constexpr (kMost > 2)
      if (row + 3 <= strip.rows) tile<kType, 3, V>(by);
    if (row + 2 <= strip.rows) tile<kType, 2, V>(by);
    if (row < strip.rows) tile<kType, 1, V>(by);
  }
};

// Lines from next on, to be asked for by a block's tiles, some every 16 pairs of steps; every 4 where these are so few
// that a core would have too many at once.
inline Ahead<float> lines_ahead(const NarrowMatmulTask& panel, const std::uint16_t* next, std::int64_t count,
                                std::int64_t tiles) {
  Ahead<float> ahead = lines_from(panel, next);
  ahead.between = tiles <= 2 ? 4 : 16;
  const std::int64_t times = std::max<std::int64_t>(1, tiles * ((count / 2 + ahead.between - 1) / ahead.between));
  ahead.each = (ahead.lines + times - 1) / times;
  return ahead;
}

// How rows are cut against a panel's lines: registers of columns of a strip, and rows of a tile.
struct NarrowCut {
  bool shares, wide;
  int lanes = kLineVecs * Vec<float>::kLanes, most = 4;

  NarrowCut(Type type, std::int64_t rows) : shares(rows >= sharing_rows(type)), wide(rows < kWideRows) {
    if (shares) lanes = kStripLanes, most = kTileBroadcasts;
    if (wide) lanes = kWideVecs * Vec<float>::kLanes, most = 2;
  }
  std::int64_t tiles(std::int64_t rows, int columns) const {
    return (rows + most - 1) / most * ((columns + lanes - 1) / lanes);
  }
};

// One panel's block, [inner, inner + count) of the inner axis, for rows of A from a on; next are the lines after these.
template <Type kType>
void narrow_panel(const NarrowMatmulTask& panel, const float* a, std::int64_t inner, const std::uint16_t* next,
                  float* strip) {
  constexpr int kTogether = kType == Type::bfloat16 ? 2 : 1;
  const std::int64_t count = std::min<std::int64_t>(panel.inner - inner, kInnerBlock);
  const auto* const lines = static_cast<const std::uint16_t*>(panel.packed) + inner * kRowBlock;
  const NarrowCut cut(kType, panel.rows);
  Ahead<float> ahead = lines_ahead(panel, next, count, cut.tiles(panel.rows, panel.columns));
  for (int column = 0; column < panel.columns; column += cut.lanes) {
    const NarrowMatmulTask own = columns_from(panel, column, cut.lanes);
    const NarrowBlock<kType> by{a, lines + column * kTogether, count, own.scratch, inner > 0, strip};
    NarrowRows rows{own, inner + count >= panel.inner, ahead};
    if (cut.shares) {
      rows.tile<kType, kTileBroadcasts, kTileVecs, true>(by);
      rows.rest<Type::float32, kTileVecs, kTileBroadcasts>({a, strip, count, own.scratch, inner > 0});
    } else if (cut.wide) {
      rows.rest<kType, kWideVecs, 2>(by);
    } else {
      rows.rest<kType, kLineVecs, 4>(by);
    }
  }
}

// Elements [inner, inner + count) of all rows of A. Rows to come are asked for: each is a stretch too short for a core
// to see where it leads.
inline void widen_rows(const NarrowMatmulTask& task, std::int64_t inner, std::int64_t count, float* a) {
  constexpr std::int64_t kRowsAhead = 4, kCacheLine = 64;
  for (std::int64_t row = 0; row < task.rows; ++row, a += kInnerBlock) {
    const std::int64_t then = std::min(row + kRowsAhead, task.rows - 1);
    const char* const next = static_cast<const char*>(element(task.a, task.type, then * task.a_stride + inner));
    for (std::int64_t byte = 0; byte < 2 * count; byte += kCacheLine) __builtin_prefetch(next + byte, 0, 3);
    load_row<float>(element(task.a, task.type, row * task.a_stride + inner), task.type, 1, count, a);
  }
}

template <Type kType>
void multiply_narrow(const NarrowMatmulTask& task) {
  float* const a = task.scratch + kNarrowPanels * kNarrowRows * kRowBlock;
  float* const strip = a + kNarrowRows * kInnerBlock;
  const auto* const first = static_cast<const std::uint16_t*>(task.packed);
  const std::uint16_t* const end = first + (task.columns + kRowBlock - 1) / kRowBlock * task.panel_elements;
  std::int64_t inner = 0;
  do {  // once for inner == 0: C becomes zero
    widen_rows(task, inner, std::min<std::int64_t>(task.inner - inner, kInnerBlock), a);
    each_panel(task, [&](const NarrowMatmulTask& panel) {
      const std::uint16_t* next = static_cast<const std::uint16_t*>(panel.packed) + task.panel_elements;
      if (next < end)
        next += inner * kRowBlock;
      else if (inner + kInnerBlock < task.inner)
        next = first + (inner + kInnerBlock) * kRowBlock;
      narrow_panel<kType>(panel, a, inner, next, strip);
    });
    inner += kInnerBlock;
  } while (inner < task.inner);
}

inline void narrow_matmul_task(const NarrowMatmulTask& task) noexcept {
  task.type == Type::bfloat16 ? multiply_narrow<Type::bfloat16>(task) : multiply_narrow<Type::float16>(task);
}
