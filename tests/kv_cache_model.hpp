// SPDX-License-Identifier: Apache-2.0
// What a KvCache must hold, kept plainly: rows of each layer in vectors, tables of pages that are only counted.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "problem.hpp"

namespace multihead::testing {

using Numbers = std::vector<float>;

// A stored row: elements as numbers (of int8 the integers), and its scale where it has one.
struct StoredRow {
  Numbers elements;
  float scale = 1;
  bool operator==(const StoredRow&) const = default;
};
struct StoredPosition {
  std::vector<StoredRow> k, v;  // by kv head
  bool operator==(const StoredPosition&) const = default;
};

struct ModelSequence {
  std::vector<int> pages;  // names of pages; -1: given back
  std::vector<std::vector<StoredPosition>> layers;

  std::int64_t length(std::int64_t layer) const {
    return static_cast<std::int64_t>(layers[static_cast<std::size_t>(layer)].size());
  }
  std::int64_t longest() const {
    std::size_t most = 0;
    for (const auto& layer : layers) most = std::max(most, layer.size());
    return static_cast<std::int64_t>(most);
  }
  std::int64_t shortest() const {
    std::size_t least = layers[0].size();
    for (const auto& layer : layers) least = std::min(least, layer.size());
    return static_cast<std::int64_t>(least);
  }
};

struct KvModel {
  KvCacheSpec spec;
  std::vector<float> k_scales, v_scales;  // per_channel: (layers, kv_heads, width)
  std::map<KvSequence, ModelSequence> sequences;
  int last_page = 0;

  std::int64_t value_dim() const { return spec.value_dim.value_or(spec.head_dim); }
  std::int64_t pages_of(std::int64_t positions) const { return (positions + spec.page_len - 1) / spec.page_len; }

  std::int64_t free_pages() const {
    std::set<int> held;
    for (const auto& [name, sequence] : sequences) held.insert(sequence.pages.begin(), sequence.pages.end());
    held.erase(-1);
    return spec.pages - static_cast<std::int64_t>(held.size());
  }
  std::int64_t holders(int page) const {
    std::int64_t count = 0;
    for (const auto& [name, sequence] : sequences)
      count += std::count(sequence.pages.begin(), sequence.pages.end(), page);
    return count;
  }

  // Whether position p of a sequence was given back.
  bool lost(const ModelSequence& sequence, std::int64_t p) const {
    return sequence.pages[static_cast<std::size_t>(p / spec.page_len)] == -1;
  }
  // Whether a sequence may end at this length: nothing that is written or seen next was given back.
  bool may_end(const ModelSequence& sequence, std::int64_t length) const {
    const auto lost_page = std::find(sequence.pages.begin(), sequence.pages.end(), -1);
    const std::int64_t begin = (lost_page - sequence.pages.begin()) * spec.page_len;
    const std::int64_t end = begin + std::count(sequence.pages.begin(), sequence.pages.end(), -1) * spec.page_len;
    return begin == end || length <= begin || length >= end + *spec.window;
  }

  void cut(ModelSequence& sequence, std::int64_t length) const {
    for (auto& layer : sequence.layers) layer.resize(std::min(layer.size(), static_cast<std::size_t>(length)));
    sequence.pages.resize(static_cast<std::size_t>(pages_of(length)));
  }

  // The pages alone: given back, copied where shared, new.
  void grow(const std::map<KvSequence, std::int64_t>& counts, std::int64_t layer) {
    for (const auto& [name, count] : counts) {
      ModelSequence& sequence = sequences.at(name);
      if (count == 0 || !spec.window) continue;
      for (std::int64_t page = pages_of(spec.first); (page + 1) * spec.page_len <= sequence.shortest() - *spec.window;
           ++page)
        sequence.pages[static_cast<std::size_t>(page)] = -1;
    }
    for (const auto& [name, count] : counts) {
      if (count == 0) continue;
      ModelSequence& sequence = sequences.at(name);
      const std::int64_t length = sequence.length(layer), end = pages_of(length + count);
      if (static_cast<std::int64_t>(sequence.pages.size()) < end) sequence.pages.resize(static_cast<std::size_t>(end));
      for (std::int64_t page = length / spec.page_len; page < end; ++page) {
        int& held = sequence.pages[static_cast<std::size_t>(page)];
        if (held == 0 || holders(held) > 1) held = ++last_page;
      }
    }
  }

  // A row as the cache keeps it. scales: of its channels, or null.
  template <class T>
  StoredRow stored(const T* row, std::int64_t width, const float* scales) const {
    StoredRow kept;
    for (std::int64_t c = 0; c < width; ++c) kept.elements.push_back(static_cast<float>(row[c]));
    if (spec.storage != KvStorage::int8) return kept;
    float largest = 0;
    for (const float x : kept.elements) largest = std::max(largest, std::fabs(x));
    kept.scale = scales ? 1 : largest / 127;
    for (std::int64_t c = 0; c < width; ++c) {
      float& x = kept.elements[static_cast<std::size_t>(c)];
      const float scale = scales ? scales[c] : kept.scale;
      x = scale == 0 ? 0 : std::clamp(std::nearbyint(x / scale), -127.0f, 127.0f);
    }
    return kept;
  }
  // What a stored row says: elements times scales.
  Numbers said(const StoredRow& row, const float* scales) const {
    Numbers numbers = row.elements;
    for (std::size_t c = 0; c < numbers.size(); ++c) numbers[c] *= scales ? scales[c] : row.scale;
    return numbers;
  }
  const float* scales_of(const std::vector<float>& all, std::int64_t layer, std::int64_t head) const {
    if (all.empty()) return nullptr;
    const auto width = static_cast<std::int64_t>(all.size()) / (spec.layers * spec.kv_heads);
    return all.data() + (layer * spec.kv_heads + head) * width;
  }
};

}  // namespace multihead::testing
