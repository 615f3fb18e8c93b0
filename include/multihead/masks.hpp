// SPDX-License-Identifier: Apache-2.0
// Who sees whom, and what is added to a score: alignment, windows, masks, biases.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

// Where the queries of a sequence stand among its keys: query i is at position p = i + offset, key j at position j.
// Whatever goes by position (causal, window, ALiBi, relative bias) reads it. Unnamed, the offset is 0 and each
// sequence must have as many queries as keys, or the call is an error.
class Alignment {
 public:
  enum class Kind { unnamed, top_left, bottom_right, offset, offsets };

  constexpr Alignment() = default;
  static constexpr Alignment top_left() { return Alignment(Kind::top_left); }  // offset 0
  // The last query meets the last valid key: offset = valid keys - queries of the sequence, which may be negative.
  static constexpr Alignment bottom_right() { return Alignment(Kind::bottom_right); }
  // The number of keys before the first query; also negative: leading rows then precede all keys.
  static constexpr Alignment at(std::int64_t offset) {
    Alignment alignment(Kind::offset);
    alignment.offset_ = offset;
    return alignment;
  }
  // One offset a sequence (batch entries, or the packed sequences of cu_seqlens). The values are the caller's.
  static constexpr Alignment at(std::span<const std::int64_t> offsets) {
    Alignment alignment(Kind::offsets);
    alignment.offsets_ = offsets;
    return alignment;
  }

  constexpr Kind kind() const { return kind_; }
  constexpr std::int64_t offset() const { return offset_; }
  constexpr std::span<const std::int64_t> offsets() const { return offsets_; }

 private:
  constexpr explicit Alignment(Kind kind) : kind_(kind) {}
  Kind kind_ = Kind::unnamed;
  std::int64_t offset_ = 0;
  std::span<const std::int64_t> offsets_;
};

// A query at position p sees the keys p - left .. p + right, both included; negative: no bound on that side. A window
// of W keys with the query's own is left = W - 1, right = 0. The first keys of a sequence, so many, are hidden from no
// row by left (attention sinks; Xiao et al. 2024): right and causal hide them as they hide others.
struct Window {
  std::int64_t left = -1;
  std::int64_t right = -1;
  std::int64_t first = 0;  // at least 0; without a bound left it says nothing
};

// Elements of a type known at run time, read as (batch, heads, q_len, kv_len) with right-aligned broadcasting: a view
// of rank 1 to 4 with any strides, whose missing axes and axes of extent 1 repeat. Nothing is copied or expanded.
struct BroadcastView {
  const void* data = nullptr;
  int rank = 0;  // 0: nothing was given
  std::array<std::int64_t, 4> extents{1, 1, 1, 1};
  std::array<std::int64_t, 4> strides{};

  BroadcastView() = default;
  template <class T, int Rank>
  requires(Rank >= 1 && Rank <= 4) explicit BroadcastView(const View<T, Rank>& view) : data(view.data()), rank(Rank) {
    for (int axis = 0; axis < Rank; ++axis) {
      extents[4 - Rank + axis] = view.extent(axis);
      strides[4 - Rank + axis] = view.stride(axis);
    }
  }
};

template <class T, class... Choices>
concept OneOf = (std::same_as<std::remove_const_t<T>, Choices> || ...);

// A boolean mask; whether true keeps or drops a key is in the name of the option. Elements bool or bytes, where any
// byte but 0 is true.
struct Mask {
  BroadcastView view;

  Mask() = default;
  template <OneOf<bool, std::uint8_t> T, int Rank>
  Mask(const View<T, Rank>& mask) : view(mask) {}
  bool given() const noexcept { return view.rank > 0; }
};

// A bias that is added to scores as it is, after softcap, unscaled. -inf hides the key from the row; any finite number,
// however low, does not. float64 wherever sums are; otherwise float32, bfloat16 or float16.
struct Bias {
  BroadcastView view;
  Type type = Type::float32;

  Bias() = default;
  template <OneOf<float, double, BFloat16, Float16> T, int Rank>
  Bias(const View<T, Rank>& bias) : view(bias), type(kTypeOf<std::remove_const_t<T>>) {}
  bool given() const noexcept { return view.rank > 0; }
};

// T5's relative-position bias (Raffel et al. 2020, section 2.1): table[bucket(j - p)][head] is added to the score of
// key j for the query at position p. Half the buckets of a direction hold one distance each, the other half grow
// logarithmically up to max_distance, and the last one holds all beyond. Types as for Bias.
struct RelativeBias {
  const void* data = nullptr;
  Type type = Type::float32;
  std::array<std::int64_t, 2> extents{};  // (buckets, heads)
  std::array<std::int64_t, 2> strides{};
  bool bidirectional = true;  // half the buckets for keys after the query; false: those share bucket 0
  std::int64_t max_distance = 128;

  RelativeBias() = default;
  // table (buckets, heads): relative_attention_bias.weight as T5 stores it.
  template <OneOf<float, double, BFloat16, Float16> T>
  RelativeBias(const View<T, 2>& table, bool both_directions, std::int64_t distance = 128)
      : data(table.data()),
        type(kTypeOf<std::remove_const_t<T>>),
        extents(table.extents()),
        strides(table.strides()),
        bidirectional(both_directions),
        max_distance(distance) {}
  bool given() const noexcept { return data != nullptr || extents[0] != 0; }
};

// The bucket of distance r = j - p among that many. What RelativeBias reads, for those who build its table.
int relative_bucket(std::int64_t r, int buckets, bool bidirectional, std::int64_t max_distance) noexcept;

}  // namespace multihead
