// SPDX-License-Identifier: Apache-2.0
// C = A B for one block of columns. An element is a sum over blocks of kInnerBlock input channels, each block one
// chain of fused multiply-adds from zero, the blocks added in ascending order: the same whatever the rows and columns
// beside it, and closer to the true sum than one long chain. C += A B adds the blocks to what is there. The last
// block's store adds the bias, and the activation runs over a tile that was just stored.

// Lines of B that are needed next, of kRowBlock columns each: a few are asked for every `between` inner steps, so that
// they arrive while the tiles at hand are computed.
template <class T>
struct Ahead {
  const T* line = nullptr;
  std::int64_t step = 0, lines = 0;    // elements from line to line
  std::int64_t each = 0, between = 0;  // lines at a time; a multiple of 4

  // In `tiles` tiles of `count` steps.
  void spread(std::int64_t tiles, std::int64_t count) {
    between = std::max<std::int64_t>(tiles / 4 * 4, 4);
    const std::int64_t times = tiles * ((count + between - 1) / between);
    each = times > 0 ? (lines + times - 1) / times : 0;
  }
  MULTIHEAD_INLINE void ask() {
    constexpr int kBytes = kRowBlock * sizeof(T), kCacheLine = 64;
    for (std::int64_t i = 0; i < each; ++i, line += step) {
      const char* const at = reinterpret_cast<const char*>(line);
      MULTIHEAD_UNROLL
      for (int byte = 0; byte < kBytes; byte += kCacheLine) __builtin_prefetch(at + byte, 0, 2);
      __builtin_prefetch(at + kBytes - 1, 0, 2);
    }
  }
};

// What follows the first `done` lines of B: the next block, or the first one of the next columns.
template <class T>
Ahead<T> next_of(const MatmulTask<T>& task, std::int64_t done) {
  const bool here = done < task.inner;
  const std::int64_t count = std::min<std::int64_t>(kInnerBlock, here ? task.inner - done : task.inner);
  if (!here && task.columns_after == 0) return {};
  if (task.packed) return {task.packed + done * kRowBlock, kRowBlock, count};
  if (task.b_column_stride != 1) return {};
  return {task.b + (here ? done * task.b_inner_stride : task.columns), task.b_inner_stride, count};
}

// A block of B and what its tiles add to or store in C.
template <class T>
struct MatmulBlock {
  const T* a;
  const T* b;  // (count, columns), lines apart
  std::int64_t count, line;
  bool add;
  const T* bias;             // (columns) or null
  ActivateRows<T> activate;  // or null
};

// C (N, V registers of columns) = or += sums, plus the bias. Whole: all registers, without a question at each; else the
// last one only as far as columns reach.
template <class T, int N, int V, bool kWhole>
MULTIHEAD_INLINE void store_tile(Vec<T> (&sums)[N][V], const MatmulBlock<T>& block, T* c, std::int64_t c_stride,
                                 int columns) {
  constexpr int kLanes = Vec<T>::kLanes;
  const int last = kWhole ? kLanes : columns - (V - 1) * kLanes;
  if (block.add) {
    MULTIHEAD_UNROLL
    for (int n = 0; n < N; ++n) {
      MULTIHEAD_UNROLL
      for (int v = 0; v < V; ++v)
        sums[n][v] = load_up_to<T>(c + n * c_stride + v * kLanes, v < V - 1 ? kLanes : last) + sums[n][v];
    }
  }
  if (block.bias) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) {
      const Vec<T> bias = load_up_to<T>(block.bias + v * kLanes, v < V - 1 ? kLanes : last);
      MULTIHEAD_UNROLL
      for (int n = 0; n < N; ++n) sums[n][v] = sums[n][v] + bias;
    }
  }
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) store_up_to<T>(sums[n][v], c + n * c_stride + v * kLanes, v < V - 1 ? kLanes : last);
  }
}

// C (N, V registers of columns) = or += A (N, count) B, the last register only as far as columns reach.
template <class T, int N, int V, bool kTurned>
MULTIHEAD_NOINLINE void matmul_tile(const MatmulBlock<T>& block, std::int64_t a_stride, T* c, std::int64_t c_stride,
                                    int columns, Ahead<T>& ahead) {
  constexpr int kLanes = Vec<T>::kLanes;
  Vec<T> sums[N][V];
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[n][v] = Vec<T>::splat(0);
  }
  const std::int64_t n_step = kTurned ? 1 : a_stride, k_step = kTurned ? a_stride : 1;
  const T *from = block.a, *lines = block.b;
  for (std::int64_t left = block.count; left > 0; left -= ahead.between) {
    const std::int64_t steps = std::min(left, ahead.between);
    ahead.ask();
    if constexpr (N > 1 && V > kTileVecs) {  // in halves of a line: a whole one would push sums out of registers
      for (std::int64_t k = 0; k < steps; ++k, from += k_step, lines += block.line) {
        accumulate<T, N, 0, V / 2>(sums, from, n_step, k_step, lines, 1);
        accumulate<T, N, V / 2, V>(sums, from, n_step, k_step, lines, 1);
      }
    } else {
      accumulate<T, N, 0, V>(sums, from, n_step, k_step, lines, steps, block.line);
      from += steps * k_step, lines += steps * block.line;
    }
  }
  if (columns == V * kLanes)
    store_tile<T, N, V, true>(sums, block, c, c_stride, columns);
  else
    store_tile<T, N, V, false>(sums, block, c, c_stride, columns);
}

// Whether a product takes whole lines of its panel at a time: rows too few to fill a tile of kTileVecs registers.
constexpr std::int64_t kWideRows = 3;

// Rows after which an activation runs over them: more than it takes to make its constants ready, and still in L1.
constexpr std::int64_t kActivateTogether = 16;

