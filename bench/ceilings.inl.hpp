// SPDX-License-Identifier: Apache-2.0
// The loops that every target has: chains of multiply-adds, and loads.

// Twelve chains of fused multiply-adds, enough to fill two pipes of latency four or five.
template <class T>
MULTIHEAD_NOINLINE T chains(std::int64_t rounds) {
  using V = Vec<T>;
  constexpr int kChains = 12;
  V sums[kChains];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) sums[i] = V::splat(T(0.01) * static_cast<T>(i));
  const V factor = V::splat(T(0.999)), term = V::splat(T(0.001));
  for (std::int64_t round = 0; round < rounds; ++round) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = V::fma(sums[i], factor, term);
  }
  T lanes[V::kLanes], total = 0;
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i].store(lanes);
    total += lanes[0];
  }
  return total;
}

// Loads count floats, but for a rest shorter than eight registers; an addition each, so that none is left out.
MULTIHEAD_NOINLINE float loads(const float* values, std::int64_t count) {
  using V = Vec<float>;
  constexpr int kChains = 8, kStep = kChains * V::kLanes;
  V sums[kChains];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) sums[i] = V::splat(0);
  for (std::int64_t at = 0; at + kStep <= count; at += kStep) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] + V::load(values + at + i * V::kLanes);
  }
  float lanes[V::kLanes], total = 0;
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i].store(lanes);
    total += lanes[0];
  }
  return total;
}
