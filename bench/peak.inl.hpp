// SPDX-License-Identifier: Apache-2.0
// Twelve chains of fused multiply-adds, enough to fill two pipes of latency four or five.

MULTIHEAD_NOINLINE float chains(std::int64_t rounds) {
  using V = Vec<float>;
  constexpr int kChains = 12;
  V sums[kChains];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) sums[i] = V::splat(0.01f * static_cast<float>(i));
  const V factor = V::splat(0.999f), term = V::splat(0.001f);
  for (std::int64_t round = 0; round < rounds; ++round) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = V::fma(sums[i], factor, term);
  }
  float lanes[V::kLanes], total = 0;
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i].store(lanes);
    total += lanes[0];
  }
  return total;
}
