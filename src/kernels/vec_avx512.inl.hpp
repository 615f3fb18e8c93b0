// SPDX-License-Identifier: Apache-2.0
// Vec for target avx512: 16 floats or 8 doubles in a zmm register, 32 registers, masks in k registers.
// See vec_baseline.inl.hpp for what each operation means.

constexpr int kTileBroadcasts = 8;  // 8 x 3 accumulators, 3 operands: 27 of 32 registers
constexpr int kTileVecs = 3;

// Bit i is set where byte i of 32 is not zero.
MULTIHEAD_INLINE std::uint32_t nonzero_bytes(const std::uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm256_test_epi8_mask(bytes, bytes);
}

// See vec_baseline.inl.hpp.
typedef std::uint64_t WideWords __attribute__((vector_size(64)));
MULTIHEAD_INLINE WideWords product_of_words(WideWords a, WideWords b) {
  return (WideWords)_mm512_mul_epu32((__m512i)a, (__m512i)b);
}

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int kLanes = 16;
  using Mask = __mmask16;
  __m512 r;

  static MULTIHEAD_INLINE Vec splat(float x) { return {_mm512_set1_ps(x)}; }
  static MULTIHEAD_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static MULTIHEAD_INLINE Vec load_first(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(static_cast<Mask>((1u << n) - 1u), p)};
  }
  static MULTIHEAD_INLINE Vec load_bfloat16(const void* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  static MULTIHEAD_INLINE Vec load_float16(const void* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
  }
  static MULTIHEAD_INLINE Vec load_int8(const void* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))))};
  }
  MULTIHEAD_INLINE void store(float* p) const { _mm512_storeu_ps(p, r); }
  MULTIHEAD_INLINE void store_first(float* p, int n) const {
    _mm512_mask_storeu_ps(p, static_cast<Mask>((1u << n) - 1u), r);
  }
  friend MULTIHEAD_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.r, b.r, c.r)}; }
  static MULTIHEAD_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Mask operator<(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.r, b.r, _CMP_LT_OQ); }
  friend MULTIHEAD_INLINE Mask operator<=(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.r, b.r, _CMP_LE_OQ); }
  friend MULTIHEAD_INLINE Mask operator==(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.r, b.r, _CMP_EQ_OQ); }
  static MULTIHEAD_INLINE Mask both(Mask a, Mask b) { return static_cast<Mask>(a & b); }
  static MULTIHEAD_INLINE bool any(Mask m) { return m != 0; }
  static MULTIHEAD_INLINE Mask test(Vec bits, int bit) {
    return _mm512_test_epi32_mask(_mm512_castps_si512(bits.r), _mm512_set1_epi32(static_cast<int>(1u << bit)));
  }
  static MULTIHEAD_INLINE Vec select(Mask m, Vec a, Vec b) { return {_mm512_mask_blend_ps(m, b.r, a.r)}; }
  static MULTIHEAD_INLINE Vec zero_where(Mask m, Vec a) { return select(m, splat(0), a); }
  friend MULTIHEAD_INLINE Vec operator&(Vec a, Vec b) { return {_mm512_and_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator|(Vec a, Vec b) { return {_mm512_or_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator^(Vec a, Vec b) { return {_mm512_xor_ps(a.r, b.r)}; }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_left(Vec a) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.r), N))};
  }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_right(Vec a) {
    return {_mm512_castsi512_ps(_mm512_srli_epi32(_mm512_castps_si512(a.r), N))};
  }
  // scalef rounds nothing here and, unlike an exponent built by hand, needs no shift.
  static MULTIHEAD_INLINE Vec times_pow2(Vec p, Vec, Vec n) { return {_mm512_scalef_ps(p.r, n.r)}; }
  static MULTIHEAD_INLINE Vec zip_low(Vec a, Vec b) {
    const __m512i pick = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return {_mm512_permutex2var_ps(a.r, pick, b.r)};
  }
  static MULTIHEAD_INLINE Vec zip_high(Vec a, Vec b) {
    const __m512i pick = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return {_mm512_permutex2var_ps(a.r, pick, b.r)};
  }
};

template <>
struct Vec<double> {
  static constexpr int kLanes = 8;
  using Mask = __mmask8;
  __m512d r;

  static MULTIHEAD_INLINE Vec splat(double x) { return {_mm512_set1_pd(x)}; }
  static MULTIHEAD_INLINE Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static MULTIHEAD_INLINE Vec load_first(const double* p, int n) {
    return {_mm512_maskz_loadu_pd(static_cast<Mask>((1u << n) - 1u), p)};
  }
  MULTIHEAD_INLINE void store(double* p) const { _mm512_storeu_pd(p, r); }
  MULTIHEAD_INLINE void store_first(double* p, int n) const {
    _mm512_mask_storeu_pd(p, static_cast<Mask>((1u << n) - 1u), r);
  }
  friend MULTIHEAD_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_pd(a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.r, b.r, c.r)}; }
  static MULTIHEAD_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Mask operator<(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.r, b.r, _CMP_LT_OQ); }
  friend MULTIHEAD_INLINE Mask operator<=(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.r, b.r, _CMP_LE_OQ); }
  friend MULTIHEAD_INLINE Mask operator==(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.r, b.r, _CMP_EQ_OQ); }
  static MULTIHEAD_INLINE Mask both(Mask a, Mask b) { return static_cast<Mask>(a & b); }
  static MULTIHEAD_INLINE bool any(Mask m) { return m != 0; }
  static MULTIHEAD_INLINE Mask test(Vec bits, int bit) {
    return _mm512_test_epi64_mask(_mm512_castpd_si512(bits.r), _mm512_set1_epi64(std::int64_t{1} << bit));
  }
  static MULTIHEAD_INLINE Vec select(Mask m, Vec a, Vec b) { return {_mm512_mask_blend_pd(m, b.r, a.r)}; }
  static MULTIHEAD_INLINE Vec zero_where(Mask m, Vec a) { return select(m, splat(0), a); }
  friend MULTIHEAD_INLINE Vec operator&(Vec a, Vec b) { return {_mm512_and_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator|(Vec a, Vec b) { return {_mm512_or_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator^(Vec a, Vec b) { return {_mm512_xor_pd(a.r, b.r)}; }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_left(Vec a) {
    return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a.r), N))};
  }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_right(Vec a) {
    return {_mm512_castsi512_pd(_mm512_srli_epi64(_mm512_castpd_si512(a.r), N))};
  }
  static MULTIHEAD_INLINE Vec times_pow2(Vec p, Vec, Vec n) { return {_mm512_scalef_pd(p.r, n.r)}; }
  static MULTIHEAD_INLINE Vec zip_low(Vec a, Vec b) {
    const __m512i pick = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    return {_mm512_permutex2var_pd(a.r, pick, b.r)};
  }
  static MULTIHEAD_INLINE Vec zip_high(Vec a, Vec b) {
    const __m512i pick = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    return {_mm512_permutex2var_pd(a.r, pick, b.r)};
  }
};
