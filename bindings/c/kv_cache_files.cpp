// SPDX-License-Identifier: Apache-2.0
// mh_kv_cache_save and mh_kv_cache_load.
#include "multihead/kv_cache_files.hpp"

#include "kv_cache.hpp"
#include "status.hpp"

using namespace multihead::c;

mh_status mh_kv_cache_save(const mh_kv_cache* cache, mh_kv_sequence sequence, const char* path) {
  return guarded([&] {
    constexpr const char* kName = "save_sequence";
    wanted(kName, "cache", cache);
    wanted(kName, "path", path);
    multihead::save_sequence(path, cache->cache, static_cast<multihead::KvSequence>(sequence));
  });
}

mh_status mh_kv_cache_load(mh_kv_cache* cache, const char* path, mh_kv_sequence* sequence) {
  return guarded([&] {
    constexpr const char* kName = "load_sequence";
    wanted(kName, "cache", cache);
    wanted(kName, "path", path);
    wanted(kName, "sequence", sequence);
    *sequence = static_cast<mh_kv_sequence>(multihead::load_sequence(path, cache->cache));
  });
}
