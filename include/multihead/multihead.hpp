// SPDX-License-Identifier: Apache-2.0
// multihead: multi-head attention for CPUs. This header brings everything; each of them also stands alone.
#pragma once

#define MULTIHEAD_VERSION_MAJOR 0
#define MULTIHEAD_VERSION_MINOR 1
#define MULTIHEAD_VERSION_PATCH 0

#include "multihead/attention.hpp"
#include "multihead/attention_backward.hpp"
#include "multihead/cache.hpp"
#include "multihead/dropout.hpp"
#include "multihead/error.hpp"
#include "multihead/inspect.hpp"
#include "multihead/io.hpp"
#include "multihead/kv_cache.hpp"
#include "multihead/layer.hpp"
#include "multihead/layouts.hpp"
#include "multihead/linear.hpp"
#include "multihead/masks.hpp"
#include "multihead/model_files.hpp"
#include "multihead/multi_head_attention.hpp"
#include "multihead/paged_attention.hpp"
#include "multihead/parallel.hpp"
#include "multihead/relations.hpp"
#include "multihead/rotary.hpp"
#include "multihead/safetensors.hpp"
#include "multihead/statistics.hpp"
#include "multihead/target.hpp"
#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

// "0.1.0", of the library that is linked.
const char* version() noexcept;

// "g++ 12.2.0", which built it.
const char* compiler() noexcept;

}  // namespace multihead
