// SPDX-License-Identifier: Apache-2.0
// The rules of a cache's spec, and its memory.
#include <cmath>
#include <limits>
#include <numeric>

#include "layer/kv_cache_state.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();

[[noreturn]] void refuse(const std::string& rule) { fail(ErrorCode::bad_option, std::string(kKvCache) + ": " + rule); }

void check_extents(const KvCacheSpec& spec) {
  check_between(kKvCache, "layers", spec.layers, 1, kMost);
  check_between(kKvCache, "kv_heads", spec.kv_heads, 1, kMost);
  check_between(kKvCache, "head_dim", spec.head_dim, 1, kMaxHeadDim);
  check_between(kKvCache, "value_dim", value_dim_of(spec), 1, kMaxHeadDim);
  check_between(kKvCache, "pages", spec.pages, 1, kMost);
  check_between(kKvCache, "page_len", spec.page_len, kCacheBlock, kMost);
  if (spec.page_len % kCacheBlock != 0)
    refuse("page_len is " + std::to_string(spec.page_len) + "; it must be a multiple of " +
           std::to_string(kCacheBlock));
  if (spec.page_len > kKvTokens / spec.pages) refuse("pages x page_len is beyond 2^48; it must be at most that");
}

void check_window(const KvCacheSpec& spec) {
  if (!spec.window) {
    if (spec.first != 0) refuse("first is " + std::to_string(spec.first) + " without a window; it must come with one");
    return;
  }
  check_between(kKvCache, "window", *spec.window, 0, kKvTokens);
  check_between(kKvCache, "first", spec.first, 0, kKvTokens);
}

void check_scales(const char* name, const View3<const float>& scales, const KvCacheSpec& spec, std::int64_t width) {
  if (!given(scales)) refuse(std::string(name) + " is missing; scales per_channel must come with the cache");
  check_view(kKvCache, operand(name, scales));
  check_equal(kKvCache, name, "has layers", scales.extent(0), "the cache has", spec.layers);
  check_equal(kKvCache, name, "has kv_heads", scales.extent(1), "the cache has", spec.kv_heads);
  check_equal(kKvCache, name, "has width", scales.extent(2), "the cache has", width);
  for (std::int64_t layer = 0; layer < spec.layers; ++layer)
    for (std::int64_t head = 0; head < spec.kv_heads; ++head)
      for (std::int64_t c = 0; c < width; ++c) {
        const float scale = scales(layer, head, c);
        if (!(scale > 0) || !std::isfinite(scale))
          refuse(std::string(name) + " has " + std::to_string(scale) + " at layer " + std::to_string(layer) +
                 ", kv_head " + std::to_string(head) + ", channel " + std::to_string(c) +
                 "; it must be positive and finite");
      }
}

void check(const KvCacheSpec& spec) {
  const int storage = static_cast<int>(spec.storage), scales = static_cast<int>(spec.scales);
  if (storage < 0 || storage > static_cast<int>(KvStorage::int8))
    refuse("storage is " + std::to_string(storage) + "; it must be float32, bfloat16, float16 or int8");
  if (scales < 0 || scales > static_cast<int>(KvScales::per_channel))
    refuse("scales is " + std::to_string(scales) + "; it must be per_token or per_channel");
  check_extents(spec);
  check_window(spec);
  if (spec.scales == KvScales::per_channel) {
    if (spec.storage != KvStorage::int8) refuse("scales is per_channel; storage must then be int8");
    check_scales("k_scales", spec.k_scales, spec, spec.head_dim);
    check_scales("v_scales", spec.v_scales, spec, value_dim_of(spec));
  } else if (given(spec.k_scales) || given(spec.v_scales)) {
    refuse("k_scales and v_scales are given; scales must then be per_channel");
  }
}

Buffer<float> copied(const View3<const float>& scales) {
  if (scales.empty()) return {};
  Buffer<float> copy(scales.extent(0) * scales.extent(1) * scales.extent(2), kKvCache);
  float* to = copy.data();
  for (std::int64_t layer = 0; layer < scales.extent(0); ++layer)
    for (std::int64_t head = 0; head < scales.extent(1); ++head)
      for (std::int64_t c = 0; c < scales.extent(2); ++c) *to++ = scales(layer, head, c);
  return copy;
}

}  // namespace

KvPool::KvPool(std::int64_t bytes) {
  memory_.reset(std::calloc(static_cast<std::size_t>(bytes) + kCacheLine, 1));
  if (!memory_)
    fail(ErrorCode::out_of_memory,
         std::string(kKvCache) + ": pages of " + std::to_string(bytes) + " bytes in all cannot be allocated");
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(memory_.get());
  data_ = static_cast<std::byte*>(memory_.get()) + (round_to_line(address) - address);
}

KvCache::KvCache(const KvCacheSpec& spec) {
  check(spec);
  const KvLayout layout = layout_of(spec);
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(layout.page, spec.pages, &bytes) || bytes > kKvTokens)
    fail(ErrorCode::out_of_memory, std::string(kKvCache) + ": " + std::to_string(spec.pages) + " pages of " +
                                       std::to_string(layout.page) + " bytes are beyond the address space");
  state_ = allocating(kKvCache, [&] {
    auto state = std::make_unique<State>();
    const auto pages = static_cast<std::size_t>(spec.pages);
    state->free.resize(pages);
    std::iota(state->free.rbegin(), state->free.rend(), 0);  // page 0 is the first to be taken
    state->holders.resize(pages);
    state->leaving.resize(pages);
    state->written.resize(pages);
    return state;
  });
  state_->spec = spec;
  state_->layout = layout;
  state_->pool = KvPool(bytes);
  state_->pool_bytes = bytes;
  state_->k_scales = copied(spec.k_scales);
  state_->v_scales = copied(spec.v_scales);
  if (spec.scales == KvScales::per_token) return;
  state_->spec.k_scales = {state_->k_scales.data(), spec.k_scales.extents()};
  state_->spec.v_scales = {state_->v_scales.data(), spec.v_scales.extents()};
}

}  // namespace multihead
