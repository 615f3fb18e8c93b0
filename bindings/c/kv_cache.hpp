// SPDX-License-Identifier: Apache-2.0
// What a handle of a cache holds.
#pragma once

#include "multihead/kv_cache.hpp"
#include "multihead/multihead.h"

struct mh_kv_cache {
  multihead::KvCache cache;
};
