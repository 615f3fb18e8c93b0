// SPDX-License-Identifier: Apache-2.0
// Where the models lie that were trained here.
#pragma once

#include <filesystem>
#include <string>

namespace multihead::cli {

// given, a folder; where that is empty the one of that task, or of the first task that has one where task is empty too:
// below what MULTIHEAD_TRAINED names, else beside where this program was installed or built. Throws file_missing, with
// what to do.
std::filesystem::path learned_folder(const std::string& given, const std::string& task);

}  // namespace multihead::cli
