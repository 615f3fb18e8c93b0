// SPDX-License-Identifier: Apache-2.0
// Rows into pages: copied where the type is the storage's, rounded to int8 where that is.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/float_mode.hpp"
#include "layer/kv_cache_rows.hpp"

namespace multihead {

// Some positions of one kv head where the caller has them.
template <class T>
struct GivenRows {
  const T *k, *v;
  std::int64_t k_row, v_row;  // elements from position to position
};

namespace kv_store {

// x / scale to the nearest, ties to even, from -127 to 127; 0 for a scale of 0. In the library's float mode.
inline std::int8_t quantised(float x, float scale) noexcept {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: a sum with it has no fraction
  if (scale == 0) return 0;
  const float ratio = std::min(std::max(x / scale, -127.0f), 127.0f);
  return static_cast<std::int8_t>((ratio + kMagic) - kMagic);
}

template <class T>
float scale_of(const T* row, std::int64_t width) noexcept {
  float largest = 0;
  for (std::int64_t c = 0; c < width; ++c) largest = std::max(largest, std::fabs(static_cast<float>(row[c])));
  return largest / 127.0f;
}

// One list of a page and its scales: of its positions, or of its channels.
struct QuantisedList {
  std::int8_t* rows;
  float* by_position;
  const float* by_channel;  // null unless the cache has such
};

// `count` rows, `step` elements apart, from place p on.
template <class T, class Places>
void put_quantised(const QuantisedList& list, const Places& places, std::int64_t p, std::int64_t count, const T* rows,
                   std::int64_t step) {
  if (!list.by_channel)
    for (std::int64_t i = 0; i < count; ++i) list.by_position[p + i] = scale_of(rows + i * step, places.width);
  put(list.rows, places, p, count, [&](std::int64_t i, std::int64_t c) {
    return quantised(static_cast<float>(rows[i * step + c]),
                     list.by_channel ? list.by_channel[c] : list.by_position[p + i]);
  });
}

template <class T>
void store_quantised(const HeadRows& to, const GivenRows<T>& from) noexcept {
  const FloatMode mode;
  const KvCacheSpec& spec = to.state.spec;
  const std::int64_t k_dim = spec.head_dim, v_dim = value_dim_of(spec), head = to.layer * spec.kv_heads + to.kv_head;
  const bool by_channel = spec.scales == KvScales::per_channel;
  const float* const k_scales = by_channel ? to.state.k_scales.data() + head * k_dim : nullptr;
  const float* const v_scales = by_channel ? to.state.v_scales.data() + head * v_dim : nullptr;
  each_run(to, [&](std::byte* at, std::int64_t place, std::int64_t row, std::int64_t count) {
    const PageLists<std::int8_t> lists(at, to.state.layout);
    put_quantised({lists.k, lists.k_scales, k_scales}, KeyPlaces<std::int8_t>{k_dim}, place, count,
                  from.k + row * from.k_row, from.k_row);
    put_quantised({lists.v, lists.v_scales, v_scales}, ValuePlaces{v_dim}, place, count, from.v + row * from.v_row,
                  from.v_row);
  });
}

}  // namespace kv_store

// As they are.
template <class T>
void store_copied(const HeadRows& to, const GivenRows<T>& from) noexcept {
  const KvCacheSpec& spec = to.state.spec;
  each_run(to, [&](std::byte* at, std::int64_t place, std::int64_t row, std::int64_t count) {
    const PageLists<T> lists(at, to.state.layout);
    const T *const k = from.k + row * from.k_row, *const v = from.v + row * from.v_row;
    put(lists.k, KeyPlaces<T>{spec.head_dim}, place, count,
        [&](std::int64_t i, std::int64_t c) { return k[i * from.k_row + c]; });
    put(lists.v, ValuePlaces{value_dim_of(spec)}, place, count,
        [&](std::int64_t i, std::int64_t c) { return v[i * from.v_row + c]; });
  });
}

// T: the storage's type, or any of the three for int8.
template <class T>
void store(const HeadRows& to, const GivenRows<T>& from) noexcept {
  if (to.state.spec.storage == KvStorage::int8)
    kv_store::store_quantised(to, from);
  else
    store_copied(to, from);
}

}  // namespace multihead
