// SPDX-License-Identifier: Apache-2.0
// Where the tests' own files are: the folder of this header.
#pragma once

#include <filesystem>

namespace multihead {

std::filesystem::path test_dir();

}  // namespace multihead
