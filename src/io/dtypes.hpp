// SPDX-License-Identifier: Apache-2.0
// The element types of .safetensors, and what a shape of one takes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "io/shape.hpp"

namespace multihead::io {

struct Dtype {
  std::string_view name;
  int bits;
};

// In the order of the reference implementation, whose writer lays tensors out from the last to the first.
inline constexpr std::array<Dtype, 22> kDtypes{
    {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
     {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
     {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
     {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};

// Its place in kDtypes, or their number when there is none of that name.
constexpr std::size_t dtype_of(std::string_view name) noexcept {
  const auto named = [=](const Dtype& dtype) { return dtype.name == name; };
  return static_cast<std::size_t>(std::find_if(kDtypes.begin(), kDtypes.end(), named) - kDtypes.begin());
}

inline constexpr std::size_t kMaxRank = 64;
inline constexpr std::int64_t kMaxNumber = std::int64_t{1} << 53;  // every whole number up to it is a float64
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;      // the format's own limit
inline constexpr std::string_view kMetadataKey = "__metadata__";

// The bits of a tensor, as size_of_shape() has them.
constexpr std::optional<std::int64_t> size_in_bits(std::span<const std::int64_t> shape, const Dtype& dtype) noexcept {
  return size_of_shape(shape, dtype.bits);
}

// A shape as the header writes it: "[]", "[2]", "[2,3]".
inline std::string shape_text(std::span<const std::int64_t> shape) { return "[" + joined(shape, ",") + "]"; }

}  // namespace multihead::io
