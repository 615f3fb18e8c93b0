// SPDX-License-Identifier: Apache-2.0
// A cache as the module's classes hold it.
#pragma once

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "fail.hpp"

namespace face {

struct DestroyCache {
  void operator()(mh_kv_cache* cache) const { mh_kv_cache_destroy(cache); }
};

// Python's threads may call at any time: whoever changes the cache is alone with it. The lock is taken and given back
// without the GIL.
struct Cache {
  std::unique_ptr<mh_kv_cache, DestroyCache> handle;
  mh_kv_cache_spec spec;
  mutable std::shared_mutex mutex;

  template <class Call>
  void change(const Call& call) {
    mh_status status;
    {
      nb::gil_scoped_release released;
      const std::unique_lock lock(mutex);
      status = call(handle.get());
    }
    check(status);
  }
  template <class Call>
  void look(const Call& call) const {
    mh_status status;
    {
      nb::gil_scoped_release released;
      const std::shared_lock lock(mutex);
      status = call(handle.get());
    }
    check(status);
  }
};

// Names of sequences: one, or any number.
std::vector<mh_kv_sequence> names_of(nb::handle sequences, Place place);

}  // namespace face
