// SPDX-License-Identifier: Apache-2.0
// .npy: each element type by the bytes NumPy writes, its values, its conversions, and the way back.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>

#include "multihead/error.hpp"
#include "multihead/io.hpp"

namespace multihead {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;
using Shape = std::vector<std::int64_t>;

// What numpy.save writes for three values of a type.
struct Known {
  ElementType type;
  const char* name;
  const char* descr;
  std::string data;
  std::vector<double> numbers;
};

const std::vector<Known> kKnown{
    {ElementType::float16,
     "float16",
     "<f2",
     "\x00\x3c\x01\x80\x00\xfc"s,
     {1, -0x1p-24, -std::numeric_limits<double>::infinity()}},
    {ElementType::float32,
     "float32",
     "<f4",
     "\x00\x00\x80\x3f\xcd\xcc\xcc\xbd\xff\xff\x7f\x7f"s,
     {1, static_cast<double>(-0.1F), static_cast<double>(std::numeric_limits<float>::max())}},
    {ElementType::float64,
     "float64",
     "<f8",
     "\x00\x00\x00\x00\x00\x00\xf0\x3f\x9a\x99\x99\x99\x99\x99\xb9\xbf\x00\x00\x00\x00\x00\x00\x00\x80"s,
     {1, -0.1, -0.0}},
    {ElementType::boolean, "bool", "|b1", "\x01\x00\x01"s, {1, 0, 1}},
    {ElementType::int8, "int8", "|i1", "\x01\x80\x7f"s, {1, -128, 127}},
    {ElementType::uint8, "uint8", "|u1", "\x01\x80\xff"s, {1, 128, 255}},
    {ElementType::int32,
     "int32",
     "<i4",
     "\x01\x00\x00\x00\x00\x00\x00\x80\xff\xff\xff\x7f"s,
     {1, -2147483648.0, 2147483647}},
    {ElementType::int64,
     "int64",
     "<i8",
     "\x01\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x80"s,
     {1, -1, -0x1p63}}};

std::string file_of(const Known& known, const std::string& shape, const char* order = "False") {
  std::string text = "{'descr': '"s + known.descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
  text.append(117 - text.size(), ' ');
  std::string file = "\x93NUMPY\x01\x00\x76\x00"s;
  return file.append(text).append("\n").append(known.data);
}

Array parse(const std::string& file) { return parse_npy(std::as_bytes(std::span(file)), "known"); }

template <class T>
std::vector<double> read_as(const Array& array) {
  std::vector<double> numbers;
  for (const T& value : array.values<T>())
    if constexpr (std::is_same_v<T, Float16>)
      numbers.push_back(static_cast<double>(static_cast<float>(value)));
    else
      numbers.push_back(static_cast<double>(value));
  return numbers;
}

std::vector<double> read_as_own_type(const Array& array) {
  switch (array.type) {
    case ElementType::float16:
      return read_as<Float16>(array);
    case ElementType::float32:
      return read_as<float>(array);
    case ElementType::float64:
      return read_as<double>(array);
    case ElementType::int8:
      return read_as<std::int8_t>(array);
    case ElementType::int32:
      return read_as<std::int32_t>(array);
    case ElementType::int64:
      return read_as<std::int64_t>(array);
    case ElementType::boolean:
    case ElementType::uint8:
      return read_as<std::uint8_t>(array);
  }
  return {};
}

template <class Call>
void expect_bad_option(Call call, const std::string& words) {
  try {
    call();
    ADD_FAILURE() << "no error; expected one with: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error_name(error.code()), error_name(ErrorCode::bad_option)) << error.what();
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(NpyTypes, AreReadAsNumPyWritesThem) {
  for (const Known& known : kKnown) {
    const Array array = parse(file_of(known, "(3,)"));
    EXPECT_EQ(type_name(array.type), known.name);
    EXPECT_EQ(array.type, known.type);
    EXPECT_EQ(array.count(), 3);
    EXPECT_EQ(size_of(array.type) * 3, known.data.size());
    EXPECT_EQ(read_as_own_type(array), known.numbers) << known.name;
  }
}

TEST(NpyTypes, AreWrittenAsNumPyWritesThem) {
  const fs::path path = fs::path(::testing::TempDir()) / ("multihead_types_" + std::to_string(getpid()) + ".npy");
  const auto content = [&] {
    return std::string(std::istreambuf_iterator<char>(std::ifstream(path, std::ios::binary).rdbuf()), {});
  };
  for (const Known& known : kKnown) {
    const std::string file = file_of(known, "(3,)");
    const Array array = parse(file);
    write_npy(path, array);
    EXPECT_EQ(content(), file) << known.name;
    EXPECT_EQ(read_npy(path).bytes, array.bytes);
  }
  const Array half = parse(file_of(kKnown[0], "(3,)"));
  write_npy(path, half.values<Float16>(), half.shape);
  EXPECT_EQ(content(), file_of(kKnown[0], "(3,)"));
  fs::remove(path);
}

TEST(NpyTypes, FortranOrderIsTransposedInEachWidth) {
  for (Known known : kKnown) {
    const std::string once = known.data;
    known.data += once;  // columns (a, b), (c, a), (b, c) of a file in Fortran order
    const Array array = parse(file_of(known, "(2, 3)", "True"));
    const double a = known.numbers[0], b = known.numbers[1], c = known.numbers[2];
    EXPECT_EQ(read_as_own_type(array), (std::vector<double>{a, c, b, b, a, c})) << known.name;
  }
}

TEST(NpyTypes, OtherTypesAreRefusedByName) {
  for (const Known& known : kKnown) {
    const Array array = parse(file_of(known, "(3,)"));
    if (known.type != ElementType::float32)
      expect_bad_option([&] { array.values<float>(); },
                        "the array holds "s + known.name + ", the type asked for is float32; converted() converts");
    if (known.type != ElementType::uint8 && known.type != ElementType::boolean)
      expect_bad_option([&] { array.values<std::uint8_t>(); }, "the type asked for is uint8");
    if (known.type != ElementType::float16)
      expect_bad_option([&] { array.values<Float16>(); }, "the type asked for is float16");
  }
}

TEST(NpyTypes, AreConvertedWhereThatIsDefined) {
  for (const Known& known : kKnown) {
    const Array array = parse(file_of(known, "(3,)"));
    EXPECT_EQ(array.converted<double>(), known.numbers) << known.name;
    const std::vector<float> singles = array.converted<float>();
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(singles[i], static_cast<float>(known.numbers[i])) << known.name;
    if (std::string(known.name).starts_with("float"))
      expect_bad_option([&] { array.converted<std::int64_t>(); }, "the array holds "s + known.name);
    else
      EXPECT_EQ(array.converted<std::int64_t>()[1], static_cast<std::int64_t>(known.numbers[1])) << known.name;
  }
  Array whole = parse(file_of(kKnown.back(), "(3,)"));
  const std::int64_t odd = (std::int64_t{1} << 53) + 1;  // a double away from every double, two away from every float
  std::memcpy(whole.bytes.data(), &odd, sizeof odd);
  EXPECT_EQ(whole.converted<std::int64_t>()[0], odd);
  EXPECT_EQ(whole.converted<double>()[0], 0x1p53);
}

TEST(NpyTypes, ABoolIsZeroOrOne) {
  const fs::path path = fs::path(::testing::TempDir()) / ("multihead_bool_" + std::to_string(getpid()) + ".npy");
  Array array = parse(file_of(kKnown[3], "(3,)"));
  array.bytes[2] = std::byte{255};
  expect_bad_option([&] { write_npy(path, array); }, "write_npy: element 2 is 255; a bool must be 0 or 1");
  EXPECT_FALSE(fs::exists(path));
  Known known = kKnown[3];
  for (std::size_t at = 0; at < 3; ++at) {
    known.data = "\x01\x00\x01"s;
    known.data[at] = '\x03';
    for (const char* order : {"False", "True"}) try {
        parse(file_of(known, "(3, 1)", order));
        ADD_FAILURE() << "byte " << at << " was accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.what(),
                  "parse_npy: known: byte " + std::to_string(128 + at) + ": a bool is 0 or 1, here it is 3");
      }
  }
}

}  // namespace
}  // namespace multihead
