// SPDX-License-Identifier: Apache-2.0
// exp, log, tanh, erf, sin and cos on a Vec, from operations that avx2, avx512 and neon round alike: their bits agree.
//
// No branch, no table, no libm. Every constant comes from tests/make_math_coefficients.py; polynomials stand from the
// constant term up, and the errors given for them (float, double) are relative to the function's result and leave
// rounding out. Worst errors with rounding and all special values: docs/numerics.md. NaN gives NaN everywhere. Selects
// come last and take away what was computed outside a function's range, so those lanes may hold anything before.
// V: Vec<T>, or Two of it; T cannot be told from it.

// c[0] + c[1] u + c[2] u^2 ..
template <class V, class T, int kTerms>
MULTIHEAD_INLINE V polynomial(V u, const T (&c)[kTerms]) {
  V p = V::splat(c[kTerms - 1]);
  MULTIHEAD_UNROLL
  for (int i = kTerms - 2; i >= 0; --i) p = V::fma(p, u, V::splat(c[i]));
  return p;
}

// The same bits from -u.
template <class V, class T, int kTerms>
MULTIHEAD_INLINE V polynomial_of_negative(V minus_u, const T (&c)[kTerms]) {
  const auto term = [&](int i) { return V::splat(i % 2 == 0 ? c[i] : -c[i]); };
  V p = term(kTerms - 1);
  MULTIHEAD_UNROLL
  for (int i = kTerms - 2; i >= 0; --i) p = V::fma(p, minus_u, term(i));
  return p;
}

template <class T, class V>
MULTIHEAD_INLINE V sign_of(V x) {
  return x & V::splat(T(-0.0));
}

template <class T>
MULTIHEAD_INLINE Vec<T> magnitude_of(Vec<T> x) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  return x & Vec<T>::splat(std::bit_cast<T>(static_cast<Bits>(~Bits{0} >> 1)));
}

// ---- exp ----

// Adding and subtracting kRound leaves the nearest integer (ties to even); the sum's low bits hold it plus the bias.
// ln 2 = kLn2High + kLn2Low, the first with so few bits that its product with an exponent is exact.
// kCore: exp(r) = 1 + (r + r^2 P(r)) on |r| <= ln(2) / 2, errors 2^-28.2 and 2^-56.4.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kRound = 0x1.8p23f + 127;
  static constexpr float kLog2E = 0x1.715476p0f;
  static constexpr float kLn2High = 0x1.62e4p-1f;
  static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kLowest = -0x1.5d589ep6f;  // exp of it is the last normal result
  static constexpr float kHighest = 0x1.62e42ep6f;  // exp of it is the last finite result
  static constexpr float kLargePower = 88;          // n - 1 is used from here on
  static constexpr float kCore[] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558d2p-5f, 0x1.1239ccp-7f, 0x1.6a2402p-10f};
};

template <>
struct ExpConstants<double> {
  static constexpr double kRound = 0x1.8p52 + 1023;
  static constexpr double kLog2E = 0x1.71547652b82fep0;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1;
  static constexpr double kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kLowest = -0x1.6232bdd7abcd2p9;
  static constexpr double kHighest = 0x1.62e42fefa39efp9;
  static constexpr double kLargePower = 709;
  static constexpr double kCore[] = {
      0x1.000000000000ap-1, 0x1.55555555554fap-3,  0x1.5555555550866p-5,  0x1.1111111127c4ap-7,  0x1.6c16c1842f53dp-10,
      0x1.a01a012a3e49p-13, 0x1.a01999fd4dc37p-16, 0x1.71df2576bf14cp-19, 0x1.28ad816b2eb71p-22, 0x1.ad7f561fd233fp-26};
};

// exp(x) = 2^n (1 + m); biased is n as Vec::times_pow2 wants it.
template <class V>
struct ExpParts {
  V biased, n, m;
};

template <class T, class V>
MULTIHEAD_INLINE ExpParts<V> exp_parts(V x) {
  using C = ExpConstants<T>;
  const V round = V::splat(C::kRound);
  const V biased = V::fma(x, V::splat(C::kLog2E), round);
  const V n = biased - round;
  const V r = V::fma(n, V::splat(-C::kLn2Low), V::fma(n, V::splat(-C::kLn2High), x));
  return {biased, n, V::fma(r * r, polynomial(r, C::kCore), r)};
}

