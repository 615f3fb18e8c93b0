// SPDX-License-Identifier: Apache-2.0
// append(): every rule first, then the pages counted, then taken and written.
#include <string>

#include "layer/kv_cache_pages.hpp"
#include "layer/kv_cache_store.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "KvCache.append";

std::string text(std::int64_t value) { return std::to_string(value); }

[[noreturn]] void refuse(const std::string& rule) { fail(ErrorCode::bad_option, std::string(kName) + ": " + rule); }

template <class T>
struct Call {
  std::int64_t layer;
  std::span<const KvSequence> sequences;
  View4<const T> k, v;
  std::span<const std::int64_t> cu_seqlens;

  // The place of sequence s among the rows of k and v: batch, first row, count.
  struct Place {
    std::int64_t batch, first, count;
  };
  Place place(std::size_t s) const {
    if (cu_seqlens.empty()) return {static_cast<std::int64_t>(s), 0, k.extent(2)};
    return {0, cu_seqlens[s], cu_seqlens[s + 1] - cu_seqlens[s]};
  }
};

template <class T>
void check_views(const KvCacheSpec& spec, const Call<T>& call) {
  const Operand k = operand("k", call.k), v = operand("v", call.v);
  for (const Operand& view : {k, v}) {
    check_view(kName, view);
    check_contiguous(kName, view);
    check_equal(kName, view.name, "has kv_heads", view.extents[1], "the cache has", spec.kv_heads);
  }
  check_equal(kName, "k", "has head_dim", call.k.extent(3), "the cache has", spec.head_dim);
  check_equal(kName, "v", "has value_dim", call.v.extent(3), "the cache has", value_dim_of(spec));
  check_equal(kName, "v", "has batch", call.v.extent(0), "k has", call.k.extent(0));
  check_equal(kName, "v", "has tokens", call.v.extent(2), "k has", call.k.extent(2));
}

void check_type(const KvCacheSpec& spec, Type type) {
  constexpr Type kTypes[] = {Type::float32, Type::bfloat16, Type::float16};
  if (spec.storage != KvStorage::int8 && type != kTypes[static_cast<int>(spec.storage)])
    fail(ErrorCode::shape_mismatch, std::string(kName) + ": k and v are " + std::string(type_name(type)) +
                                        ", the cache holds " + storage_name(spec.storage) + "; they must be equal");
}

template <class T>
void check_places(const Call<T>& call) {
  const auto count = static_cast<std::int64_t>(call.sequences.size());
  const std::span<const std::int64_t> bounds = call.cu_seqlens;
  if (bounds.empty()) return check_equal(kName, "k", "has batch", call.k.extent(0), "sequences are", count);
  check_equal(kName, "k", "has batch", call.k.extent(0), "with cu_seqlens it is", 1);
  check_equal(kName, "cu_seqlens", "has", static_cast<std::int64_t>(bounds.size()), "sequences + 1 are", count + 1);
  if (bounds.front() != 0) refuse("cu_seqlens begins with " + text(bounds.front()) + "; it must begin with 0");
  for (std::size_t s = 1; s < bounds.size(); ++s)
    if (bounds[s] < bounds[s - 1])
      refuse("cu_seqlens falls from " + text(bounds[s - 1]) + " to " + text(bounds[s]) + "; it may never fall");
  check_equal(kName, "cu_seqlens", "ends at", bounds.back(), "k has tokens", call.k.extent(2));
}

template <class T>
bool finite(T x) {
  return static_cast<float>(x) - static_cast<float>(x) == 0;
}

template <class T>
void check_finite(const char* name, const View4<const T>& rows) {
  for (std::int64_t b = 0; b < rows.extent(0); ++b)
    for (std::int64_t h = 0; h < rows.extent(1); ++h)
      for (std::int64_t i = 0; i < rows.extent(2); ++i) {
        const T* const row = &rows(b, h, i, 0);
        for (std::int64_t c = 0; c < rows.extent(3); ++c)
          if (!finite(row[c]))
            refuse(std::string(name) + " has " + std::to_string(static_cast<float>(row[c])) + " at (" + text(b) + ", " +
                   text(h) + ", " + text(i) + ", " + text(c) + "); what int8 holds must be finite");
      }
}

