// SPDX-License-Identifier: Apache-2.0
// What target avx512bf16 adds to the registers of avx512: products of pairs of bfloat16. pairs.inl.hpp says what each
// is.

MULTIHEAD_INLINE Vec<float> splat_pair(const std::uint16_t* p) {
  int pair;
  std::memcpy(&pair, p, sizeof pair);
  return {_mm512_castsi512_ps(_mm512_set1_epi32(pair))};
}

MULTIHEAD_INLINE Vec<float> dot_pairs(Vec<float> a, Vec<float> b, Vec<float> sum) {
  return {_mm512_dpbf16_ps(sum.r, (__m512bh)a.r, (__m512bh)b.r)};
}

MULTIHEAD_INLINE void store_rounded(Vec<float> a, Vec<float> b, std::uint16_t* a_to, std::uint16_t* b_to) {
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(b.r, a.r);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(a_to), _mm512_castsi512_si256(halves));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(b_to), _mm512_extracti64x4_epi64(halves, 1));
}

MULTIHEAD_INLINE Vec<float> pack_pairs(Vec<float> even, Vec<float> odd) {
  alignas(64) static constexpr std::uint16_t kInterleaved[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                                 21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd.r, even.r);
  return {_mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(kInterleaved), halves))};
}
