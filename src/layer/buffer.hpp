// SPDX-License-Identifier: Apache-2.0
// Memory that lives as long as a layer: aligned to a cache line, filled once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>

#include "core/scratch.hpp"
#include "core/validate.hpp"

namespace multihead {

// count elements, zeros at first; data() is never null.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  // Throws out_of_memory.
  Buffer(std::int64_t count, const char* function) {
    *this = unfilled(count, function);
    std::fill_n(data_.get(), count, T(0));
  }
  // Its elements are the caller's to fill. Throws out_of_memory.
  static Buffer unfilled(std::int64_t count, const char* function) {
    Buffer buffer;
    buffer.size_ = count;
    const std::size_t bytes = (static_cast<std::size_t>(count) + 1) * sizeof(T);
    try {
      buffer.data_.reset(static_cast<T*>(::operator new (bytes, std::align_val_t{kCacheLine})));
    } catch (const std::bad_alloc&) {
      fail(ErrorCode::out_of_memory, std::string(function) + ": the packed weights cannot be allocated");
    }
    return buffer;
  }

  // As many elements as unfilled(); memory of that size is kept.
  void reserve(std::int64_t count, const char* function) {
    if (!data_ || size_ != count) *this = unfilled(count, function);
  }

  T* data() noexcept { return data_.get(); }
  const T* data() const noexcept { return data_.get(); }
  std::int64_t size() const noexcept { return size_; }
  // Null where there are none.
  const T* data_or_null() const noexcept { return size_ > 0 ? data_.get() : nullptr; }

 private:
  struct Free {
    void operator()(T* memory) const noexcept { ::operator delete (memory, std::align_val_t{kCacheLine}); }
  };
  std::unique_ptr<T[], Free> data_;
  std::int64_t size_ = 0;
};

}  // namespace multihead
