// SPDX-License-Identifier: Apache-2.0
// What an open .safetensors file consists of, for those who open one and those who open several.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.hpp"
#include "io/mapped_file.hpp"
#include "multihead/safetensors.hpp"

namespace multihead {

struct Safetensors::State {
  io::MappedFile file;                // none when the bytes are the caller's
  std::string names;                  // one after the other, for the tensors' views
  std::vector<StoredTensor> tensors;  // in ascending order of names
  Metadata metadata;                  // in ascending order of keys
};

namespace io {

using OpenSafetensors = std::shared_ptr<const Safetensors::State>;

// Throws bad_option for limits beyond the format's.
void check_limits(std::string_view function, const SafetensorsLimits& limits);

OpenSafetensors open_safetensors(const std::filesystem::path& path, const Origin& origin,
                                 const SafetensorsLimits& limits);

}  // namespace io
}  // namespace multihead
