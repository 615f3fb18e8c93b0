// SPDX-License-Identifier: Apache-2.0
// AVX-512 on AVX2, FMA and F16C, for multihead_emulated_tests: the types and intrinsics that the targets
// of AVX-512 use, under their own names, which hide the compiler's inside this namespace. A zmm register is two of ymm;
// each operation does in its bits what the processor's does, and rounds as the processor's does since its halves do.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/region.hpp"

#define MULTIHEAD_EMULATED_AVX512 "avx2,fma,f16c"

// The compiler's where they are macros.
#undef _mm512_cmp_ps_mask
#undef _mm512_cmp_pd_mask
#undef _mm512_reduce_ps
#undef _mm512_setr_epi32
#undef _mm512_setr_epi64
#undef _mm512_slli_epi32
#undef _mm512_slli_epi64
#undef _mm512_srli_epi32
#undef _mm512_srli_epi64
#define _mm512_cmp_ps_mask(a, b, how) multihead::emulated::compare<how>(a, b)
#define _mm512_cmp_pd_mask(a, b, how) multihead::emulated::compare<how>(a, b)

namespace multihead {
inline namespace emulated {
MULTIHEAD_REGION_BEGIN(MULTIHEAD_EMULATED_AVX512)

struct __m512 {
  __m256 low, high;
};
struct __m512d {
  __m256d low, high;
};
struct __m512i {
  typedef std::uint64_t Words __attribute__((vector_size(64)));
  __m256i low, high;

  MULTIHEAD_INLINE __m512i() = default;
  MULTIHEAD_INLINE __m512i(__m256i l, __m256i h) : low(l), high(h) {}
  MULTIHEAD_INLINE explicit __m512i(Words words) { std::memcpy(this, &words, sizeof words); }
  MULTIHEAD_INLINE explicit operator Words() const {
    Words words;
    std::memcpy(&words, this, sizeof words);
    return words;
  }
};

// Bits of a register's type under another.
MULTIHEAD_INLINE __m512i _mm512_castps_si512(__m512 a) {
  return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)};
}
MULTIHEAD_INLINE __m512i _mm512_castpd_si512(__m512d a) {
  return {_mm256_castpd_si256(a.low), _mm256_castpd_si256(a.high)};
}
MULTIHEAD_INLINE __m512 _mm512_castsi512_ps(__m512i a) {
  return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)};
}
MULTIHEAD_INLINE __m512d _mm512_castsi512_pd(__m512i a) {
  return {_mm256_castsi256_pd(a.low), _mm256_castsi256_pd(a.high)};
}

