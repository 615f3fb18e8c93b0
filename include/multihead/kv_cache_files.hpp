// SPDX-License-Identifier: Apache-2.0
// A sequence of a cache in a .safetensors file, and back. Part of the library multihead_models.
#pragma once

#include <filesystem>

#include "multihead/kv_cache.hpp"

namespace multihead {

// Writes all layers of a sequence as they are stored, int8 with its scales; what a sliding cache gave back is left out
// (docs/formats.md has the names). The same cache gives the same bytes. Throws as KvCache and write_safetensors() do: a
// file that was there before is then unchanged.
void save_sequence(const std::filesystem::path& path, const KvCache& cache, KvSequence sequence);

// Adds that sequence to a cache, bit for bit. The cache must have the storage, scales, layers, kv_heads, head_dim,
// value_dim, window and first of the one that was saved; its pages may be others, as long as what was given back is
// whole pages of it. Throws Error, and the cache is as before: bad_option for another cache, file_missing,
// file_malformed for what save_sequence() does not write, out_of_memory where the pages do not suffice.
KvSequence load_sequence(const std::filesystem::path& path, KvCache& cache);

}  // namespace multihead
