// SPDX-License-Identifier: Apache-2.0
// How often this process has called operator new.
#pragma once

#include <atomic>
#include <cstdint>

namespace multihead::testing {

extern std::atomic<std::int64_t> allocations;

}  // namespace multihead::testing