// The sequences of the call, found and each named once, into state.named.
void find_sequences(KvCache::State& state, std::span<const KvSequence> names) {
  allocating(kName, [&] { state.named.resize(names.size()); });
  ++state.calls;
  for (std::size_t s = 0; s < names.size(); ++s) {
    HeldSequence& found = sequence_of(kName, state, names[s]);
    if (found.call == state.calls)
      refuse("sequence " + std::to_string(static_cast<std::uint64_t>(names[s])) +
             " is named twice; each must be named once");
    found.call = state.calls;
    state.named[s] = &found;
  }
}

// Whether the free pages suffice, those that the call gives back among them; and room in the lists of pages.
// grown(s): the positions of sequence s.
template <class Grown>
void check_pages(KvCache::State& state, std::int64_t layer, const Grown& grown) {
  PageCount pages(state);
  const std::size_t count = state.named.size();
  for (std::size_t s = 0; s < count; ++s)
    if (grown(s) > 0) pages.leave(*state.named[s]);
  for (std::size_t s = 0; s < count; ++s)
    if (grown(s) > 0) pages.write(*state.named[s], layer, grown(s));
  for (std::size_t s = 0; s < count; ++s)
    if (grown(s) > 0) pages.settle(*state.named[s], layer, grown(s));
  if (pages.wanted() > pages.available())
    fail(ErrorCode::out_of_memory, std::string(kName) + ": " + text(pages.wanted()) + " pages are wanted, " +
                                       text(pages.available()) + " are free; there must be as many");
  allocating(kName, [&] {
    for (std::size_t s = 0; s < count; ++s) {
      HeldSequence& sequence = *state.named[s];
      const std::int64_t end = sequence.lengths[static_cast<std::size_t>(layer)] + grown(s);
      const auto wanted = static_cast<std::size_t>((end + state.spec.page_len - 1) / state.spec.page_len);
      if (wanted > sequence.pages.capacity()) sequence.pages.reserve(std::max(wanted, 2 * sequence.pages.capacity()));
    }
  });
}

template <class Grown>
void take_pages(KvCache::State& state, std::int64_t layer, const Grown& grown) noexcept {
  const std::size_t count = state.named.size();
  for (std::size_t s = 0; s < count; ++s)
    if (grown(s) > 0) give_back(state, *state.named[s], unseen_pages(state.spec, *state.named[s]));
  for (std::size_t s = 0; s < count; ++s)
    if (grown(s) > 0) take(state, *state.named[s], layer, grown(s));
}

template <class T>
void append_rows(KvCache::State& state, const Call<T>& call) {
  check_layer(kName, state, call.layer);
  check_type(state.spec, kTypeOf<T>);
  check_views(state.spec, call);
  check_places(call);
  find_sequences(state, call.sequences);
  if (state.spec.storage == KvStorage::int8) {
    check_finite("k", call.k);
    check_finite("v", call.v);
  }
  const auto grown = [&](std::size_t s) { return call.place(s).count; };
  check_pages(state, call.layer, grown);
  take_pages(state, call.layer, grown);
  for (std::size_t s = 0; s < call.sequences.size(); ++s) {
    HeldSequence& sequence = *state.named[s];
    std::int64_t& length = sequence.lengths[static_cast<std::size_t>(call.layer)];
    const auto [batch, first, count] = call.place(s);
    for (std::int64_t h = 0; count > 0 && h < state.spec.kv_heads; ++h)
      store<T>({state, sequence, call.layer, h, length, count},
               {&call.k(batch, h, first, 0), &call.v(batch, h, first, 0), call.k.stride(2), call.v.stride(2)});
    length += count;
  }
}

using Scaled = ScaledRows<const std::int8_t, const float>;

