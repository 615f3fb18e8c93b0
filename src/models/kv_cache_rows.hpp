// SPDX-License-Identifier: Apache-2.0
// One layer of a cached sequence in memory of its own, between a cache and a file.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "multihead/kv_cache.hpp"

namespace multihead::kv_files {

inline std::int64_t value_dim_of(const KvCacheSpec& spec) { return spec.value_dim.value_or(spec.head_dim); }
inline bool scales_by_token(const KvCacheSpec& spec) {
  return spec.storage == KvStorage::int8 && spec.scales == KvScales::per_token;
}

template <class Body>
void with_storage(KvStorage storage, const Body& body) {
  switch (storage) {
    case KvStorage::float32:
      return body.template operator()<float>();
    case KvStorage::bfloat16:
      return body.template operator()<BFloat16>();
    case KvStorage::float16:
      return body.template operator()<Float16>();
    case KvStorage::int8:
      return body.template operator()<std::int8_t>();
  }
}

// One layer of a sequence in memory of its own: rows (kv_heads, count, width), scales (kv_heads, count).
template <class E>
struct LayerRows {
  std::int64_t heads, count, k_dim, v_dim;
  bool by_token;
  std::vector<E> k, v;
  std::vector<float> k_scales, v_scales;

  LayerRows(const KvCacheSpec& spec, std::int64_t positions)
      : heads(spec.kv_heads),
        count(positions),
        k_dim(spec.head_dim),
        v_dim(value_dim_of(spec)),
        by_token(scales_by_token(spec)),
        k(static_cast<std::size_t>(heads * count * k_dim)),
        v(static_cast<std::size_t>(heads * count * v_dim)),
        k_scales(static_cast<std::size_t>(by_token ? heads * count : 0)),
        v_scales(k_scales.size()) {}

  // Rows [from, from + size) of all heads.
  template <class T>
  View3<T> rows(T* data, std::int64_t width, std::int64_t from, std::int64_t size) const {
    return {data + from * width, {heads, size, width}, {count * width, width, 1}};
  }
  template <class T>
  MatrixView<T> scales(T* data, std::int64_t from, std::int64_t size) const {
    if (!by_token) return {};
    return {data + from, {heads, size}, {count, 1}};
  }

  void read(const KvCache& cache, std::int64_t layer, KvSequence sequence, KvRange positions, std::int64_t from) {
    const std::int64_t size = positions.end - positions.begin;
    if (size == 0) return;
    const View3<E> k_view = rows(k.data(), k_dim, from, size), v_view = rows(v.data(), v_dim, from, size);
    if constexpr (std::is_same_v<E, std::int8_t>)
      cache.read(layer, sequence, positions.begin, {k_view, scales(k_scales.data(), from, size)},
                 {v_view, scales(v_scales.data(), from, size)});
    else
      cache.read(layer, sequence, positions.begin, k_view, v_view);
  }
  void append(KvCache& cache, std::int64_t layer, KvSequence sequence, std::int64_t from, std::int64_t to) const {
    const std::int64_t size = to - from;
    if (size == 0) return;
    const View3<const E> k_view = rows(k.data(), k_dim, from, size), v_view = rows(v.data(), v_dim, from, size);
    if constexpr (std::is_same_v<E, std::int8_t>) {
      cache.append(layer, sequence, {k_view, scales(k_scales.data(), from, size)},
                   {v_view, scales(v_scales.data(), from, size)});
    } else {
      const auto batched = [this, size](const View3<const E>& view, std::int64_t width) {
        return View4<const E>(view.data(), {1, heads, size, width}, {0, view.stride(0), view.stride(1), 1});
      };
      cache.append(layer, {&sequence, 1}, batched(k_view, k_dim), batched(v_view, v_dim));
    }
  }
};

}  // namespace multihead::kv_files
