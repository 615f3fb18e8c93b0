// SPDX-License-Identifier: Apache-2.0
// The one file that knows where it lies.
#include "test_dir.hpp"

namespace multihead {

std::filesystem::path test_dir() { return MULTIHEAD_TEST_DIR; }

}  // namespace multihead
