// SPDX-License-Identifier: Apache-2.0
// read(): positions of a sequence as they are stored, or multiplied out.
#include <string>

#include "core/float_mode.hpp"
#include "layer/kv_cache_rows.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "KvCache.read";

std::string text(std::int64_t value) { return std::to_string(value); }

void check_storage(const KvCacheSpec& spec, const char* type, bool fits) {
  if (!fits)
    fail(ErrorCode::shape_mismatch, std::string(kName) + ": k and v are " + type + ", the cache holds " +
                                        storage_name(spec.storage) + "; they must be equal");
}

struct Wanted {
  std::int64_t layer;
  KvSequence sequence;
  std::int64_t first;
};

// All rules; the sequence that is read.
const HeldSequence& check(const KvCache::State& state, const Wanted& wanted, const Operand& k, const Operand& v) {
  const KvCacheSpec& spec = state.spec;
  check_layer(kName, state, wanted.layer);
  for (const Operand& view : {k, v}) {
    check_view(kName, view);
    check_contiguous(kName, view);
    check_writable(kName, view);
    check_equal(kName, view.name, "has kv_heads", view.extents[0], "the cache has", spec.kv_heads);
  }
  check_equal(kName, "k", "has head_dim", k.extents[2], "the cache has", spec.head_dim);
  check_equal(kName, "v", "has value_dim", v.extents[2], "the cache has", value_dim_of(spec));
  check_equal(kName, "v", "has positions", v.extents[1], "k has", k.extents[1]);
  check_apart(kName, k, v);
  const HeldSequence& found = sequence_of(kName, state, wanted.sequence);
  const std::int64_t length = found.lengths[static_cast<std::size_t>(wanted.layer)], count = k.extents[1];
  check_between(kName, "first", wanted.first, 0, length);
  if (count > length - wanted.first)
    fail(ErrorCode::bad_option, std::string(kName) + ": first is " + text(wanted.first) + ", k has " + text(count) +
                                    " positions, the layer has " + text(length) + "; it must have them all");
  const std::int64_t begin = found.gap_begin * spec.page_len, end = found.gap_end * spec.page_len;
  if (count > 0 && wanted.first < end && wanted.first + count > begin)
    fail(ErrorCode::bad_option, std::string(kName) + ": positions " + text(wanted.first) + " to " +
                                    text(wanted.first + count) + " are asked for, those from " + text(begin) + " to " +
                                    text(end) + " were given back; they must be there");
  return found;
}

// rows(h, i, c) = element(what is stored), of each kv head.
template <class E, class T, class Get>
void read_rows(const KvCache::State& state, const Wanted& wanted, const View3<T>& k, const View3<T>& v,
               const Get& get) {
  const HeldSequence& sequence = *state.find(wanted.sequence);
  const KeyPlaces<E> k_places{state.spec.head_dim};
  const ValuePlaces v_places{value_dim_of(state.spec)};
  for (std::int64_t h = 0; h < state.spec.kv_heads; ++h) {
    const HeadRows rows{state, sequence, wanted.layer, h, wanted.first, k.extent(1)};
    each_run(rows, [&](std::byte* at, std::int64_t place, std::int64_t row, std::int64_t count) {
      const PageLists<E> lists(at, state.layout);
      for (std::int64_t i = 0; i < count; ++i) {
        for (std::int64_t c = 0; c < k_places.width; ++c)
          k(h, row + i, c) = get(lists.k[k_places(place + i, c)], lists.k_scales + place + i, state.k_scales, h, c);
        for (std::int64_t c = 0; c < v_places.width; ++c)
          v(h, row + i, c) = get(lists.v[v_places(place + i, c)], lists.v_scales + place + i, state.v_scales, h, c);
      }
    });
  }
}

template <class T>
void read_stored(const KvCache::State& state, const Wanted& wanted, const View3<T>& k, const View3<T>& v) {
  read_rows<T>(state, wanted, k, v,
               [](T stored, const float*, const Buffer<float>&, std::int64_t, std::int64_t) { return stored; });
}