// +inf above kHighest, 0 below kLowest (a result below the normal range is zero), 1 at 0.
template <class T, class V>
MULTIHEAD_INLINE V exp(V x) {
  using C = ExpConstants<T>;
  const ExpParts<V> parts = exp_parts<T>(x);
  // Just below kHighest n is the bias plus one, and 2^n is not finite: half the result, then twice that.
  const V half = V::select(V::splat(C::kLargePower) <= x, V::splat(1), V::splat(0));
  V y = V::times_pow2(V::splat(1) + parts.m, parts.biased - half, parts.n - half);
  y = V::fma(y, half, y);
  y = V::select(V::splat(C::kHighest) < x, V::splat(std::numeric_limits<T>::infinity()), y);
  return V::select(x < V::splat(C::kLowest), V::splat(0), y);
}

// ---- log ----

// kCore: with s = f / (2 + f) and z = s^2, log(1 + f) = f - (f^2/2 - s (f^2/2 + z P(z))), where the exact leading terms
// keep the accuracy (fdlibm's e_log.c). f in [sqrt(1/2) - 1, sqrt(2) - 1], z in [0, 0.0294], errors 2^-30.2, 2^-58.9.
template <class T>
struct LogConstants;

template <>
struct LogConstants<float> {
  static constexpr float kRound = 0x1p23f;  // or'ed with a small integer it is 2^23 plus that integer
  static constexpr float kBias = 127;
  static constexpr float kSubnormalPower = 23;
  static constexpr float kSubnormalScale = 0x1p23f;
  static constexpr float kCore[] = {0x1.55557ap-1f, 0x1.995ec8p-2f, 0x1.31e2fp-2f};
};

template <>
struct LogConstants<double> {
  static constexpr double kRound = 0x1p52;
  static constexpr double kBias = 1023;
  static constexpr double kSubnormalPower = 52;
  static constexpr double kSubnormalScale = 0x1p52;
  static constexpr double kCore[] = {0x1.5555555555592p-1, 0x1.999999997fdafp-2, 0x1.24924941f17bbp-2,
                                     0x1.c71c52092bd09p-3, 0x1.74663eef5da09p-3, 0x1.39a1ba4343dbep-3,
                                     0x1.2f05661dbb3a2p-3};
};

// -inf at 0 of either sign, NaN below, +inf at +inf, 0 at 1; subnormal x have their full accuracy.
template <class T>
MULTIHEAD_INLINE Vec<T> log(Vec<T> x) {
  using V = Vec<T>;
  using C = LogConstants<T>;
  constexpr int kMantissaBits = sizeof(T) == 4 ? 23 : 52;
  const V zero = V::splat(0), one = V::splat(1), half = V::splat(T(0.5));
  const V infinity = V::splat(std::numeric_limits<T>::infinity());  // also: the exponent's bits

  // x = 2^k (1 + f)
  const auto subnormal = x < V::splat(std::numeric_limits<T>::min());
  const V scaled = V::select(subnormal, x * V::splat(C::kSubnormalScale), x);
  V k = (V::template shift_right<kMantissaBits>(scaled) | V::splat(C::kRound)) - V::splat(C::kRound + C::kBias);
  k = k - V::select(subnormal, V::splat(C::kSubnormalPower), zero);
  V m = (scaled ^ (scaled & infinity)) | one;
  const auto upper = V::splat(std::numbers::sqrt2_v<T>) < m;
  m = V::select(upper, m * half, m);
  k = k + V::select(upper, one, zero);
  const V f = m - one;

  const V s = f / (V::splat(2) + f);
  const V z = s * s;
  const V square = f * f * half;
  // The larger sum's rounding error goes into the tail: k ln 2 is exact, and 0 or larger than f (Dekker 1971).
  const V large = k * V::splat(ExpConstants<T>::kLn2High);
  const V sum = large + f;
  const V error = (large - sum) + f;
  const V low = V::fma(k, V::splat(ExpConstants<T>::kLn2Low), error);
  const V tail = V::fma(s, V::fma(z, polynomial(z, C::kCore), square), low) - square;
  const V y = V::select(x < infinity, sum + tail, x);
  const V not_positive = V::select(x == zero, zero - infinity, V::splat(std::numeric_limits<T>::quiet_NaN()));
  return V::select(zero < x, y, not_positive);
}

// ---- tanh ----

