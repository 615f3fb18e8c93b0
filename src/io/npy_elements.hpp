// SPDX-License-Identifier: Apache-2.0
// Elements that are to be written as .npy, their C++ type forgotten.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "multihead/io.hpp"

namespace multihead::npy {

struct Elements {
  ElementType type;
  std::span<const std::byte> bytes;
  std::span<const std::int64_t> shape;
};

// Throws as write_npy() does, in function's name: shape holds them, and a bool is 0 or 1.
void check_elements(const char* function, const Elements& given);

}  // namespace multihead::npy
