// SPDX-License-Identifier: Apache-2.0
// The few macros of the kernels: a region whose functions get a target's instructions, and what the compilers spell
// differently. Every header is included before a region opens; .inl.hpp files inside it include nothing.
#pragma once

#define MULTIHEAD_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define MULTIHEAD_REGION_BEGIN(features) \
  MULTIHEAD_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define MULTIHEAD_REGION_END MULTIHEAD_PRAGMA(clang attribute pop)
#define MULTIHEAD_UNROLL MULTIHEAD_PRAGMA(clang loop unroll(full))
#define MULTIHEAD_UNROLL_4 MULTIHEAD_PRAGMA(clang loop unroll_count(4))
#define MULTIHEAD_NO_UNROLL MULTIHEAD_PRAGMA(clang loop unroll(disable))
#else
#define MULTIHEAD_REGION_BEGIN(features) MULTIHEAD_PRAGMA(GCC push_options) MULTIHEAD_PRAGMA(GCC target(features))
#define MULTIHEAD_REGION_END MULTIHEAD_PRAGMA(GCC pop_options)
#define MULTIHEAD_UNROLL MULTIHEAD_PRAGMA(GCC unroll 64)
#define MULTIHEAD_UNROLL_4 MULTIHEAD_PRAGMA(GCC unroll 4)
#define MULTIHEAD_NO_UNROLL MULTIHEAD_PRAGMA(GCC unroll 1)
#endif

#define MULTIHEAD_INLINE inline __attribute__((always_inline))
// Micro-kernels stand alone: inlined into their callers, g++ keeps their accumulators on the stack.
#define MULTIHEAD_NOINLINE __attribute__((noinline))
