// SPDX-License-Identifier: Apache-2.0
// The arithmetic of Intel's products of bfloat16, a step at a time and independent of the library's, and numbers to try
// it with.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "problem.hpp"

namespace multihead::testing {

constexpr float kSmallest = std::numeric_limits<float>::min();

inline float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline std::uint32_t to_bits(float x) { return std::bit_cast<std::uint32_t>(x); }
inline float no_subnormal(float x) { return std::fabs(x) < kSmallest ? std::copysign(0.0f, x) : x; }

// One step: rounded once to nearest, then zero where the result, rounded to 24 digits of any exponent, is below the
// normal range: below T = 2^-126 - 2^-151, half a unit under it, where a tie goes up to the even 2^-126.
inline float step(float a, float b, float sum) {
  a = no_subnormal(a), b = no_subnormal(b), sum = no_subnormal(sum);
  const float rounded = std::fma(a, b, sum);
  const double product = static_cast<double>(a) * static_cast<double>(b), c = static_cast<double>(sum);  // exact
  const double high = product + c, back = high - product;
  const double low = (product - (high - back)) + (c - back);  // high + low is the sum (Knuth)
  const double bound = 0x1p-126 - 0x1p-151, sign = high < 0 ? -1.0 : 1.0;
  const bool tiny = sign * high < bound || (sign * high == bound && sign * low < 0);
  return tiny ? std::copysign(0.0f, rounded) : rounded;
}

// Numbers of every kind: ordinary ones, any bits, ends of the range, and sums that nearly vanish.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : random_(seed) {}
  std::uint32_t half() {
    switch (random_.between(0, 5)) {
      case 0:
        return static_cast<std::uint32_t>(random_.bits()) & 0xFFFFu;
      case 1:  // near the lower end of products: exponents 50 to 80 of 254
        return sign() | static_cast<std::uint32_t>(random_.between(50 << 7, 80 << 7));
      case 2:
        return sign() | random_.pick({0x0000u, 0x0001u, 0x007Fu, 0x0080u, 0x3F80u, 0x7F7Fu, 0x7F80u, 0x7FC0u});
      default:
        return sign() | static_cast<std::uint32_t>(random_.between(120 << 7, 134 << 7));
    }
  }
  float pair() { return from_bits(half() << 16 | half()); }
  float number() {
    const auto bits = static_cast<std::uint32_t>(random_.bits());
    switch (random_.between(0, 4)) {
      case 0:
        return from_bits(bits);
      case 1:
        return from_bits((bits & 0x80FFFFFFu) | static_cast<std::uint32_t>(random_.between(0, 2)) << 23);
      case 2:
        return from_bits(sign() << 16 | random_.pick({0u, 1u, 0x007FFFFFu, 0x00800000u, 0x7F7FFFFFu, 0x7F800000u}));
      case 3:  // ties of the upper half
        return from_bits((bits & 0x7FFF0000u) | 0x8000u);
      default:
        return static_cast<float>(random_.normal());
    }
  }
  // What takes the first product of a and b away, but for a few last digits.
  float opposite(float a, float b) {
    const float x = -from_bits(to_bits(a) & 0xFFFF0000u) * from_bits(to_bits(b) & 0xFFFF0000u);
    return from_bits(to_bits(x) + static_cast<std::uint32_t>(random_.between(-2, 2)));
  }

 private:
  std::uint32_t sign() { return random_.chance(50) ? 0x8000u : 0u; }
  Random random_;
};

inline bool alike(float x, float y) { return to_bits(x) == to_bits(y) || (std::isnan(x) && std::isnan(y)); }

}  // namespace multihead::testing
