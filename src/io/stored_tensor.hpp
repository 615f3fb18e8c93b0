// SPDX-License-Identifier: Apache-2.0
// What is asked of stored tensors wherever they come from.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "io/dtypes.hpp"
#include "multihead/safetensors.hpp"

namespace multihead::io {

// "tensor 'embeddings.LayerNorm.weight'", for a sentence.
std::string tensor_text(std::string_view name);

// The one of that name among tensors in ascending order of names; null: there is none.
const StoredTensor* find_tensor(std::span<const StoredTensor> tensors, std::string_view name) noexcept;

// Throws shape_mismatch unless its shape is one that a file can hold and takes just its bytes.
void check_size(std::string_view function, const StoredTensor& tensor, const Dtype& dtype);

}  // namespace multihead::io
