// SPDX-License-Identifier: Apache-2.0
// .safetensors written: the reference writer's bytes, round trips, refused arguments, and failing disks.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ostream>
#include <string>
#include <vector>

#include "full_disk.hpp"
#include "io/dtypes.hpp"
#include "multihead/safetensors.hpp"
#include "problem.hpp"
#include "safetensors_file.hpp"
#include "test_dir.hpp"

namespace {

// What fsync() was asked for in this process, and whether it is to fail.
struct Disk {
  std::vector<std::int64_t> sizes;  // of the files, as they were then
  int error = 0;
} disk;

}  // namespace

// In place of the C library's.
extern "C" __attribute__((visibility("default"))) int fsync(int descriptor) {
  struct stat status {};
  EXPECT_EQ(fstat(descriptor, &status), 0);
  disk.sizes.push_back(status.st_size);
  errno = disk.error;
  return disk.error == 0 ? 0 : -1;
}

namespace multihead {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;
using testing::bytes_of, testing::expect_refusal;
using Shape = std::vector<std::int64_t>;

class SafetensorsWriter : public testing::InFolder {};

bool same(const StoredTensor& a, const StoredTensor& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

TEST_F(SafetensorsWriter, WritesTheBytesOfThePythonPackage) {
  // safetensors.numpy.save of version 0.8: {"b": float32 [[1, 2]], "a": bool True, "c": float32 [3]}, {"k":
  // "\u20ac\n"}.
  const std::string b = "\0\0\x80\x3f\0\0\0\x40"s, a = "\1", c = "\0\0\x40\x40"s;
  const std::vector<StoredTensor> tensors{
      {"c", "F32", {1}, bytes_of(c)}, {"a", "BOOL", {}, bytes_of(a)}, {"b", "F32", {1, 2}, bytes_of(b)}};
  const fs::path path = folder_ / "a.safetensors";
  write_safetensors(path, tensors, {{"k", "\u20ac\n"}});
  EXPECT_EQ(get(path),
            "\xc8\0\0\0\0\0\0\0"s +
                "{\"__metadata__\":{\"k\":\"\u20ac\\n\"},\"b\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":"
                "[0,8]},\"c\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]},\"a\":{\"dtype\":\"BOOL\","
                "\"shape\":[],\"data_offsets\":[12,13]}}      " +
                b + c + a);
  write_safetensors(path, {});
  EXPECT_EQ(get(path), "\x08\0\0\0\0\0\0\0{}      "s);
  int seeds = 0;
  for (const char* name : {"empty", "every_dtype", "names"}) {
    const fs::path seed = test_dir() / "corpus_safetensors" / (name + ".safetensors"s);
    const Safetensors file(seed);
    write_safetensors(path, file.tensors(), file.metadata());
    EXPECT_EQ(get(path), get(seed)) << seed;
    ++seeds;
  }
  EXPECT_EQ(files(), 1);
}

TEST_F(SafetensorsWriter, PadsTheHeaderToTheNextMultipleOfEight) {
  const fs::path path = folder_ / "a.safetensors";
  for (std::size_t letters = 1; letters <= 8; ++letters) {
    const std::string name(letters, 'n');
    write_safetensors(path, std::vector<StoredTensor>{{name, "U8", {0}, {}}});
    const std::size_t text = testing::entry(name, "U8", "[0]", "[0,0]").size() + 2;
    EXPECT_EQ(get(path).size(), 8 + (text % 8 == 0 ? text : text + 8 - text % 8)) << letters;
  }
}

TEST_F(SafetensorsWriter, WhatItWritesIsReadBackEqual) {
  testing::Random random(7);
  for (int round = 0; round < (testing::quick_share() ? 30 : 300); ++round) {
    std::vector<std::string> names, data;
    std::vector<StoredTensor> tensors;
    const auto count = static_cast<std::size_t>(random.between(0, 12));
    for (std::size_t i = 0; i < count; ++i) {
      names.push_back("t\u00e9\"\\\x01"s.substr(0, static_cast<std::size_t>(random.chance(50) ? 1 : 6)) +
                      std::to_string(random.between(0, 99)) + "." + std::to_string(i));
      const io::Dtype& dtype = io::kDtypes[static_cast<std::size_t>(random.between(0, 21))];
      Shape shape;
      for (auto rank = random.between(0, 3); rank > 0; --rank) shape.push_back(random.between(0, 4));
      if (dtype.bits < 8) shape.push_back(4);
      std::string bytes(static_cast<std::size_t>(io::size_in_bits(shape, dtype).value() / 8), '\0');
      for (char& byte : bytes) byte = static_cast<char>(random.between(0, 255));
      data.push_back(bytes);
      tensors.push_back({"", dtype.name, shape, {}});
    }
    for (std::size_t i = 0; i < count; ++i) {
      tensors[i].name = names[i];
      tensors[i].bytes = bytes_of(data[i]);
    }
    Metadata metadata;
    for (auto keys = random.between(0, 3); keys > 0; --keys)
      metadata.emplace_back("k" + std::to_string(keys), "v\0\n\u20ac"s.substr(0, static_cast<std::size_t>(keys)));
    write_safetensors(folder_ / "round.safetensors", tensors, metadata);
    const Safetensors file(folder_ / "round.safetensors");
    std::ranges::sort(tensors, {}, &StoredTensor::name);
    std::ranges::sort(metadata);
    ASSERT_TRUE(std::ranges::equal(file.tensors(), tensors, same));
    ASSERT_EQ(file.metadata(), metadata);
    for (const StoredTensor& tensor : file.tensors()) {
      const auto bits = static_cast<std::size_t>(io::kDtypes[io::dtype_of(tensor.dtype)].bits);
      const std::size_t width = bits % 8 == 0 ? bits / 8 : 1;
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % width, 0u) << tensor.dtype;
    }
  }
  EXPECT_EQ(files(), 1);
}

struct Refused {
  const char* name;
  ErrorCode code;
  std::vector<StoredTensor> tensors;
  Metadata metadata;
  const char* word;
  friend void PrintTo(const Refused& refused, std::ostream* out) { *out << refused.name; }
};

const std::string kData(8, '\1');
StoredTensor tensor(std::string_view name, std::string_view dtype = "F32", const Shape& shape = {2}) {
  return {name, dtype, shape, bytes_of(kData)};
}
constexpr std::string_view kNul{"a\0b", 3};
const ErrorCode kOption = ErrorCode::bad_option, kShape = ErrorCode::shape_mismatch;
const std::vector<Refused> kRefused{
    {"NoDtype", kOption, {tensor("a", "")}, {}, "tensor 'a' has the dtype ''; it must be one of the format's"},
    {"OtherDtype", kOption, {tensor("a", "float32")}, {}, "tensor 'a' has the dtype 'float32'"},
    {"NoName", kOption, {tensor("")}, {}, "empty name"},
    {"NameTwice", kOption, {tensor("a"), tensor("b"), tensor("a", "F64", {1})}, {}, "tensor 'a' is given twice"},
    {"NameOfMetadata", kOption, {tensor("__metadata__")}, {}, "tensor '__metadata__' has the name of the metadata"},
    {"NameWithNul", kOption, {tensor(kNul)}, {}, "tensor 'a\\x00b' has a NUL in its name"},
    {"NameNotUtf8", kOption, {tensor("a\xff")}, {}, "tensor 'a\\xff' is not UTF-8"},
    {"KeyTwice", kOption, {tensor("a")}, {{"k", "1"}, {"j", "1"}, {"k", "2"}}, "metadata has the key 'k' twice"},
    {"KeyNotUtf8", kOption, {tensor("a")}, {{"\xc3", "1"}}, "metadata: key '\\xc3' is not UTF-8"},
    {"ValueNotUtf8", kOption, {tensor("a")}, {{"k", "\xff"}}, "metadata: value '\\xff' is not UTF-8"},
    {"FewerBytes", kShape, {tensor("a", "F32", {3})}, {}, "shape [3] of F32 does not take just the 8 bytes given"},
    {"MoreBytes", kShape, {tensor("a", "F32", {})}, {}, "shape [] of F32 does not take just the 8 bytes given"},
    {"HalfBytes", kShape, {tensor("a", "F4", {3, 5})}, {}, "shape [3,5] of F4 does not take"},
    {"Negative", kShape, {tensor("a", "F32", {-2, -1})}, {}, "shape has the extent -2; it must be from 0 to"},
    {"Overflow", kShape, {tensor("a", "F32", {std::int64_t{1} << 40, std::int64_t{1} << 40})}, {}, "does not take"},
    {"Beyond2To53", kShape, {tensor("a", "F32", {(std::int64_t{1} << 53) + 1})}, {}, "9007199254740993; it must be"},
    {"SixtyFiveExtents", kShape, {tensor("a", "U64", Shape(65, 1))}, {}, "shape has 65 extents; at most 64"}};

class SafetensorsWriterRefuses : public testing::InFolder, public ::testing::WithParamInterface<Refused> {};
INSTANTIATE_TEST_SUITE_P(Arguments, SafetensorsWriterRefuses, ::testing::ValuesIn(kRefused),
                         [](const auto& i) { return i.param.name; });

TEST_P(SafetensorsWriterRefuses, AndLeavesTheOldFile) {
  const Refused& refused = GetParam();
  const fs::path path = put("a.safetensors", "old");
  const auto write = [&] { write_safetensors(path, refused.tensors, refused.metadata); };
  expect_refusal(refused.code, write, {"write_safetensors: ", refused.word});
  EXPECT_EQ(get(path), "old");
  EXPECT_EQ(files(), 1);
}

TEST_F(SafetensorsWriter, RefusesAHeaderBeyondTheFormatsLimit) {
  if (testing::quick_share()) GTEST_SKIP() << "a header of 100 MB is left to the full share of the tests";
  const std::string names(50'000'000, 'n');
  const std::vector<StoredTensor> tensors{tensor(names), tensor(std::string_view(names).substr(100))};
  const auto write = [&] { write_safetensors(folder_ / "a.safetensors", tensors); };
  expect_refusal(kOption, write, {"write_safetensors: the header takes 100000", "at most 100000000"});
}

TEST_F(SafetensorsWriter, OverTheFileItsTensorsLieIn) {
  const fs::path path = folder_ / "a.safetensors";
  const std::vector<StoredTensor> tensors{tensor("a"), tensor("b")};
  write_safetensors(path, tensors);
  const Safetensors old(path);
  write_safetensors(path, old.tensors().first(1), {{"shorter", ""}});
  EXPECT_TRUE(same(*old.find("b"), tensors[1])) << "a map stays what it was";
  EXPECT_EQ(Safetensors(path).tensors().size(), 1u);
}

TEST_F(SafetensorsWriter, OnlyRegularFilesAreWritten) {
  const fs::path fifo = folder_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  for (const fs::path& path : {folder_, fifo, folder_ / "no" / "a.safetensors"})
    expect_refusal(ErrorCode::file_missing, [&] { write_safetensors(path, {}); },
                   {"write_safetensors: " + path.string() + ": cannot be written: "});
  EXPECT_EQ(files(), 1);
}

TEST_F(SafetensorsWriter, FullDiskLeavesTheOldFileAndNoOther) {
  const fs::path path = put("a.safetensors", "old");
  const std::string data(400'000, 'd');
  {
    const FullDisk full;
    for (const std::int64_t count : {4000, 400'000}) {  // one a buffer's length past the limit, one far past it
      const StoredTensor large{"a", "U8", {count}, bytes_of(data).first(static_cast<std::size_t>(count))};
      const auto write = [&] { write_safetensors(path, {&large, 1}, {{"k", std::string(200, 'v')}}); };
      expect_refusal(ErrorCode::file_missing, write, {"a.safetensors: cannot be written: "});
    }
  }
  EXPECT_EQ(get(path), "old");
  EXPECT_EQ(files(), 1);
}

// The bytes are on the disk, all of them, before the name is theirs; a file system that knows no such request is no
// failure.
TEST_F(SafetensorsWriter, ReachesTheDiskBeforeItsName) {
  const fs::path path = put("a.safetensors", "old");
  const std::string data(5000, 'd');
  const StoredTensor tensor{"a", "U8", {5000}, bytes_of(data)};
  const auto write = [&] { write_safetensors(path, {&tensor, 1}); };
  disk = {{}, EIO};
  expect_refusal(ErrorCode::file_missing, write, {"a.safetensors: cannot be written: "});
  EXPECT_EQ(get(path), "old");
  EXPECT_EQ(files(), 1);
  for (const int error : {0, EINVAL}) {
    disk = {{}, error};
    write();
    EXPECT_EQ(disk.sizes, std::vector{static_cast<std::int64_t>(fs::file_size(path))});
    EXPECT_GT(fs::file_size(path), 5000u);
  }
  disk = {};
}

}  // namespace
}  // namespace multihead
