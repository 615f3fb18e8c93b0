// SPDX-License-Identifier: Apache-2.0
// C = activation(A B + bias) of bfloat16 by products of tiles.
//
//               A, 16 rows of 32 elements at a time       B, 16 lines of 16 pairs at a time       C, 16 x 16 floats
//               rows of activations, where they stand     lines of a packed block of columns      sums [row][48]
//
// Sums stay in their tiles along the whole inner axis, in steps of kTileInner elements from the first: a step is what
// TDPBF16PS adds (tile_twin.inl.hpp). Lines end with zeros up to a whole tile, so only A has edges: what reaches past
// the last row or element is copied, among zeros.

constexpr std::int64_t kTileChunk = 16 * kTileInner;  // elements of A that are copied at a time

// Up to 16 rows of A.
struct TileRows {
  const std::uint16_t* a;
  std::int64_t stride, rows;
  std::uint16_t* copies;  // (16, kTileChunk)

  // Elements [first, first + count) of all 16, count at most kTileChunk, up to a whole tile, and how far rows of them
  // lie apart.
  const std::uint16_t* at(std::int64_t first, std::int64_t count, std::int64_t& apart) const {
    const std::int64_t whole = (count + kTileInner - 1) / kTileInner * kTileInner;
    if (rows == kTileRows && whole == count) return apart = stride, a + first;
    std::memset(copies, 0, static_cast<std::size_t>(2 * kTileRows * whole));
    for (std::int64_t row = 0; row < rows; ++row)
      std::memcpy(copies + row * whole, a + row * stride + first, static_cast<std::size_t>(2 * count));
    return apart = whole, copies;
  }
};

// A step of 16 rows or of 32. Of these the tile of A and that of B are loaded in turn, so that each load but two serves
// the products before and after it.
template <int Groups>
MULTIHEAD_INLINE void tile_matmul_step(Tiles& tiles, const std::uint16_t* const (&a)[2], const std::int64_t (&apart)[2],
                                       const float* lines) {
  if constexpr (Groups == 1) {
    tiles.template load<3>(a[0], 2 * apart[0]);
    tiles.template load<4>(lines, kPanelLine);
    tiles.template dot<0, 3, 4>();
    tiles.template load<5>(lines + kTilePairs, kPanelLine);
    tiles.template dot<1, 3, 5>();
    tiles.template load<6>(lines + 2 * kTilePairs, kPanelLine);
    tiles.template dot<2, 3, 6>();
  } else {
    tiles.template load<6>(a[0], 2 * apart[0]);
    tiles.template load<7>(lines, kPanelLine);
    tiles.template dot<0, 6, 7>();
    tiles.template load<6>(a[1], 2 * apart[1]);
    tiles.template dot<3, 6, 7>();
    tiles.template load<7>(lines + kTilePairs, kPanelLine);
    tiles.template dot<4, 6, 7>();
    tiles.template load<6>(a[0], 2 * apart[0]);
    tiles.template dot<1, 6, 7>();
    tiles.template load<7>(lines + 2 * kTilePairs, kPanelLine);
    tiles.template dot<2, 6, 7>();
    tiles.template load<6>(a[1], 2 * apart[1]);
    tiles.template dot<5, 6, 7>();
  }
}

// c (16 Groups, kRowBlock) = the product of the rows and all lines.
template <int Groups>
MULTIHEAD_NOINLINE void tile_matmul_rows(const TileRows (&rows)[2], std::int64_t inner, const float* lines, float* c) {
  Tiles tiles;
  tiles.template zero<0>(), tiles.template zero<1>(), tiles.template zero<2>();
  tiles.template zero<3>(), tiles.template zero<4>(), tiles.template zero<5>();
  for (std::int64_t first = 0, count = 0; first < inner; first += count) {
    const std::int64_t left = inner - first;
    count = left < kTileInner ? left : std::min(kTileChunk, left / kTileInner * kTileInner);
    const std::uint16_t* a[2] = {};
    std::int64_t apart[2] = {};
    for (int group = 0; group < Groups; ++group) a[group] = rows[group].at(first, count, apart[group]);
    for (std::int64_t at = 0; at < count; at += kTileInner, lines += kTilePairs * kRowBlock) {
      tile_matmul_step<Groups>(tiles, a, apart, lines);
      for (int group = 0; group < Groups; ++group) a[group] += kTileInner;
    }
  }
  tiles.template store<0>(c, kPanelLine);
  tiles.template store<1>(c + kTilePairs, kPanelLine);
  tiles.template store<2>(c + 2 * kTilePairs, kPanelLine);
  if constexpr (Groups == 2) {
    float* const below = c + kTileRows * kRowBlock;
    tiles.template store<3>(below, kPanelLine);
    tiles.template store<4>(below + kTilePairs, kPanelLine);
    tiles.template store<5>(below + 2 * kTilePairs, kPanelLine);
  }
}

inline void tile_matmul_panel(const NarrowMatmulTask& task, std::uint16_t* copies) {
  static_assert(kNarrowRows % (2 * kTileRows) == 0);
  float* const sums = task.scratch;
  static_assert(2 * kTileRows * kTileChunk * 2 <= kMatmulScratch * 4);
  const auto* const lines = static_cast<const float*>(task.packed);
  for (std::int64_t row = 0; row < task.rows; row += 2 * kTileRows) {
    TileRows rows[2];
    for (int group = 0; group < 2; ++group) {
      const std::int64_t first = row + group * kTileRows;
      rows[group] = {static_cast<const std::uint16_t*>(task.a) + first * task.a_stride, task.a_stride,
                     std::min<std::int64_t>(task.rows - first, kTileRows), copies + group * kTileRows * kTileChunk};
    }
    float* const c = sums + row * kRowBlock;
    if (rows[1].rows > 0)
      tile_matmul_rows<2>(rows, task.inner, lines, c);
    else
      tile_matmul_rows<1>(rows, task.inner, lines, c);
    finish_narrow(task, row, std::min<std::int64_t>(task.rows, row + 2 * kTileRows));
  }
}

inline void tile_matmul_task(const NarrowMatmulTask& task) noexcept {
  const TileConfiguration configured;
  auto* const copies = reinterpret_cast<std::uint16_t*>(task.scratch + kNarrowPanels * kNarrowRows * kRowBlock);
  each_panel(task, [&](const NarrowMatmulTask& panel) { tile_matmul_panel(panel, copies); });
}
