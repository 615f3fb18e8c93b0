// SPDX-License-Identifier: Apache-2.0
// Numbers that carry a bound of their own error: running error analysis (Higham 2002, section 3.3) to first order.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace multihead::testing {

// value: what exact arithmetic gives (in long double). error: how far arithmetic with roundings of at most `unit`
// relative may be from it, to first order, in whatever order a sum is made.
struct Tracked {
  static inline long double unit = 0;  // half an epsilon of the type under test
  long double value = 0, error = 0;

  Tracked() = default;
  Tracked(long double v) : value(v) {}
  Tracked(long double v, long double e) : value(v), error(e) {}

  static Tracked rounded(long double value, long double error) { return {value, error + unit * std::fabs(value)}; }
  friend Tracked operator+(Tracked a, Tracked b) { return rounded(a.value + b.value, a.error + b.error); }
  friend Tracked operator-(Tracked a, Tracked b) { return rounded(a.value - b.value, a.error + b.error); }
  friend Tracked operator*(Tracked a, Tracked b) {
    return rounded(a.value * b.value, a.error * std::fabs(b.value) + b.error * std::fabs(a.value) + a.error * b.error);
  }
  friend Tracked operator/(Tracked a, Tracked b) {
    const long double quotient = a.value / b.value;
    return rounded(quotient, (a.error + std::fabs(quotient) * b.error) / std::fabs(b.value));
  }
};

inline Tracked absolute(Tracked a) { return {std::fabs(a.value), a.error}; }
inline Tracked square_root(Tracked a) {
  const long double root = std::sqrt(a.value);
  return Tracked::rounded(root, root > 0 ? a.error / (2 * root) : std::sqrt(a.error));
}
// Functions of the library's own: within 2 units of themselves.
inline Tracked tanh_of(Tracked a) {
  const long double t = std::tanh(a.value);
  return {t, a.error * (1 - t * t) + 3 * Tracked::unit * std::fabs(t)};
}

// A sum of n terms in any order: n - 1 additions, each within a unit of at most the sum of magnitudes.
inline Tracked total(const std::vector<Tracked>& terms) {
  Tracked sum;
  long double magnitude = 0;
  for (const Tracked& term : terms) {
    sum.value += term.value, sum.error += term.error;
    magnitude += std::fabs(term.value);
  }
  sum.error += static_cast<long double>(terms.size()) * Tracked::unit * magnitude;
  return sum;
}

// x as a T stores it: of two bytes its rounding, and an error where x's own may carry it past the middle between two
// numbers. Rounding is monotonic, so the ends of x's interval bound it.
template <class T>
Tracked stored(Tracked x) {
  if constexpr (sizeof(T) != 2) {
    return x;
  } else {
    const auto round = [](long double value) {
      return static_cast<long double>(static_cast<float>(T(static_cast<float>(value))));
    };
    const long double value = round(x.value);
    return {value, std::max(round(x.value + x.error) - value, value - round(x.value - x.error))};
  }
}

}  // namespace multihead::testing
