// SPDX-License-Identifier: Apache-2.0
// C = A B for one block of columns. An element is a sum over blocks of kInnerBlock input channels, each block one
// chain of fused multiply-adds from zero, the blocks added in ascending order: the same whatever the rows and columns
// beside it, and closer to the true sum than one long chain. C += A B adds the blocks to what is there.

// C (N, V registers of columns) = or += A (N, count) panel, the last register only as far as columns reach.
template <class T, int N, int V, bool kTurned>
MULTIHEAD_NOINLINE void matmul_tile(const T* a, std::int64_t a_stride, const T* panel, std::int64_t count, T* c,
                                    std::int64_t c_stride, int columns, bool add) {
  constexpr int kLanes = Vec<T>::kLanes;
  Vec<T> sums[N][V];
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[n][v] = Vec<T>::splat(0);
  }
  accumulate<T, N, 0, V>(sums, a, kTurned ? 1 : a_stride, kTurned ? a_stride : 1, panel, count);
  const int last = columns - (V - 1) * kLanes;
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) {
      T* to = c + n * c_stride + v * kLanes;
      if (v < V - 1 || last >= kLanes) {
        (add ? Vec<T>::load(to) + sums[n][v] : sums[n][v]).store(to);
      } else {
        (add ? Vec<T>::load_first(to, last) + sums[n][v] : sums[n][v]).store_first(to, last);
      }
    }
  }
}

// Where the packed matrix goes on after the lines at hand, a share of which each row asks for.
template <class T>
struct PackedAhead {
  const T* from = nullptr;
  std::int64_t count = 0, share = 0;

  PackedAhead(const MatmulTask<T>& task, const T* panel, std::int64_t lines, int column, int group) {
    if (!task.packed) return;
    const T* const next = panel - column + lines * kRowBlock;
    const T* const end = task.packed + task.inner * kRowBlock + task.packed_after;
    const std::int64_t all = std::min<std::int64_t>(kInnerBlock * kRowBlock, end - next);
    const int groups = (task.columns + group - 1) / group;
    share = all / (groups * std::max<std::int64_t>(task.rows, 1)) + 1;
    from = next + std::min(all, column / group * task.rows * share);
    count = std::min(all - (from - next), task.rows * share);
  }
  MULTIHEAD_INLINE void ask(std::int64_t row, int rows) const {
    for (std::int64_t at = row * share; at < std::min(count, (row + rows) * share); at += kLineElements)
      __builtin_prefetch(from + at, 0, 3);
  }
  static constexpr std::int64_t kLineElements = 64 / sizeof(T);
};

template <class T, int V, bool kTurned>
void matmul_rows(const MatmulTask<T>& task, const T* a, const T* panel, std::int64_t count, int column, bool add) {
  const int columns = std::min(task.columns - column, V * Vec<T>::kLanes);
  const PackedAhead<T> ahead(task, panel, count, column, kTileVecs * Vec<T>::kLanes);
  std::int64_t row = 0;
  const auto tile = [&]<int N>() {
    ahead.ask(row, N);
    matmul_tile<T, N, V, kTurned>(a + (kTurned ? row : row * task.a_stride), task.a_stride, panel, count,
                                  task.c + row * task.c_stride + column, task.c_stride, columns, add);
    row += N;
  };
  while (row + kTileBroadcasts <= task.rows) tile.template operator()<kTileBroadcasts>();
  if constexpr (kTileBroadcasts > 4)
    if (row + 4 <= task.rows) tile.template operator()<4>();
  if (row + 2 <= task.rows) tile.template operator()<2>();
  if (row < task.rows) tile.template operator()<1>();
}

// Lines [0, count) of B, task.columns wide, filled with zeros to a whole register.
template <class T>
void matmul_pack(const MatmulTask<T>& task, const T* b, std::int64_t count) {
  constexpr int kLanes = Vec<T>::kLanes;
  if (task.b_column_stride != 1) {  // [out, in]: rows of B^T are contiguous
    pack_panel<T>(b, task.b_column_stride, task.columns, count, task.scratch);
    return;
  }
  for (std::int64_t k = 0; k < count; ++k)
    for (int column = 0; column < task.columns; column += kLanes) {
      const T* from = b + k * task.b_inner_stride + column;
      const int valid = task.columns - column;
      (valid >= kLanes ? Vec<T>::load(from) : Vec<T>::load_first(from, valid))
          .store(task.scratch + k * kRowBlock + column);
    }
}

template <class T, bool kTurned>
void matmul_blocks(const MatmulTask<T>& task) {
  constexpr int kLanes = Vec<T>::kLanes;
  std::int64_t inner = 0;
  do {  // once for inner == 0: C becomes zero
    const std::int64_t count = std::min<std::int64_t>(task.inner - inner, kInnerBlock);
    if (!task.packed) matmul_pack(task, task.b + inner * task.b_inner_stride, count);
    const T* lines = task.packed ? task.packed + inner * kRowBlock : task.scratch;
    for (int column = 0; column < task.columns; column += kTileVecs * kLanes) {
      const int vecs = std::min(kTileVecs, (task.columns - column + kLanes - 1) / kLanes);
      const T* a = task.a + (kTurned ? inner * task.a_stride : inner);
      const T* panel = lines + column;
      const bool add = task.add || inner > 0;
      if (vecs == 1)
        matmul_rows<T, 1, kTurned>(task, a, panel, count, column, add);
      else if (vecs == 2 || kTileVecs == 2)
        matmul_rows<T, 2, kTurned>(task, a, panel, count, column, add);
      else
        matmul_rows<T, kTileVecs, kTurned>(task, a, panel, count, column, add);
    }
    inner += kInnerBlock;
  } while (inner < task.inner);
}

// B is packed, or contiguous along columns (b_column_stride 1) or along the inner axis (b_inner_stride 1).
template <class T>
void matmul_task(const MatmulTask<T>& task) noexcept {
  task.a_turned ? matmul_blocks<T, true>(task) : matmul_blocks<T, false>(task);
  finish_product(task);
}
