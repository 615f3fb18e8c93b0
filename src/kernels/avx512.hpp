// SPDX-License-Identifier: Apache-2.0
// AVX-512 for the targets that use it: the processor's own or, where MULTIHEAD_EMULATED_TARGETS is defined, for tests,
// AVX2 and FMA in its place, so that every machine with those runs the code of these targets.
//
// A target of the family includes this instead of <immintrin.h>, opens its region with MULTIHEAD_AVX512 (and with what
// it needs beside it only where MULTIHEAD_EMULATED_TARGETS is not defined) and asks has_avx512(). An intrinsic that it
// uses and no other did has to be added to emulated_avx512.hpp.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// False in g++ 12, about its own _mm512_max_ps and the like.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(MULTIHEAD_EMULATED_TARGETS)
#include "kernels/emulated_avx512.hpp"
#define MULTIHEAD_AVX512 MULTIHEAD_EMULATED_AVX512
#else
#include <immintrin.h>
#define MULTIHEAD_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#endif

#include "kernels/table.hpp"

namespace multihead {

inline bool has_avx512() noexcept {
#if defined(MULTIHEAD_EMULATED_TARGETS)
  return avx2_table.available();
#else
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
}

}  // namespace multihead
