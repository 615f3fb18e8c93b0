// SPDX-License-Identifier: Apache-2.0
// The kept buffer of a thread.
#include "core/scratch.hpp"

#include <cstdint>
#include <new>

#include "multihead/error.hpp"

namespace multihead {

namespace {

struct KeptBuffer {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;
  bool in_use = false;
};

thread_local KeptBuffer kept;

std::byte* align(std::byte* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return p + (round_to_line(address) - address);
}

std::unique_ptr<std::byte[]> allocate(std::size_t bytes, const char* function) try {
  return std::unique_ptr<std::byte[]>(new std::byte[bytes]);
} catch (const std::bad_alloc&) {
  throw Error(ErrorCode::out_of_memory,
              std::string(function) + ": scratch of " + std::to_string(bytes) + " bytes cannot be allocated");
}

}  // namespace

Scratch::Scratch(std::size_t bytes, std::span<std::byte> given, const char* function) {
  const std::size_t wanted = bytes + kCacheLine;
  if (!given.empty()) {
    if (given.size() < wanted)
      throw Error(ErrorCode::out_of_memory, std::string(function) + ": scratch has " + std::to_string(given.size()) +
                                                " bytes; this call takes " + std::to_string(wanted));
    next_ = align(given.data());
    return;
  }
  if (kept.in_use) {
    own_ = allocate(wanted, function);
    next_ = align(own_.get());
    return;
  }
  if (kept.size < wanted) {
    kept.size = 0;
    kept.bytes.reset();
    kept.bytes = allocate(wanted, function);
    kept.size = wanted;
  }
  kept.in_use = kept_ = true;
  next_ = align(kept.bytes.get());
}

Scratch::~Scratch() {
  if (kept_) kept.in_use = false;
}

}  // namespace multihead
