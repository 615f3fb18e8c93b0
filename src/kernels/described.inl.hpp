// SPDX-License-Identifier: Apache-2.0
// Whether this processor's products of pairs round as the manual says (dot_twin.inl.hpp, tile_twin.inl.hpp), tried once
// on a few thousand numbers: a target whose bits would be others than its twin's is not available.

// Pairs of bfloat16 and floats between 2^-3 and 2^4 of either sign, the same at every call.
struct DrawnPairs {
  std::uint32_t state = 1;

  std::uint32_t word() {
    state = state * 1664525u + 1013904223u;
    return state;
  }
  static std::uint32_t half(std::uint32_t word) {
    return (word & 0x8000u) | (((word >> 7) & 7u) + 124u) << 7 | (word & 0x7Fu);
  }
  float pair() {
    const std::uint32_t odd = half(word() >> 12), even = half(word() >> 12);
    return std::bit_cast<float>(odd << 16 | even);
  }
  float number() { return std::bit_cast<float>((word() & 0x807FFFFFu) | 126u << 23); }
};

MULTIHEAD_INLINE float odd_of(float pair) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(pair) & 0xFFFF0000u);
}
MULTIHEAD_INLINE float even_of(float pair) { return std::bit_cast<float>(std::bit_cast<std::uint32_t>(pair) << 16); }

MULTIHEAD_NOINLINE inline bool dots_as_described() noexcept {
  constexpr int kLanes = Vec<float>::kLanes;
  DrawnPairs draw;
  for (int round = 0; round < 256; ++round) {
    float a[kLanes], b[kLanes], sum[kLanes], got[kLanes];
    for (int i = 0; i < kLanes; ++i) a[i] = draw.pair(), b[i] = draw.pair(), sum[i] = draw.number();
    dot_pairs(Vec<float>::load(a), Vec<float>::load(b), Vec<float>::load(sum)).store(got);
    for (int i = 0; i < kLanes; ++i) {
      const float odd = __builtin_fmaf(odd_of(a[i]), odd_of(b[i]), sum[i]);
      if (got[i] != __builtin_fmaf(even_of(a[i]), even_of(b[i]), odd)) return false;
    }
  }
  return true;
}