// kSmall: |x| < kSplit, tanh(x) = x + x^3 P(x^2), errors 2^-29.2 and 2^-57.2. Further out tanh(|x|) is
// 1 - 2 / (exp(2 |x|) + 1), whose error shrinks with the term that is taken away; at kEnd it is 1.
template <class T>
struct TanhConstants;

template <>
struct TanhConstants<float> {
  static constexpr float kSplit = 0.5625f;
  static constexpr float kEnd = 10;
  static constexpr float kSmall[] = {-0x1.555548p-2f, 0x1.110c7p-3f, -0x1.b90942p-5f, 0x1.582fb8p-6f, -0x1.950046p-8f};
};

template <>
struct TanhConstants<double> {
  static constexpr double kSplit = 0.5625;
  static constexpr double kEnd = 20;
  static constexpr double kSmall[] = {-0x1.555555555554bp-2,  0x1.11111111102b6p-3,  -0x1.ba1ba1b935e9p-5,
                                      0x1.664f48495762fp-6,   -0x1.226e2d027c2c8p-7, 0x1.d6d24797d6fbfp-9,
                                      -0x1.7d8b960c67c8dp-10, 0x1.3460addbc9c0dp-11, -0x1.e80aa0e3b8732p-13,
                                      0x1.59728a119f6f2p-14,  -0x1.3d284bed48366p-16};
};

// Odd by construction; tiny x keeps its relative accuracy, subnormal x included.
template <class T, class V>
MULTIHEAD_INLINE V tanh(V x) {
  using C = TanhConstants<T>;
  const V one = V::splat(1);
  const V sign = sign_of<T>(x);
  V t = x ^ sign;
  t = V::select(V::splat(C::kEnd) < t, V::splat(C::kEnd), t);
  const V z = t * t;
  const V small = V::fma(t * z, polynomial(z, C::kSmall), t);
  const ExpParts<V> parts = exp_parts<T>(t + t);
  const V power = V::times_pow2(one, parts.biased, parts.n);
  const V large = one - V::splat(2) / V::fma(power, parts.m, power + one);
  return V::select(t < V::splat(C::kSplit), small, large) ^ sign;
}

// ---- erf ----

// Two polynomials as in Juffa's erff, one selected:
//   kSmall  |x| < kSplit: erf(x) = x + x P(x^2), errors 2^-28.5 and 2^-56.3
//   kLarge  t = |x| from kSplit to kEnd, where erf is 1: erf(t) = 1 - exp(P(t - kCenter)), errors 2^-28.7 and 2^-55.9
template <class T>
struct ErfConstants;

template <>
struct ErfConstants<float> {
  static constexpr float kSplit = 0.921875f;
  static constexpr float kEnd = 4;
  static constexpr float kCenter = 0;
  static constexpr float kSmall[] = {0x1.06eba8p-3f, -0x1.812744p-2f,  0x1.ce2e24p-4f, -0x1.b8107cp-6f,
                                     0x1.54dadcp-8f, -0x1.aae994p-11f, 0x1.5f118ep-14f};
  static constexpr float kLarge[] = {-0x1.a06c98p-13f, -0x1.20ae9p0f,   -0x1.463f66p-1f, -0x1.a9a1a8p-4f,
                                     0x1.6c06c4p-6f,   -0x1.8e99b4p-9f, 0x1.9a740cp-13f};
};

template <>
struct ErfConstants<double> {
  static constexpr double kSplit = 1;
  static constexpr double kEnd = 6;
  static constexpr double kCenter = 1;
  static constexpr double kSmall[] = {0x1.06eba8214db69p-3,   -0x1.812746b0379e6p-2,  0x1.ce2f21a042b2p-4,
                                      -0x1.b82ce3128499cp-6,  0x1.565bcd0db02cap-8,   -0x1.c02db3d8eccd9p-11,
                                      0x1.f9a321a113538p-14,  -0x1.f4d1df387f2aep-17, 0x1.b9def193d55ddp-20,
                                      -0x1.5f1d366e90672p-23, 0x1.f7a40ec5f8653p-27,  -0x1.386ab69c4769p-30,
                                      0x1.057990463235p-34};
  static constexpr double kLarge[] = {-0x1.d97fbf27aa2a1p0,   -0x1.51c9b0006c21ep1,   -0x1.afabc11a2acf5p-1,
                                      -0x1.5477f099ef0cap-5,  0x1.48c9d3888bf06p-7,   -0x1.033f5ae35414fp-9,
                                      0x1.f1b07c532e078p-13,  0x1.b929ce4688c2fp-16,  -0x1.c84b414658786p-16,
                                      0x1.4470d24fc450cp-17,  -0x1.1dd8f6ac12c89p-19, 0x1.b478d00b6ab8bp-23,
                                      0x1.f942a2511db4fp-25,  -0x1.2169f6ecaebd1p-25, 0x1.27652d18d70cfp-27,
                                      -0x1.6e4e761215165p-30, 0x1.09715fec293f4p-33,  -0x1.5ad188249b0dcp-38};
};

