// SPDX-License-Identifier: Apache-2.0
// The ceilings: what a loop of nothing but multiply-adds, tiles or loads reaches on this core, now.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "multihead/target.hpp"
#include "multihead/types.hpp"

namespace multihead::bench {

// Each is the best of several short runs, about 10 ms in all, with numbers that are no zeros.

// Operations per second of fused multiply-adds in the target's widest registers, a dozen chains of them; for baseline
// multiplications and additions. type: float32 or float64.
double multiply_adds(Type type, Target target);

// Of VDPBF16PS in 512-bit registers and of TDPBF16PS on tiles: bfloat16 products summed in float32. 0 where the
// processor, the system or the compiler has none.
double bfloat16_dots();
double bfloat16_tiles();

// Cycles from additions that wait for each other, one a cycle: multiply-adds a cycle show a loop that is too weak.
double clock_rate();

// Bytes per second of loading all values, again and again, each register once.
double reads(std::span<const float> values, Target target);

// A cache of the first processor, or the memory behind them all, and the bytes of a loop that stays in it: half a
// cache, four times the largest cache and at least 64 MB of memory.
struct ReadLevel {
  std::string name;  // "L1", "memory"
  std::size_t bytes;
};
std::vector<ReadLevel> read_levels();

// As many bytes of random numbers, each page written.
std::vector<float> random_bytes(std::size_t bytes);

// What bounds the products of the type's attention on a target, one thread: of bfloat16 pairs or tiles where the target
// is one that multiplies them so, a sixth of the tiles for float32 on amx (six products make one), multiply-adds
// elsewhere.
double ceiling_of(Type type, Target target);

}  // namespace multihead::bench
