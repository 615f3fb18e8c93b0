// SPDX-License-Identifier: Apache-2.0
// Files under the formats: regular files only, sentences that name them, and no name that ever shows half a file.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "multihead/error.hpp"

namespace multihead::io {

// Who reads or writes which file: the beginning of every sentence.
struct Origin {
  std::string_view function;
  std::string_view file;

  // The file breaks a rule at this byte.
  [[noreturn]] void malformed(std::uint64_t byte, const std::string& rule) const {
    throw Error(ErrorCode::file_malformed, start() + "byte " + std::to_string(byte) + ": " + rule);
  }
  // It breaks one that no single byte shows.
  [[noreturn]] void malformed(const std::string& rule) const { throw Error(ErrorCode::file_malformed, start() + rule); }
  // The file cannot be opened, read or written.
  [[noreturn]] void missing(const std::string& reason) const { throw Error(ErrorCode::file_missing, start() + reason); }
  [[noreturn]] void out_of_memory(std::uint64_t size) const {
    throw Error(ErrorCode::out_of_memory, start() + std::to_string(size) + " bytes of data could not be allocated");
  }

 private:
  std::string start() const { return std::string(function) + ": " + std::string(file) + ": "; }
};

struct CloseFile {
  void operator()(std::FILE* file) const noexcept { static_cast<void>(std::fclose(file)); }
};
using FileHandle = std::unique_ptr<std::FILE, CloseFile>;

// What each system does in its own way. nullptr or false where it cannot, errno saying why.
std::FILE* open_to_read(const std::filesystem::path& path) noexcept;
std::FILE* create_new(const std::filesystem::path& path) noexcept;  // EEXIST where the name is taken
bool seek(std::FILE* file, std::uint64_t offset) noexcept;
bool reach_disk(std::FILE* file) noexcept;  // what was written to it; true where the system has no way to ask for that

// What a file says, fit for a sentence: at most so many of its characters, all but printable ASCII as \xNN.
inline std::string printable(std::string_view text, std::size_t most = 32) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (const char c : text.substr(0, most)) {
    const auto code = static_cast<unsigned char>(c);
    if (code >= 0x20 && code < 0x7f)
      out += c;
    else
      (out += "\\x").append({kDigits[code >> 4], kDigits[code & 15]});
  }
  return text.size() > most ? out + "..." : out;
}

inline std::string last_system_error() { return std::error_code(errno, std::generic_category()).message(); }

// Also of a link that leads nowhere: that is an error to be told when it is opened, not an absence.
inline bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(std::filesystem::symlink_status(path, error));
}

// Refuses everything but a regular file before it is opened: opening a FIFO may wait for ever.
inline void require_regular_file(const std::filesystem::path& path, const Origin& origin) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) origin.missing("cannot be opened: " + error.message());
  if (!std::filesystem::is_regular_file(status)) origin.missing("cannot be opened: it is not a regular file");
}

// A regular file, open to be read.
class InputFile {
 public:
  InputFile(const std::filesystem::path& path, const Origin& origin) : origin_(origin) {
    require_regular_file(path, origin);
    std::error_code error;
    size_ = std::filesystem::file_size(path, error);
    if (error) origin.missing("cannot be opened: " + error.message());
    file_.reset(open_to_read(path));
    if (!file_) origin.missing("cannot be opened: " + last_system_error());
  }

  std::uint64_t size() const noexcept { return size_; }

  // Fills into with the bytes from offset on, which the size of the file says are there.
  void read(std::uint64_t offset, std::span<std::byte> into) {
    if (into.empty()) return;
    if (!seek(file_.get(), offset)) origin_.missing("cannot be read: " + last_system_error());
    const std::size_t got = std::fread(into.data(), 1, into.size(), file_.get());
    if (got == into.size()) return;
    if (std::ferror(file_.get())) origin_.missing("cannot be read: " + last_system_error());
    origin_.malformed(offset + got, "the file ends here, its size said " + std::to_string(size_) + " bytes");
  }

  // After the last read: refuses a file that grew since it was opened.
  void expect_end() {
    if (std::fgetc(file_.get()) != EOF) origin_.malformed(size_, "bytes follow, its size said there are none");
  }

 private:
  const Origin& origin_;
  FileHandle file_;
  std::uint64_t size_ = 0;
};

// A file that takes its name only when it is complete and on the disk, so that a power cut too leaves the old file or
// the new one. Until commit() the bytes stand in a temporary file in the same directory, which the destructor removes.
// Links are followed, and a file that is replaced hands on its permissions.
class OutputFile {
 public:
  OutputFile(const std::filesystem::path& path, const Origin& origin) : origin_(origin), target_(path) {
    std::error_code error;
    if (std::filesystem::is_symlink(path, error)) {
      target_ = std::filesystem::canonical(path, error);
      if (error) fail("its link leads nowhere: " + error.message());
    }
    const std::filesystem::file_status status = std::filesystem::status(target_, error);
    const bool replaces = std::filesystem::exists(status);
    if (replaces && !std::filesystem::is_regular_file(status)) fail("it is not a regular file");
    open_temporary();
    if (!replaces) return;
    std::filesystem::permissions(temporary_, status.permissions(), error);
    if (error) {
      discard();
      fail(error.message());
    }
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() { discard(); }

  void write(const void* bytes, std::size_t size) {
    if (size > 0 && std::fwrite(bytes, 1, size, file_.get()) != size) fail(last_system_error());
  }

  void commit() {
    if (!reach_disk(file_.get())) fail(last_system_error());
    if (std::fclose(file_.release()) != 0) fail(last_system_error());
    std::error_code error;
    std::filesystem::rename(temporary_, target_, error);
    if (error) fail(error.message());
    temporary_.clear();
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const { origin_.missing("cannot be written: " + reason); }

  // A new file or a failure, so two writers never share one; what a crash left behind is stepped over.
  void open_temporary() {
    for (int attempt = 0; attempt < 10000 && !file_; ++attempt) {
      temporary_ = target_.parent_path() / (".multihead-" + std::to_string(attempt) + ".tmp");
      file_.reset(create_new(temporary_));
      if (!file_ && errno != EEXIST) break;
    }
    if (!file_) fail(last_system_error());
  }

  void discard() noexcept {
    file_.reset();
    std::error_code ignored;
    if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
  }

  const Origin& origin_;
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  FileHandle file_;
};

}  // namespace multihead::io