void check_scaled(const KvCacheSpec& spec, const char* name, const char* scales_name, const Scaled& given_rows,
                  std::int64_t width) {
  const Operand rows = operand(name, given_rows.rows), scales = operand(scales_name, given_rows.scales);
  check_view(kName, rows);
  check_contiguous(kName, rows);
  check_equal(kName, name, "has kv_heads", rows.extents[0], "the cache has", spec.kv_heads);
  check_equal(kName, name, "has width", rows.extents[2], "the cache has", width);
  check_view(kName, scales);
  check_contiguous(kName, scales);
  const bool by_token = spec.scales == KvScales::per_token;
  check_equal(kName, scales_name, "has kv_heads", scales.extents[0], by_token ? "the cache has" : "by channel it is",
              by_token ? spec.kv_heads : 0);
  check_equal(kName, scales_name, "has tokens", scales.extents[1], by_token ? "k has" : "by channel it is",
              by_token ? rows.extents[1] : 0);
  for (std::int64_t h = 0; h < rows.extents[0]; ++h)
    for (std::int64_t i = 0; i < rows.extents[1]; ++i) {
      for (std::int64_t c = 0; c < width; ++c)
        if (given_rows.rows(h, i, c) == -128) refuse(std::string(name) + " has -128; it must be -127 to 127");
      if (by_token && !(given_rows.scales(h, i) >= 0 && finite(given_rows.scales(h, i))))
        refuse(std::string(scales_name) + " has " + std::to_string(given_rows.scales(h, i)) +
               "; it must be finite and not negative");
    }
}

void store_scaled(const HeadRows& to, const Scaled& k, const Scaled& v) noexcept {
  const std::int64_t h = to.kv_head;
  store_copied<std::int8_t>(to, {&k.rows(h, 0, 0), &v.rows(h, 0, 0), k.rows.stride(1), v.rows.stride(1)});
  if (!scales_by_token(to.state.spec)) return;
  each_run(to, [&](std::byte* at, std::int64_t place, std::int64_t row, std::int64_t count) {
    const PageLists<std::int8_t> lists(at, to.state.layout);
    std::copy_n(&k.scales(h, row), count, lists.k_scales + place);
    std::copy_n(&v.scales(h, row), count, lists.v_scales + place);
  });
}

}  // namespace

void KvCache::append(std::int64_t layer, std::span<const KvSequence> sequences, View4<const float> k,
                     View4<const float> v, std::span<const std::int64_t> cu_seqlens) {
  append_rows<float>(state_of(kName, state_), {layer, sequences, k, v, cu_seqlens});
}
void KvCache::append(std::int64_t layer, std::span<const KvSequence> sequences, View4<const BFloat16> k,
                     View4<const BFloat16> v, std::span<const std::int64_t> cu_seqlens) {
  append_rows<BFloat16>(state_of(kName, state_), {layer, sequences, k, v, cu_seqlens});
}
void KvCache::append(std::int64_t layer, std::span<const KvSequence> sequences, View4<const Float16> k,
                     View4<const Float16> v, std::span<const std::int64_t> cu_seqlens) {
  append_rows<Float16>(state_of(kName, state_), {layer, sequences, k, v, cu_seqlens});
}

void KvCache::append(std::int64_t layer, KvSequence sequence, const Scaled& k, const Scaled& v) {
  State& state = state_of(kName, state_);
  check_layer(kName, state, layer);
  if (state.spec.storage != KvStorage::int8)
    fail(ErrorCode::shape_mismatch, std::string(kName) + ": k and v are int8, the cache holds " +
                                        storage_name(state.spec.storage) + "; they must be equal");
  check_scaled(state.spec, "k", "k.scales", k, state.spec.head_dim);
  check_scaled(state.spec, "v", "v.scales", v, value_dim_of(state.spec));
  const std::int64_t count = k.rows.extent(1);
  check_equal(kName, "v", "has tokens", v.rows.extent(1), "k has", count);
  find_sequences(state, {&sequence, 1});
  const auto grown = [count](std::size_t) { return count; };
  check_pages(state, layer, grown);
  take_pages(state, layer, grown);
  HeldSequence& found = *state.named[0];
  std::int64_t& length = found.lengths[static_cast<std::size_t>(layer)];
  for (std::int64_t h = 0; count > 0 && h < state.spec.kv_heads; ++h)
    store_scaled({state, found, layer, h, length, count}, k, v);
  length += count;
}

}  // namespace multihead
