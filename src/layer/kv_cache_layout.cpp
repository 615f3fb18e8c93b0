// SPDX-License-Identifier: Apache-2.0
// The sizes of a cache's pages.
#include "layer/kv_cache_layout.hpp"

#include "core/scratch.hpp"
#include "core/validate.hpp"
#include "layer/kv_cache_state.hpp"

namespace multihead {

namespace {

std::int64_t bytes_of(KvStorage storage) {
  switch (storage) {
    case KvStorage::float32:
      return 4;
    case KvStorage::bfloat16:
    case KvStorage::float16:
      return 2;
    case KvStorage::int8:
      break;
  }
  return 1;
}

std::int64_t lines(std::int64_t bytes) {
  return static_cast<std::int64_t>(round_to_line(static_cast<std::size_t>(bytes)));
}

}  // namespace

std::int64_t value_dim_of(const KvCacheSpec& spec) noexcept { return spec.value_dim.value_or(spec.head_dim); }

KvLayout layout_of(const KvCacheSpec& spec) {
  const std::int64_t element = bytes_of(spec.storage),
                     odd = spec.storage == KvStorage::bfloat16 ? spec.head_dim % 2 : 0;
  const std::int64_t scales = scales_by_token(spec) ? lines(spec.page_len * 4) : 0;
  KvLayout layout;
  layout.values = lines(spec.page_len * (spec.head_dim + odd) * element);
  layout.k_scales = layout.values + lines(spec.page_len * value_dim_of(spec) * element);
  layout.v_scales = layout.k_scales + scales;
  layout.head = layout.v_scales + scales;
  if (__builtin_mul_overflow(layout.head, spec.kv_heads, &layout.layer) ||
      __builtin_mul_overflow(layout.layer, spec.layers, &layout.page))
    fail(ErrorCode::out_of_memory, std::string(kKvCache) + ": a page is beyond the address space");
  return layout;
}

}  // namespace multihead
