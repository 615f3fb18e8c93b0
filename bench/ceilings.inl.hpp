// SPDX-License-Identifier: Apache-2.0
// The loops that every target has: chains of multiply-adds, alone and beside the softmax, and loads.

// Twelve chains of fused multiply-adds, enough to fill two pipes of latency four or five.
template <class T>
MULTIHEAD_NOINLINE T chains(std::int64_t rounds) {
  using V = Vec<T>;
  constexpr int kChains = 12;
  V sums[kChains];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) sums[i] = V::splat(T(0.01) * static_cast<T>(i));
  const V factor = V::splat(T(0.999)), term = V::splat(T(0.001));
  for (std::int64_t round = 0; round < rounds; ++round) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = V::fma(sums[i], factor, term);
  }
  T lanes[V::kLanes], total = 0;
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i].store(lanes);
    total += lanes[0];
  }
  return total;
}

// Score registers that the softmax's loops read in turn.
template <class T>
constexpr int kScoreRegisters = 32;

template <class T>
MULTIHEAD_INLINE void fill_scores(T (&scores)[kScoreRegisters<T> * Vec<T>::kLanes]) {
  for (int i = 0; i < kScoreRegisters<T> * Vec<T>::kLanes; ++i) scores[i] = T(-0.11) * static_cast<T>(i % 31);
}

// What the softmax does to a register of scores, N of them in step: scale and maximum's subtraction as one, the
// maximum, 2^t, the sum. A load each, no store.
template <class T, int N>
MULTIHEAD_NOINLINE T softmax_alone(std::int64_t rounds) {
  using V = Vec<T>;
  T scores[kScoreRegisters<T> * V::kLanes];
  fill_scores<T>(scores);
  V most[N], total[N];
  MULTIHEAD_UNROLL
  for (int i = 0; i < N; ++i) most[i] = total[i] = V::splat(T(-1));
  for (std::int64_t round = 0; round < rounds; ++round) {
    const T* const from = scores + round % (kScoreRegisters<T> / N) * N * V::kLanes;
    V t[N];
    MULTIHEAD_UNROLL
    for (int i = 0; i < N; ++i) {
      const V s = V::load(from + i * V::kLanes);
      t[i] = V::fma(s, V::splat(T(1.4)), V::splat(T(-0.3)));
      most[i] = V::max(most[i], s);
    }
    exp2_nonpositive<T>(t);
    MULTIHEAD_UNROLL
    for (int i = 0; i < N; ++i) total[i] = total[i] + t[i];
  }
  T lanes[V::kLanes];
  MULTIHEAD_UNROLL
  for (int i = 1; i < N; ++i) most[0] = V::max(most[0], most[i]), total[0] = total[0] + total[i];
  (most[0] + total[0]).store(lanes);
  return lanes[0];
}

// Multiply-adds Begin to End of a round, each into the chain after the last one's.
template <int Begin, int End, class V, int Chains>
MULTIHEAD_INLINE void multiply_some(V (&sums)[Chains], V x) {
  MULTIHEAD_UNROLL
  for (int i = Begin; i < End; ++i) sums[i % Chains] = V::fma(x, x, sums[i % Chains]);
}

// Products multiply-adds a round, evenly mixed with the softmax of one register.
template <class T, int Products>
MULTIHEAD_NOINLINE T chains_beside_softmax(std::int64_t rounds) {
  using V = Vec<T>;
  using Constants = Exp2Constants<T>;
  constexpr int kChains = 9, kSteps = static_cast<int>(std::size(Constants::kCoefficients)) - 1,
                kOperations = kSteps + 9;
  T scores[kScoreRegisters<T> * V::kLanes];
  fill_scores<T>(scores);
  V sums[kChains];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) sums[i] = V::splat(T(0.01) * static_cast<T>(i));
  const V x = V::splat(T(0.001)), round_to = V::splat(Constants::kRound);
  V most = V::splat(T(-1)), total = V::splat(T(0));
  const auto before = [&]<int Operation>() {  // the multiply-adds that stand before an operation of the softmax
    multiply_some<Operation * Products / kOperations, (Operation + 1) * Products / kOperations>(sums, x);
  };
  for (std::int64_t round = 0; round < rounds; ++round) {
    const V s = V::load(scores + round % kScoreRegisters<T> * V::kLanes);
    before.template operator()<0>();
    const V t = V::fma(s, V::splat(T(1.4)), V::splat(T(-0.3)));
    before.template operator()<1>();
    most = V::max(most, s);
    before.template operator()<2>();
    const V biased = t + round_to;
    before.template operator()<3>();
    const V n = biased - round_to;
    before.template operator()<4>();
    const V r = t - n;
    before.template operator()<5>();
    const auto low = t < V::splat(Constants::kLowest);
    V p = V::splat(Constants::kCoefficients[0]);
    [&]<int... Step>(std::integer_sequence<int, Step...>) {
      ((before.template operator()<6 + Step>(), p = V::fma(p, r, V::splat(Constants::kCoefficients[1 + Step]))), ...);
    }
    (std::make_integer_sequence<int, kSteps>());
    before.template operator()<6 + kSteps>();
    p = V::times_pow2(p, biased, n);
    before.template operator()<7 + kSteps>();
    p = V::zero_where(low, p);
    before.template operator()<8 + kSteps>();
    total = total + p;
  }
  T lanes[V::kLanes];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) total = total + sums[i];
  (total + most).store(lanes);
  return lanes[0];
}

// The loop of so many multiply-adds, one of kBesideSoftmax; null for others.
template <class T>
T (*beside_softmax(int products))
(std::int64_t) {
  const auto found = [products]<std::size_t... Index>(std::index_sequence<Index...>) {
    T (*loop)(std::int64_t) = nullptr;
    const auto try_one = [&]<int Products>() {
      if (products == Products) loop = chains_beside_softmax<T, Products>;
    };
    (try_one.template operator()<bench::kBesideSoftmax[Index]>(), ...);
    return loop;
  };
  return found(std::make_index_sequence<std::size(bench::kBesideSoftmax)>());
}

// Loads count floats, but for a rest shorter than eight registers; an addition each, so that none is left out.
MULTIHEAD_NOINLINE float loads(const float* values, std::int64_t count) {
  using V = Vec<float>;
  constexpr int kChains = 8, kStep = kChains * V::kLanes;
  V sums[kChains];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) sums[i] = V::splat(0);
  for (std::int64_t at = 0; at + kStep <= count; at += kStep) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] + V::load(values + at + i * V::kLanes);
  }
  float lanes[V::kLanes], total = 0;
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i].store(lanes);
    total += lanes[0];
  }
  return total;
}

template <class T>
bench::LoopsOf<T> loops_of() {
  return {chains<T>, softmax_alone<T, 1>, softmax_alone<T, 2>, softmax_alone<T, 4>, beside_softmax<T>};
}

inline bench::Loops loops() { return {loops_of<float>(), loops_of<double>(), loads, 4 * Vec<float>::kLanes}; }
