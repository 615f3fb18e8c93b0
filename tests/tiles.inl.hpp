// SPDX-License-Identifier: Apache-2.0
// A product of tiles as a function of arrays. Included in each target's own namespace.

// c += a b. stride: bytes between rows.
void multiply(const float* a, const float* b, float* c, std::int64_t stride) {
  const TileConfiguration configured;
  Tiles tiles;
  tiles.load<3>(a, stride);
  tiles.load<6>(b, stride);
  tiles.load<1>(c, stride);
  tiles.dot<1, 3, 6>();
  tiles.store<1>(c, stride);
}
