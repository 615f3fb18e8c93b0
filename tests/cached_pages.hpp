// SPDX-License-Identifier: Apache-2.0
// Keys and values strewn over pages in the layouts of CachedRows, everything else in them NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cached_call.hpp"
#include "problem.hpp"

namespace multihead::testing {

// How pages are laid out.
struct PageLayout {
  CachedRows::Element element = CachedRows::Element::float32;
  bool blocked = true, by_channel = false;
  std::int64_t page_len = 128, kv_heads = 1, head_dim = 8, value_dim = 8;

  std::int64_t element_size() const {
    using Element = CachedRows::Element;
    return element == Element::int8 ? 1 : element == Element::float32 ? 4 : 2;
  }
  std::int64_t channels() const {
    return blocked && element == CachedRows::Element::bfloat16 ? (head_dim + 1) / 2 * 2 : head_dim;
  }
  std::int64_t keys() const { return page_len * channels() * element_size(); }
  std::int64_t values() const { return page_len * value_dim * element_size(); }
  std::int64_t scales() const { return element == CachedRows::Element::int8 ? page_len * 4 : 0; }
  std::int64_t head() const { return (keys() + values() + 2 * scales() + 63) / 64 * 64; }
  std::int64_t page() const { return kv_heads * head(); }
};

template <class T>
constexpr CachedRows::Element kElementOf = std::is_same_v<T, float>      ? CachedRows::Element::float32
                                           : std::is_same_v<T, BFloat16> ? CachedRows::Element::bfloat16
                                                                         : CachedRows::Element::float16;

// Sequences in pages drawn at random from more than there are needed.
class CachedPages {
 public:
  PageLayout layout;
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<std::int64_t> lengths;
  std::vector<float> k_channels, v_channels;  // (kv_heads, dim): scales by channel