MULTIHEAD_INLINE __m512 _mm512_set1_ps(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
MULTIHEAD_INLINE __m512d _mm512_set1_pd(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
MULTIHEAD_INLINE __m512i _mm512_set1_epi32(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
MULTIHEAD_INLINE __m512i _mm512_set1_epi64(long long x) { return {_mm256_set1_epi64x(x), _mm256_set1_epi64x(x)}; }
template <class... Lanes>
MULTIHEAD_INLINE __m512i _mm512_setr_epi32(Lanes... lanes) {
  const std::int32_t all[16] = {lanes...};
  static_assert(sizeof...(lanes) == 16);
  __m512i r;
  std::memcpy(&r, all, sizeof r);
  return r;
}
template <class... Lanes>
MULTIHEAD_INLINE __m512i _mm512_setr_epi64(Lanes... lanes) {
  const std::int64_t all[8] = {lanes...};
  static_assert(sizeof...(lanes) == 8);
  __m512i r;
  std::memcpy(&r, all, sizeof r);
  return r;
}

MULTIHEAD_INLINE __m512 _mm512_loadu_ps(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
MULTIHEAD_INLINE __m512d _mm512_loadu_pd(const double* p) { return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
MULTIHEAD_INLINE void _mm512_storeu_ps(float* p, __m512 a) {
  _mm256_storeu_ps(p, a.low), _mm256_storeu_ps(p + 8, a.high);
}
MULTIHEAD_INLINE void _mm512_storeu_pd(double* p, __m512d a) {
  _mm256_storeu_pd(p, a.low), _mm256_storeu_pd(p + 4, a.high);
}

// Lane by lane: memory behind the mask is not touched, and the address sanitizer sees what is.
template <class R, class T>
MULTIHEAD_INLINE R load_lanes(unsigned mask, const T* p) {
  constexpr unsigned kLanes = sizeof(R) / sizeof(T);
  T lanes[kLanes] = {};
  for (unsigned i = 0; i < kLanes; ++i)
    if (mask >> i & 1) lanes[i] = p[i];
  R r;
  std::memcpy(&r, lanes, sizeof r);
  return r;
}
template <class R, class T>
MULTIHEAD_INLINE void store_lanes(T* p, unsigned mask, const R& r) {
  constexpr unsigned kLanes = sizeof(R) / sizeof(T);
  T lanes[kLanes];
  std::memcpy(lanes, &r, sizeof r);
  for (unsigned i = 0; i < kLanes; ++i)
    if (mask >> i & 1) p[i] = lanes[i];
}
MULTIHEAD_INLINE __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const float* p) { return load_lanes<__m512>(mask, p); }
MULTIHEAD_INLINE __m512d _mm512_maskz_loadu_pd(__mmask8 mask, const double* p) { return load_lanes<__m512d>(mask, p); }
MULTIHEAD_INLINE void _mm512_mask_storeu_ps(float* p, __mmask16 mask, __m512 a) { store_lanes(p, mask, a); }
MULTIHEAD_INLINE void _mm512_mask_storeu_pd(double* p, __mmask8 mask, __m512d a) { store_lanes(p, mask, a); }

MULTIHEAD_INLINE __m512i _mm512_cvtepu16_epi32(__m256i a) {
  return {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))};
}
MULTIHEAD_INLINE __m512i _mm512_cvtepi8_epi32(__m128i a) {
  return {_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(a, a))};
}
MULTIHEAD_INLINE __m512 _mm512_cvtepi32_ps(__m512i a) {
  return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
}
MULTIHEAD_INLINE __m512 _mm512_cvtph_ps(__m256i a) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))};
}

