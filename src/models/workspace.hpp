// SPDX-License-Identifier: Apache-2.0
// What a call of a model works in: memory that each thread keeps, and the default arithmetic.
#pragma once

#include <cfenv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>

#include "models/call_checks.hpp"

namespace multihead {

// The default arithmetic for this thread while it lives: sums that this file makes itself are rounded to nearest.
class DefaultArithmetic {
 public:
  DefaultArithmetic() noexcept {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultArithmetic() { std::fesetenv(&saved_); }
  DefaultArithmetic(const DefaultArithmetic&) = delete;
  DefaultArithmetic& operator=(const DefaultArithmetic&) = delete;

 private:
  std::fenv_t saved_;
};

struct KeptBytes {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;
  bool in_use = false;
};
inline thread_local KeptBytes kept_bytes;

// Floats for one call, of the buffer that each thread keeps and that only grows. A call inside a call on the same
// thread, as a caller's parallel_for may make it, has memory of its own.
class Workspace {
 public:
  Workspace(const char* function, std::size_t floats) {
    KeptBytes& from = kept_bytes.in_use ? own_ : kept_bytes;
    const std::size_t wanted = floats * sizeof(float) + kLine;
    if (from.size < wanted) {
      from.size = 0;
      from.bytes.reset();
      try {
        from.bytes.reset(new std::byte[wanted]);
      } catch (const std::bad_alloc&) {
        fail(function, ErrorCode::out_of_memory,
             "working memory of " + std::to_string(wanted) + " bytes cannot be allocated");
      }
      from.size = wanted;
    }
    kept_ = &from == &kept_bytes;
    if (kept_) kept_bytes.in_use = true;
    void* at = from.bytes.get();
    std::size_t room = wanted;
    next_ = static_cast<float*>(std::align(kLine, floats * sizeof(float), at, room));
  }
  ~Workspace() {
    if (kept_) kept_bytes.in_use = false;
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  static constexpr std::size_t kLine = 64;
  // Lines of a cache, so that what comes after them begins one too.
  static std::size_t floats_of(std::size_t doubles) {
    return (doubles * sizeof(double) + kLine - 1) / kLine * kLine / sizeof(float);
  }
  std::span<double> take_doubles(std::size_t count) {
    double* const taken = reinterpret_cast<double*>(next_);
    next_ += floats_of(count);
    return {taken, count};
  }
  // Floats that so many elements of T take.
  template <class T>
  static std::int64_t floats_of(std::int64_t elements) {
    return (elements * static_cast<std::int64_t>(sizeof(T)) + 3) / 4;
  }
  template <class T = float>
  MatrixView<T> take(std::int64_t rows, std::int64_t width) {
    const MatrixView<T> taken(reinterpret_cast<T*>(next_), {rows, width});
    next_ += floats_of<T>(rows * width);
    return taken;
  }

 private:
  KeptBytes own_;
  bool kept_ = false;
  float* next_ = nullptr;
};

}  // namespace multihead
