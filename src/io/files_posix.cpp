// SPDX-License-Identifier: Apache-2.0
// Files as POSIX opens, makes and maps them.
#if !defined(_WIN32)
#include "io/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <limits>

namespace multihead::io {

std::FILE* open_to_read(const std::filesystem::path& path) noexcept { return std::fopen(path.c_str(), "rb"); }

std::FILE* create_new(const std::filesystem::path& path) noexcept { return std::fopen(path.c_str(), "wbx"); }

bool seek(std::FILE* file, std::uint64_t offset) noexcept {
  return fseeko(file, static_cast<off_t>(offset), SEEK_SET) == 0;
}

bool reach_disk(std::FILE* file) noexcept {
  if (std::fflush(file) != 0) return false;
  return fsync(fileno(file)) == 0 || errno == EINVAL || errno == ENOSYS || errno == ENOTSUP;
}

namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) noexcept : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) static_cast<void>(close(number_));
  }
  int number() const noexcept { return number_; }

 private:
  int number_;
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path, const Origin& origin) {
  require_regular_file(path, origin);
  // Without waiting: the name may have become a FIFO's since.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (file.number() < 0 || fstat(file.number(), &status) != 0)
    origin.missing("cannot be opened: " + last_system_error());
  if (!S_ISREG(status.st_mode)) origin.missing("cannot be opened: it is not a regular file");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size == 0) return;
  if (size > static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max()))
    origin.missing("cannot be mapped: it has " + std::to_string(size) + " bytes");
  void* const begin = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number(), 0);
  if (begin == MAP_FAILED) origin.missing("cannot be mapped: " + last_system_error());
  bytes_ = {static_cast<const std::byte*>(begin), static_cast<std::size_t>(size)};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) static_cast<void>(munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()));
}

}  // namespace multihead::io

#endif  // !defined(_WIN32)
