// SPDX-License-Identifier: Apache-2.0
// Keys and values that outlive a call: writing new positions into a buffer.
#pragma once

#include <cstdint>
#include <span>

#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

enum class CacheWrite {
  linear,    // begin + length may not pass the cache's end
  circular,  // positions wrap at the cache's end
};

// cache(b, h, begins[b] + i, c) = update(b, h, i, c): the new positions of each sequence, at a place of its own.
//   cache (batch, heads, capacity, width)   update (batch, heads, length, width), length at most capacity
//   begins (batch), 0 to capacity - 1 (to capacity where length is 0)
// The rest of the cache stays as it is. Strides are free; the two may not overlap. Throws Error before anything is
// written. (TensorScatter of ONNX, its axis being the third.)
void write_cache(View4<float> cache, View4<const float> update, std::span<const std::int64_t> begins, CacheWrite mode);
void write_cache(View4<double> cache, View4<const double> update, std::span<const std::int64_t> begins,
                 CacheWrite mode);
void write_cache(View4<BFloat16> cache, View4<const BFloat16> update, std::span<const std::int64_t> begins,
                 CacheWrite mode);
void write_cache(View4<Float16> cache, View4<const Float16> update, std::span<const std::int64_t> begins,
                 CacheWrite mode);

}  // namespace multihead
