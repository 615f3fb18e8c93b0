// SPDX-License-Identifier: Apache-2.0
// Vec for target avx2: 8 floats or 4 doubles in a ymm register, 16 registers, masks as lanes of ones.
// See vec_baseline.inl.hpp for what each operation means.

constexpr Target kTarget = Target::avx2;
constexpr bool kPairs = false;  // whether bfloat16 is multiplied in pairs: pairs.inl.hpp
constexpr bool kTiles = false;
constexpr int kTileBroadcasts = 4;  // 4 x 3 accumulators, 3 operands, 1 broadcast: all 16 registers
constexpr int kTileVecs = 3;

// Lanes of ones for the first n: eight words from place 8 - n of this table.
alignas(64) constexpr int kFirstLanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
alignas(64) constexpr long long kFirstWideLanes[8] = {-1, -1, -1, -1, 0, 0, 0, 0};

// Two bytes become the upper half of four, the lower half zero, by one permutation: shifts share one pipe on some
// cores.
alignas(32) constexpr signed char kUpperHalves[32] = {-1, -1, 0, 1, -1, -1, 2,  3,  -1, -1, 4,  5,  -1, -1, 6,  7,
                                                      -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15};

// Bit i is set where byte i of 32 is not zero.
MULTIHEAD_INLINE std::uint32_t nonzero_bytes(const std::uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return ~static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())));
}