MULTIHEAD_INLINE __m512 _mm512_add_ps(__m512 a, __m512 b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
MULTIHEAD_INLINE __m512 _mm512_sub_ps(__m512 a, __m512 b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
MULTIHEAD_INLINE __m512 _mm512_mul_ps(__m512 a, __m512 b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
MULTIHEAD_INLINE __m512 _mm512_div_ps(__m512 a, __m512 b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
MULTIHEAD_INLINE __m512 _mm512_max_ps(__m512 a, __m512 b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
MULTIHEAD_INLINE __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
MULTIHEAD_INLINE __m512 _mm512_and_ps(__m512 a, __m512 b) {
  return {_mm256_and_ps(a.low, b.low), _mm256_and_ps(a.high, b.high)};
}
MULTIHEAD_INLINE __m512 _mm512_or_ps(__m512 a, __m512 b) {
  return {_mm256_or_ps(a.low, b.low), _mm256_or_ps(a.high, b.high)};
}
MULTIHEAD_INLINE __m512 _mm512_xor_ps(__m512 a, __m512 b) {
  return {_mm256_xor_ps(a.low, b.low), _mm256_xor_ps(a.high, b.high)};
}

MULTIHEAD_INLINE __m512d _mm512_add_pd(__m512d a, __m512d b) {
  return {_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
}
MULTIHEAD_INLINE __m512d _mm512_sub_pd(__m512d a, __m512d b) {
  return {_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)};
}
MULTIHEAD_INLINE __m512d _mm512_mul_pd(__m512d a, __m512d b) {
  return {_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)};
}
MULTIHEAD_INLINE __m512d _mm512_div_pd(__m512d a, __m512d b) {
  return {_mm256_div_pd(a.low, b.low), _mm256_div_pd(a.high, b.high)};
}
MULTIHEAD_INLINE __m512d _mm512_max_pd(__m512d a, __m512d b) {
  return {_mm256_max_pd(a.low, b.low), _mm256_max_pd(a.high, b.high)};
}
MULTIHEAD_INLINE __m512d _mm512_fmadd_pd(__m512d a, __m512d b, __m512d c) {
  return {_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high)};
}
MULTIHEAD_INLINE __m512d _mm512_and_pd(__m512d a, __m512d b) {
  return {_mm256_and_pd(a.low, b.low), _mm256_and_pd(a.high, b.high)};
}
MULTIHEAD_INLINE __m512d _mm512_or_pd(__m512d a, __m512d b) {
  return {_mm256_or_pd(a.low, b.low), _mm256_or_pd(a.high, b.high)};
}
MULTIHEAD_INLINE __m512d _mm512_xor_pd(__m512d a, __m512d b) {
  return {_mm256_xor_pd(a.low, b.low), _mm256_xor_pd(a.high, b.high)};
}

MULTIHEAD_INLINE __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
MULTIHEAD_INLINE __m512i _mm512_slli_epi32(__m512i a, int n) {
  return {_mm256_slli_epi32(a.low, n), _mm256_slli_epi32(a.high, n)};
}
MULTIHEAD_INLINE __m512i _mm512_srli_epi32(__m512i a, int n) {
  return {_mm256_srli_epi32(a.low, n), _mm256_srli_epi32(a.high, n)};
}
MULTIHEAD_INLINE __m512i _mm512_slli_epi64(__m512i a, int n) {
  return {_mm256_slli_epi64(a.low, n), _mm256_slli_epi64(a.high, n)};
}
MULTIHEAD_INLINE __m512i _mm512_srli_epi64(__m512i a, int n) {
  return {_mm256_srli_epi64(a.low, n), _mm256_srli_epi64(a.high, n)};
}
MULTIHEAD_INLINE __m512i _mm512_mul_epu32(__m512i a, __m512i b) {
  return {_mm256_mul_epu32(a.low, b.low), _mm256_mul_epu32(a.high, b.high)};
}

// A k register is a number, a bit a lane.
MULTIHEAD_INLINE __mmask16 bits_of(__m256 low, __m256 high) {
  return static_cast<__mmask16>(_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8);
}
MULTIHEAD_INLINE __mmask8 bits_of(__m256d low, __m256d high) {
  return static_cast<__mmask8>(_mm256_movemask_pd(low) | _mm256_movemask_pd(high) << 4);
}
template <int How>
MULTIHEAD_INLINE __mmask16 compare(__m512 a, __m512 b) {
  return bits_of(_mm256_cmp_ps(a.low, b.low, How), _mm256_cmp_ps(a.high, b.high, How));
}
template <int How>
MULTIHEAD_INLINE __mmask8 compare(__m512d a, __m512d b) {
  return bits_of(_mm256_cmp_pd(a.low, b.low, How), _mm256_cmp_pd(a.high, b.high, How));
}
MULTIHEAD_INLINE __mmask16 _mm512_test_epi32_mask(__m512i a, __m512i b) {
  const auto none = [](__m256i x, __m256i y) {
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(x, y), _mm256_setzero_si256()));
  };
  return static_cast<__mmask16>(~bits_of(none(a.low, b.low), none(a.high, b.high)));
}
MULTIHEAD_INLINE __mmask8 _mm512_test_epi64_mask(__m512i a, __m512i b) {
  const auto none = [](__m256i x, __m256i y) {
    return _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(x, y), _mm256_setzero_si256()));
  };
  return static_cast<__mmask8>(~bits_of(none(a.low, b.low), none(a.high, b.high)));
}
MULTIHEAD_INLINE __mmask32 _mm256_test_epi8_mask(__m256i a, __m256i b) {
  const __m256i none = _mm256_cmpeq_epi8(_mm256_and_si256(a, b), _mm256_setzero_si256());
  return ~static_cast<__mmask32>(_mm256_movemask_epi8(none));
}
// b where the mask is set.
MULTIHEAD_INLINE __m512 _mm512_mask_blend_ps(__mmask16 mask, __m512 a, __m512 b) {
  const auto lanes = [](int bits) {
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), each), each));
  };
  return {_mm256_blendv_ps(a.low, b.low, lanes(mask)), _mm256_blendv_ps(a.high, b.high, lanes(mask >> 8))};
}
MULTIHEAD_INLINE __m512d _mm512_mask_blend_pd(__mmask8 mask, __m512d a, __m512d b) {
  const auto lanes = [](int bits) {
    const __m256i each = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(bits), each), each));
  };
  return {_mm256_blendv_pd(a.low, b.low, lanes(mask)), _mm256_blendv_pd(a.high, b.high, lanes(mask >> 4))};
}

