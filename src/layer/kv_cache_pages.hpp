// SPDX-License-Identifier: Apache-2.0
// Who holds which page: counting what an append takes before it takes anything, sharing, copies, giving back.
#pragma once

#include <cstdint>

#include "layer/kv_cache_state.hpp"

namespace multihead {

// The pages that `count` positions from a layer's length on need beside those that the call's sequences hold: new ones,
// and copies of those that another will hold still. One call of leave() for each sequence that gives pages back comes
// first, then write() for each that grows; settle() ends it.
class PageCount {
 public:
  explicit PageCount(KvCache::State& state) : state_(state) {}
  void leave(const HeldSequence& sequence);
  void write(const HeldSequence& sequence, std::int64_t layer, std::int64_t count);
  // Sets the marks back to 0.
  void settle(const HeldSequence& sequence, std::int64_t layer, std::int64_t count);
  std::int64_t wanted() const noexcept { return wanted_; }
  std::int64_t available() const noexcept;

 private:
  KvCache::State& state_;
  std::int64_t wanted_ = 0, freed_ = 0;
};

// The pages [begin, end) of a sliding cache's sequence that no query to come sees and that it still holds.
KvRange unseen_pages(const KvCacheSpec& spec, const HeldSequence& sequence);

// One holder less; a page without any is free.
void release(KvCache::State& state, std::int32_t page) noexcept;
void give_back(KvCache::State& state, HeldSequence& sequence, KvRange pages) noexcept;
// Makes room for `count` positions from the layer's length on, in pages that the sequence holds alone. They are there:
// PageCount has counted them.
void take(KvCache::State& state, HeldSequence& sequence, std::int64_t layer, std::int64_t count) noexcept;
// Holds no more than the pages of `length` positions.
void cut(KvCache::State& state, HeldSequence& sequence, std::int64_t length) noexcept;

}  // namespace multihead
