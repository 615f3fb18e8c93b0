// SPDX-License-Identifier: Apache-2.0
// .npz written: the bytes of a zip archive, which are the same every time, refused arguments, and failing disks.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "full_disk.hpp"
#include "multihead/io.hpp"
#include "safetensors_file.hpp"

namespace multihead {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;
using testing::bytes_of, testing::expect_refusal;

class Npz : public testing::InFolder {};

TEST_F(Npz, WritesAnArchiveOfNpyFiles) {
  const std::vector<float> values{1, 2, 3};
  const fs::path path = folder_ / "a.npz", npy = folder_ / "a.npy";
  write_npy(npy, values, std::vector<std::int64_t>{3});
  const std::string file = get(npy);
  ASSERT_EQ(file.size(), 140U);
  const std::vector<NamedArray> arrays{{"a", ElementType::float32, {3}, std::as_bytes(std::span(values))}};
  write_npz(path, arrays);
  // zlib.crc32 of the file as Python computes it.
  const std::string description = "\x14\0\0\0\0\0\0\0\x21\0"s + "\167\246\100\321" + "\x8c\0\0\0\x8c\0\0\0\x05\0\0\0"s;
  EXPECT_EQ(get(path), "PK\x03\x04"s + description + "a.npy" + file + "PK\x01\x02\x14\0"s + description +
                           "\0\0\0\0\0\0\0\0\0\0\0\0\0\0"s + "a.npy" +
                           "PK\x05\x06\0\0\0\0\x01\0\x01\0\x33\0\0\0\xaf\0\0\0\0\0"s);
}

TEST_F(Npz, HoldsWhatItWasGivenAndTheSameEveryTime) {
  std::vector<std::int64_t> numbers(1000);
  std::iota(numbers.begin(), numbers.end(), -500);
  const std::string flags = "\0\1\1"s;
  const std::vector<NamedArray> arrays{{"numbers", ElementType::int64, {10, 100}, std::as_bytes(std::span(numbers))},
                                       {"flags.of-it_0", ElementType::boolean, {3}, bytes_of(flags)},
                                       {"empty", ElementType::float64, {0, 7}, {}},
                                       {"one", ElementType::int8, {}, bytes_of(flags).first(1)}};
  write_npz(folder_ / "a.npz", arrays);
  write_npz(folder_ / "b.npz", arrays);
  const std::string archive = get(folder_ / "a.npz");
  EXPECT_EQ(archive, get(folder_ / "b.npz"));
  EXPECT_EQ(files(), 2);
  std::size_t at = 0;
  for (const NamedArray& array : arrays) {
    at = archive.find(array.name + ".npy", at);
    ASSERT_NE(at, std::string::npos) << array.name;
    at += array.name.size() + 4;
    const std::size_t header = archive.find('\n', at) + 1 - at;
    const Array read = parse_npy(bytes_of(archive).subspan(at, header + array.bytes.size()), array.name);
    EXPECT_EQ(read.type, array.type);
    EXPECT_EQ(read.shape, array.shape);
    EXPECT_TRUE(std::ranges::equal(read.bytes, array.bytes));
  }
  write_npz(folder_ / "a.npz", {});
  EXPECT_EQ(get(folder_ / "a.npz"), "PK\x05\x06"s + std::string(18, '\0'));
}

TEST_F(Npz, Refused) {
  const std::string byte = "\2";
  const NamedArray good{"a", ElementType::uint8, {1}, bytes_of(byte)};
  const auto refuse = [&](const std::vector<NamedArray>& arrays, ErrorCode code, const std::string& sentence) {
    expect_refusal(code, [&] { write_npz(folder_ / "a.npz", arrays); }, {sentence});
    EXPECT_EQ(files(), 0);
  };
  const auto named = [&](const std::string& name) {
    NamedArray array = good;
    array.name = name;
    return array;
  };
  refuse({named("")}, ErrorCode::bad_option,
         "write_npz: the name '' is not 1 to 255 of the characters A-Z a-z 0-9 _ . -");
  refuse({named("../a\n")}, ErrorCode::bad_option,
         "write_npz: the name '../a\\x0a' is not 1 to 255 of the characters A-Z a-z 0-9 _ . -");
  refuse({named("a.npy")}, ErrorCode::bad_option,
         "write_npz: the name 'a.npy' ends in .npy; numpy.load leaves that away, so it must not");
  refuse({good, named("b"), good}, ErrorCode::bad_option, "write_npz: the name 'a' stands twice; names must differ");
  refuse({{"a", ElementType::uint8, {2}, bytes_of(byte)}}, ErrorCode::shape_mismatch,
         "write_npz: shape (2,) does not hold the 1 values given; the product of its extents must be their number");
  refuse({{"a", ElementType::boolean, {1}, bytes_of(byte)}}, ErrorCode::bad_option,
         "write_npz: element 0 is 2; a bool must be 0 or 1");
  // Never read: what is too much is refused by its size.
  const auto half = static_cast<std::size_t>(0x80000000);
  const std::span<const std::byte> large(bytes_of(byte).data(), half);
  const auto extent = static_cast<std::int64_t>(half);
  refuse({{"a", ElementType::uint8, {extent}, large}, {"b", ElementType::uint8, {extent}, large}},
         ErrorCode::bad_option,
         "write_npz: with 'b' the arrays make 4294967746 bytes; a zip archive holds at most 4294967295");
  refuse(std::vector<NamedArray>(65536, good), ErrorCode::bad_option,
         "write_npz: there are 65536 arrays; a zip archive holds at most 65535");
}

TEST_F(Npz, AFullDiskLeavesTheFileAsItWas) {
  const fs::path path = folder_ / "a.npz";
  write_npz(path, {});
  const std::string before = get(path);
  const std::vector<double> values(10000);
  const std::vector<NamedArray> arrays{{"a", ElementType::float64, {10000}, std::as_bytes(std::span(values))}};
  {
    const FullDisk full;
    expect_refusal(ErrorCode::file_missing, [&] { write_npz(path, arrays); },
                   {"write_npz: " + path.string() + ": cannot be written: File too large"});
  }
  EXPECT_EQ(get(path), before);
  EXPECT_EQ(files(), 1);
}

}  // namespace
}  // namespace multihead
