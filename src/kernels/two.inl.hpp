// SPDX-License-Identifier: Apache-2.0
// Two registers, or twice as many, in step: what is written for a Vec runs over both, each operation of the one beside
// that of the other. A function of dozens of dependent operations waits for itself where a core reorders fewer than
// that.
template <class T, class V = Vec<T>>
struct Two {
  struct Mask {
    typename V::Mask a, b;
  };
  V a, b;

  static MULTIHEAD_INLINE Two splat(T x) { return {V::splat(x), V::splat(x)}; }
  friend MULTIHEAD_INLINE Two operator+(Two x, Two y) { return {x.a + y.a, x.b + y.b}; }
  friend MULTIHEAD_INLINE Two operator-(Two x, Two y) { return {x.a - y.a, x.b - y.b}; }
  friend MULTIHEAD_INLINE Two operator*(Two x, Two y) { return {x.a * y.a, x.b * y.b}; }
  friend MULTIHEAD_INLINE Two operator/(Two x, Two y) { return {x.a / y.a, x.b / y.b}; }
  friend MULTIHEAD_INLINE Two operator&(Two x, Two y) { return {x.a & y.a, x.b & y.b}; }
  friend MULTIHEAD_INLINE Two operator|(Two x, Two y) { return {x.a | y.a, x.b | y.b}; }
  friend MULTIHEAD_INLINE Two operator^(Two x, Two y) { return {x.a ^ y.a, x.b ^ y.b}; }
  friend MULTIHEAD_INLINE Mask operator<(Two x, Two y) { return {x.a < y.a, x.b < y.b}; }
  friend MULTIHEAD_INLINE Mask operator<=(Two x, Two y) { return {x.a <= y.a, x.b <= y.b}; }
  static MULTIHEAD_INLINE Two fma(Two x, Two y, Two z) { return {V::fma(x.a, y.a, z.a), V::fma(x.b, y.b, z.b)}; }
  static MULTIHEAD_INLINE Two max(Two x, Two y) { return {V::max(x.a, y.a), V::max(x.b, y.b)}; }
  static MULTIHEAD_INLINE Two select(Mask m, Two x, Two y) {
    return {V::select(m.a, x.a, y.a), V::select(m.b, x.b, y.b)};
  }
  static MULTIHEAD_INLINE Two times_pow2(Two p, Two biased, Two n) {
    return {V::times_pow2(p.a, biased.a, n.a), V::times_pow2(p.b, biased.b, n.b)};
  }
};
