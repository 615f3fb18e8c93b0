// SPDX-License-Identifier: Apache-2.0
// What VDPBF16PS and VCVTNE2PS2BF16 do, by the operations of any Vec<float> with a true fused multiply-add, bit for bit
// but for the sign and payload of a NaN (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2). Both
// take and leave no mode: they round to nearest, ties to even, and numbers below the normal range are zeros.

constexpr float kSmallestNormal = std::numeric_limits<float>::min();

MULTIHEAD_INLINE Vec<float> twin_bits(std::uint32_t bits) { return Vec<float>::splat(std::bit_cast<float>(bits)); }

// x, or a zero of its sign where it is below the normal range.
MULTIHEAD_INLINE Vec<float> without_subnormals(Vec<float> x) {
  const Vec<float> sign = x & twin_bits(0x80000000u), magnitude = x & twin_bits(0x7FFFFFFFu);
  return Vec<float>::select(magnitude < Vec<float>::splat(kSmallestNormal), sign, x);
}

// fma(a, b, sum), whose result is a zero of its sign where it is below the normal range after rounding to 24 bits: the
// same sum times 2^64 says so. Where that overflows no result is small: of a sum of 2^-103 or more only zero is.
MULTIHEAD_INLINE Vec<float> flushing_fma(Vec<float> a, Vec<float> b, Vec<float> sum) {
  const Vec<float> up = Vec<float>::splat(0x1p64f), exact = Vec<float>::fma(a, b, sum);
  const Vec<float> raised = Vec<float>::fma(a * up, b, sum * up), magnitude = raised & twin_bits(0x7FFFFFFFu);
  return Vec<float>::select(magnitude < Vec<float>::splat(kSmallestNormal * 0x1p64f), exact & twin_bits(0x80000000u),
                            exact);
}

// VDPBF16PS: the odd elements first.
MULTIHEAD_INLINE Vec<float> dot_pairs(Vec<float> a, Vec<float> b, Vec<float> sum) {
  const auto odd = [](Vec<float> x) { return without_subnormals(x & twin_bits(0xFFFF0000u)); };
  const auto even = [](Vec<float> x) { return without_subnormals(Vec<float>::shift_left<16>(x)); };
  return flushing_fma(even(a), even(b), flushing_fma(odd(a), odd(b), without_subnormals(sum)));
}

// x rounded to bfloat16, in the upper half of the lane. Beside 1.5 * 2^16 times its power of two a magnitude keeps 8
// digits; large ones are lowered meanwhile.
MULTIHEAD_INLINE Vec<float> rounded_to_bfloat16(Vec<float> x) {
  using Lanes = Vec<float>;
  const Lanes normal = without_subnormals(x), sign = normal & twin_bits(0x80000000u);
  const Lanes magnitude = normal & twin_bits(0x7FFFFFFFu);
  const auto large = Lanes::splat(0x1p64f) < magnitude;
  const Lanes lowered = Lanes::select(large, magnitude * Lanes::splat(0x1p-64f), magnitude);
  const Lanes magic = (lowered & twin_bits(0x7F800000u)) * Lanes::splat(0x1.8p16f);
  const Lanes kept = (lowered + magic) - magic;
  const Lanes rounded = Lanes::select(large, kept * Lanes::splat(0x1p64f), kept) | sign;
  const auto finite = magnitude < Lanes::splat(std::numeric_limits<float>::infinity());
  return Lanes::select(finite, rounded, Lanes::select(x == x, x, x | twin_bits(0x00400000u)));
}

// VCVTNE2PS2BF16, with the elements side by side as pairs.
MULTIHEAD_INLINE Vec<float> pack_pairs(Vec<float> even, Vec<float> odd) {
  return Vec<float>::shift_right<16>(rounded_to_bfloat16(even)) | (rounded_to_bfloat16(odd) & twin_bits(0xFFFF0000u));
}

// The same, each register's elements by themselves.
MULTIHEAD_INLINE void store_rounded(Vec<float> a, Vec<float> b, std::uint16_t* a_to, std::uint16_t* b_to) {
  float pairs[Vec<float>::kLanes];
  pack_pairs(a, b).store(pairs);
  for (int i = 0; i < Vec<float>::kLanes; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(pairs[i]);
    a_to[i] = static_cast<std::uint16_t>(bits), b_to[i] = static_cast<std::uint16_t>(bits >> 16);
  }
}

MULTIHEAD_INLINE Vec<float> splat_pair(const std::uint16_t* p) {
  std::uint32_t pair;
  std::memcpy(&pair, p, sizeof pair);
  return twin_bits(pair);
}