// int8 times its scale.
void read_scaled(const KvCache::State& state, const Wanted& wanted, const View3<float>& k, const View3<float>& v) {
  const FloatMode mode;
  const std::int64_t heads = wanted.layer * state.spec.kv_heads, per_head = state.spec.layers * state.spec.kv_heads;
  const bool by_token = scales_by_token(state.spec);
  read_rows<std::int8_t>(
      state, wanted, k, v,
      [&](std::int8_t stored, const float* of_token, const Buffer<float>& of_channel, std::int64_t h, std::int64_t c) {
        const std::int64_t width = of_channel.size() / per_head;
        return static_cast<float>(stored) * (by_token ? *of_token : of_channel.data()[(heads + h) * width + c]);
      });
}

}  // namespace

void KvCache::read(std::int64_t layer, KvSequence sequence, std::int64_t first, View3<float> k, View3<float> v) const {
  const State& state = state_of(kName, state_);
  const KvStorage storage = state.spec.storage;
  check_storage(state.spec, "float32", storage == KvStorage::float32 || storage == KvStorage::int8);
  check(state, {layer, sequence, first}, operand("k", k), operand("v", v));
  if (storage == KvStorage::int8)
    read_scaled(state, {layer, sequence, first}, k, v);
  else
    read_stored(state, {layer, sequence, first}, k, v);
}

void KvCache::read(std::int64_t layer, KvSequence sequence, std::int64_t first, View3<BFloat16> k,
                   View3<BFloat16> v) const {
  const State& state = state_of(kName, state_);
  check_storage(state.spec, "bfloat16", state.spec.storage == KvStorage::bfloat16);
  check(state, {layer, sequence, first}, operand("k", k), operand("v", v));
  read_stored(state, {layer, sequence, first}, k, v);
}

void KvCache::read(std::int64_t layer, KvSequence sequence, std::int64_t first, View3<Float16> k,
                   View3<Float16> v) const {
  const State& state = state_of(kName, state_);
  check_storage(state.spec, "float16", state.spec.storage == KvStorage::float16);
  check(state, {layer, sequence, first}, operand("k", k), operand("v", v));
  read_stored(state, {layer, sequence, first}, k, v);
}

void KvCache::read(std::int64_t layer, KvSequence sequence, std::int64_t first, const ScaledRows<std::int8_t, float>& k,
                   const ScaledRows<std::int8_t, float>& v) const {
  const State& state = state_of(kName, state_);
  check_storage(state.spec, "int8", state.spec.storage == KvStorage::int8);
  const Operand k_scales = operand("k.scales", k.scales), v_scales = operand("v.scales", v.scales);
  const bool by_token = scales_by_token(state.spec);
  for (const Operand& scales : {k_scales, v_scales}) {
    check_view(kName, scales);
    check_contiguous(kName, scales);
    check_writable(kName, scales);
    check_equal(kName, scales.name, "has kv_heads", scales.extents[0], by_token ? "the cache has" : "by channel it is",
                by_token ? state.spec.kv_heads : 0);
    check_equal(kName, scales.name, "has positions", scales.extents[1], by_token ? "k has" : "by channel it is",
                by_token ? k.rows.extent(1) : 0);
  }
  const HeldSequence& found = check(state, {layer, sequence, first}, operand("k", k.rows), operand("v", v.rows));
  read_stored(state, {layer, sequence, first}, k.rows, v.rows);
  for (std::int64_t h = 0; by_token && h < state.spec.kv_heads; ++h)
    each_run({state, found, layer, h, first, k.rows.extent(1)},
             [&](std::byte* at, std::int64_t place, std::int64_t row, std::int64_t count) {
               const PageLists<std::int8_t> lists(at, state.layout);
               std::copy_n(lists.k_scales + place, count, &k.scales(h, row));
               std::copy_n(lists.v_scales + place, count, &v.scales(h, row));
             });
}

}  // namespace multihead
