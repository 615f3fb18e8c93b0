// SPDX-License-Identifier: Apache-2.0
// C = activation(A B + bias) where A and B are stored in two bytes and a target has no products of them: both are
// widened, multiplied as in matmul.inl.hpp, and C is rounded once, after the activation, or not at all. Its bits before
// that are those of the product of the widened matrices.
//
// Blocks of A are widened; so are blocks of B that many rows share, and its lines in registers for few.

constexpr std::int64_t kSharingRows = 12;  // that make up for writing a widened block of B

constexpr int kLineVecs = kTileBroadcasts > 4 ? 3 : 2;  // registers of columns that 4 rows and a mask leave room for

// The first or second of two elements of the inner axis, of the columns from these two lines on, as floats.
template <Type kType, int kOdd>
MULTIHEAD_INLINE Vec<float> widened_line(const std::uint16_t* lines, int column) {
  if constexpr (kType == Type::float16) return Vec<float>::load_float16(lines + kOdd * kRowBlock + column);
  const Vec<float> pairs = Vec<float>::load(reinterpret_cast<const float*>(lines) + column);
  if constexpr (kOdd == 0) return Vec<float>::template shift_left<16>(pairs);
  return pairs & Vec<float>::splat(std::bit_cast<float>(0xFFFF0000u));
}

// A block of the inner axis: A widened, its lines of B, and the sums that get it.
struct NarrowBlock {
  const float* a;  // (rows, count)
  const std::uint16_t* lines;
  std::int64_t count;
  float* c;  // (rows, kRowBlock)
  bool add;
};

template <Type kType, int kOdd, int N, int V>
MULTIHEAD_INLINE void narrow_step(Vec<float> (&sums)[N][V], const float* a, std::int64_t a_stride,
                                  const std::uint16_t* lines, int column) {
  Vec<float> lanes[V];
  MULTIHEAD_UNROLL
  for (int v = 0; v < V; ++v) lanes[v] = widened_line<kType, kOdd>(lines, column + v * Vec<float>::kLanes);
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    const Vec<float> element = Vec<float>::splat(a[n * a_stride + kOdd]);
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[n][v] = Vec<float>::fma(element, lanes[v], sums[n][v]);
  }
}

// N rows and V registers of columns, each element one chain.
template <Type kType, int N, int V>
MULTIHEAD_NOINLINE void narrow_tile(const NarrowBlock& by, std::int64_t row, int column, Ahead<float>& ahead) {
  Vec<float> sums[N][V];
  MULTIHEAD_UNROLL
  for (int n = 0; n < N; ++n) {
    MULTIHEAD_UNROLL
    for (int v = 0; v < V; ++v) sums[n][v] = Vec<float>::splat(0);
  }
  const std::int64_t stride = by.count;
  const float* a = by.a + row * stride;
  const std::uint16_t* lines = by.lines;
  for (std::int64_t left = by.count / 2; left > 0; left -= ahead.between) {
    ahead.ask();
    const std::int64_t steps = std::min(left, ahead.between);
    for (std::int64_t p = 0; p < steps; ++p, a += 2, lines += 2 * kRowBlock) {
      narrow_step<kType, 0, N, V>(sums, a, stride, lines, column);
      narrow_step<kType, 1, N, V>(sums, a, stride, lines, column);
    }
  }
  if (by.count % 2 != 0) narrow_step<kType, 0, N, V>(sums, a, stride, lines, column);
  put_narrow_sums<N, V>(sums, by.c + row * kRowBlock + column, by.add);
}

template <Type kType>
void multiply_lines(const NarrowBlock& by, std::int64_t rows, int columns, Ahead<float> ahead) {
  std::int64_t row = 0;
  const auto strip = [&]<int N, int V>() {
    for (int column = 0; column < columns; column += V * Vec<float>::kLanes)
      narrow_tile<kType, N, V>(by, row, column, ahead);
    row += N;
  };
  while (row + 4 <= rows) strip.template operator()<4, kLineVecs>();
  if (row + 2 <= rows) strip.template operator()<2, kTileVecs>();
  if (row < rows) strip.template operator()<1, kTileVecs>();
}

// count elements of the inner axis as lines of floats.
template <Type kType>
void widen_lines(const std::uint16_t* lines, std::int64_t count, float* panel) {
  std::int64_t k = 1;
  for (; k < count; k += 2, lines += 2 * kRowBlock, panel += 2 * kRowBlock)
    for (int column = 0; column < kRowBlock; column += Vec<float>::kLanes) {
      widened_line<kType, 0>(lines, column).store(panel + column);
      widened_line<kType, 1>(lines, column).store(panel + kRowBlock + column);
    }
  if (k > count) return;
  for (int column = 0; column < kRowBlock; column += Vec<float>::kLanes)
    widened_line<kType, 0>(lines, column).store(panel + column);
}

// Rows [first, last), at most kWidenedRows.
template <Type kType>
void multiply_narrow(const NarrowMatmulTask& task, std::int64_t first, std::int64_t last) {
  float* const c = task.scratch + first * kRowBlock;
  float* const a = task.scratch + kNarrowRows * kRowBlock;
  float* const panel = a + kWidenedRows * kInnerBlock;
  MatmulTask<float> block{};
  block.rows = last - first, block.columns = task.columns;
  block.a = a, block.packed = panel;
  block.c = c, block.c_stride = kRowBlock;
  std::int64_t inner = 0;
  do {  // once for inner == 0: C becomes zero
    const std::int64_t count = std::min<std::int64_t>(task.inner - inner, kInnerBlock);
    for (std::int64_t row = first; row < last; ++row)
      load_row<float>(element(task.a, kType, row * task.a_stride + inner), kType, 1, count, a + (row - first) * count);
    const std::uint16_t* const lines = static_cast<const std::uint16_t*>(task.packed) + inner * kRowBlock;
    if (block.rows < kSharingRows) {
      multiply_lines<kType>({a, lines, count, c, inner > 0}, block.rows, task.columns,
                            next_lines(task, lines, count, (block.rows + 3) / 4));
    } else {
      widen_lines<kType>(lines, count, panel);
      block.inner = block.a_stride = count;
      block.add = inner > 0;
      matmul_blocks<float, false>(block);
    }
    inner += kInnerBlock;
  } while (inner < task.inner);
}

inline void narrow_matmul_task(const NarrowMatmulTask& task) noexcept {
  for (std::int64_t first = 0; first < task.rows; first += kWidenedRows) {
    const std::int64_t last = std::min(task.rows, first + kWidenedRows);
    if (task.type == Type::bfloat16)
      multiply_narrow<Type::bfloat16>(task, first, last);
    else
      multiply_narrow<Type::float16>(task, first, last);
    finish_narrow(task, first, last);
  }
}
