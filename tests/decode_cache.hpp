// SPDX-License-Identifier: Apache-2.0
// Keys and values in pages of a cache, laid out by the words of cached_rows.hpp, with NaN wherever no position is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cached_rows.hpp"
#include "problem.hpp"

namespace multihead::testing {

using Element = CachedRows::Element;

template <class T>
constexpr Element kElementOf = std::is_same_v<T, float>      ? Element::float32
                               : std::is_same_v<T, BFloat16> ? Element::bfloat16
                               : std::is_same_v<T, Float16>  ? Element::float16
                                                             : Element::int8;

// One kv head of one sequence: element(position, channel) of keys and values, in scattered pages.
template <class T>
struct DecodeCache {
  std::vector<T> k_memory, v_memory;
  std::vector<float> k_scales, v_scales;
  std::vector<std::int32_t> pages;
  CachedRows rows{};

  DecodeCache(Random& random, std::int64_t length, std::int64_t head_dim, std::int64_t value_dim, std::int64_t page_len,
              bool blocked) {
    const std::int64_t used = (length + page_len - 1) / page_len, spare = random.between(0, 3);
    const std::int64_t pair = std::is_same_v<T, BFloat16> ? 2 : 1, gap = blocked ? 0 : random.between(0, 3);
    channels_ = blocked ? (head_dim + pair - 1) / pair * pair : head_dim + gap, columns_ = value_dim + gap;
    pair_ = pair;
    for (std::int64_t page = 0; page < used + spare; ++page) pages.push_back(static_cast<std::int32_t>(page));
    for (std::size_t i = pages.size() - 1; i > 0; --i)
      std::swap(pages[i], pages[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(i)))]);
    const std::int64_t k_page = page_len * channels_ + random.between(0, 5), v_page = page_len * columns_;
    k_memory.assign(pages.size() * static_cast<std::size_t>(k_page), nothing());
    v_memory.assign(pages.size() * static_cast<std::size_t>(v_page), nothing());
    pages.resize(static_cast<std::size_t>(used));
    const auto size = static_cast<std::int64_t>(sizeof(T));
    rows = {.element = kElementOf<T>,
            .blocked = blocked,
            .k = reinterpret_cast<const std::byte*>(k_memory.data()),
            .v = reinterpret_cast<const std::byte*>(v_memory.data()),
            .k_page = k_page * size,
            .v_page = v_page * size,
            .k_row = channels_ * size,
            .v_row = columns_ * size,
            .pages = pages.data(),
            .page_len = page_len};
    for (std::int64_t p = 0; blocked && head_dim % pair != 0 && p < used * page_len; ++p) key(p, head_dim) = T(0);
  }
  DecodeCache(const DecodeCache&) = delete;

  static T nothing() {
    if constexpr (std::is_same_v<T, std::int8_t>)
      return 99;
    else
      return T(std::numeric_limits<float>::quiet_NaN());
  }
  T& key(std::int64_t position, std::int64_t c) {
    const std::int64_t place = position % rows.page_len, page = page_of(position) * (rows.k_page / size());
    if (!rows.blocked) return k_memory[static_cast<std::size_t>(page + place * channels_ + c)];
    const std::int64_t line = place / kCacheBlock * channels_ * kCacheBlock + c / pair_ * pair_ * kCacheBlock;
    return k_memory[static_cast<std::size_t>(page + line + place % kCacheBlock * pair_ + c % pair_)];
  }
  T& value(std::int64_t position, std::int64_t c) {
    const std::int64_t place = position % rows.page_len, page = page_of(position) * (rows.v_page / size());
    return v_memory[static_cast<std::size_t>(page + place * columns_ + c)];
  }
  // Lists of scales: of positions in pages, or of channels.
  void make_scales(std::int64_t head_dim, std::int64_t value_dim, bool by_channel) {
    const auto each = static_cast<std::size_t>(rows.page_len);
    const std::size_t most = static_cast<std::size_t>(1 + *std::max_element(pages.begin(), pages.end())) * each;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    k_scales.assign(by_channel ? static_cast<std::size_t>(head_dim) : most, nan);
    v_scales.assign(by_channel ? static_cast<std::size_t>(value_dim) : most, nan);
    rows.by_channel = by_channel, rows.scale_page = rows.page_len * 4;
    rows.k_scales = k_scales.data(), rows.v_scales = v_scales.data();
  }
  std::size_t scale_place(std::int64_t position) const {
    return static_cast<std::size_t>(page_of(position) * rows.page_len + position % rows.page_len);
  }

 private:
  static constexpr std::int64_t size() { return static_cast<std::int64_t>(sizeof(T)); }
  std::int64_t page_of(std::int64_t position) const {
    return pages[static_cast<std::size_t>(position / rows.page_len)];
  }
  std::int64_t channels_, columns_, pair_;
};

}  // namespace multihead::testing
