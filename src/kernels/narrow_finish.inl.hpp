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

// Two lines of B are one of 32-bit words. What follows these, to be asked for in so many tiles.
inline Ahead<float> next_lines(const NarrowMatmulTask& task, const std::uint16_t* lines, std::int64_t count,
                               std::int64_t tiles) {
  const std::uint16_t* const next = lines + (count + 1) / 2 * 2 * kRowBlock;
  const std::int64_t left = (static_cast<const std::uint16_t*>(task.packed_end) - next) / (2 * kRowBlock);
  Ahead<float> ahead{reinterpret_cast<const float*>(next), kRowBlock,
                     std::clamp<std::int64_t>(left, 0, kInnerBlock / 2)};
  ahead.spread(tiles, count / 2);
  return ahead;
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
