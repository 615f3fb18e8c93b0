// SPDX-License-Identifier: Apache-2.0
// Shapes in files: how much they hold, and how they are written.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace multihead::io {

// unit times the extents; nothing when one is negative or those other than zero multiply past 63 bits. What is empty is
// held to that too, since strides are computed from its other extents.
constexpr std::optional<std::int64_t> size_of_shape(std::span<const std::int64_t> shape, std::int64_t unit) noexcept {
  bool empty = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0) return std::nullopt;
    if (extent == 0)
      empty = true;
    else if (__builtin_mul_overflow(unit, extent, &unit))
      return std::nullopt;
  }
  return empty ? 0 : unit;
}

// The extents with something between them: "2, 3".
inline std::string joined(std::span<const std::int64_t> shape, std::string_view between) {
  std::string text;
  for (const std::int64_t extent : shape) {
    if (!text.empty()) text += between;
    text += std::to_string(extent);
  }
  return text;
}

}  // namespace multihead::io
