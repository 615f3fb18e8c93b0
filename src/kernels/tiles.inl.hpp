// SPDX-License-Identifier: Apache-2.0
// The operations of AMX on tiles: eight registers of 16 rows of 64 bytes each, of which a thread has all or none.
//
//   C[m][n] += sum over p < 16 of A[m][2p] B[p][n].even + A[m][2p + 1] B[p][n].odd
//
//   A  16 rows of 32 bfloat16        B  16 lines of 16 pairs of bfloat16        C  16 rows of 16 floats
//
// Numbers of registers are part of an instruction, so they are template arguments. tile_twin.inl.hpp does the same
// without AMX. Each statement says that it touches memory, since compilers see none of what lies in tiles.

constexpr int kTileRows = 16, kTilePairs = 16;

// Tiles of full size for its lifetime: once a task, since what it loads takes the time of many products.
class TileConfiguration {
 public:
  TileConfiguration() noexcept {
    alignas(64) static constexpr Layout kLayout;
    asm volatile("ldtilecfg %0" : : "m"(kLayout) : "memory");
  }
  ~TileConfiguration() { asm volatile("tilerelease" : : : "memory"); }
  TileConfiguration(const TileConfiguration&) = delete;
  TileConfiguration& operator=(const TileConfiguration&) = delete;

 private:
  struct Layout {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static_assert(sizeof(Layout) == 64);
};

struct Tiles {
  template <int N>
  MULTIHEAD_INLINE void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(N) : "memory");
  }
  // Rows that lie stride bytes apart.
  template <int N>
  MULTIHEAD_INLINE void load(const void* from, std::int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(N) : "memory");
  }
  template <int N>
  MULTIHEAD_INLINE void store(void* to, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(N) : "memory");
  }
  template <int C, int A, int B>
  MULTIHEAD_INLINE void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B) : "memory");
  }
};
