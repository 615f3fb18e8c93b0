// SPDX-License-Identifier: Apache-2.0
// A regular file as bytes in memory, read when they are touched.
#pragma once

#include <cstddef>
#include <filesystem>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "io/file.hpp"

namespace multihead::io {

// A regular file, mapped to be read. The bytes stay those of the file that was opened, also when its name is given to
// another or removed. A file that is cut short while it is mapped ends the process (SIGBUS) when a byte beyond its new
// end is touched, and one that is written to changes under its readers: who replaces a file renames a new one over it.
// Windows refuses to shorten, replace or remove it while it is mapped.
class MappedFile {
 public:
  MappedFile() = default;
  // Throws file_missing: it cannot be opened, is not a regular file, or cannot be mapped.
  MappedFile(const std::filesystem::path& path, const Origin& origin);
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MappedFile();

  std::span<const std::byte> bytes() const noexcept { return bytes_; }  // not a map if there are none

 private:
  std::span<const std::byte> bytes_;
};

// What read(bytes, origin) makes of a file, out_of_memory where that fails.
template <class Read>
auto with_file(std::string_view function, const std::filesystem::path& path, const Read& read) {
  const std::string name = path.string();
  const Origin origin{function, name};
  const MappedFile file(path, origin);
  try {
    return read(file.bytes(), origin);
  } catch (const std::bad_alloc&) {
    origin.out_of_memory(file.bytes().size());
  }
}

}  // namespace multihead::io
