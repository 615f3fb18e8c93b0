// SPDX-License-Identifier: Apache-2.0
// libFuzzer entry of the .npy reader: bytes it accepts come back unchanged when they are written and read again.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>

#include "multihead/error.hpp"
#include "multihead/io.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

bool same(const multihead::Array& a, const multihead::Array& b) {
  return a.type == b.type && a.shape == b.shape && a.bytes == b.bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  multihead::Array array;
  try {
    array = multihead::parse_npy(std::as_bytes(std::span(data, size)), "input");
  } catch (const multihead::Error& error) {
    require(error.code() == multihead::ErrorCode::file_malformed);
    return 0;
  }
  const std::size_t width = multihead::size_of(array.type);
  require(array.count() >= 0 && array.bytes.size() == static_cast<std::size_t>(array.count()) * width);
  require(array.bytes.size() <= size);

  static const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("multihead_fuzz_" + std::to_string(getpid()) + ".npy");
  multihead::write_npy(path, array);
  require(same(multihead::read_npy(path), array));
  std::filesystem::remove(path);
  return 0;
}