// See vec_baseline.inl.hpp.
typedef std::uint64_t WideWords __attribute__((vector_size(32)));
MULTIHEAD_INLINE WideWords product_of_words(WideWords a, WideWords b) {
  return (WideWords)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int kLanes = 8;
  struct Mask {
    __m256 r;
  };
  __m256 r;

  static MULTIHEAD_INLINE __m256i first(int n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirstLanes + 8 - n));
  }
  static MULTIHEAD_INLINE Vec splat(float x) { return {_mm256_set1_ps(x)}; }
  static MULTIHEAD_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static MULTIHEAD_INLINE Vec load_first(const float* p, int n) { return {_mm256_maskload_ps(p, first(n))}; }
  static MULTIHEAD_INLINE Vec load_bfloat16(const void* p) {
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
    return {_mm256_castsi256_ps(
        _mm256_shuffle_epi8(twice, _mm256_load_si256(reinterpret_cast<const __m256i*>(kUpperHalves))))};
  }
  static MULTIHEAD_INLINE Vec load_float16(const void* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
  }
  static MULTIHEAD_INLINE Vec load_int8(const void* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))))};
  }
  // Half rows side by side leave nothing to cross the halves of a register, which is slow on some processors.
  static MULTIHEAD_INLINE void load_turned(const float* rows, std::int64_t stride, Vec (&x)[kLanes]) {
    MULTIHEAD_UNROLL
    for (int c = 0; c < kLanes; c += 4) {
      __m256 a[4];
      MULTIHEAD_UNROLL
      for (int i = 0; i < 4; ++i)
        a[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows + i * stride + c)),
                                    _mm_loadu_ps(rows + (i + 4) * stride + c), 1);
      const __m256 low01 = _mm256_unpacklo_ps(a[0], a[1]), high01 = _mm256_unpackhi_ps(a[0], a[1]);
      const __m256 low23 = _mm256_unpacklo_ps(a[2], a[3]), high23 = _mm256_unpackhi_ps(a[2], a[3]);
      x[c] = {_mm256_shuffle_ps(low01, low23, 0x44)}, x[c + 1] = {_mm256_shuffle_ps(low01, low23, 0xEE)};
      x[c + 2] = {_mm256_shuffle_ps(high01, high23, 0x44)}, x[c + 3] = {_mm256_shuffle_ps(high01, high23, 0xEE)};
    }
  }
  MULTIHEAD_INLINE void store(float* p) const { _mm256_storeu_ps(p, r); }
  // Rounded to Stored, a type of two bytes, with its own conversion's bits.
  template <class Stored>
  MULTIHEAD_INLINE void store_rounded(void* p) const {
    __m128i halves;
    if constexpr (std::is_same_v<Stored, Float16>) {
      halves = _mm256_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT);
    } else {
      const __m256i word = _mm256_castps_si256(r),
                    odd = _mm256_and_si256(_mm256_srli_epi32(word, 16), _mm256_set1_epi32(1));
      const __m256i nearest = _mm256_add_epi32(word, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
      const __m256i quiet = _mm256_or_si256(word, _mm256_set1_epi32(0x400000));
      const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(r, r, _CMP_UNORD_Q));
      const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(nearest, quiet, nan), 16);
      halves = _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
    }
    _mm_storeu_si128(static_cast<__m128i*>(p), halves);
  }
  MULTIHEAD_INLINE void store_first(float* p, int n) const { _mm256_maskstore_ps(p, first(n), r); }
  friend MULTIHEAD_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.r, b.r, c.r)}; }
  static MULTIHEAD_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Mask operator<(Vec a, Vec b) { return {_mm256_cmp_ps(a.r, b.r, _CMP_LT_OQ)}; }
  friend MULTIHEAD_INLINE Mask operator<=(Vec a, Vec b) { return {_mm256_cmp_ps(a.r, b.r, _CMP_LE_OQ)}; }
  friend MULTIHEAD_INLINE Mask operator==(Vec a, Vec b) { return {_mm256_cmp_ps(a.r, b.r, _CMP_EQ_OQ)}; }
  static MULTIHEAD_INLINE Mask both(Mask a, Mask b) { return {_mm256_and_ps(a.r, b.r)}; }
  static MULTIHEAD_INLINE bool any(Mask m) { return _mm256_movemask_ps(m.r) != 0; }
  static MULTIHEAD_INLINE Mask test(Vec bits, int bit) {
    const __m256i wanted = _mm256_set1_epi32(static_cast<int>(1u << bit));
    const __m256i found = _mm256_and_si256(_mm256_castps_si256(bits.r), wanted);
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(found, wanted))};
  }
  static MULTIHEAD_INLINE Vec select(Mask m, Vec a, Vec b) { return {_mm256_blendv_ps(b.r, a.r, m.r)}; }
  static MULTIHEAD_INLINE Vec zero_where(Mask m, Vec a) { return {_mm256_andnot_ps(m.r, a.r)}; }
  friend MULTIHEAD_INLINE Vec operator&(Vec a, Vec b) { return {_mm256_and_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator|(Vec a, Vec b) { return {_mm256_or_ps(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator^(Vec a, Vec b) { return {_mm256_xor_ps(a.r, b.r)}; }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_left(Vec a) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.r), N))};
  }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_right(Vec a) {
    return {_mm256_castsi256_ps(_mm256_srli_epi32(_mm256_castps_si256(a.r), N))};
  }
  static MULTIHEAD_INLINE Vec times_pow2(Vec p, Vec biased, Vec) { return p * shift_left<23>(biased); }
  static MULTIHEAD_INLINE Vec zip_low(Vec a, Vec b) {
    return {_mm256_permute2f128_ps(_mm256_unpacklo_ps(a.r, b.r), _mm256_unpackhi_ps(a.r, b.r), 0x20)};
  }
  static MULTIHEAD_INLINE Vec zip_high(Vec a, Vec b) {
    return {_mm256_permute2f128_ps(_mm256_unpacklo_ps(a.r, b.r), _mm256_unpackhi_ps(a.r, b.r), 0x31)};
  }
};

template <>
struct Vec<double> {
  static constexpr int kLanes = 4;
  struct Mask {
    __m256d r;
  };
  __m256d r;

