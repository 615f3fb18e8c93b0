// SPDX-License-Identifier: Apache-2.0
// One element of a type known at run time, for code that reads few of them.
#pragma once

#include <cstdint>

#include "multihead/types.hpp"

namespace multihead {

// Element i of data, exactly.
double element_as_double(const void* data, Type type, std::int64_t i) noexcept;

}  // namespace multihead