  CachedPages(const PageLayout& pages, std::int64_t count, Random& random) : layout(pages) {
    memory_.assign(static_cast<std::size_t>(count * layout.page()), std::byte{0xFF});
    free_.resize(static_cast<std::size_t>(count));
    std::iota(free_.begin(), free_.end(), 0);
    for (std::size_t i = free_.size(); i > 1; --i)
      std::swap(free_[i - 1], free_[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(i) - 1))]);
    k_channels.assign(static_cast<std::size_t>(layout.kv_heads * layout.head_dim), 0.02f);
    v_channels.assign(static_cast<std::size_t>(layout.kv_heads * layout.value_dim), 0.03f);
  }

  // A sequence of so many positions, which shares whole pages of its first ones with another; returns its name.
  std::int64_t add(std::int64_t length, std::int64_t like = -1, std::int64_t shared = 0) {
    std::vector<std::int32_t> table;
    if (like >= 0) {
      const auto& other = tables[static_cast<std::size_t>(like)];
      table.assign(other.begin(), other.begin() + shared / layout.page_len);
    }
    while (static_cast<std::int64_t>(table.size()) * layout.page_len < length) {
      table.push_back(free_.back());
      free_.pop_back();
    }
    tables.push_back(table);
    lengths.push_back(length);
    return static_cast<std::int64_t>(tables.size()) - 1;
  }

  // Position p of a sequence and head.
  template <class T>
  void write(std::int64_t sequence, std::int64_t head, std::int64_t p, const T* k, const T* v) {
    const std::int64_t in_page = p % layout.page_len;
    std::byte* const keys = page_of(sequence, p) + head * layout.head();
    const std::int64_t size = layout.element_size();
    for (std::int64_t c = 0; c < layout.channels(); ++c)
      store(keys + key_place(in_page, c) * size, c < layout.head_dim ? widen(k[c]) : 0, k_scale(sequence, head, p, c));
    for (std::int64_t c = 0; c < layout.value_dim; ++c)
      store(keys + layout.keys() + (in_page * layout.value_dim + c) * size, widen(v[c]), v_scale(sequence, head, p, c));
  }

  // int8 by position: the scales of a position, before it is written.
  void write_scales(std::int64_t sequence, std::int64_t head, std::int64_t p, float k, float v) {
    std::byte* const scales = page_of(sequence, p) + head * layout.head() + layout.keys() + layout.values();
    std::memcpy(scales + 4 * (p % layout.page_len), &k, 4);
    std::memcpy(scales + layout.scales() + 4 * (p % layout.page_len), &v, 4);
  }
  float k_scale(std::int64_t sequence, std::int64_t head, std::int64_t p, std::int64_t c) const {
    return scale(sequence, head, p, 0, k_channels, head * layout.head_dim + std::min(c, layout.head_dim - 1));
  }
  float v_scale(std::int64_t sequence, std::int64_t head, std::int64_t p, std::int64_t c) const {
    return scale(sequence, head, p, layout.scales(), v_channels, head * layout.value_dim + c);
  }

  void give_back(std::int64_t sequence, std::int64_t page) {
    tables[static_cast<std::size_t>(sequence)][static_cast<std::size_t>(page)] = -1;
  }

  // Of some of the sequences, in this order, as long as lengths says. Both must stay.
  struct Chosen {
    const CachedPages* pages;
    std::vector<std::int64_t> sequences, lengths;
  };
  static CachedKeys keys(const Chosen& chosen) {
    const CachedPages& pages = *chosen.pages;
    const PageLayout& layout = pages.layout;
    CachedKeys keys;
    CachedRows& rows = keys.rows;
    rows = {.element = layout.element,
            .blocked = layout.blocked,
            .k = pages.memory_.data(),
            .v = {},
            .k_page = layout.page(),
            .v_page = layout.page(),
            .k_row = layout.channels() * layout.element_size(),
            .v_row = layout.value_dim * layout.element_size(),
            .pages = nullptr,
            .page_len = layout.page_len};
    rows.v = rows.k + layout.keys();
    keys.k_head = keys.v_head = keys.k_scale_head = keys.v_scale_head = layout.head();
    if (layout.element == CachedRows::Element::int8) {
      rows.by_channel = layout.by_channel, rows.scale_page = layout.page();
      const std::byte* const scales = rows.v + layout.values();
      rows.k_scales = layout.by_channel ? pages.k_channels.data() : reinterpret_cast<const float*>(scales);
      rows.v_scales =
          layout.by_channel ? pages.v_channels.data() : reinterpret_cast<const float*>(scales + layout.scales());
      if (layout.by_channel) keys.k_scale_head = 4 * layout.head_dim, keys.v_scale_head = 4 * layout.value_dim;
    }
    keys.kv_heads = layout.kv_heads, keys.head_dim = layout.head_dim, keys.value_dim = layout.value_dim;
    keys.sequences = static_cast<std::int64_t>(chosen.sequences.size());
    keys.context = &chosen;
    keys.sequence = [](const void* context, std::int64_t index) -> CachedSequence {
      const auto& all = *static_cast<const Chosen*>(context);
      const auto at = static_cast<std::size_t>(index);
      return {all.pages->tables[static_cast<std::size_t>(all.sequences[at])].data(), all.lengths[at]};
    };
    return keys;
  }

 private:
  std::byte* page_of(std::int64_t sequence, std::int64_t p) {
    const std::int64_t page = tables[static_cast<std::size_t>(sequence)][static_cast<std::size_t>(p / layout.page_len)];
    return memory_.data() + page * layout.page();
  }
  std::int64_t key_place(std::int64_t in_page, std::int64_t c) const {
    if (!layout.blocked) return in_page * layout.channels() + c;
    const std::int64_t block = in_page / kCacheBlock * kCacheBlock * layout.channels(), key = in_page % kCacheBlock;
    if (layout.element != CachedRows::Element::bfloat16) return block + c * kCacheBlock + key;
    return block + c / 2 * 2 * kCacheBlock + 2 * key + c % 2;
  }
  float scale(std::int64_t sequence, std::int64_t head, std::int64_t p, std::int64_t list,
              const std::vector<float>& channels, std::int64_t channel) const {
    if (layout.element != CachedRows::Element::int8) return 1;
    if (layout.by_channel) return channels[static_cast<std::size_t>(channel)];
    float x = 0;
    const std::byte* const page = const_cast<CachedPages*>(this)->page_of(sequence, p);
    std::memcpy(&x, page + head * layout.head() + layout.keys() + layout.values() + list + 4 * (p % layout.page_len),
                4);
    return x;
  }
  void store(std::byte* to, float x, float scale) const {
    using Element = CachedRows::Element;
    const auto put = [to](auto value) { std::memcpy(to, &value, sizeof value); };
    if (layout.element == Element::float32) put(x);
    if (layout.element == Element::bfloat16) put(BFloat16(x));
    if (layout.element == Element::float16) put(Float16(x));
    if (layout.element == Element::int8)
      put(static_cast<std::int8_t>(std::clamp(std::nearbyint(x / scale), -127.0f, 127.0f)));
  }

  std::vector<std::byte> memory_;
  std::vector<std::int32_t> free_;
};

}  // namespace multihead::testing
