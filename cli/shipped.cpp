// SPDX-License-Identifier: Apache-2.0
// Where the models lie that were trained here.
#include "shipped.hpp"

#include <cstdlib>
#include <string_view>
#include <vector>

#include "multihead/tasks.hpp"

namespace multihead::cli {

namespace {

// Folders that hold a folder a task, the likeliest first: what the variable names, or what lies where this program was
// installed or built.
std::vector<std::filesystem::path> shelves() {
  const char* const named = std::getenv("MULTIHEAD_TRAINED");
  if (named && *named) return {named};
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  if (program.empty()) return {};
  return {(program / "../share/multihead/trained").lexically_normal(), (program / "../../trained").lexically_normal()};
}

bool holds_model(const std::filesystem::path& folder) {
  std::error_code error;
  return std::filesystem::is_regular_file(folder / "model.safetensors", error);
}

// The folder of that task, or of the first that has one.
std::filesystem::path shipped(const std::string& task) {
  for (const std::filesystem::path& shelf : shelves())
    for (const std::string_view name : task_names())
      if ((task.empty() || task == name) && holds_model(shelf / name)) return shelf / name;
  throw Error(ErrorCode::file_missing,
              (task.empty() ? "there is no learned model" : "there is no learned model of " + task) +
                  ": multihead train TASK --out DIR makes one, and --model DIR takes it (MULTIHEAD_TRAINED names a "
                  "folder that holds a folder a task)");
}

}  // namespace

std::filesystem::path learned_folder(const std::string& given, const std::string& task) {
  return given.empty() ? shipped(task) : std::filesystem::path(given);
}

}  // namespace multihead::cli
