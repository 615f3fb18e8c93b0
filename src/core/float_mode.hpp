// SPDX-License-Identifier: Apache-2.0
// The arithmetic a task needs, whatever its thread was set to: round to nearest even, subnormals kept, traps off.
#pragma once

#include <cmath>
#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace multihead {

// Sets the mode for its lifetime and restores the thread's own. Elsewhere than x86-64 and arm64 it does nothing.
class FloatMode {
 public:
  FloatMode() noexcept : saved_(get()) {
    if (saved_ != kDefault) set(kDefault);
  }
  ~FloatMode() {
    if (saved_ != kDefault) set(saved_);
  }
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr std::uint64_t kDefault = 0x1F80;  // all exceptions masked, no flush, nearest
  static constexpr std::uint64_t kFlags = 0x3F;      // sticky exception flags, not a mode
  static std::uint64_t get() noexcept { return _mm_getcsr() & ~kFlags; }
  static void set(std::uint64_t mode) noexcept { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
  static constexpr std::uint64_t kDefault = 0;
  static std::uint64_t get() noexcept {
    std::uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set(std::uint64_t mode) noexcept { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
  static constexpr std::uint64_t kDefault = 0;
  static std::uint64_t get() noexcept { return kDefault; }
  static void set(std::uint64_t) noexcept {}
#endif

  std::uint64_t saved_;
};

// 1 / sqrt(head_dim), in whatever mode is set. Empty assembly keeps the compiler from computing it before the mode is.
inline double default_scale(std::int64_t head_dim) noexcept {
  asm volatile("" : "+r"(head_dim));
  double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  asm volatile("" : "+m"(scale));
  return scale;
}

}  // namespace multihead
