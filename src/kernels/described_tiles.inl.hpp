// SPDX-License-Identifier: Apache-2.0
// Whether this processor's tiles round as the manual says: what described.inl.hpp asks of products of pairs.

MULTIHEAD_NOINLINE inline bool tiles_as_described() noexcept {
  const TileConfiguration configured;
  DrawnPairs draw;
  for (int round = 0; round < 8; ++round) {
    float a[kTileRows][kTilePairs], b[kTilePairs][kTilePairs], sum[kTileRows][kTilePairs], got[kTileRows][kTilePairs];
    for (int i = 0; i < kTileRows; ++i)
      for (int j = 0; j < kTilePairs; ++j) a[i][j] = draw.pair(), b[i][j] = draw.pair(), sum[i][j] = draw.number();
    Tiles tiles;
    tiles.load<0>(sum, sizeof sum[0]), tiles.load<1>(a, sizeof a[0]), tiles.load<2>(b, sizeof b[0]);
    tiles.dot<0, 1, 2>();
    tiles.store<0>(got, sizeof got[0]);
    for (int i = 0; i < kTileRows; ++i)
      for (int j = 0; j < kTilePairs; ++j) {
        float even = 0, odd = 0;
        for (int p = 0; p < kTilePairs; ++p) {
          even = __builtin_fmaf(even_of(a[i][p]), even_of(b[p][j]), even);
          odd = __builtin_fmaf(odd_of(a[i][p]), odd_of(b[p][j]), odd);
        }
        if (got[i][j] != sum[i][j] + (even + odd)) return false;
      }
  }
  return true;
}
