// SPDX-License-Identifier: Apache-2.0
// libFuzzer entry of a checkpoint's index: what is accepted names plain files and comes back the same from its own
// text.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "io/checkpoint_index.hpp"
#include "multihead/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const multihead::io::Origin origin{"fuzz", "input"};
  const auto require = [](bool holds) {
    if (!holds) std::abort();
  };
  try {
    const auto index = multihead::io::parse_checkpoint_index(std::as_bytes(std::span(data, size)), origin, {});
    for (const auto& [tensor, file] : index) {
      const std::filesystem::path path = file;
      require(!file.empty() && path.filename() == file && file != "." && file != "..");
      require(file.find('\0') == file.npos && file.find('\\') == file.npos);
    }
    const std::string text = nlohmann::json{{"weight_map", index}}.dump();
    require(multihead::io::parse_checkpoint_index(std::as_bytes(std::span(text)), origin, {}) == index);
  } catch (const multihead::Error& error) {
    require(error.code() == multihead::ErrorCode::file_malformed);
  }
  return 0;
}
