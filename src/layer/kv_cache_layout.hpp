// SPDX-License-Identifier: Apache-2.0
// Where keys, values and scales lie in the pages of a cache: [page][layer][kv_head], and there keys, values, scales of
// keys, scales of values, each from a cache line on (kernels/cached_rows.hpp has the order within).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cached_rows.hpp"
#include "multihead/kv_cache.hpp"

namespace multihead {

constexpr std::int64_t kKvTokens = std::int64_t{1} << 48;  // positions of all pages, at most

// The sizes are bytes.
struct KvLayout {
  std::int64_t values = 0, k_scales = 0, v_scales = 0;  // from the keys of a kv head
  std::int64_t head = 0, layer = 0, page = 0;           // from one to the next
};

std::int64_t value_dim_of(const KvCacheSpec& spec) noexcept;

// Throws out_of_memory where a page is beyond the address space.
KvLayout layout_of(const KvCacheSpec& spec);

// Whether each position has scales of its own.
inline bool scales_by_token(const KvCacheSpec& spec) noexcept {
  return spec.storage == KvStorage::int8 && spec.scales == KvScales::per_token;
}

// Places of element c of position p, counted in elements from the keys (values) of a kv head in a page.
template <class E>
struct KeyPlaces {
  static constexpr std::int64_t kPair = 1;
  std::int64_t width;
  std::int64_t operator()(std::int64_t p, std::int64_t c) const noexcept {
    return (p / kCacheBlock * width + c) * kCacheBlock + p % kCacheBlock;
  }
};
template <>
struct KeyPlaces<BFloat16> {
  static constexpr std::int64_t kPair = 2;  // channels side by side
  std::int64_t width;
  std::int64_t operator()(std::int64_t p, std::int64_t c) const noexcept {
    return ((p / kCacheBlock * ((width + 1) / 2) + c / 2) * kCacheBlock + p % kCacheBlock) * 2 + c % 2;
  }
};
struct ValuePlaces {
  std::int64_t width;
  std::int64_t operator()(std::int64_t p, std::int64_t c) const noexcept { return p * width + c; }
};

}  // namespace multihead
