// SPDX-License-Identifier: Apache-2.0
// Vec for target baseline: 16 bytes by the compilers' vector extension, which is SSE2 on x86-64 and runs anywhere.
// fma is a multiplication and an addition, rounded twice: this target has bits of its own.
//
// What every target's Vec<T> offers:
//   splat, load, store          load_first, store_first: n lanes, 0 <= n <= kLanes; the others are 0 or left alone
//   + - * / fma(a, b, c)        a * b + c
//   max(a, b)                   a where b < a, else b: b when either is NaN
//   < <= == both any select     comparisons with NaN are false; select(m, a, b) is a where m holds
//   zero_where(m, a)            select(m, 0, a), in one instruction
//   & | ^ shift_left<N> ..      on the bits
//   times_pow2(p, biased, n)    p * 2^n; n integral with 2^n normal, biased holds n + exponent bias in its low bits
//   test(bits, n)               where bit n of a lane is set
//   load_bfloat16, load_float16 kLanes elements of two bytes, exactly (float only); load_int8: of one
//   zip_low, zip_high           a0 b0 a1 b1 ..: the lower and the upper half of both, interleaved

constexpr Target kTarget = Target::baseline;
constexpr bool kPairs = false;  // whether bfloat16 is multiplied in pairs: pairs.inl.hpp
constexpr bool kTiles = false;
constexpr int kTileBroadcasts = 4;  // 4 x 2 accumulators, 2 operands, broadcast and product: 12 of 16 registers
constexpr int kTileVecs = 2;

// Words of 32 bits in the lower halves of lanes of 64, whose upper halves are anything; their products in full.
typedef std::uint64_t WideWords __attribute__((vector_size(16)));
MULTIHEAD_INLINE WideWords product_of_words(WideWords a, WideWords b) {
#if defined(__x86_64__)
  return (WideWords)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
#endif
}

template <class T, class Bits>
struct Vec16 {
  static constexpr int kLanes = 16 / static_cast<int>(sizeof(T));
  typedef T Lanes __attribute__((vector_size(16)));
  typedef Bits Words __attribute__((vector_size(16)));
  struct Mask {
    Words r;
  };
  Lanes r;

  static MULTIHEAD_INLINE Vec16 splat(T x) { return {x - Lanes{}}; }
  static MULTIHEAD_INLINE Vec16 load(const T* p) {
    Vec16 a;
    __builtin_memcpy(&a.r, p, sizeof a.r);
    return a;
  }
  static MULTIHEAD_INLINE Vec16 load_first(const T* p, int n) {
    T lanes[kLanes] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  static MULTIHEAD_INLINE Vec16 load_bfloat16(const void* p) { return widened<BFloat16>(p); }
  static MULTIHEAD_INLINE Vec16 load_float16(const void* p) { return widened<Float16>(p); }
  static MULTIHEAD_INLINE Vec16 load_int8(const void* p) { return widened<std::int8_t>(p); }
  template <class Stored>
  static MULTIHEAD_INLINE Vec16 widened(const void* p) {
    T lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<float>(static_cast<const Stored*>(p)[i]);
    return load(lanes);
  }
  MULTIHEAD_INLINE void store(T* p) const { __builtin_memcpy(p, &r, sizeof r); }
  MULTIHEAD_INLINE void store_first(T* p, int n) const {
    T lanes[kLanes];
    store(lanes);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }
  friend MULTIHEAD_INLINE Vec16 operator+(Vec16 a, Vec16 b) { return {a.r + b.r}; }
  friend MULTIHEAD_INLINE Vec16 operator-(Vec16 a, Vec16 b) { return {a.r - b.r}; }
  friend MULTIHEAD_INLINE Vec16 operator*(Vec16 a, Vec16 b) { return {a.r * b.r}; }
  friend MULTIHEAD_INLINE Vec16 operator/(Vec16 a, Vec16 b) { return {a.r / b.r}; }
  static MULTIHEAD_INLINE Vec16 fma(Vec16 a, Vec16 b, Vec16 c) { return {a.r * b.r + c.r}; }
  static MULTIHEAD_INLINE Vec16 max(Vec16 a, Vec16 b) { return select(b < a, a, b); }
  friend MULTIHEAD_INLINE Mask operator<(Vec16 a, Vec16 b) { return {(Words)(a.r < b.r)}; }
  friend MULTIHEAD_INLINE Mask operator<=(Vec16 a, Vec16 b) { return {(Words)(a.r <= b.r)}; }
  friend MULTIHEAD_INLINE Mask operator==(Vec16 a, Vec16 b) { return {(Words)(a.r == b.r)}; }
  static MULTIHEAD_INLINE Mask both(Mask a, Mask b) { return {a.r & b.r}; }
  static MULTIHEAD_INLINE bool any(Mask m) {
    Bits found = 0;
    for (int i = 0; i < kLanes; ++i) found |= m.r[i];
    return found != 0;
  }
  static MULTIHEAD_INLINE Mask test(Vec16 bits, int bit) {
    const Words wanted = (Bits{1} << bit) - Words{};
    return {(Words)(((Words)bits.r & wanted) == wanted)};
  }
  static MULTIHEAD_INLINE Vec16 select(Mask m, Vec16 a, Vec16 b) {
    return {(Lanes)(((Words)a.r & m.r) | ((Words)b.r & ~m.r))};
  }
  static MULTIHEAD_INLINE Vec16 zero_where(Mask m, Vec16 a) { return {(Lanes)((Words)a.r & ~m.r)}; }
  friend MULTIHEAD_INLINE Vec16 operator&(Vec16 a, Vec16 b) { return {(Lanes)((Words)a.r & (Words)b.r)}; }
  friend MULTIHEAD_INLINE Vec16 operator|(Vec16 a, Vec16 b) { return {(Lanes)((Words)a.r | (Words)b.r)}; }
  friend MULTIHEAD_INLINE Vec16 operator^(Vec16 a, Vec16 b) { return {(Lanes)((Words)a.r ^ (Words)b.r)}; }
  template <int N>
  static MULTIHEAD_INLINE Vec16 shift_left(Vec16 a) {
    return {(Lanes)((Words)a.r << N)};
  }
  template <int N>
  static MULTIHEAD_INLINE Vec16 shift_right(Vec16 a) {
    return {(Lanes)((Words)a.r >> N)};
  }
  static MULTIHEAD_INLINE Vec16 times_pow2(Vec16 p, Vec16 biased, Vec16) {
    return p * shift_left < sizeof(T) == 4 ? 23 : 52 > (biased);
  }
  static MULTIHEAD_INLINE Vec16 zip_low(Vec16 a, Vec16 b) {
    if constexpr (kLanes == 4)
      return {Lanes{a.r[0], b.r[0], a.r[1], b.r[1]}};
    else
      return {Lanes{a.r[0], b.r[0]}};
  }
  static MULTIHEAD_INLINE Vec16 zip_high(Vec16 a, Vec16 b) {
    if constexpr (kLanes == 4)
      return {Lanes{a.r[2], b.r[2], a.r[3], b.r[3]}};
    else
      return {Lanes{a.r[1], b.r[1]}};
  }
};

template <class T>
using Vec = Vec16<T, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;
