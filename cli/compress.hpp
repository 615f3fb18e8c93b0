// SPDX-License-Identifier: Apache-2.0
// zlib, where the command was built with it.
#pragma once

#include "multihead/inspect.hpp"

namespace multihead::cli {

// Bytes to bytes as zlib has them; none where there is no zlib.
Compress compression();

}  // namespace multihead::cli
