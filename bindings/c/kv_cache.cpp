// SPDX-License-Identifier: Apache-2.0
// mh_kv_cache: what it is made of, its sequences, rows in and out, attention over it.
#include "kv_cache.hpp"

#include <type_traits>
#include <vector>

#include "options.hpp"

namespace multihead::c {

template <>
struct StructOf<mh_kv_cache_spec> : Described<mh_kv_cache_spec> {
  static constexpr const char* kName = "mh_kv_cache_spec";
  static void set(mh_kv_cache_spec& made) {
    made.layers = KvCacheSpec{}.layers;
    made.page_len = KvCacheSpec{}.page_len;
    made.window = -1;
  }
};

namespace {

constexpr const char* kCreate = "KvCache";
constexpr const char* kAppend = "KvCache.append";
constexpr const char* kRead = "KvCache.read";
constexpr const char* kAttention = "attention";

KvSequence name_of(mh_kv_sequence sequence) { return static_cast<KvSequence>(sequence); }

KvCacheSpec spec_of(const mh_kv_cache_spec& read) {
  check_reserved(kCreate, "mh_kv_cache_spec.reserved", read.reserved);
  check_enumerated(kCreate, "storage", read.storage, MH_KV_FLOAT32, MH_KV_INT8);
  check_enumerated(kCreate, "scales", read.scales, MH_KV_PER_TOKEN, MH_KV_PER_CHANNEL);
  constexpr KvStorage kStorages[] = {KvStorage::float32, KvStorage::bfloat16, KvStorage::float16, KvStorage::int8};
  KvCacheSpec spec;
  spec.storage = kStorages[read.storage];
  spec.scales = read.scales == MH_KV_PER_TOKEN ? KvScales::per_token : KvScales::per_channel;
  spec.layers = read.layers, spec.kv_heads = read.kv_heads, spec.head_dim = read.head_dim;
  if (read.value_dim != 0) spec.value_dim = read.value_dim;
  spec.pages = read.pages, spec.page_len = read.page_len, spec.first = read.first;
  if (read.window != -1) spec.window = read.window;
  spec.k_scales = optional_view<const float, 3>({kCreate, "k_scales"}, read.k_scales);
  spec.v_scales = optional_view<const float, 3>({kCreate, "v_scales"}, read.v_scales);
  return spec;
}

// A call's names as C++ has them, until the thread's next call: the list is kept and reused.
std::span<const KvSequence> names_of(const char* function, const mh_kv_sequence* sequences, std::size_t count) {
  thread_local std::vector<KvSequence> names;
  if (count > 0) wanted(function, "sequences", sequences);
  names.resize(count);
  for (std::size_t s = 0; s < count; ++s) names[s] = name_of(sequences[s]);
  return names;
}

// The types that a cache takes and gives.
template <class Body>
void with_cached_type(const Role& role, const mh_tensor* tensor, const Body& body) {
  with_type(role, type_of(role, tensor), [&]<class T>() {
    if constexpr (std::is_same_v<T, double>)
      bad_type(role.function, std::string(role.name) + " has type float64; it must be float32, bfloat16 or float16");
    else
      body.template operator()<T>();
  });
}

}  // namespace

}  // namespace multihead::c

using namespace multihead::c;

void mh_kv_cache_spec_init(mh_kv_cache_spec* spec, size_t size) { init_struct(spec, size); }

mh_status mh_kv_cache_create(const mh_kv_cache_spec* spec, mh_kv_cache** cache) {
  return guarded([&] {
    wanted(kCreate, "spec", spec);
    wanted(kCreate, "cache", cache);
    *cache = new mh_kv_cache{multihead::KvCache(spec_of(read_struct(kCreate, spec)))};
  });
}

void mh_kv_cache_destroy(mh_kv_cache* cache) { delete cache; }

mh_status mh_kv_cache_free_pages(const mh_kv_cache* cache, int64_t* pages) {
  return guarded([&] {
    wanted("KvCache.free_pages", "cache", cache);
    wanted("KvCache.free_pages", "pages", pages);
    *pages = cache->cache.free_pages();
  });
}

mh_status mh_kv_cache_sequences(const mh_kv_cache* cache, int64_t* count) {
  return guarded([&] {
    wanted("KvCache.sequences", "cache", cache);
    wanted("KvCache.sequences", "count", count);
    *count = cache->cache.sequences();
  });
}

