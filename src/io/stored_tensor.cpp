// SPDX-License-Identifier: Apache-2.0
// Stored tensors: found by name, named in sentences, their shapes held against their bytes.
#include "io/stored_tensor.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "io/file.hpp"
#include "multihead/error.hpp"

namespace multihead::io {

std::string tensor_text(std::string_view name) { return "tensor '" + printable(name, 128) + "'"; }

const StoredTensor* find_tensor(std::span<const StoredTensor> tensors, std::string_view name) noexcept {
  const auto before = [](const StoredTensor& tensor, std::string_view wanted) { return tensor.name < wanted; };
  const auto found = std::lower_bound(tensors.begin(), tensors.end(), name, before);
  return found != tensors.end() && found->name == name ? &*found : nullptr;
}

void check_size(std::string_view function, const StoredTensor& tensor, const Dtype& dtype) {
  const auto refuse = [&](const std::string& rule) {
    throw Error(ErrorCode::shape_mismatch, std::string(function) + ": " + tensor_text(tensor.name) + ": " + rule);
  };
  if (tensor.shape.size() > kMaxRank)
    refuse("shape has " + std::to_string(tensor.shape.size()) + " extents; at most 64 are accepted");
  for (const std::int64_t extent : tensor.shape)
    if (extent < 0 || extent > kMaxNumber)
      refuse("shape has the extent " + std::to_string(extent) + "; it must be from 0 to 9007199254740992");
  const std::optional<std::int64_t> bits = size_in_bits(tensor.shape, dtype);
  if (bits && *bits % 8 == 0 && static_cast<std::uint64_t>(*bits / 8) == tensor.bytes.size()) return;
  refuse("shape " + shape_text(tensor.shape) + " of " + std::string(dtype.name) + " does not take just the " +
         std::to_string(tensor.bytes.size()) + " bytes given");
}

}  // namespace multihead::io
