// SPDX-License-Identifier: Apache-2.0
// The colours of a number between 0 and 1, as a terminal's codes.
#pragma once

#include <array>
#include <string>

#include "multihead/inspect.hpp"

namespace multihead {

using Rgb = std::array<int, 3>;

// Of a number of at least 0, halves up. (Not libm's.)
inline int nearest(double value) noexcept {
  value += 0.5;
  return static_cast<int>(value);
}

// From dark violet (0) to yellow (1); what lies outside is brought to the ends.
Rgb color_of(double place) noexcept;

// What stands between "ESC [" and "m" for it, as background or as the colour of letters; depth is not none.
std::string color_code(const Rgb& color, bool background, ColorDepth depth);

}  // namespace multihead
