// SPDX-License-Identifier: Apache-2.0
// Random numbers, tensors with strides of their own, the bound of an error, and hashes of bits.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "multihead/multihead.hpp"

namespace multihead::testing {

// MULTIHEAD_TEST_SHARE=quick: fewer and smaller problems, for sanitizers and emulators.
inline bool quick_share() {
  const char* share = std::getenv("MULTIHEAD_TEST_SHARE");
  return share && std::string(share) == "quick";
}

// The same numbers from every compiler and library: splitmix64, and normal values as a sum of twelve uniform ones.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return between(1, 100) <= percent; }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return *(choices.begin() + between(0, static_cast<std::int64_t>(choices.size()) - 1));
  }

 private:
  std::uint64_t state_;
};

// Whether a target multiplies pairs of a type's elements, in an order of its own and with weights that are rounded.
inline bool multiplies_pairs(Target target, Type type) {
  return type == Type::bfloat16 && (target == Target::avx512bf16 || target == Target::amx);
}

// Whether a target rounds sums of a type otherwise than avx2, avx512 and neon do.
inline bool has_own_bits(Target target, Type type) {
  return target == Target::baseline || (target == Target::amx && type != Type::float64) ||
         multiplies_pairs(target, type);
}

// A stored value in the type that its sums are made in, exactly.
template <class T>
Sum<std::remove_const_t<T>> widen(T x) {
  return static_cast<Sum<std::remove_const_t<T>>>(x);
}

// A tensor (batch, heads, length, width) with room for strides of its own.
template <class T>
struct Tensor {
  std::vector<T> values;
  View4<T> view;

  // heads_inside: (batch, length, heads, width) in memory; padding: elements that no view reaches, after each row.
  Tensor(std::array<std::int64_t, 4> extents, bool heads_inside = false, std::int64_t padding = 0) {
    const auto [b, h, n, d] = extents;
    const std::int64_t row = d + padding;
    values.assign(static_cast<std::size_t>(std::max<std::int64_t>(b * h * n * row, 1)), T(77));
    const std::array<std::int64_t, 4> strides = heads_inside ? std::array{h * n * row, row, h * row, std::int64_t{1}}
                                                             : std::array{h * n * row, n * row, row, std::int64_t{1}};
    view = View4<T>(values.data(), extents, strides);
  }
  Tensor(const Tensor&) = delete;

  template <class Function>
  void each(const Function& function) {
    for (std::int64_t b = 0; b < view.extent(0); ++b)
      for (std::int64_t h = 0; h < view.extent(1); ++h)
        for (std::int64_t i = 0; i < view.extent(2); ++i)
          for (std::int64_t c = 0; c < view.extent(3); ++c) function(view(b, h, i, c));
  }
  void fill_normal(Random& random, double scale = 1) {
    each([&](T& x) { x = static_cast<T>(random.normal() * scale); });
  }
};

// What rounding x once into its storage adds to an error: half a unit in the last place of a BFloat16 (8 bits,
// exponents from -126) or Float16 (11 bits, exponents from -14); nothing for a type that sums are made in.
template <class T>
double half_ulp(long double x) {
  if (std::is_same_v<T, Sum<T>> || !std::isfinite(x)) return 0;
  const bool wide = std::is_same_v<T, BFloat16>;
  int exponent = 0;
  std::frexp(x, &exponent);  // |x| in [2^(exponent - 1), 2^exponent)
  const int lowest = wide ? -126 : -14;
  return std::ldexp(0.5, (x == 0 ? lowest : std::max(exponent - 1, lowest)) - (wide ? 7 : 10));
}

// |got - wanted|; equal infinities and two NaNs are no distance, one NaN is an infinite one.
inline double distance(long double got, long double wanted) {
  if (got == wanted || (std::isnan(got) && std::isnan(wanted))) return 0;
  const double away = static_cast<double>(std::fabs(got - wanted));
  return std::isnan(away) ? std::numeric_limits<double>::infinity() : away;
}

// How far the worst element of got lies outside its bound: at most twice the plain implementation's worst error, four
// epsilons of the largest magnitude, and the element's wobble. Negative: all lie inside.
template <class T>
class Judge {
 public:
  explicit Judge(double magnitude)
      : rounding_(4 * static_cast<double>(std::numeric_limits<T>::epsilon()) * magnitude) {}
  void meet(long double got, long double plain, long double truth, long double wobble) {
    plain_worst_ = std::max(plain_worst_, distance(plain, truth));
    excess_ = std::max(excess_, distance(got, truth) - static_cast<double>(wobble));
  }
  double excess() const { return excess_ - 2 * plain_worst_ - rounding_; }

 private:
  double rounding_, plain_worst_ = 0, excess_ = 0;
};

// The bits of what a view holds, in order, NaNs made alike: FNV-1a.
template <class T, int Rank>
std::uint64_t hash_bits(const View<T, Rank>& view, std::uint64_t hash = 0xCBF29CE484222325u) {
  std::array<std::int64_t, Rank> at{};
  if (view.empty()) return hash;
  for (;;) {
    std::int64_t offset = 0;
    for (int axis = 0; axis < Rank; ++axis) offset += at[axis] * view.stride(axis);
    std::remove_const_t<T> value = view.data()[offset];
    using Stored = std::remove_const_t<T>;
    if (std::isnan(widen(value))) value = static_cast<Stored>(std::numeric_limits<Sum<Stored>>::quiet_NaN());
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof value);
    for (unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001B3u;
    int axis = Rank - 1;
    while (axis >= 0 && ++at[axis] == view.extent(axis)) at[axis--] = 0;
    if (axis < 0) return hash;
  }
}

}  // namespace multihead::testing
