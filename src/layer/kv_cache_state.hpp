// SPDX-License-Identifier: Apache-2.0
// What a KvCache holds: the pool of its pages, who holds them, and its sequences.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

#include "layer/buffer.hpp"
#include "layer/kv_cache_layout.hpp"
#include "multihead/kv_cache.hpp"

namespace multihead {

constexpr const char* kKvCache = "KvCache";

// Zeros, aligned to a cache line. What nobody writes takes no memory yet: the system gives it as zeros when touched.
class KvPool {
 public:
  KvPool() = default;
  explicit KvPool(std::int64_t bytes);  // throws out_of_memory
  std::byte* data() const noexcept { return data_; }

 private:
  struct Free {
    void operator()(void* memory) const noexcept { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  std::byte* data_ = nullptr;
};

// Position p lies in pages[p / page_len]; -1 was given back: pages [gap_begin, gap_end).
struct HeldSequence {
  std::vector<std::int32_t> pages;
  std::vector<std::int64_t> lengths;  // by layer
  std::int64_t gap_begin = 0, gap_end = 0;
  std::uint64_t call = 0;  // the last call that named it, which tells that none is named twice

  std::int64_t longest() const noexcept { return *std::max_element(lengths.begin(), lengths.end()); }
  std::int64_t shortest() const noexcept { return *std::min_element(lengths.begin(), lengths.end()); }
};

struct KvCache::State {
  KvCacheSpec spec;  // its scales are views of those below
  KvLayout layout;
  KvPool pool;
  std::int64_t pool_bytes = 0;
  std::vector<std::int32_t> free;     // pages that nobody holds; the last is the next to be taken
  std::vector<std::int32_t> holders;  // by page: the sequences that hold it
  std::unordered_map<std::uint64_t, HeldSequence> sequences;
  Buffer<float> k_scales, v_scales;  // per_channel: (layers, kv_heads, head_dim / value_dim)

  // Of the append() that is under way.
  std::uint64_t calls = 0;
  std::vector<HeldSequence*> named;            // its sequences
  std::vector<std::int32_t> leaving, written;  // by page: sequences that give it back, that write into it; else 0

  std::byte* head(std::int32_t page, std::int64_t layer, std::int64_t kv_head) const noexcept {
    return pool.data() + page * layout.page + layer * layout.layer + kv_head * layout.head;
  }
  const HeldSequence* find(KvSequence name) const {
    const auto found = sequences.find(static_cast<std::uint64_t>(name));
    return found == sequences.end() ? nullptr : &found->second;
  }
};

// The state of a cache, which may have been moved from, and a sequence of it; throw bad_option.
KvCache::State& state_of(const char* function, const std::unique_ptr<KvCache::State>& state);
HeldSequence& sequence_of(const char* function, KvCache::State& state, KvSequence name);
const HeldSequence& sequence_of(const char* function, const KvCache::State& state, KvSequence name);
void check_layer(const char* function, const KvCache::State& state, std::int64_t layer);

// body, whose failing allocations become out_of_memory.
template <class Body>
decltype(auto) allocating(const char* function, const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, std::string(function) + ": the lists of sequences cannot grow");
  }
}

}  // namespace multihead
