// SPDX-License-Identifier: Apache-2.0
// A cache of keys and values: what it is made of, and its sequences.
#include "multihead/kv_cache.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

#include "layer/kv_cache_pages.hpp"

namespace multihead {

namespace {

std::string text(std::int64_t value) { return std::to_string(value); }

// Names of sequences, of all caches of the process: one that was given is never given again.
std::atomic<std::uint64_t> last_name{0};

// A query that comes next, at `length`, may want a key that was given back.
void check_length(const char* function, const KvCache::State& state, const HeldSequence& sequence,
                  std::int64_t length) {
  check_between(function, "length", length, 0, sequence.longest());
  const std::int64_t page_len = state.spec.page_len, begin = sequence.gap_begin * page_len,
                     end = sequence.gap_end * page_len;
  if (length <= begin || end == begin || length - state.spec.window.value_or(0) >= end) return;
  fail(ErrorCode::bad_option, std::string(function) + ": length is " + text(length) + ", the positions from " +
                                  text(begin) + " to " + text(end) + " were given back, window is " +
                                  text(*state.spec.window) + "; it must be at most " + text(begin) + " or at least " +
                                  text(end + *state.spec.window));
}

HeldSequence& insert(KvCache::State& state, HeldSequence&& sequence, KvSequence& name) {
  const std::uint64_t number = last_name.fetch_add(1, std::memory_order_relaxed) + 1;
  name = static_cast<KvSequence>(number);
  return state.sequences.emplace(number, std::move(sequence)).first->second;
}

}  // namespace

KvCache::State& state_of(const char* function, const std::unique_ptr<KvCache::State>& state) {
  if (!state) fail(ErrorCode::bad_option, std::string(function) + ": the cache was moved from; it must be assigned to");
  return *state;
}

const HeldSequence& sequence_of(const char* function, const KvCache::State& state, KvSequence name) {
  const HeldSequence* const found = state.find(name);
  if (!found)
    fail(ErrorCode::bad_option, std::string(function) + ": sequence is " +
                                    std::to_string(static_cast<std::uint64_t>(name)) +
                                    ", which is none of this cache; it must have been added and not removed");
  return *found;
}

HeldSequence& sequence_of(const char* function, KvCache::State& state, KvSequence name) {
  return const_cast<HeldSequence&>(sequence_of(function, std::as_const(state), name));
}

void check_layer(const char* function, const KvCache::State& state, std::int64_t layer) {
  check_between(function, "layer", layer, 0, state.spec.layers - 1);
}

KvCache::~KvCache() = default;
KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;

const KvCacheSpec& KvCache::spec() const noexcept {
  static const KvCacheSpec none;
  return state_ ? state_->spec : none;
}

const KvCache::State& KvCache::state() const { return state_of(kKvCache, state_); }

std::int64_t KvCache::sequences() const noexcept {
  return state_ ? static_cast<std::int64_t>(state_->sequences.size()) : 0;
}

std::int64_t KvCache::free_pages() const noexcept {
  return state_ ? static_cast<std::int64_t>(state_->free.size()) : 0;
}

KvSequence KvCache::add() {
  constexpr const char* kName = "KvCache.add";
  State& state = state_of(kName, state_);
  return allocating(kName, [&] {
    HeldSequence sequence;
    sequence.lengths.resize(static_cast<std::size_t>(state.spec.layers));
    KvSequence name{};
    insert(state, std::move(sequence), name);
    return name;
  });
}

KvSequence KvCache::fork(KvSequence sequence, std::optional<std::int64_t> length) {
  constexpr const char* kName = "KvCache.fork";
  State& state = state_of(kName, state_);
  const HeldSequence& source = sequence_of(kName, state, sequence);
  const std::int64_t wanted = length.value_or(source.longest());
  if (length) check_length(kName, state, source, wanted);
  KvSequence name{};
  HeldSequence& made = allocating(kName, [&]() -> HeldSequence& {
    HeldSequence copy = source;
    return insert(state, std::move(copy), name);
  });
  for (const std::int32_t page : made.pages)
    if (page >= 0) ++state.holders[static_cast<std::size_t>(page)];
  for (std::int64_t& of_layer : made.lengths) of_layer = std::min(of_layer, wanted);
  cut(state, made, wanted);
  return name;
}

void KvCache::remove(KvSequence sequence) {
  constexpr const char* kName = "KvCache.remove";
  State& state = state_of(kName, state_);
  cut(state, sequence_of(kName, state, sequence), 0);
  state.sequences.erase(static_cast<std::uint64_t>(sequence));
}

void KvCache::truncate(KvSequence sequence, std::int64_t length) {
  constexpr const char* kName = "KvCache.truncate";
  State& state = state_of(kName, state_);
  HeldSequence& found = sequence_of(kName, state, sequence);
  check_length(kName, state, found, length);
  for (std::int64_t& of_layer : found.lengths) of_layer = std::min(of_layer, length);
  cut(state, found, length);
}

std::int64_t KvCache::length(KvSequence sequence, std::int64_t layer) const {
  constexpr const char* kName = "KvCache.length";
  const State& state = state_of(kName, state_);
  check_layer(kName, state, layer);
  return sequence_of(kName, state, sequence).lengths[static_cast<std::size_t>(layer)];
}

KvRange KvCache::given_back(KvSequence sequence) const {
  constexpr const char* kName = "KvCache.given_back";
  const State& state = state_of(kName, state_);
  const HeldSequence& found = sequence_of(kName, state, sequence);
  return {found.gap_begin * state.spec.page_len, found.gap_end * state.spec.page_len};
}

void KvCache::skip(KvSequence sequence, std::int64_t count) {
  constexpr const char* kName = "KvCache.skip";
  State& state = state_of(kName, state_);
  HeldSequence& found = sequence_of(kName, state, sequence);
  const auto refuse = [](const std::string& rule) { fail(ErrorCode::bad_option, std::string(kName) + ": " + rule); };
  if (!state.spec.window) refuse("the cache has no window; only a sliding one gives positions back");
  const std::int64_t page_len = state.spec.page_len, kept = (state.spec.first + page_len - 1) / page_len * page_len;
  if (found.shortest() != kept || found.longest() != kept)
    refuse("the sequence's layers have lengths from " + text(found.shortest()) + " to " + text(found.longest()) +
           "; they must be " + text(kept));
  check_between(kName, "count", count, 0, kKvTokens);
  if (count % page_len != 0)
    refuse("count is " + text(count) + ", page_len is " + text(page_len) + "; it must be a multiple");
  if (count == 0) return;
  allocating(kName, [&] { found.pages.resize(static_cast<std::size_t>((kept + count) / page_len), -1); });
  found.gap_begin = kept / page_len;
  found.gap_end = (kept + count) / page_len;
  for (std::int64_t& of_layer : found.lengths) of_layer += count;
}

}  // namespace multihead
