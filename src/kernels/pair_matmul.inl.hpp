// SPDX-License-Identifier: Apache-2.0
// C = activation(A B + bias) of bfloat16 by products of pairs (pairs.inl.hpp): A from where it stands, B from its
// packed lines of pairs. An element is a sum over blocks of kInnerBlock input channels as in matmul.inl.hpp, each block
// one chain of pairs from zero.
//
//               A                                         B                                C
//               rows of activations                       a packed block of columns        sums [row][48]
//               [row][inner], a_stride apart              [pair of channels][48]

// A block of the inner axis: rows of A from its first element on, its lines of B, and the sums that get it.
struct PairProduct {
  const std::uint16_t* a;
  std::int64_t a_stride;
  const float* lines;
  int count;  // elements of the block
  float* c;   // (rows, kRowBlock)
  bool add;
};

// N rows and V registers of columns.
template <int N, int V>
MULTIHEAD_NOINLINE void pair_matmul_tile(const PairProduct& by, int row, Ahead<float>& ahead) {
  Vec<float> sums[N][V];
  clear<float, N, V>(sums);
  const std::int64_t stride = by.a_stride;
  const std::uint16_t* a = by.a + row * stride;
  const float* lines = by.lines;
  for (int left = by.count / 2; left > 0; left -= static_cast<int>(ahead.between)) {
    const int steps = std::min(left, static_cast<int>(ahead.between));
    ahead.ask();
    accumulate_pairs<N, 0, V>(sums, a, stride, lines, steps);
    a += 2 * steps, lines += steps * kRowBlock;
  }
  if (by.count % 2 != 0) {  // a pair would reach past the row
    std::uint16_t last[N][2];
    for (int n = 0; n < N; ++n) last[n][0] = a[n * stride], last[n][1] = 0;
    accumulate_pairs<N, 0, V>(sums, last[0], 2, lines, 1);
  }
  put_narrow_sums<N, V>(sums, by.c + row * kRowBlock, by.add);
}

// All rows, finished kFinishTogether at a time behind the last block.
template <int V>
void pair_matmul_rows(const NarrowMatmulTask& task, const PairProduct& by, bool last, Ahead<float> ahead) {
  const int rows = static_cast<int>(task.rows);
  int finished = 0;
  in_strips(0, rows, [&]<int N>(int row) {
    pair_matmul_tile<N, V>(by, row, ahead);
    const int end = row + N;
    if (!last || (end - finished < kFinishTogether && end < rows)) return;
    finish_narrow(task, finished, end);
    finished = end;
  });
}

inline void pair_matmul_panel(const NarrowMatmulTask& task) {
  constexpr int kLanes = Vec<float>::kLanes;
  std::int64_t inner = 0;
  do {  // once for inner == 0: C becomes zero
    const std::int64_t count = std::min<std::int64_t>(task.inner - inner, kInnerBlock);
    const auto* const lines = static_cast<const std::uint16_t*>(task.packed) + inner * kRowBlock;
    const PairProduct by{static_cast<const std::uint16_t*>(task.a) + inner,
                         task.a_stride,
                         reinterpret_cast<const float*>(lines),
                         static_cast<int>(count),
                         task.scratch,
                         inner > 0};
    inner += kInnerBlock;
    const std::int64_t tiles = (task.rows + kTileBroadcasts - 1) / kTileBroadcasts;
    by_width((task.columns + kLanes - 1) / kLanes, [&]<int V>() {
      pair_matmul_rows<V>(task, by, inner >= task.inner, next_lines(task, lines, count, tiles));
    });
  } while (inner < task.inner);
}

inline void pair_matmul_task(const NarrowMatmulTask& task) noexcept { each_panel(task, pair_matmul_panel); }