mh_status mh_kv_cache_add(mh_kv_cache* cache, mh_kv_sequence* sequence) {
  return guarded([&] {
    wanted("KvCache.add", "cache", cache);
    wanted("KvCache.add", "sequence", sequence);
    *sequence = static_cast<mh_kv_sequence>(cache->cache.add());
  });
}

mh_status mh_kv_cache_fork(mh_kv_cache* cache, mh_kv_sequence source, int64_t length, mh_kv_sequence* sequence) {
  return guarded([&] {
    wanted("KvCache.fork", "cache", cache);
    wanted("KvCache.fork", "sequence", sequence);
    const std::optional<std::int64_t> wanted_length = length == -1 ? std::nullopt : std::optional(length);
    *sequence = static_cast<mh_kv_sequence>(cache->cache.fork(name_of(source), wanted_length));
  });
}

mh_status mh_kv_cache_remove(mh_kv_cache* cache, mh_kv_sequence sequence) {
  return guarded([&] {
    wanted("KvCache.remove", "cache", cache);
    cache->cache.remove(name_of(sequence));
  });
}

mh_status mh_kv_cache_truncate(mh_kv_cache* cache, mh_kv_sequence sequence, int64_t length) {
  return guarded([&] {
    wanted("KvCache.truncate", "cache", cache);
    cache->cache.truncate(name_of(sequence), length);
  });
}

mh_status mh_kv_cache_length(const mh_kv_cache* cache, mh_kv_sequence sequence, int64_t layer, int64_t* length) {
  return guarded([&] {
    wanted("KvCache.length", "cache", cache);
    wanted("KvCache.length", "length", length);
    *length = cache->cache.length(name_of(sequence), layer);
  });
}

mh_status mh_kv_cache_given_back(const mh_kv_cache* cache, mh_kv_sequence sequence, int64_t* begin, int64_t* end) {
  return guarded([&] {
    wanted("KvCache.given_back", "cache", cache);
    wanted("KvCache.given_back", "begin", begin);
    wanted("KvCache.given_back", "end", end);
    const multihead::KvRange found = cache->cache.given_back(name_of(sequence));
    *begin = found.begin, *end = found.end;
  });
}

mh_status mh_kv_cache_append(mh_kv_cache* cache, int64_t layer, const mh_kv_sequence* sequences, size_t count,
                             const mh_tensor* k, const mh_tensor* v, const mh_tensor* cu_seqlens) {
  return guarded([&] {
    wanted(kAppend, "cache", cache);
    const auto names = names_of(kAppend, sequences, count);
    const Role role{kAppend, "k"};
    with_cached_type(role, k, [&]<class T>() {
      cache->cache.append(layer, names, view<const T, 4>(role, k), view<const T, 4>({kAppend, "v"}, v),
                          filled_list<std::int64_t>({kAppend, "cu_seqlens"}, cu_seqlens));
    });
  });
}

mh_status mh_kv_cache_read(const mh_kv_cache* cache, int64_t layer, mh_kv_sequence sequence, int64_t first,
                           const mh_tensor* k, const mh_tensor* v) {
  return guarded([&] {
    wanted(kRead, "cache", cache);
    const Role role{kRead, "k"};
    with_cached_type(role, k, [&]<class T>() {
      cache->cache.read(layer, name_of(sequence), first, view<T, 3>(role, k), view<T, 3>({kRead, "v"}, v));
    });
  });
}

mh_status mh_kv_cache_attention(const mh_kv_cache* cache, int64_t layer, const mh_kv_sequence* sequences, size_t count,
                                const mh_tensor* q, const mh_tensor* out, const mh_tensor* lse,
                                const mh_attention_options* options) {
  return guarded([&] {
    wanted(kAttention, "cache", cache);
    const auto names = names_of(kAttention, sequences, count);
    const Role role{kAttention, "q"};
    with_cached_type(role, q, [&]<class T>() {
      const auto queries = view<const T, 4>(role, q);
      multihead::attention(queries, cache->cache, layer, names, view<T, 4>({kAttention, "out"}, out),
                           optional_view<float, 3>({kAttention, "lse"}, lse),
                           attention_options(kAttention, options, queries.extent(0)));
    });
  });
}
