// SPDX-License-Identifier: Apache-2.0
// The loops of bfloat16's own instructions: dot products of pairs in registers, and tiles.
#include <cstdint>
#include <fstream>
#include <string>

#include "ceilings.hpp"
#include "kernels/region.hpp"
#include "timed.hpp"
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace multihead::bench {

namespace {

// Whether /proc/cpuinfo lists the flag.
bool processor_has(const std::string& flag) {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);)
    if (line.starts_with("flags")) return (line + " ").find(" " + flag + " ") != std::string::npos;
  return false;
}

}  // namespace

#if defined(__x86_64__)

namespace {

MULTIHEAD_REGION_BEGIN("avx512f,avx512bw,avx512vl,avx512bf16")
MULTIHEAD_NOINLINE float dots(std::int64_t rounds) {
  constexpr int kChains = 12;
  __m512 sums[kChains];
  MULTIHEAD_UNROLL
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(0.01f * static_cast<float>(i));
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3C12), b = (__m512bh)_mm512_set1_epi16(0x3C34);  // about 0.01
  for (std::int64_t round = 0; round < rounds; ++round) {
    MULTIHEAD_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
  }
  __m512 total = sums[0];
  MULTIHEAD_UNROLL
  for (int i = 1; i < kChains; ++i) total = _mm512_add_ps(total, sums[i]);
  return _mm512_cvtss_f32(total);
}
MULTIHEAD_REGION_END

// What the tile unit is set to: eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

MULTIHEAD_REGION_BEGIN("amx-tile,amx-bf16")
MULTIHEAD_NOINLINE float tiles(std::int64_t rounds) {
  alignas(64) static std::uint16_t operands[2][16 * 32];
  alignas(64) static float sums[16 * 16];
  for (int i = 0; i < 16 * 32; ++i) operands[0][i] = operands[1][i] = static_cast<std::uint16_t>(0x3C00 + i % 128);
  const TileShapes shapes;
  _tile_loadconfig(&shapes);
  // The intrinsics may be macros of statements: one a line.
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, operands[0], 64);
  _tile_loadd(5, operands[1], 64);
  _tile_loadd(6, operands[0], 64);
  _tile_loadd(7, operands[1], 64);
  for (std::int64_t round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, 64);
  _tile_release();
  return sums[0];
}
MULTIHEAD_REGION_END

// Linux lends the tiles' 8 KB of state to a process that asks.
bool tiles_permitted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

double bfloat16_dots() {
  constexpr std::int64_t kRounds = 100000, kChains = 12, kOperations = 64;  // 32 products, as many sums
  if (!processor_has("avx512_bf16")) return 0;
  return static_cast<double>(kRounds * kChains * kOperations) / run_seconds([] { return dots(kRounds); });
}

double bfloat16_tiles() {
  constexpr std::int64_t kRounds = 20000, kTiles = 4, kOperations = 2 * 16 * 16 * 32;
  if (!processor_has("amx_bf16") || !tiles_permitted()) return 0;
  return static_cast<double>(kRounds * kTiles * kOperations) / run_seconds([] { return tiles(kRounds); });
}

#else

double bfloat16_dots() { return 0; }
double bfloat16_tiles() { return 0; }

#endif

}  // namespace multihead::bench
