// SPDX-License-Identifier: Apache-2.0
// The pages of a cache and their holders.
#include "layer/kv_cache_pages.hpp"

#include <algorithm>
#include <cstring>

namespace multihead {

namespace {

std::int32_t& at(std::vector<std::int32_t>& list, std::int32_t page) { return list[static_cast<std::size_t>(page)]; }

std::int64_t size_of(const HeldSequence& sequence) { return static_cast<std::int64_t>(sequence.pages.size()); }

// Calls body(page) for each page that a sequence holds among those that `count` positions of a layer will lie in.
template <class Body>
void each_written(const KvCache::State& state, const HeldSequence& sequence, KvRange positions, const Body& body) {
  const std::int64_t page_len = state.spec.page_len;
  const std::int64_t end = std::min((positions.end + page_len - 1) / page_len, size_of(sequence));
  for (std::int64_t i = positions.begin / page_len; i < end; ++i) body(sequence.pages[static_cast<std::size_t>(i)]);
}

KvRange coming(const HeldSequence& sequence, std::int64_t layer, std::int64_t count) {
  const std::int64_t length = sequence.lengths[static_cast<std::size_t>(layer)];
  return {length, length + count};
}

// What of a page holds positions before `rows` goes to another.
void copy_rows(KvCache::State& state, std::int32_t from, std::int32_t to, std::int64_t rows) noexcept {
  const KvLayout& layout = state.layout;
  const std::int64_t page_len = state.spec.page_len, blocks = (rows + kCacheBlock - 1) / kCacheBlock * kCacheBlock;
  // Keys, values and scales are lists whose first positions come first.
  const std::int64_t starts[] = {0, layout.values, layout.k_scales, layout.v_scales, layout.head};
  for (std::int64_t i = 0; i < state.spec.layers * state.spec.kv_heads; ++i)
    for (int part = 0; part < 4; ++part) {
      const std::int64_t bytes = (starts[part + 1] - starts[part]) / page_len * blocks;
      std::memcpy(state.head(to, 0, i) + starts[part], state.head(from, 0, i) + starts[part],
                  static_cast<std::size_t>(bytes));
    }
}

}  // namespace

std::int64_t PageCount::available() const noexcept { return static_cast<std::int64_t>(state_.free.size()) + freed_; }

void PageCount::leave(const HeldSequence& sequence) {
  const KvRange unseen = unseen_pages(state_.spec, sequence);
  for (std::int64_t i = unseen.begin; i < unseen.end; ++i) {
    const std::int32_t page = sequence.pages[static_cast<std::size_t>(i)];
    if (++at(state_.leaving, page) == at(state_.holders, page)) ++freed_;
  }
}

void PageCount::write(const HeldSequence& sequence, std::int64_t layer, std::int64_t count) {
  const KvRange positions = coming(sequence, layer, count);
  wanted_ +=
      std::max<std::int64_t>((positions.end + state_.spec.page_len - 1) / state_.spec.page_len - size_of(sequence), 0);
  // Of those that hold a page when pages have been given back, the last that writes into it keeps it.
  each_written(state_, sequence, positions, [this](std::int32_t page) {
    if (++at(state_.written, page) < at(state_.holders, page) - at(state_.leaving, page)) ++wanted_;
  });
}

void PageCount::settle(const HeldSequence& sequence, std::int64_t layer, std::int64_t count) {
  const KvRange unseen = unseen_pages(state_.spec, sequence);
  for (std::int64_t i = unseen.begin; i < unseen.end; ++i)
    at(state_.leaving, sequence.pages[static_cast<std::size_t>(i)]) = 0;
  each_written(state_, sequence, coming(sequence, layer, count),
               [this](std::int32_t page) { at(state_.written, page) = 0; });
}

KvRange unseen_pages(const KvCacheSpec& spec, const HeldSequence& sequence) {
  if (!spec.window) return {};
  const std::int64_t kept = (spec.first + spec.page_len - 1) / spec.page_len;
  const KvRange unseen{std::max(kept, sequence.gap_end), (sequence.shortest() - *spec.window) / spec.page_len};
  return unseen.begin < unseen.end ? unseen : KvRange{};
}

void release(KvCache::State& state, std::int32_t page) noexcept {
  if (page >= 0 && --at(state.holders, page) == 0) state.free.push_back(page);  // it has room for all pages
}

void give_back(KvCache::State& state, HeldSequence& sequence, KvRange pages) noexcept {
  if (pages.begin == pages.end) return;
  for (std::int64_t i = pages.begin; i < pages.end; ++i) {
    std::int32_t& page = sequence.pages[static_cast<std::size_t>(i)];
    release(state, page);
    page = -1;
  }
  if (sequence.gap_begin == sequence.gap_end) sequence.gap_begin = pages.begin;
  sequence.gap_end = pages.end;
}

void take(KvCache::State& state, HeldSequence& sequence, std::int64_t layer, std::int64_t count) noexcept {
  const std::int64_t page_len = state.spec.page_len, longest = sequence.longest();
  const auto next = [&state] {
    const std::int32_t page = state.free.back();
    state.free.pop_back();
    at(state.holders, page) = 1;
    return page;
  };
  const KvRange positions = coming(sequence, layer, count);
  const std::int64_t end = (positions.end + page_len - 1) / page_len;
  for (std::int64_t i = positions.begin / page_len; i < std::min(end, size_of(sequence)); ++i) {
    std::int32_t& page = sequence.pages[static_cast<std::size_t>(i)];
    if (at(state.holders, page) == 1) continue;
    const std::int32_t shared = page;
    page = next();
    copy_rows(state, shared, page, std::min(longest - i * page_len, page_len));
    release(state, shared);
  }
  while (size_of(sequence) < end) sequence.pages.push_back(next());  // it has been given room
}

void cut(KvCache::State& state, HeldSequence& sequence, std::int64_t length) noexcept {
  const std::int64_t kept = (length + state.spec.page_len - 1) / state.spec.page_len;
  while (size_of(sequence) > kept) {
    release(state, sequence.pages.back());
    sequence.pages.pop_back();
  }
  if (kept <= sequence.gap_begin) sequence.gap_begin = sequence.gap_end = 0;
}

}  // namespace multihead
