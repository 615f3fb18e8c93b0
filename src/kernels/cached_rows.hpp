// SPDX-License-Identifier: Apache-2.0
// Keys and values of one kv head of one sequence where they lie in pages.
#pragma once

#include <cstddef>
#include <cstdint>

#include "multihead/types.hpp"

namespace multihead {

constexpr int kCacheBlock = 32;  // positions whose keys stand side by side in a cache

// Position p is position p % page_len of page pages[p / page_len]; -1 stands for pages that were given back, which no
// row sees.
//
// blocked: a page holds keys in blocks of kCacheBlock positions, channel by channel, and values row by row:
//   float32, float16, int8   keys [page_len / 32][head_dim][32]                 values [page_len][value_dim]
//   bfloat16                 keys [page_len / 32][(head_dim + 1) / 2][32][2]    a missing partner is zero
// otherwise both lie row by row, k_row and v_row bytes apart, for page_len of any size.
struct CachedRows {
  enum class Element { float32, bfloat16, float16, int8 };  // KvStorage, which kernels do not see
  Element element;
  bool blocked;
  const std::byte *k, *v;       // of page 0, of this layer and kv head
  std::int64_t k_page, v_page;  // bytes from page to page
  std::int64_t k_row, v_row;    // bytes from position to position, where not blocked
  const std::int32_t* pages;
  std::int64_t page_len;
  // int8: of each position, at page 0 (floats, scale_page bytes from page to page), or of each channel, one list for
  // all pages. An element is stored * scale. It is multiplied as a float of the stored number, on every target, by the
  // chains of float32 (amx and avx512bf16 leave int8 to avx512), whatever the type of q, which is widened to float.
  // Each step is rounded once:
  //   of positions   score = ((q . stored) * k_scale) * the call's scale; a weight, once it is in the row's sum, is
  //                  multiplied by v_scale on its way to the values; a hidden key weighs 0 whatever its scale
  //   by channel     q * k_scale, then as float32; the row times 1 / its sum, then * v_scale, then out's type
  const float *k_scales = nullptr, *v_scales = nullptr;
  bool by_channel = false;
  std::int64_t scale_page = 0;

  bool of_bytes() const { return element == Element::int8; }
};

// How tensors of a type are stored whose sums are float.
constexpr CachedRows::Element element_of(Type type) {
  return type == Type::float32    ? CachedRows::Element::float32
         : type == Type::bfloat16 ? CachedRows::Element::bfloat16
                                  : CachedRows::Element::float16;
}

}  // namespace multihead