// Odd by construction; tiny x keeps its relative accuracy, subnormal x included.
template <class T, class V>
MULTIHEAD_INLINE V erf(V x) {
  using C = ErfConstants<T>;
  const V one = V::splat(1);
  const V minus_t = V::max(V::splat(-C::kEnd), x | V::splat(T(-0.0)));
  const V small = V::fma(x, polynomial(minus_t * minus_t, C::kSmall), x);
  const ExpParts<V> parts = exp_parts<T>(polynomial_of_negative(minus_t - V::splat(0 - C::kCenter), C::kLarge));
  const V large = one - V::times_pow2(one + parts.m, parts.biased, parts.n);
  return V::select(V::splat(-C::kSplit) < minus_t, small, large | sign_of<T>(x));
}

// ---- sin and cos ----

// kParts: pi/2 cut (Cody and Waite 1980) so that the products below are exact without a fused multiply-add.
// kSin: sin(r) = r + r^3 P(r^2), |r| <= pi/4, errors 2^-27.7 and 2^-56.8.
// kCos: cos(r) = 1 - r^2/2 + r^4 P(r^2), errors 2^-33.0 and 2^-59.2.
template <class T>
struct TrigConstants;

template <>
struct TrigConstants<float> {
  static constexpr float kRound = 0x1.8p23f;
  static constexpr float kCoarseRound = 0x1.8p34f;
  static constexpr float kTwoOverPi = 0x1.45f306p-1f;
  static constexpr float kParts[] = {0x1.922p0f, -0x1.2cp-18f, 0x1.11p-26f, 0x1.68cp-39f, 0x1.1a6264p-54f};
  static constexpr float kSin[] = {-0x1.555546p-3f, 0x1.110752p-7f, -0x1.99400cp-13f};
  static constexpr float kCos[] = {0x1.55554ap-5f, -0x1.6c0c2ap-10f, 0x1.99e8f2p-16f};
};

template <>
struct TrigConstants<double> {
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
  static constexpr double kParts[] = {0x1.921fb544p0, 0x1.0b4611a8p-34, -0x1.d9ccebap-66, -0x1.fc8f8cbb5bf6cp-97};
  static constexpr double kSin[] = {-0x1.5555555555548p-3, 0x1.111111110f79p-7,    -0x1.a01a019bf59a8p-13,
                                    0x1.71de35605a7e1p-19, -0x1.ae5e54899f4b1p-26, 0x1.5d8e057a6cc64p-33};
  static constexpr double kCos[] = {0x1.555555555554bp-5,   -0x1.6c16c16c14f49p-10, 0x1.a01a019c7d0afp-16,
                                    -0x1.27e4f7e5625a7p-22, 0x1.1ee9d3f574f95p-29,  -0x1.8fa29e045ed72p-37};
};

// The largest |x| that sin and cos take: 2^20 pi, rounded down. The reduction's products stop being exact behind it.
constexpr int kTrigEnd = 3294198;

// x = n pi/2 + r + low: |r| <= pi/4 (a rounding more at most), low what r rounds away, quadrant's low bits those of n.
template <class T>
struct TrigParts {
  Vec<T> r, low, quadrant;
};

// a - b, its rounding error added to error; exact where b is the smaller, or where the bits of both fit in one number.
template <class T>
MULTIHEAD_INLINE Vec<T> subtract(Vec<T> a, Vec<T> b, Vec<T>& error) {
  const Vec<T> difference = a - b;
  error = error + ((a - difference) - b);
  return difference;
}

