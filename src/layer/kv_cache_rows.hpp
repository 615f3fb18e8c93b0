// SPDX-License-Identifier: Apache-2.0
// Rows of one kv head into the pages of a sequence, and out of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "layer/kv_cache_state.hpp"

namespace multihead {

// Positions [first, first + count) of a kv head of a sequence.
struct HeadRows {
  const KvCache::State& state;
  const HeldSequence& sequence;
  std::int64_t layer, kv_head, first, count;
};

// Calls body(head, place, row, count) for each run of rows of one page: where the head lies in it, the place in the
// page of the first, and which row that is.
template <class Body>
void each_run(const HeadRows& rows, const Body& body) {
  const std::int64_t page_len = rows.state.spec.page_len;
  for (std::int64_t row = 0; row < rows.count;) {
    const std::int64_t position = rows.first + row, place = position % page_len;
    const std::int64_t count = std::min(page_len - place, rows.count - row);
    const std::int32_t page = rows.sequence.pages[static_cast<std::size_t>(position / page_len)];
    body(rows.state.head(page, rows.layer, rows.kv_head), place, row, count);
    row += count;
  }
}

// The four lists of a kv head in a page.
template <class E>
struct PageLists {
  E *k, *v;
  float *k_scales, *v_scales;

  PageLists(std::byte* head, const KvLayout& layout)
      : k(reinterpret_cast<E*>(head)),
        v(reinterpret_cast<E*>(head + layout.values)),
        k_scales(reinterpret_cast<float*>(head + layout.k_scales)),
        v_scales(reinterpret_cast<float*>(head + layout.v_scales)) {}
};

// list[places(p + i, c)] = element(i, c): values row after row, keys block after block, where a channel without a
// partner gets a zero one.
template <class E, class Element>
void put(E* list, const ValuePlaces& places, std::int64_t p, std::int64_t count, const Element& element) {
  for (std::int64_t i = 0; i < count; ++i) {
    E* const row = list + places(p + i, 0);
    for (std::int64_t c = 0; c < places.width; ++c) row[c] = element(i, c);
  }
}
template <class E, class Element>
void put(E* list, const KeyPlaces<E>& places, std::int64_t p, std::int64_t count, const Element& element) {
  constexpr std::int64_t kStep = KeyPlaces<E>::kPair;
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t rows = std::min(count - i, kCacheBlock - (p + i) % kCacheBlock);
    for (std::int64_t c = 0; c < places.width; ++c) {
      E* const lane = list + places(p + i, c);
      for (std::int64_t row = 0; row < rows; ++row) lane[row * kStep] = element(i + row, c);
    }
    if (places.width % kStep != 0) {
      E* const partner = list + places(p + i, places.width);
      for (std::int64_t row = 0; row < rows; ++row) partner[row * kStep] = E{};
    }
    i += rows;
  }
}

inline const char* storage_name(KvStorage storage) noexcept {
  constexpr const char* kNames[] = {"float32", "bfloat16", "float16", "int8"};
  return kNames[static_cast<int>(storage)];
}

}  // namespace multihead
