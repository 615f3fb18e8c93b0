// SPDX-License-Identifier: Apache-2.0
// Element types: the four that tensors are stored in, and the two that sums are made in.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace multihead {

enum class Type { float32, float64, bfloat16, float16 };

// "float32". Never throws.
std::string_view type_name(Type type) noexcept;

// Bytes of one element.
constexpr std::size_t size_of(Type type) noexcept { return type == Type::float64 ? 8 : type == Type::float32 ? 4 : 2; }

// bfloat16: a float's sign, 8 exponent bits and 7 mantissa bits. From a float it rounds to nearest, ties to even; NaN
// stays NaN. To a float it is exact.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  constexpr explicit BFloat16(float value) noexcept : bits(rounded(std::bit_cast<std::uint32_t>(value))) {}
  constexpr explicit operator float() const noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  static constexpr BFloat16 from_bits(std::uint16_t bits) noexcept {
    BFloat16 value;
    value.bits = bits;
    return value;
  }

 private:
  static constexpr std::uint16_t rounded(std::uint32_t word) noexcept {
    if ((word & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<std::uint16_t>((word >> 16) | 0x40u);
    return static_cast<std::uint16_t>((word + 0x7FFFu + ((word >> 16) & 1u)) >> 16);
  }
};

// IEEE 754 binary16: 5 exponent bits and 10 mantissa bits, with subnormal numbers. Conversions as for BFloat16.
struct Float16 {
  std::uint16_t bits = 0;

  Float16() = default;
  constexpr explicit Float16(float value) noexcept : bits(rounded(std::bit_cast<std::uint32_t>(value))) {}
  constexpr explicit operator float() const noexcept {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const std::uint32_t magnitude = bits & 0x7FFFu;
    if (magnitude >= 0x7C00u)  // infinity, NaN (made quiet)
      return std::bit_cast<float>(sign | (magnitude << 13) | 0x70000000u | (magnitude > 0x7C00u ? 0x400000u : 0u));
    if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
    const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;  // exact
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(subnormal));
  }
  static constexpr Float16 from_bits(std::uint16_t bits) noexcept {
    Float16 value;
    value.bits = bits;
    return value;
  }

 private:
  static constexpr std::uint16_t rounded(std::uint32_t word) noexcept {
    const auto sign = static_cast<std::uint16_t>((word >> 16) & 0x8000u);
    const std::uint32_t magnitude = word & 0x7FFFFFFFu;
    const auto with = [sign](std::uint32_t low) { return static_cast<std::uint16_t>(sign | low); };
    if (magnitude > 0x7F800000u) return with(0x7E00u | ((magnitude >> 13) & 0x3FFu));  // NaN, quiet
    if (magnitude >= 0x477FF000u) return with(0x7C00u);                                // 65520 and above
    if (magnitude >= 0x38800000u) {                                                    // normal: 2^-14 and above
      const std::uint32_t rebased = magnitude - 0x38000000u;
      return with((rebased + 0xFFFu + ((rebased >> 13) & 1u)) >> 13);
    }
    if (magnitude < 0x33000000u) return with(0);  // below 2^-25, which itself is a tie and goes to 0
    const std::uint32_t shift = 126u - (magnitude >> 23);
    const std::uint32_t mantissa = (magnitude & 0x7FFFFFu) | 0x800000u;
    const std::uint32_t half = 1u << (shift - 1), rest = mantissa & ((1u << shift) - 1u);
    std::uint32_t low = mantissa >> shift;
    if (rest > half || (rest == half && (low & 1u))) ++low;
    return with(low);
  }
};

// The type that sums over a stored type are made in: float, or double for double. Also the type of log-sum-exps and of
// weights on request.
template <class T>
struct SumOf {
  using Result = float;
};
template <>
struct SumOf<double> {
  using Result = double;
};
template <class T>
using Sum = typename SumOf<T>::Result;

template <class T>
inline constexpr Type kTypeOf = Type::float32;
template <>
inline constexpr Type kTypeOf<double> = Type::float64;
template <>
inline constexpr Type kTypeOf<BFloat16> = Type::bfloat16;
template <>
inline constexpr Type kTypeOf<Float16> = Type::float16;

}  // namespace multihead
