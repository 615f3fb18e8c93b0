// SPDX-License-Identifier: Apache-2.0
// Writing new positions of keys or values into a buffer that outlives the call.
#include "multihead/cache.hpp"

#include <algorithm>
#include <string>

#include "core/validate.hpp"

namespace multihead {

namespace {

constexpr const char* kFunction = "write_cache";

std::string text(std::int64_t value) { return std::to_string(value); }

void check_begins(std::span<const std::int64_t> begins, std::int64_t capacity, std::int64_t length, CacheWrite mode) {
  for (std::size_t b = 0; b < begins.size(); ++b) {
    const auto start = [&] {
      return std::string(kFunction) + ": begins[" + std::to_string(b) + "] is " + text(begins[b]);
    };
    const std::int64_t last = length > 0 ? capacity - 1 : capacity;
    if (begins[b] < 0 || begins[b] > last) fail(ErrorCode::bad_option, start() + "; it must be 0 to " + text(last));
    if (mode == CacheWrite::linear && length > capacity - begins[b])
      fail(ErrorCode::bad_option, start() + ", length is " + text(length) + ", capacity is " + text(capacity) +
                                      "; a linear write may not pass the end of cache");
  }
}

template <class T>
void check(const View4<T>& cache, const View4<const T>& update, std::span<const std::int64_t> begins, CacheWrite mode) {
  const Operand to = operand("cache", cache), from = operand("update", update);
  check_view(kFunction, to);
  check_view(kFunction, from);
  check_equal(kFunction, "update", "has batch", update.extent(0), "cache has", cache.extent(0));
  check_equal(kFunction, "update", "has heads", update.extent(1), "cache has", cache.extent(1));
  check_equal(kFunction, "update", "has width", update.extent(3), "cache has", cache.extent(3));
  check_equal(kFunction, "begins", "has", static_cast<std::int64_t>(begins.size()), "batch is", cache.extent(0));
  const std::int64_t capacity = cache.extent(2), length = update.extent(2);
  if (length > capacity)
    fail(ErrorCode::shape_mismatch, std::string(kFunction) + ": update has length " + text(length) +
                                        ", cache has capacity " + text(capacity) + "; it must hold them all");
  if (mode != CacheWrite::linear && mode != CacheWrite::circular)
    fail(ErrorCode::bad_option,
         std::string(kFunction) + ": mode is " + text(static_cast<int>(mode)) + "; it must be linear or circular");
  check_begins(begins, capacity, length, mode);
  check_writable(kFunction, to);
  check_apart(kFunction, to, from);
}

template <class T>
void write(const View4<T>& cache, const View4<const T>& update, std::span<const std::int64_t> begins, CacheWrite mode) {
  check(cache, update, begins, mode);
  const auto [batch, heads, length, width] = update.extents();
  const std::int64_t to_step = cache.stride(3), from_step = update.stride(3);
  if (width == 0) return;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < length; ++i) {
        std::int64_t position = begins[static_cast<std::size_t>(b)] + i;
        if (position >= cache.extent(2)) position -= cache.extent(2);
        const T* const from = &update(b, h, i, 0);
        T* const to = &cache(b, h, position, 0);
        if (to_step == 1 && from_step == 1)
          std::copy_n(from, width, to);
        else
          for (std::int64_t c = 0; c < width; ++c) to[c * to_step] = from[c * from_step];
      }
}

}  // namespace

void write_cache(View4<float> cache, View4<const float> update, std::span<const std::int64_t> begins, CacheWrite mode) {
  write(cache, update, begins, mode);
}

void write_cache(View4<double> cache, View4<const double> update, std::span<const std::int64_t> begins,
                 CacheWrite mode) {
  write(cache, update, begins, mode);
}

void write_cache(View4<BFloat16> cache, View4<const BFloat16> update, std::span<const std::int64_t> begins,
                 CacheWrite mode) {
  write(cache, update, begins, mode);
}

void write_cache(View4<Float16> cache, View4<const Float16> update, std::span<const std::int64_t> begins,
                 CacheWrite mode) {
  write(cache, update, begins, mode);
}

}  // namespace multihead
