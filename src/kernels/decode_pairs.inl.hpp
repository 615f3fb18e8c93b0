// SPDX-License-Identifier: Apache-2.0
// Decode of bfloat16 by products of pairs, in the order of pairs.inl.hpp: the blocked layout holds pairs of channels,
// pairs of keys are two rows of values interleaved.

template <>
struct DecodeProducts<Element::bfloat16> {
  static constexpr Element kElement = Element::bfloat16;
  static constexpr Element kStaged = Element::bfloat16;
  static constexpr int kParts = 1;
  static constexpr int kTogether = 2;
  static constexpr int kKeyBytes = 4;
  static constexpr bool kSplit = false;

  template <int>
  static MULTIHEAD_INLINE Vec<float> keys(const std::byte* p) {
    return Vec<float>::load(reinterpret_cast<const float*>(p));
  }
  static MULTIHEAD_INLINE Vec<float> joined(Vec<float> even, Vec<float> odd) {
    return Vec<float>::shift_right<16>(even) | odd;
  }
  template <int V>
  static MULTIHEAD_INLINE Vec<float> values(const std::byte* p, std::int64_t row, int v) {
    const std::byte* const from = p + v * 2 * Vec<float>::kLanes;
    return joined(Vec<float>::load_bfloat16(from), Vec<float>::load_bfloat16(from + row));
  }
  static MULTIHEAD_INLINE Vec<float> values_first(const std::byte* p, std::int64_t row, int count) {
    return joined(load_stored_first<Element::bfloat16>(p, count), load_stored_first<Element::bfloat16>(p + row, count));
  }
  static MULTIHEAD_INLINE Vec<float> splat(const float* word) {
    return splat_pair(reinterpret_cast<const std::uint16_t*>(word));
  }
  static MULTIHEAD_INLINE Vec<float> add(Vec<float> a, Vec<float> b, Vec<float> sum) { return dot_pairs(a, b, sum); }

  // Weights of the keys [begin, end), multiples of kSumChains, rounded to pairs; returns their sum as pack_weights()
  // adds it: chains by pair mod 8, joined by the fixed tree.
  static MULTIHEAD_NOINLINE float round_weights(const float* weights, int begin, int end, float* words) {
    using Lanes = Vec<float>;
    constexpr int kChains = kSumChains / 2;
    constexpr std::uint16_t kOnes[2] = {0x3F80, 0x3F80};
    std::uint32_t halves[kSumChains], pairs[kSumChains] = {};
    const Lanes one = splat_pair(kOnes), zero = Lanes::splat(0);
    Lanes sums = zero;
    for (int key = begin; key < end; key += kSumChains) {
      for (int i = 0; i < kSumChains; i += Lanes::kLanes)
        pack_pairs(Lanes::load(weights + key + i), zero).store(reinterpret_cast<float*>(halves) + i);
      for (int i = 0; i < kChains; ++i) pairs[i] = halves[2 * i] | halves[2 * i + 1] << 16;
      std::memcpy(words + key / 2, pairs, kChains * sizeof(float));
      static_assert(Lanes::kLanes == kSumChains);
      sums = dot_pairs(Lanes::load(reinterpret_cast<const float*>(pairs)), one, sums);
    }
    float chains[kSumChains];
    sums.store(chains);
    for (int step = kChains / 2; step > 0; step /= 2)
      for (int i = 0; i < step; ++i) chains[i] += chains[i + step];
    return chains[0];
  }
};