  static MULTIHEAD_INLINE __m256i first(int n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirstWideLanes + 4 - n));
  }
  static MULTIHEAD_INLINE Vec splat(double x) { return {_mm256_set1_pd(x)}; }
  static MULTIHEAD_INLINE Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static MULTIHEAD_INLINE Vec load_first(const double* p, int n) { return {_mm256_maskload_pd(p, first(n))}; }
  static MULTIHEAD_INLINE void load_turned(const double* rows, std::int64_t stride, Vec (&x)[kLanes]) {
    MULTIHEAD_UNROLL
    for (int c = 0; c < kLanes; c += 2) {
      __m256d a[2];
      MULTIHEAD_UNROLL
      for (int i = 0; i < 2; ++i)
        a[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(rows + i * stride + c)),
                                    _mm_loadu_pd(rows + (i + 2) * stride + c), 1);
      x[c] = {_mm256_unpacklo_pd(a[0], a[1])}, x[c + 1] = {_mm256_unpackhi_pd(a[0], a[1])};
    }
  }
  MULTIHEAD_INLINE void store(double* p) const { _mm256_storeu_pd(p, r); }
  MULTIHEAD_INLINE void store_first(double* p, int n) const { _mm256_maskstore_pd(p, first(n), r); }
  friend MULTIHEAD_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_pd(a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_pd(a.r, b.r, c.r)}; }
  static MULTIHEAD_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Mask operator<(Vec a, Vec b) { return {_mm256_cmp_pd(a.r, b.r, _CMP_LT_OQ)}; }
  friend MULTIHEAD_INLINE Mask operator<=(Vec a, Vec b) { return {_mm256_cmp_pd(a.r, b.r, _CMP_LE_OQ)}; }
  friend MULTIHEAD_INLINE Mask operator==(Vec a, Vec b) { return {_mm256_cmp_pd(a.r, b.r, _CMP_EQ_OQ)}; }
  static MULTIHEAD_INLINE Mask both(Mask a, Mask b) { return {_mm256_and_pd(a.r, b.r)}; }
  static MULTIHEAD_INLINE bool any(Mask m) { return _mm256_movemask_pd(m.r) != 0; }
  static MULTIHEAD_INLINE Mask test(Vec bits, int bit) {
    const __m256i wanted = _mm256_set1_epi64x(std::int64_t{1} << bit);
    const __m256i found = _mm256_and_si256(_mm256_castpd_si256(bits.r), wanted);
    return {_mm256_castsi256_pd(_mm256_cmpeq_epi64(found, wanted))};
  }
  static MULTIHEAD_INLINE Vec select(Mask m, Vec a, Vec b) { return {_mm256_blendv_pd(b.r, a.r, m.r)}; }
  static MULTIHEAD_INLINE Vec zero_where(Mask m, Vec a) { return {_mm256_andnot_pd(m.r, a.r)}; }
  friend MULTIHEAD_INLINE Vec operator&(Vec a, Vec b) { return {_mm256_and_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator|(Vec a, Vec b) { return {_mm256_or_pd(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator^(Vec a, Vec b) { return {_mm256_xor_pd(a.r, b.r)}; }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_left(Vec a) {
    return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a.r), N))};
  }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_right(Vec a) {
    return {_mm256_castsi256_pd(_mm256_srli_epi64(_mm256_castpd_si256(a.r), N))};
  }
  static MULTIHEAD_INLINE Vec times_pow2(Vec p, Vec biased, Vec) { return p * shift_left<52>(biased); }
  static MULTIHEAD_INLINE Vec zip_low(Vec a, Vec b) {
    return {_mm256_permute2f128_pd(_mm256_unpacklo_pd(a.r, b.r), _mm256_unpackhi_pd(a.r, b.r), 0x20)};
  }
  static MULTIHEAD_INLINE Vec zip_high(Vec a, Vec b) {
    return {_mm256_permute2f128_pd(_mm256_unpacklo_pd(a.r, b.r), _mm256_unpackhi_pd(a.r, b.r), 0x31)};
  }
};
