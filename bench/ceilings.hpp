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

// Scores per second that the softmax takes, in registers and with nothing beside it: the most of 1, 2 and 4 registers
// in step.
double softmax_scores(Type type, Target target);

// Multiply-adds for each register of scores: head_dim + value_dim of 32, 64 and 128, and five products of 64 and 128.
constexpr int kBesideSoftmax[] = {64, 128, 256, 320, 640};

// The multiply-adds' operations per second where so many of them, one of kBesideSoftmax, are mixed evenly with what the
// softmax does to a register of scores: with the two above, what attention could reach if all its operands stood in
// registers.
double multiply_adds_beside_softmax(Type type, int products, Target target);

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

// A ceiling by its name, as the benchmarks and the comparison print it: fma_f32, fma_f64, softmax_f32, softmax_f64,
// fma_f32_softmax_64 and others of kBesideSoftmax, bf16_dot and bf16_tile where there are such instructions, read_L1
// and other levels.
struct Ceiling {
  std::string name, unit;  // of the rate: GFLOPS, Gscores or GBps
  std::size_t bytes;       // that a loop of loads reads again and again, else 0
};
std::vector<Ceiling> ceilings();

// In its unit, on the chosen target. operands: random_bytes(bytes), of a thread's own.
double measure(const Ceiling& ceiling, std::span<const float> operands);

// What bounds the products of the type's attention on a target, one thread: of bfloat16 pairs or tiles where the target
// is one that multiplies them so, a sixth of the tiles for float32 on amx (six products make one), multiply-adds
// elsewhere.
double ceiling_of(Type type, Target target);

}  // namespace multihead::bench
