// SPDX-License-Identifier: Apache-2.0
// Whether the tiles of AMX may be used: what the processor has, and the operating system's leave.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace multihead {

// Whether there are tiles and products of bfloat16 on them, the operating system saves their state, and lets this
// process use them. Linux keeps eight kilobytes a thread for processes that ask; of other systems none is asked.
inline bool tiles_permitted() noexcept {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kStateSaved = 27;                         // OSXSAVE of leaf 1, register c
  constexpr unsigned kProducts = 22, kTiles = 24;              // AMX-BF16 and AMX-TILE of leaf 7, register d
  constexpr unsigned kTileConfiguration = 17, kTileData = 18;  // of the state components in XCR0
  constexpr long kRequestPermission = 0x1023;                  // ARCH_REQ_XCOMP_PERM, which older headers lack
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> kStateSaved & 1)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> kProducts & 1) || !(d >> kTiles & 1)) return false;
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if (!(low >> kTileConfiguration & 1) || !(low >> kTileData & 1)) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, static_cast<unsigned long>(kTileData)) == 0;
#else
  return false;
#endif
}

}  // namespace multihead