// n has at most 21 bits. Parts are multiples of 2^-31, 2^-63 and 2^-95, each at most half a unit of the one before, so
// that every product with n has 53 bits at most; the last part reaches 2^-149. x - n p0 is exact, as both are multiples
// of x's unit or of 2^-31. The nearest that a double in range comes to a multiple of pi/2 is about 2^-60.
MULTIHEAD_INLINE TrigParts<double> trig_parts(Vec<double> t) {
  using V = Vec<double>;
  using C = TrigConstants<double>;
  const V round = V::splat(C::kRound);
  const V quadrant = V::fma(t, V::splat(C::kTwoOverPi), round);
  const V n = quadrant - round;
  V error = V::splat(0);
  V s = V::fma(n, V::splat(-C::kParts[0]), t);
  s = subtract(s, n * V::splat(C::kParts[1]), error);
  s = subtract(s, n * V::splat(C::kParts[2]), error);
  error = error - n * V::splat(C::kParts[3]);
  const V r = s + error;
  return {r, (s - r) + error, quadrant};
}

// n = coarse + fine, coarse a multiple of 2^11: each has 11 bits at most, the parts 13, products 24. Parts are
// multiples of 2^-11, 2^-24, 2^-37 and 2^-50. The first four steps are exact: what is left after them is below 1 and a
// multiple of 2^-24, or of x's unit where that is less. fine is taken from x - coarse pi/2, rounded.
MULTIHEAD_INLINE TrigParts<float> trig_parts(Vec<float> t) {
  using V = Vec<float>;
  using C = TrigConstants<float>;
  const V two_over_pi = V::splat(C::kTwoOverPi), coarse_round = V::splat(C::kCoarseRound), round = V::splat(C::kRound);
  const V coarse = V::fma(t, two_over_pi, coarse_round) - coarse_round;
  V s = V::fma(coarse, V::splat(-C::kParts[0]), t);
  const V quadrant = V::fma(V::fma(coarse, V::splat(-C::kParts[1]), s), two_over_pi, round);
  const V fine = quadrant - round;
  s = V::fma(fine, V::splat(-C::kParts[0]), s);
  s = V::fma(coarse, V::splat(-C::kParts[1]), s);
  s = V::fma(fine, V::splat(-C::kParts[1]), s);
  V error = V::splat(0);
  s = subtract(s, coarse * V::splat(C::kParts[2]), error);
  s = subtract(s, fine * V::splat(C::kParts[2]), error);
  s = subtract(s, coarse * V::splat(C::kParts[3]), error);
  error = error - V::fma(coarse + fine, V::splat(C::kParts[4]), fine * V::splat(C::kParts[3]));
  const V r = s + error;
  return {r, (s - r) + error, quadrant};
}

// sin(r + low + quadrant pi/2); low enters to first order.
template <class T>
MULTIHEAD_INLINE Vec<T> sin_of(TrigParts<T> parts) {
  using V = Vec<T>;
  using C = TrigConstants<T>;
  constexpr int kSignBit = 8 * sizeof(T) - 1;
  const V zero = V::splat(0), one = V::splat(1);
  const V r = parts.r;
  const V z = r * r;
  const V half = z * V::splat(T(0.5));
  const V w = one - half;
  const V sine = r + V::fma(w, parts.low, r * z * polynomial(z, C::kSin));
  const V tail = V::fma(z * z, polynomial(z, C::kCos), zero - r * parts.low);
  const V cosine = w + (((one - w) - half) + tail);
  const auto odd = (V::template shift_left<kSignBit>(parts.quadrant) | one) < zero;
  const V sign = sign_of<T>(V::template shift_left<kSignBit - 1>(parts.quadrant));
  return V::select(odd, cosine, sine) ^ sign;
}

// NaN where |x| > kTrigEnd, infinities included. Odd by construction; sin(-0) = -0.
template <class T>
MULTIHEAD_INLINE Vec<T> sin(Vec<T> x) {
  using V = Vec<T>;
  const V sign = sign_of<T>(x);
  const V t = x ^ sign;
  const V y = sin_of(trig_parts(t)) ^ sign;
  return V::select(t <= V::splat(kTrigEnd), y, V::splat(std::numeric_limits<T>::quiet_NaN()));
}

// NaN where |x| > kTrigEnd, infinities included; cos(x) = sin(|x| + pi/2).
template <class T>
MULTIHEAD_INLINE Vec<T> cos(Vec<T> x) {
  using V = Vec<T>;
  const V t = x ^ sign_of<T>(x);
  TrigParts<T> parts = trig_parts(t);
  parts.quadrant = parts.quadrant + V::splat(1);
  const V y = sin_of(parts);
  return V::select(t <= V::splat(kTrigEnd), y, V::splat(std::numeric_limits<T>::quiet_NaN()));
}
