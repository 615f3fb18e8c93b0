// SPDX-License-Identifier: Apache-2.0
// Logarithm, cosine and power in double from sums, products and quotients alone, which every machine rounds alike.
#pragma once

#include <cmath>
#include <cstdint>

namespace multihead {

// The natural logarithm of a normal positive number, within 3 ulp: x = m 2^e, log m = 2 atanh((m - 1) / (m + 1)) with m
// in [sqrt(1/2), sqrt(2)), whose series has ended by the 23rd power.
inline double plain_log(double x) noexcept {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0x1.6a09e667f3bcdp-1) m *= 2, --exponent;
  const double s = (m - 1) / (m + 1), square = s * s;
  double sum = 0;
  for (int k = 23; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
  return 2 * s * sum + exponent * 0x1.62e42fefa39efp-1;
}

// cos(2 pi turns) of turns in [0, 1], within 2^-50: the nearest quarter is taken off exactly, and what is left, at most
// pi / 4, goes through the series of cosine or sine.
inline double plain_cosine(double turns) noexcept {
  const double past_middle = turns * 4 + 0.5;
  const int quarter = static_cast<int>(past_middle);
  const double angle = (turns - quarter * 0.25) * 0x1.921fb54442d18p+2, square = angle * angle;
  double sum = 1;
  const bool sine = quarter % 2 != 0;
  for (int k = sine ? 19 : 18; k >= 2; k -= 2) sum = 1 - sum * square / (k * (k - 1));
  if (sine) sum *= -angle;
  return quarter % 4 == 2 || quarter % 4 == 3 ? -sum : sum;
}

// base^exponent by squaring.
inline double plain_power(double base, std::int64_t exponent) noexcept {
  double product = 1;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) product *= base;
  return product;
}

}  // namespace multihead
