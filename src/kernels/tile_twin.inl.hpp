// SPDX-License-Identifier: Apache-2.0
// What tiles.inl.hpp does, without AMX: the operations of any Vec<float> with a true fused multiply-add, rounded as
// TDPBF16PS rounds (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2), but for the sign and
// payload of a NaN:
//
//   even = odd = 0; for p ascending: even = fma(A[m][2p], B[p].even, even), odd = fma(A[m][2p + 1], B[p].odd, odd)
//   C[m] = C[m] + (even + odd)
//
// rounded to nearest at every step; numbers below the normal range are zeros, read or made.

constexpr int kTileRows = 16, kTilePairs = 16;

// There is nothing to configure.
class TileConfiguration {
 public:
  TileConfiguration() noexcept {}
  ~TileConfiguration() {}
};

class Tiles {
 public:
  template <int N>
  void zero() {
    std::memset(tiles_[N], 0, sizeof tiles_[N]);
  }
  template <int N>
  void load(const void* from, std::int64_t stride) {
    for (int row = 0; row < kTileRows; ++row)
      std::memcpy(tiles_[N][row], static_cast<const char*>(from) + row * stride, sizeof tiles_[N][row]);
  }
  template <int N>
  void store(void* to, std::int64_t stride) const {
    for (int row = 0; row < kTileRows; ++row)
      std::memcpy(static_cast<char*>(to) + row * stride, tiles_[N][row], sizeof tiles_[N][row]);
  }
  template <int C, int A, int B>
  void dot() {
    static_assert(C != A && C != B && A != B);
    multiply(tiles_[C], tiles_[A], tiles_[B]);
  }

 private:
  using Lanes = Vec<float>;
  using Tile = float[kTileRows][kTilePairs];

  // The elements of a tile of pairs as floats.
  struct Elements {
    Tile even, odd;
    float smallest;  // magnitude, but for zeros

    explicit Elements(const Tile& pairs) {
      const Lanes zero = Lanes::splat(0);
      Lanes largest = Lanes::splat(std::numeric_limits<float>::lowest());  // of the magnitudes times -1
      const auto put = [&](Lanes x, float* to) {
        const Lanes element = without_subnormals(x), magnitude = element & twin_bits(0x7FFFFFFFu);
        largest = Lanes::max(Lanes::select(magnitude == zero, largest, zero - magnitude), largest);
        element.store(to);
      };
      for (int row = 0; row < kTileRows; ++row)
        for (int at = 0; at < kTilePairs; at += Lanes::kLanes) {
          const Lanes pair = Lanes::load(pairs[row] + at);
          put(Lanes::shift_left<16>(pair), even[row] + at);
          put(pair & twin_bits(0xFFFF0000u), odd[row] + at);
        }
      float lanes[Lanes::kLanes];
      largest.store(lanes);
      smallest = -*std::max_element(lanes, lanes + Lanes::kLanes);
    }
  };

  static MULTIHEAD_NOINLINE void multiply(Tile& c, const Tile& a, const Tile& b) {
    const Elements of_a(a), of_b(b);
    // Products of 8 digits by 8 and their sums are multiples of the smallest product's last digit, 2^-16 of it at
    // least.
    const bool normal = of_a.smallest * of_b.smallest >= 0x1p-110f;
    for (int row = 0; row < kTileRows; ++row)
      for (int at = 0; at < kTilePairs; at += Lanes::kLanes) {
        Lanes even = Lanes::splat(0), odd = even;
        for (int p = 0; p < kTilePairs; ++p) {
          const Lanes a_even = Lanes::splat(of_a.even[row][p]), a_odd = Lanes::splat(of_a.odd[row][p]);
          const Lanes b_even = Lanes::load(of_b.even[p] + at), b_odd = Lanes::load(of_b.odd[p] + at);
          even = normal ? Lanes::fma(a_even, b_even, even) : flushing_fma(a_even, b_even, even);
          odd = normal ? Lanes::fma(a_odd, b_odd, odd) : flushing_fma(a_odd, b_odd, odd);
        }
        const Lanes sum = without_subnormals(even + odd);
        without_subnormals(without_subnormals(Lanes::load(c[row] + at)) + sum).store(c[row] + at);
      }
  }

  Tile tiles_[8];
};
