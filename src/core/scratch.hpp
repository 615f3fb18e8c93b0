// SPDX-License-Identifier: Apache-2.0
// Working memory: the caller's, or a buffer that each thread keeps and reuses.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace multihead {

constexpr std::size_t kCacheLine = 64;

constexpr std::size_t round_to_line(std::size_t bytes) { return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine; }

// Memory for one call, aligned to a cache line, uninitialised. From given, when the caller gave any (throws
// out_of_memory when it is too small; an unaligned start costs up to 63 bytes, which scratch queries include), else
// from the calling thread's kept buffer, which grows and never shrinks. A call inside a call on the same thread (a
// caller's parallel_for may do that) gets memory of its own.
class Scratch {
 public:
  Scratch(std::size_t bytes, std::span<std::byte> given, const char* function);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // The next bytes of it, rounded up to lines. The sum of what is taken may not exceed the bytes asked for.
  template <class T>
  T* take(std::size_t count) {
    T* taken = reinterpret_cast<T*>(next_);
    next_ += round_to_line(count * sizeof(T));
    return taken;
  }

 private:
  std::byte* next_ = nullptr;
  bool kept_ = false;
  std::unique_ptr<std::byte[]> own_;
};

}  // namespace multihead
