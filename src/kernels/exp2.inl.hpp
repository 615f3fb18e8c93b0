// SPDX-License-Identifier: Apache-2.0
// 2^t for the softmax: t at most a little above 0, exactly 1 at 0 and exactly 0 below the normal range.

// Adding and subtracting kRound leaves the nearest integer n (ties to even), and the sum's low bits hold n plus the
// exponent bias. p(r) is close to 2^r on [-1/2, 1/2] with p(0) = 1: relative error 9.2e-8 and 1.7e-7 with its
// rounding in float (degree 5), 1.8e-17 and about 2^-53 in double (degree 11). The coefficients are the minimax ones
// under p(0) = 1.
template <class T>
struct Exp2Constants;

template <>
struct Exp2Constants<float> {
  static constexpr float kRound = 0x1.8p23f + 127;
  static constexpr float kLowest = -126;
  static constexpr float kCoefficients[] = {1.32647272e-3f, 9.67151264e-3f, 5.55073374e-2f,
                                            0.240222421f,   0.693146978f,   1.0f};
};

template <>
struct Exp2Constants<double> {
  static constexpr double kRound = 0x1.8p52 + 1023;
  static constexpr double kLowest = -1022;
  static constexpr double kCoefficients[] = {
      4.078071929588336665e-10, 7.0725704128144235096e-9, 1.0180647659234138888e-7, 1.3215442675329822143e-6,
      1.5252727385193868197e-5, 1.5403530441572133030e-4, 1.3333558153439964747e-3, 9.6181291076070023796e-3,
      5.5504108664790394552e-2, 0.24022650695910098007,   0.69314718055994569675,   1.0};
};

// Where a target has one instruction for r = t - floor(t) and one for p 2^floor(t), or 0 where t is below the lowest
// (vec_amx.inl.hpp): p is close to 2^r on [0, 1], p(0) = 1, relative error 9.4e-8, and 1.5e-7 with its rounding.
template <class V>
constexpr bool kTakesFloor = requires(V t) {
  less_floor(t);
};

template <class V, int N>
MULTIHEAD_INLINE void exp2_by_floor(V (&t)[N]) {
  constexpr float kCoefficients[] = {1.86712982e-3f, 9.01703071e-3f, 5.57999127e-2f, 0.240164444f, 0.693151295f, 1.0f};
  constexpr int kDegree = static_cast<int>(std::size(kCoefficients)) - 1;
  V r[N], p[N];
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) r[i] = less_floor(t[i]);
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) p[i] = V::splat(kCoefficients[0]);
  MULTIHEAD_UNROLL
  for (int c = 1; c <= kDegree; ++c) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < N; ++i) p[i] = V::fma(p[i], r[i], V::splat(kCoefficients[c]));
  }
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) t[i] = power_or_zero(p[i], t[i], V::splat(Exp2Constants<float>::kLowest));
}

// Of N registers in step: one alone waits for itself through a dozen operations, more than a core reorders. NaN gives
// NaN: p is NaN whatever the power is, and the comparison is false.
template <class T, int N>
MULTIHEAD_INLINE void exp2_nonpositive(Vec<T> (&t)[N]) {
  using V = Vec<T>;
  using Constants = Exp2Constants<T>;
  if constexpr (kTakesFloor<V>) return exp2_by_floor(t);
  constexpr int kDegree = static_cast<int>(std::size(Constants::kCoefficients)) - 1;
  const V round = V::splat(Constants::kRound);
  V biased[N], n[N], r[N], p[N];
  typename V::Mask low[N];
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) biased[i] = t[i] + round;
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) n[i] = biased[i] - round;
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) r[i] = t[i] - n[i];
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) low[i] = t[i] < V::splat(Constants::kLowest);
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) p[i] = V::splat(Constants::kCoefficients[0]);
  MULTIHEAD_UNROLL
  for (int c = 1; c <= kDegree; ++c) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < N; ++i) p[i] = V::fma(p[i], r[i], V::splat(Constants::kCoefficients[c]));
  }
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) t[i] = V::zero_where(low[i], V::times_pow2(p[i], biased[i], n[i]));
}

template <class T>
MULTIHEAD_INLINE Vec<T> exp2_nonpositive(Vec<T> t) {
  Vec<T> one[] = {t};
  exp2_nonpositive<T>(one);
  return one[0];
}
