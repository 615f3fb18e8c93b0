// SPDX-License-Identifier: Apache-2.0
// Files as Windows opens, makes and maps them.
#if defined(_WIN32)
#include "io/mapped_file.hpp"

#define WIN32_LEAN_AND_MEAN
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>
#include <windows.h>

#include <cstdint>
#include <cstdio>
#include <limits>

namespace multihead::io {

std::FILE* open_to_read(const std::filesystem::path& path) noexcept { return _wfopen(path.c_str(), L"rb"); }

std::FILE* create_new(const std::filesystem::path& path) noexcept {
  const int number = _wopen(path.c_str(), _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY, _S_IREAD | _S_IWRITE);
  if (number < 0) return nullptr;
  std::FILE* const file = _fdopen(number, "wb");
  if (!file) static_cast<void>(_close(number));
  return file;
}

bool seek(std::FILE* file, std::uint64_t offset) noexcept {
  return _fseeki64(file, static_cast<std::int64_t>(offset), SEEK_SET) == 0;
}

bool reach_disk(std::FILE* file) noexcept { return std::fflush(file) == 0 && _commit(_fileno(file)) == 0; }

namespace {

std::string last_windows_error() {
  return std::error_code(static_cast<int>(GetLastError()), std::system_category()).message();
}

class Handle {
 public:
  explicit Handle(HANDLE handle) noexcept : handle_(handle == INVALID_HANDLE_VALUE ? nullptr : handle) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (handle_) static_cast<void>(CloseHandle(handle_));
  }
  HANDLE get() const noexcept { return handle_; }

 private:
  HANDLE handle_;
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path, const Origin& origin) {
  require_regular_file(path, origin);
  const Handle file(CreateFileW(path.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                                FILE_ATTRIBUTE_NORMAL, nullptr));
  LARGE_INTEGER size{};
  if (!file.get() || GetFileSizeEx(file.get(), &size) == 0) origin.missing("cannot be opened: " + last_windows_error());
  if (GetFileType(file.get()) != FILE_TYPE_DISK) origin.missing("cannot be opened: it is not a regular file");
  if (size.QuadPart == 0) return;
  // The view outlives both handles.
  const Handle mapping(CreateFileMappingW(file.get(), nullptr, PAGE_READONLY, 0, 0, nullptr));
  const void* const begin = mapping.get() ? MapViewOfFile(mapping.get(), FILE_MAP_READ, 0, 0, 0) : nullptr;
  if (!begin) origin.missing("cannot be mapped: " + last_windows_error());
  bytes_ = {static_cast<const std::byte*>(begin), static_cast<std::size_t>(size.QuadPart)};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) static_cast<void>(UnmapViewOfFile(bytes_.data()));
}

}  // namespace multihead::io

#endif  // defined(_WIN32)
