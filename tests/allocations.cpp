// SPDX-License-Identifier: Apache-2.0
// operator new that counts.
#include "allocations.hpp"

#include <cstdlib>
#include <new>

namespace multihead::testing {

std::atomic<std::int64_t> allocations{0};

}  // namespace multihead::testing

void* operator new(std::size_t bytes) {
  ++multihead::testing::allocations;
  if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++multihead::testing::allocations;
  return std::malloc(bytes > 0 ? bytes : 1);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
