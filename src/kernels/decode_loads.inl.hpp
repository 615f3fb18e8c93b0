// SPDX-License-Identifier: Apache-2.0
// Elements of a cache in registers, and the products that decode sums: pairs of bfloat16 have theirs in
// decode_pairs.inl.hpp.

using Element = CachedRows::Element;

constexpr int stored_bytes(Element element) {
  if (element == Element::float32) return 4;
  return element == Element::int8 ? 1 : 2;
}

// kLanes elements as floats.
template <Element E>
MULTIHEAD_INLINE Vec<float> load_stored(const std::byte* p) {
  if constexpr (E == Element::float32)
    return Vec<float>::load(reinterpret_cast<const float*>(p));
  else if constexpr (E == Element::bfloat16)
    return Vec<float>::load_bfloat16(p);
  else if constexpr (E == Element::float16)
    return Vec<float>::load_float16(p);
  else
    return Vec<float>::load_int8(p);
}

// The first count of them; nothing after them is read.
template <Element E>
MULTIHEAD_INLINE Vec<float> load_stored_first(const std::byte* p, int count) {
  std::byte lanes[Vec<float>::kLanes * stored_bytes(E)] = {};
  std::memcpy(lanes, p, static_cast<std::size_t>(count * stored_bytes(E)));
  return load_stored<E>(lanes);
}

// The products of sums of floats. Queries and weights stand as words of 32 bits, to be broadcast. Of keys a line of the
// blocked layout is kParts words a row and key: bfloat16 has two channels in a line, one after the other in the sum.
// Of values a step is kTogether rows.
template <Element E>
struct DecodeProducts {
  static constexpr Element kElement = E;
  static constexpr Element kStaged = Element::float32;  // what keys become that lie row by row
  static constexpr int kParts = E == Element::bfloat16 ? 2 : 1;
  static constexpr int kTogether = 1;
  static constexpr int kKeyBytes = kParts * stored_bytes(E);  // of a key in a line
  // Of two registers of columns the even ones are one, the odd ones the other: widened in place.
  static constexpr bool kSplit = E == Element::bfloat16;

  template <int Part>
  static MULTIHEAD_INLINE Vec<float> keys(const std::byte* p) {
    if constexpr (kParts == 1)
      return load_stored<E>(p);
    else
      return half<Part>(p);
  }
  // Register v of V of columns.
  template <int V>
  static MULTIHEAD_INLINE Vec<float> values(const std::byte* p, std::int64_t, int v) {
    constexpr int kBytes = Vec<float>::kLanes * stored_bytes(E);
    if constexpr (kSplit && V % 2 == 0)
      return v % 2 == 0 ? half<0>(p + v * kBytes) : half<1>(p + (v - 1) * kBytes);
    else
      return load_stored<E>(p + v * kBytes);
  }
  // Of pairs the even elements or the odd ones.
  template <int Odd>
  static MULTIHEAD_INLINE Vec<float> half(const std::byte* p) {
    const Vec<float> pairs = Vec<float>::load(reinterpret_cast<const float*>(p));
    if constexpr (Odd == 0)
      return Vec<float>::shift_left<16>(pairs);
    else
      return pairs & Vec<float>::splat(std::bit_cast<float>(0xFFFF0000u));
  }
  static MULTIHEAD_INLINE Vec<float> values_first(const std::byte* p, std::int64_t, int count) {
    return load_stored_first<E>(p, count);
  }
  static MULTIHEAD_INLINE Vec<float> splat(const float* word) { return Vec<float>::splat(*word); }
  static MULTIHEAD_INLINE Vec<float> add(Vec<float> a, Vec<float> b, Vec<float> sum) {
    return Vec<float>::fma(a, b, sum);
  }
};

// Where sums of column c stand among value_dim of them.
template <class P>
constexpr std::int64_t column_place(std::int64_t c, std::int64_t value_dim) {
  constexpr std::int64_t kLanes = Vec<float>::kLanes, kBoth = 2 * kLanes;
  if (!P::kSplit || c >= value_dim / kBoth * kBoth) return c;
  return c / kBoth * kBoth + c % 2 * kLanes + c % kBoth / 2;
}

// Lines of a chunk's keys, and words of a query.
template <class P>
constexpr std::int64_t key_lines(std::int64_t head_dim) {
  constexpr int kChannels = P::kParts * P::kTogether;
  return (head_dim + kChannels - 1) / kChannels;
}
template <class P>
constexpr std::int64_t query_words(std::int64_t head_dim) {
  return key_lines<P>(head_dim) * P::kParts;
}