// Lane i is one of a's and b's lanes together, by the low bits of index i.
template <class T, class Index, class R>
MULTIHEAD_INLINE R pick_lanes(const R& a, const __m512i& index, const R& b) {
  constexpr unsigned kLanes = sizeof(R) / sizeof(T);
  T from[2 * kLanes], lanes[kLanes];
  Index which[kLanes];
  std::memcpy(from, &a, sizeof a), std::memcpy(from + kLanes, &b, sizeof b), std::memcpy(which, &index, sizeof index);
  for (unsigned i = 0; i < kLanes; ++i) lanes[i] = from[which[i] & (2 * kLanes - 1)];
  R r;
  std::memcpy(&r, lanes, sizeof r);
  return r;
}
MULTIHEAD_INLINE __m512 _mm512_permutex2var_ps(__m512 a, __m512i index, __m512 b) {
  return pick_lanes<float, std::uint32_t>(a, index, b);
}
MULTIHEAD_INLINE __m512d _mm512_permutex2var_pd(__m512d a, __m512i index, __m512d b) {
  return pick_lanes<double, std::uint64_t>(a, index, b);
}

MULTIHEAD_INLINE __m256 less_floor(__m256 a) {
  const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
  const __m256 infinite = _mm256_cmp_ps(magnitude, _mm256_set1_ps(__builtin_inff()), _CMP_EQ_OQ);
  return _mm256_andnot_ps(infinite, _mm256_sub_ps(a, _mm256_floor_ps(a)));
}
// a less the integer below it, which is what _MM_FROUND_TO_NEG_INF asks for.
MULTIHEAD_INLINE __m512 _mm512_reduce_ps(__m512 a, int) { return {less_floor(a.low), less_floor(a.high)}; }

// 2^n of a whole number from -1022 to 1023.
MULTIHEAD_INLINE __m256d power(__m256d n) {
  const __m256d magic = _mm256_set1_pd(0x1.8p52 + 1023);
  return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(_mm256_add_pd(n, magic)), 52));
}
// a 2^floor(b), rounded once for every a from 2^-500 to 2^500; a NaN of a or b is one of the result.
MULTIHEAD_INLINE __m256d scaled(__m256d a, __m256d b) {
  const __m256d lowest = _mm256_set1_pd(-2044), highest = _mm256_set1_pd(2044);
  const __m256d n = _mm256_min_pd(highest, _mm256_max_pd(lowest, _mm256_floor_pd(b)));
  const __m256d half = _mm256_floor_pd(_mm256_mul_pd(n, _mm256_set1_pd(0.5)));
  const __m256d product = _mm256_mul_pd(_mm256_mul_pd(a, power(half)), power(_mm256_sub_pd(n, half)));
  return _mm256_blendv_pd(product, b, _mm256_cmp_pd(b, b, _CMP_UNORD_Q));
}
MULTIHEAD_INLINE __m512d _mm512_scalef_pd(__m512d a, __m512d b) {
  return {scaled(a.low, b.low), scaled(a.high, b.high)};
}
MULTIHEAD_INLINE __m256 scaled(__m256 a, __m256 b) {  // through doubles, in which the product is exact
  const auto part = [](__m128 x, __m128 n) { return _mm256_cvtpd_ps(scaled(_mm256_cvtps_pd(x), _mm256_cvtps_pd(n))); };
  return _mm256_set_m128(part(_mm256_extractf128_ps(a, 1), _mm256_extractf128_ps(b, 1)),
                         part(_mm256_castps256_ps128(a), _mm256_castps256_ps128(b)));
}
MULTIHEAD_INLINE __m512 _mm512_scalef_ps(__m512 a, __m512 b) { return {scaled(a.low, b.low), scaled(a.high, b.high)}; }
MULTIHEAD_INLINE __m512 _mm512_maskz_scalef_ps(__mmask16 mask, __m512 a, __m512 b) {
  return _mm512_mask_blend_ps(mask, _mm512_set1_ps(0), _mm512_scalef_ps(a, b));
}

MULTIHEAD_REGION_END
}  // namespace emulated
}  // namespace multihead
