// SPDX-License-Identifier: Apache-2.0
// Vec for target neon: 4 floats or 2 doubles in a v register, 32 registers, masks as lanes of ones.
// See vec_baseline.inl.hpp for what each operation means.

constexpr Target kTarget = Target::neon;
constexpr bool kPairs = false;  // whether bfloat16 is multiplied in pairs: pairs.inl.hpp
constexpr bool kTiles = false;
constexpr int kTileBroadcasts = 8;  // 8 x 3 accumulators, 3 operands, 1 or 2 broadcasts: 29 of 32 registers
constexpr int kTileVecs = 3;

// See vec_baseline.inl.hpp.
typedef std::uint64_t WideWords __attribute__((vector_size(16)));
MULTIHEAD_INLINE WideWords product_of_words(WideWords a, WideWords b) {
  return (WideWords)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
}

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int kLanes = 4;
  struct Mask {
    uint32x4_t r;
  };
  float32x4_t r;

  static MULTIHEAD_INLINE Vec splat(float x) { return {vdupq_n_f32(x)}; }
  static MULTIHEAD_INLINE Vec load(const float* p) { return {vld1q_f32(p)}; }
  static MULTIHEAD_INLINE Vec load_first(const float* p, int n) {
    float lanes[kLanes] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  static MULTIHEAD_INLINE Vec load_bfloat16(const void* p) {
    return from_bits(vshll_n_u16(vld1_u16(static_cast<const std::uint16_t*>(p)), 16));
  }
  static MULTIHEAD_INLINE Vec load_float16(const void* p) {
    return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(static_cast<const std::uint16_t*>(p))))};
  }
  static MULTIHEAD_INLINE Vec load_int8(const void* p) {
    std::uint32_t four;
    std::memcpy(&four, p, sizeof four);
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four))))))};
  }
  MULTIHEAD_INLINE void store(float* p) const { vst1q_f32(p, r); }
  MULTIHEAD_INLINE void store_first(float* p, int n) const {
    float lanes[kLanes];
    store(lanes);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }
  friend MULTIHEAD_INLINE Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.r, a.r, b.r)}; }
  template <int kLane>  // by one lane of b
  static MULTIHEAD_INLINE Vec fma_lane(Vec a, Vec b, Vec c) {
    return {vfmaq_laneq_f32(c.r, a.r, b.r, kLane)};
  }
  static MULTIHEAD_INLINE Vec max(Vec a, Vec b) { return select(b < a, a, b); }
  friend MULTIHEAD_INLINE Mask operator<(Vec a, Vec b) { return {vcltq_f32(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Mask operator<=(Vec a, Vec b) { return {vcleq_f32(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Mask operator==(Vec a, Vec b) { return {vceqq_f32(a.r, b.r)}; }
  static MULTIHEAD_INLINE Mask both(Mask a, Mask b) { return {vandq_u32(a.r, b.r)}; }
  static MULTIHEAD_INLINE bool any(Mask m) { return vmaxvq_u32(m.r) != 0; }
  static MULTIHEAD_INLINE Mask test(Vec a, int bit) { return {vtstq_u32(bits(a), vdupq_n_u32(1u << bit))}; }
  static MULTIHEAD_INLINE Vec select(Mask m, Vec a, Vec b) { return {vbslq_f32(m.r, a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec zero_where(Mask m, Vec a) { return select(m, splat(0), a); }
  static MULTIHEAD_INLINE uint32x4_t bits(Vec a) { return vreinterpretq_u32_f32(a.r); }
  static MULTIHEAD_INLINE Vec from_bits(uint32x4_t a) { return {vreinterpretq_f32_u32(a)}; }
  friend MULTIHEAD_INLINE Vec operator&(Vec a, Vec b) { return from_bits(vandq_u32(bits(a), bits(b))); }
  friend MULTIHEAD_INLINE Vec operator|(Vec a, Vec b) { return from_bits(vorrq_u32(bits(a), bits(b))); }
  friend MULTIHEAD_INLINE Vec operator^(Vec a, Vec b) { return from_bits(veorq_u32(bits(a), bits(b))); }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_left(Vec a) {
    return from_bits(vshlq_n_u32(bits(a), N));
  }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_right(Vec a) {
    return from_bits(vshrq_n_u32(bits(a), N));
  }
  static MULTIHEAD_INLINE Vec times_pow2(Vec p, Vec biased, Vec) { return p * shift_left<23>(biased); }
  static MULTIHEAD_INLINE Vec zip_low(Vec a, Vec b) { return {vzip1q_f32(a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec zip_high(Vec a, Vec b) { return {vzip2q_f32(a.r, b.r)}; }
};

template <>
struct Vec<double> {
  static constexpr int kLanes = 2;
  struct Mask {
    uint64x2_t r;
  };
  float64x2_t r;

  static MULTIHEAD_INLINE Vec splat(double x) { return {vdupq_n_f64(x)}; }
  static MULTIHEAD_INLINE Vec load(const double* p) { return {vld1q_f64(p)}; }
  static MULTIHEAD_INLINE Vec load_first(const double* p, int n) {
    double lanes[kLanes] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  MULTIHEAD_INLINE void store(double* p) const { vst1q_f64(p, r); }
  MULTIHEAD_INLINE void store_first(double* p, int n) const {
    double lanes[kLanes];
    store(lanes);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }
  friend MULTIHEAD_INLINE Vec operator+(Vec a, Vec b) { return {vaddq_f64(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator-(Vec a, Vec b) { return {vsubq_f64(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator*(Vec a, Vec b) { return {vmulq_f64(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Vec operator/(Vec a, Vec b) { return {vdivq_f64(a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f64(c.r, a.r, b.r)}; }
  template <int kLane>
  static MULTIHEAD_INLINE Vec fma_lane(Vec a, Vec b, Vec c) {
    return {vfmaq_laneq_f64(c.r, a.r, b.r, kLane)};
  }
  static MULTIHEAD_INLINE Vec max(Vec a, Vec b) { return select(b < a, a, b); }
  friend MULTIHEAD_INLINE Mask operator<(Vec a, Vec b) { return {vcltq_f64(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Mask operator<=(Vec a, Vec b) { return {vcleq_f64(a.r, b.r)}; }
  friend MULTIHEAD_INLINE Mask operator==(Vec a, Vec b) { return {vceqq_f64(a.r, b.r)}; }
  static MULTIHEAD_INLINE Mask both(Mask a, Mask b) { return {vandq_u64(a.r, b.r)}; }
  static MULTIHEAD_INLINE bool any(Mask m) { return (vgetq_lane_u64(m.r, 0) | vgetq_lane_u64(m.r, 1)) != 0; }
  static MULTIHEAD_INLINE Mask test(Vec a, int bit) {
    return {vtstq_u64(bits(a), vdupq_n_u64(std::uint64_t{1} << bit))};
  }
  static MULTIHEAD_INLINE Vec select(Mask m, Vec a, Vec b) { return {vbslq_f64(m.r, a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec zero_where(Mask m, Vec a) { return select(m, splat(0), a); }
  static MULTIHEAD_INLINE uint64x2_t bits(Vec a) { return vreinterpretq_u64_f64(a.r); }
  static MULTIHEAD_INLINE Vec from_bits(uint64x2_t a) { return {vreinterpretq_f64_u64(a)}; }
  friend MULTIHEAD_INLINE Vec operator&(Vec a, Vec b) { return from_bits(vandq_u64(bits(a), bits(b))); }
  friend MULTIHEAD_INLINE Vec operator|(Vec a, Vec b) { return from_bits(vorrq_u64(bits(a), bits(b))); }
  friend MULTIHEAD_INLINE Vec operator^(Vec a, Vec b) { return from_bits(veorq_u64(bits(a), bits(b))); }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_left(Vec a) {
    return from_bits(vshlq_n_u64(bits(a), N));
  }
  template <int N>
  static MULTIHEAD_INLINE Vec shift_right(Vec a) {
    return from_bits(vshrq_n_u64(bits(a), N));
  }
  static MULTIHEAD_INLINE Vec times_pow2(Vec p, Vec biased, Vec) { return p * shift_left<52>(biased); }
  static MULTIHEAD_INLINE Vec zip_low(Vec a, Vec b) { return {vzip1q_f64(a.r, b.r)}; }
  static MULTIHEAD_INLINE Vec zip_high(Vec a, Vec b) { return {vzip2q_f64(a.r, b.r)}; }
};
