// SPDX-License-Identifier: Apache-2.0
// attention() over a KvCache: its rules, and where the keys of its sequences lie.
#include <string>
#include <utility>
#include <vector>

#include "kernels/cached_call.hpp"
#include "layer/kv_cache_rows.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "attention";
constexpr std::int64_t kStep = 1;

std::string text(std::int64_t value) { return std::to_string(value); }

[[noreturn]] void refuse(const std::string& rule) { fail(ErrorCode::bad_option, std::string(kName) + ": " + rule); }

// The sequences of a call, in a list that the thread keeps for the next one; a call within a call makes its own.
class Named {
 public:
  Named() : list_(std::move(kept)) { list_.clear(); }
  ~Named() { kept = std::move(list_); }
  Named(const Named&) = delete;
  Named& operator=(const Named&) = delete;

  void add(const CachedSequence& sequence) { list_.push_back(sequence); }
  static CachedSequence at(const void* named, std::int64_t index) {
    return static_cast<const Named*>(named)->list_[static_cast<std::size_t>(index)];
  }

 private:
  static thread_local std::vector<CachedSequence> kept;
  std::vector<CachedSequence> list_;
};
thread_local std::vector<CachedSequence> Named::kept;

void check_type(const KvCacheSpec& spec, Type type) {
  constexpr Type kTypes[] = {Type::float32, Type::bfloat16, Type::float16};
  if (spec.storage != KvStorage::int8 && type != kTypes[static_cast<int>(spec.storage)])
    fail(ErrorCode::shape_mismatch, std::string(kName) + ": q is " + std::string(type_name(type)) +
                                        ", the cache holds " + storage_name(spec.storage) + "; they must be equal");
}

void check_window(const KvCacheSpec& spec, const Window& window) {
  if (!spec.window) return;
  if (window.left < 0 || window.left > *spec.window)
    refuse("window.left is " + text(window.left) + ", the cache's window is " + text(*spec.window) +
           "; it must be 0 to that");
  if (window.first > spec.first)
    refuse("window.first is " + text(window.first) + ", the cache keeps the first " + text(spec.first) +
           "; it must be at most that");
}

// The position of the first query of sequence s, which has q_len of them.
std::int64_t position(const Alignment& alignment, std::size_t s, std::int64_t q_len, std::int64_t length) {
  switch (alignment.kind()) {
    case Alignment::Kind::top_left:
      return 0;
    case Alignment::Kind::offset:
      return alignment.offset();
    case Alignment::Kind::offsets:
      return s < alignment.offsets().size() ? alignment.offsets()[s] : 0;
    default:
      return length - q_len;
  }
}

// No window reaches a position that was given back.
void check_gap(const KvCache::State& state, const HeldSequence& sequence, std::int64_t first_query,
               const Window& window) {
  const std::int64_t begin = sequence.gap_begin * state.spec.page_len, end = sequence.gap_end * state.spec.page_len;
  if (begin == end || first_query - window.left >= end) return;
  refuse("the query at position " + text(first_query) + " has window.left " + text(window.left) +
         ", the positions from " + text(begin) + " to " + text(end) +
         " were given back; its window must begin after them");
}

CachedKeys keys_of(const KvCache::State& state, std::int64_t layer) {
  const KvCacheSpec& spec = state.spec;
  const KvLayout& layout = state.layout;
  using Element = CachedRows::Element;
  constexpr Element kElements[] = {Element::float32, Element::bfloat16, Element::float16, Element::int8};
  const std::byte* const head = state.head(0, layer, 0);
  CachedKeys keys{};
  keys.rows.element = kElements[static_cast<int>(spec.storage)];
  keys.rows.blocked = true;
  keys.rows.k = head, keys.rows.v = head + layout.values;
  keys.rows.k_page = keys.rows.v_page = layout.page;
  keys.rows.page_len = spec.page_len;
  keys.k_head = keys.v_head = layout.head;
  keys.kv_heads = spec.kv_heads, keys.head_dim = spec.head_dim, keys.value_dim = value_dim_of(spec);
  if (spec.storage != KvStorage::int8) return keys;
  if (spec.scales == KvScales::per_token) {
    keys.rows.k_scales = reinterpret_cast<const float*>(head + layout.k_scales);
    keys.rows.v_scales = reinterpret_cast<const float*>(head + layout.v_scales);
    keys.rows.scale_page = layout.page;
    keys.k_scale_head = keys.v_scale_head = layout.head;
    return keys;
  }
  constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
  keys.rows.by_channel = true;
  keys.rows.k_scales = state.k_scales.data() + layer * spec.kv_heads * spec.head_dim;
  keys.rows.v_scales = state.v_scales.data() + layer * spec.kv_heads * keys.value_dim;
  keys.k_scale_head = spec.head_dim * kFloat, keys.v_scale_head = keys.value_dim * kFloat;
  return keys;
}

template <class S>
void run(const KvCache& cache, std::int64_t layer, std::span<const KvSequence> sequences,
         const CachedTensors<S>& tensors, const AttentionOptions& options) {
  const KvCache::State& state = cache.state();
  check_type(state.spec, kTypeOf<S>);
  check_layer(kName, state, layer);
  check_window(state.spec, options.window);
  Named named;
  const std::span<const std::int64_t> bounds = options.cu_seqlens_q;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const HeldSequence& found = sequence_of(kName, state, sequences[s]);
    const std::int64_t length = found.lengths[static_cast<std::size_t>(layer)];
    const std::int64_t q_len = bounds.size() == sequences.size() + 1 ? bounds[s + 1] - bounds[s] : tensors.q.extent(2);
    if (q_len > 0) check_gap(state, found, position(options.alignment, s, q_len, length), options.window);
    allocating(kName, [&] { named.add({found.pages.data(), length}); });
  }
  const Operand pages{"the cache", state.pool.data(), 1, std::span(&state.pool_bytes, 1), std::span(&kStep, 1)};
  const Operand out = operand("out", tensors.out), lse = operand("lse", tensors.lse);
  for (const Operand& output : {out, lse}) {
    check_view(kName, output);
    check_apart(kName, output, pages);
  }
  CachedKeys keys = keys_of(state, layer);
  keys.sequences = static_cast<std::int64_t>(sequences.size());
  keys.sequence = &Named::at, keys.context = &named;
  cached_attention<S>(kName, tensors, keys, options);
}

}  // namespace

void attention(View4<const float> q, const KvCache& cache, std::int64_t layer, std::span<const KvSequence> sequences,
               View4<float> out, View3<float> lse, const AttentionOptions& options) {
  run<float>(cache, layer, sequences, {q, out, lse}, options);
}
void attention(View4<const BFloat16> q, const KvCache& cache, std::int64_t layer, std::span<const KvSequence> sequences,
               View4<BFloat16> out, View3<float> lse, const AttentionOptions& options) {
  run<BFloat16>(cache, layer, sequences, {q, out, lse}, options);
}
void attention(View4<const Float16> q, const KvCache& cache, std::int64_t layer, std::span<const KvSequence> sequences,
               View4<Float16> out, View3<float> lse, const AttentionOptions& options) {
  run<Float16>(cache, layer, sequences, {q, out, lse}, options);
}

}  // namespace multihead
