// SPDX-License-Identifier: Apache-2.0
// The index of a model in several .safetensors files: which of them holds which tensor.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "io/file.hpp"
#include "multihead/safetensors.hpp"

namespace multihead::io {

// The file of each tensor: a plain name, of a file in the index's own folder.
using CheckpointIndex = std::map<std::string, std::string, std::less<>>;

// What model.safetensors.index.json says, an object:
//   weight_map   required: tensor -> file
//   metadata     an object; its total_size, where it has one, is a number of at least 0, which is not used
// Other fields are not read. Throws file_malformed.
CheckpointIndex parse_checkpoint_index(std::span<const std::byte> text, const Origin& origin,
                                       const SafetensorsLimits& limits);

}  // namespace multihead::io
