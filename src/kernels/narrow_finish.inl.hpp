// SPDX-License-Identifier: Apache-2.0
// What products of matrices stored in two bytes share, whoever multiplies: sums of blocks of the inner axis, added in
// task.scratch in lines of kRowBlock; then bias and activation in float, and C in its own type.

// c (N, V registers) = or += sums
template <int N, int V>
MULTIHEAD_INLINE void put_narrow_sums(const Vec<float> (&sums)[N][V], float* c, bool add) {
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) {
      float* const to = c + n * kRowBlock + v * Vec<float>::kLanes;
      (add ? Vec<float>::load(to) + sums[n][v] : sums[n][v]).store(to);
    }
  }
}

// Lines from next on that a block takes, as far as there are any. Two lines of B are one of 32-bit words.
inline Ahead<float> lines_from(const NarrowMatmulTask& task, const std::uint16_t* next) {
  const std::int64_t left = (static_cast<const std::uint16_t*>(task.packed_end) - next) / (2 * kRowBlock);
  return {reinterpret_cast<const float*>(next), kRowBlock, std::clamp<std::int64_t>(left, 0, kInnerBlock / 2)};
}

// What follows these lines of a panel, to be asked for in so many tiles.
inline Ahead<float> next_lines(const NarrowMatmulTask& task, const std::uint16_t* lines, std::int64_t count,
                               std::int64_t tiles) {
  Ahead<float> ahead = lines_from(task, lines + (count + 1) / 2 * 2 * kRowBlock);
  ahead.spread(tiles, count / 2);
  return ahead;
}

// Rows that are finished together: more than it takes to make an activation's constants ready, and still in L1.
constexpr int kFinishTogether = 16;

// A task's columns from column on, at most count of them, of the same panel.
inline NarrowMatmulTask columns_from(const NarrowMatmulTask& task, int column, int count) {
  NarrowMatmulTask own = task;
  own.c = static_cast<char*>(task.c) + column * static_cast<std::int64_t>(size_of(task.c_type));
  own.columns = std::min(task.columns - column, count);
  if (task.bias) own.bias = task.bias + column;
  own.scratch = task.scratch + column;
  return own;
}

// multiply(panel) for each panel of a task, with its own sums.
template <class Multiply>
void each_panel(const NarrowMatmulTask& task, const Multiply& multiply) {
  for (int column = 0; column < task.columns; column += kRowBlock) {
    NarrowMatmulTask panel = columns_from(task, column, kRowBlock);
    panel.packed = static_cast<const std::uint16_t*>(task.packed) + column / kRowBlock * task.panel_elements;
    panel.scratch = task.scratch + column * task.rows;
    multiply(panel);
  }
}

// Rows [first, last), whose sums are complete.
inline void finish_narrow(const NarrowMatmulTask& task, std::int64_t first, std::int64_t last) {
  MatmulTask<float> sums{};
  sums.rows = last - first, sums.columns = task.columns;
  sums.c = task.scratch + first * kRowBlock, sums.c_stride = kRowBlock;
  sums.bias = task.bias, sums.activation = task.activation;
  finish_product(sums);
  const std::int64_t size = static_cast<std::int64_t>(size_of(task.c_type));
  for (std::int64_t row = first; row < last; ++row) {
    const float* const from = task.scratch + row * kRowBlock;
    char* const to = static_cast<char*>(task.c) + row * task.c_stride * size;
    if (task.c_type == Type::float32)
      std::memcpy(to, from, static_cast<std::size_t>(task.columns * size));
    else if (task.c_type == Type::bfloat16)
      narrow<BFloat16>(from, task.columns, to);
    else
      narrow<Float16>(from, task.columns, to);
  }
}