// All rows against V registers of columns, kMost rows a tile at most. A row alone has too few chains to keep the
// multiply-adds busy, so a tile leaves two.
template <class T, int V, int kMost, bool kTurned>
void matmul_rows(const MatmulTask<T>& task, MatmulBlock<T> block, T* c, int columns, Ahead<T>& ahead) {
  std::int64_t rows = task.rows, plain = 0;  // plain: rows without their activation
  const auto activate = [&] {
    if (block.activate && plain > 0) block.activate(c - plain * task.c_stride, task.c_stride, plain, columns);
    plain = 0;
  };
  const auto tile = [&]<int N>() {
    matmul_tile<T, N, V, kTurned>(block, task.a_stride, c, task.c_stride, columns, ahead);
    block.a += N * (kTurned ? 1 : task.a_stride), c += N * task.c_stride, rows -= N, plain += N;
    if (plain >= kActivateTogether) activate();
  };
  while (rows >= kMost && rows != kMost + 1) tile.template operator()<kMost>();
  if constexpr (kMost > 4)
    while (rows >= 4 && rows != 5) tile.template operator()<4>();
  if constexpr (kMost > 2)
    if (rows >= 3) tile.template operator()<3>();
  if (rows >= 2) tile.template operator()<2>();
  if (rows >= 1) tile.template operator()<1>();
  activate();
}

// Lines [0, count) of B, task.columns wide, filled with zeros to a whole register.
template <class T>
void matmul_pack(const MatmulTask<T>& task, const T* b, std::int64_t count) {
  constexpr int kLanes = Vec<T>::kLanes;
  if (task.b_column_stride != 1) {  // [out, in]: rows of B^T are contiguous
    pack_panel<T>(b, task.b_column_stride, task.columns, count, task.scratch);
    return;
  }
  const int rest = task.columns % kLanes, whole = task.columns - rest;
  T* to = task.scratch;
  for (std::int64_t k = 0; k < count; ++k, b += task.b_inner_stride, to += kRowBlock) {
    for (int column = 0; column < whole; column += kLanes) Vec<T>::load(b + column).store(to + column);
    if (rest > 0) Vec<T>::load_first(b + whole, rest).store(to + whole);
  }
}

constexpr std::int64_t kUnpackedRows = 8;  // more would evict lines that lie far apart before they are read again

// Lines [inner, inner + count) of B: where they stand, if a tile can read them there, or packed.
template <class T>
void choose_lines(const MatmulTask<T>& task, std::int64_t inner, MatmulBlock<T>& block) {
  block.line = kRowBlock;
  if (task.packed) {
    block.b = task.packed + inner * kRowBlock;
  } else if (task.rows <= kUnpackedRows && task.b_column_stride == 1 && task.columns % Vec<T>::kLanes == 0) {
    block.b = task.b + inner * task.b_inner_stride;
    block.line = task.b_inner_stride;
  } else {
    matmul_pack(task, task.b + inner * task.b_inner_stride, block.count);
    block.b = task.scratch;
  }
}

// The tiles of a block.
template <class T, bool kTurned>
void matmul_tiles(const MatmulTask<T>& task, const MatmulBlock<T>& whole, Ahead<T> ahead) {
  constexpr int kLanes = Vec<T>::kLanes, kWideVecs = std::min(2 * kTileVecs, kRowBlock / kLanes);
  const int most = task.rows <= kWideRows ? kWideVecs : kTileVecs;
  ahead.between = std::max<std::int64_t>(whole.count, 1);
  if (ahead.lines > 0)
    ahead.spread(
        (task.columns + most * kLanes - 1) / (most * kLanes) * ((task.rows + kTileBroadcasts - 1) / kTileBroadcasts),
        whole.count);
  for (int column = 0, vecs = 0; column < task.columns; column += vecs * kLanes) {
    vecs = std::min(most, (task.columns - column + kLanes - 1) / kLanes);
    if (vecs < kWideVecs) vecs = std::min(vecs, kTileVecs);
    const int columns = std::min(task.columns - column, vecs * kLanes);
    MatmulBlock<T> block = whole;
    block.b += column;
    if (block.bias) block.bias += column;
    T* const c = task.c + column;
    if (vecs == 1)
      matmul_rows<T, 1, kTileBroadcasts, kTurned>(task, block, c, columns, ahead);
    else if (vecs == 2 && kTileVecs > 2)
      matmul_rows<T, 2, kTileBroadcasts, kTurned>(task, block, c, columns, ahead);
    else if (vecs > kTileVecs)
      matmul_rows<T, kWideVecs, 2, kTurned>(task, block, c, columns, ahead);
    else
      matmul_rows<T, kTileVecs, kTileBroadcasts, kTurned>(task, block, c, columns, ahead);
  }
}

template <class T, bool kTurned>
void matmul_blocks(const MatmulTask<T>& task) {
  std::int64_t inner = 0;
  do {  // once for inner == 0: C becomes zero
    MatmulBlock<T> block{};
    block.count = std::min<std::int64_t>(task.inner - inner, kInnerBlock);
    block.a = task.a + (kTurned ? inner * task.a_stride : inner);
    block.add = task.add || inner > 0;
    choose_lines(task, inner, block);
    inner += block.count;
    if (inner == task.inner) block.bias = task.bias, block.activate = rows_activation<T>(task.activation);
    matmul_tiles<T, kTurned>(task, block, next_of(task, inner));
  } while (inner < task.inner);
}

// B is packed, or contiguous along columns (b_column_stride 1) or along the inner axis (b_inner_stride 1).
template <class T>
void matmul_task(const MatmulTask<T>& task) noexcept {
  task.a_turned ? matmul_blocks<T, true>(task) : matmul_blocks<T, false>(task);
}
