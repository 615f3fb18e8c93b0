// SPDX-License-Identifier: Apache-2.0
// Arrays to an uncompressed .npz: a zip archive (PKWARE's APPNOTE 6.3, method 0) whose files are .npy.
#include <algorithm>
#include <array>
#include <string_view>

#include "io/file.hpp"
#include "io/npy_elements.hpp"
#include "io/npy_header.hpp"
#include "multihead/io.hpp"

namespace multihead {
namespace {

constexpr const char* kName = "write_npz";
constexpr std::uint64_t kMostBytes = 0xffffffff, kMostFiles = 0xffff;
constexpr std::uint16_t kVersion = 20;      // of a zip reader that understands all of this
constexpr std::uint16_t kDay = 1 << 5 | 1;  // 1 January 1980, the first day a zip archive knows
constexpr std::size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22;

// CRC-32 of ISO 3309, its polynomial read from the lowest bit.
constexpr std::array<std::uint32_t, 256> kCrcOfByte = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = rest >> 1 ^ (rest & 1 ? 0xedb88320 : 0);
    table[byte] = rest;
  }
  return table;
}();

std::uint32_t crc_after(std::uint32_t crc, std::span<const std::byte> bytes) noexcept {
  crc = ~crc;
  for (const std::byte byte : bytes) crc = crc >> 8 ^ kCrcOfByte[(crc ^ std::to_integer<std::uint32_t>(byte)) & 0xff];
  return ~crc;
}

// A file of the archive.
struct Member {
  std::string name, header;
  std::span<const std::byte> bytes;
  std::uint64_t offset = 0, size = 0;
  std::uint32_t crc = 0;
};

// Numbers from the lowest byte on, as zip has them.
class Record {
 public:
  Record& u16(std::uint64_t value) { return number(value, 2); }
  Record& u32(std::uint64_t value) { return number(value, 4); }
  const std::string& text() const { return text_; }

  // What local and central headers share, from the version needed to the length of the extra field.
  Record& description(const Member& member) {
    u16(kVersion).u16(0).u16(0).u16(0).u16(kDay);  // version, flags, method, time, day
    u32(member.crc).u32(member.size).u32(member.size);
    return u16(member.name.size()).u16(0);
  }

 private:
  Record& number(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_ += static_cast<char>(value >> 8 * i & 0xff);
    return *this;
  }
  std::string text_;
};

void check_name(const std::string& name) {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
  if (name.ends_with(".npy"))
    throw Error(ErrorCode::bad_option, std::string(kName) + ": the name '" + io::printable(name) +
                                           "' ends in .npy; numpy.load leaves that away, so it must not");
  if (!name.empty() && name.size() <= 255 && name.find_first_not_of(kLetters) == std::string::npos) return;
  throw Error(ErrorCode::bad_option, std::string(kName) + ": the name '" + io::printable(name) +
                                         "' is not 1 to 255 of the characters A-Z a-z 0-9 _ . -");
}

// The archive's files, in the order of arrays; everything is checked, nothing read yet.
std::vector<Member> members_of(std::span<const NamedArray> arrays) {
  if (arrays.size() > kMostFiles)
    throw Error(ErrorCode::bad_option, std::string(kName) + ": there are " + std::to_string(arrays.size()) +
                                           " arrays; a zip archive holds at most " + std::to_string(kMostFiles));
  std::vector<Member> members;
  std::vector<std::string_view> names;
  std::uint64_t end = kEndSize;
  for (const NamedArray& array : arrays) {
    check_name(array.name);
    names.push_back(array.name);
    npy::check_elements(kName, {array.type, array.bytes, array.shape});
    Member member{array.name + ".npy", npy::header_text(array.type, array.shape), array.bytes};
    member.size = member.header.size() + member.bytes.size();
    end += kLocalSize + kCentralSize + 2 * member.name.size() + member.size;
    if (end > kMostBytes)
      throw Error(ErrorCode::bad_option, std::string(kName) + ": with '" + array.name + "' the arrays make " +
                                             std::to_string(end) + " bytes; a zip archive holds at most " +
                                             std::to_string(kMostBytes));
    members.push_back(std::move(member));
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end())
    throw Error(ErrorCode::bad_option,
                std::string(kName) + ": the name '" + std::string(*twice) + "' stands twice; names must differ");
  return members;
}

}  // namespace

void write_npz(const std::filesystem::path& path, std::span<const NamedArray> arrays) {
  std::vector<Member> members = members_of(arrays);
  const std::string name = path.string();
  const io::Origin origin{kName, name};
  io::OutputFile file(path, origin);
  std::uint64_t offset = 0;
  const auto write = [&](const std::string& text) {
    file.write(text.data(), text.size());
    offset += text.size();
  };
  for (Member& member : members) {
    member.offset = offset;
    member.crc = crc_after(crc_after(0, std::as_bytes(std::span(member.header))), member.bytes);
    write(Record().u32(0x04034b50).description(member).text() + member.name + member.header);
    file.write(member.bytes.data(), member.bytes.size());
    offset += member.bytes.size();
  }
  const std::uint64_t central = offset;
  for (const Member& member : members) {
    Record record;
    record.u32(0x02014b50).u16(kVersion).description(member);
    record.u16(0).u16(0).u16(0).u32(0).u32(member.offset);  // comment, disk, attributes inside and outside, place
    write(record.text() + member.name);
  }
  Record end;
  end.u32(0x06054b50).u16(0).u16(0).u16(members.size()).u16(members.size());
  write(end.u32(offset - central).u32(central).u16(0).text());
  file.commit();
}

}  // namespace multihead
