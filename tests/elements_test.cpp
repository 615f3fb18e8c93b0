// SPDX-License-Identifier: Apache-2.0
// Elements of stored tensors: each dtype that converts, at any address, and each that does not.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "io/dtypes.hpp"
#include "multihead/safetensors.hpp"
#include "safetensors_file.hpp"

namespace multihead {
namespace {

using namespace std::string_literals;
using Shape = std::vector<std::int64_t>;

// Three elements of a dtype, and their numbers.
struct Known {
  std::string dtype;
  std::string data;
  std::vector<double> numbers;
};

const double kInfinity = std::numeric_limits<double>::infinity();
const std::vector<Known> kFloats{
    {"F64",
     "\x9a\x99\x99\x99\x99\x99\xb9\xbf\xff\xff\xff\xff\xff\xff\xef\x7f\x00\x00\x00\x00\x00\x00\x00\x80"s,
     {-0.1, std::numeric_limits<double>::max(), -0.0}},
    {"F32",
     "\xcd\xcc\xcc\xbd\xff\xff\x7f\x7f\x01\x00\x00\x80"s,
     {static_cast<double>(-0.1F), static_cast<double>(std::numeric_limits<float>::max()), -0x1p-149}},
    {"F16", "\x00\x3c\x01\x80\x00\xfc"s, {1, -0x1p-24, -kInfinity}},
    {"BF16", "\x80\x3f\x01\x80\x80\xff"s, {1, -0x1p-133, -kInfinity}}};
const std::vector<Known> kIntegers{
    {"I64",
     "\x01\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x80"s,
     {1, -1, -0x1p63}},
    {"I32", "\x01\x00\x00\x00\x00\x00\x00\x80\xff\xff\xff\x7f"s, {1, -0x1p31, 2147483647}},
    {"I16", "\x01\x00\x00\x80\xff\x7f"s, {1, -32768, 32767}},
    {"I8", "\x01\x80\x7f"s, {1, -128, 127}},
    {"U8", "\x01\x80\xff"s, {1, 128, 255}},
    {"U16", "\x01\x00\x00\x80\xff\xff"s, {1, 32768, 65535}},
    {"U32", "\x01\x00\x00\x00\x00\x00\x00\x80\xff\xff\xff\xff"s, {1, 0x1p31, 4294967295}},
    {"BOOL", "\x01\x00\x02"s, {1, 0, 1}}};

// The data of a tensor, which views known's dtype, so many bytes past an address that is right for every type.
class Placed {
 public:
  Placed(const Known& known, std::size_t shift, const Shape& shape = {3}) : storage_(known.data.size() / 8 + 3) {
    auto* const begin = reinterpret_cast<std::byte*>(storage_.data()) + shift;
    std::copy_n(reinterpret_cast<const std::byte*>(known.data.data()), known.data.size(), begin);
    tensor = {"weights", known.dtype, shape, {begin, known.data.size()}};
  }
  StoredTensor tensor;

 private:
  std::vector<std::uint64_t> storage_;
};

template <class T>
void expect_numbers(const std::vector<Known>& all, const std::string& own_dtype) {
  for (const Known& known : all)
    for (std::size_t shift = 0; shift < 9; ++shift) {
      const Placed placed(known, shift);
      const Elements<T> elements(placed.tensor), copy = elements;
      const bool in_place = known.dtype == own_dtype && shift % alignof(T) == 0;
      EXPECT_EQ(elements.in_place(), in_place) << known.dtype << " at " << shift;
      if (in_place)
        EXPECT_EQ(static_cast<const void*>(elements.values().data()), placed.tensor.bytes.data());
      else
        EXPECT_NE(copy.values().data(), elements.values().data());
      ASSERT_EQ(elements.values().size(), 3u);
      for (std::size_t i = 0; i < 3; ++i) {
        const T expected = static_cast<T>(known.numbers[i]);
        EXPECT_EQ(elements.values()[i], expected) << known.dtype << " at " << shift;
        EXPECT_EQ(copy.values()[i], expected);
        EXPECT_EQ(std::signbit(static_cast<double>(elements.values()[i])), std::signbit(known.numbers[i]));
      }
    }
}

TEST(Elements, FloatsOfEveryDtypeAtEveryAddress) {
  expect_numbers<float>(kFloats, "F32");
  expect_numbers<double>(kFloats, "F64");
}

TEST(Elements, IntegersOfEveryDtypeAtEveryAddress) { expect_numbers<std::int64_t>(kIntegers, "I64"); }

TEST(Elements, NaNsStayNaNsAndTheirOwnTypeKeepsThePayload) {
  const Known f32{"F32", "\x01\x00\x80\x7f\x34\x12\xc0\xff\xff\xff\xff\x7f"s, {}};  // the first one signals
  for (const std::size_t shift : {0, 1}) {
    const Placed placed(f32, shift);
    const Elements<float> floats(placed.tensor);
    const std::vector<std::uint32_t> bits{0x7f800001u, 0xffc01234u, 0x7fffffffu};
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(std::bit_cast<std::uint32_t>(floats.values()[i]), bits[i]);
    const Elements<double> doubles(placed.tensor);
    for (const double value : doubles.values()) EXPECT_TRUE(std::isnan(value));
  }
  for (const char* dtype : {"F16", "BF16"}) {
    const Known known{dtype, "\x81\x7f\x81\xff\xff\x7f", {}};
    const Placed placed(known, 0);
    const Elements<float> floats(placed.tensor);
    for (const float value : floats.values()) EXPECT_TRUE(std::isnan(value)) << dtype;
  }
}

TEST(Elements, DoublesAreRoundedToNearestFloats) {
  // Between 1 and its neighbour: the half goes to even, more than half goes up.
  const Known f64{
      "F64", "\x00\x00\x00\x10\x00\x00\xf0\x3f\x01\x00\x00\x10\x00\x00\xf0\x3f\x00\x00\x00\x30\x00\x00\xf0\x3f"s, {}};
  const Placed placed(f64, 0);
  const Elements<float> floats(placed.tensor);
  EXPECT_EQ(floats.values()[0], 1);
  EXPECT_EQ(floats.values()[1], 1 + 0x1p-23F);
  EXPECT_EQ(floats.values()[2], 1 + 0x1p-22F);
}

TEST(Elements, OfAnEmptyTensorAreNone) {
  const Elements<float> same({"e", "F32", {0, 3}, {}}), other({"e", "BF16", {2, 0}, {}});
  EXPECT_TRUE(same.values().empty() && same.in_place());
  EXPECT_TRUE(other.values().empty() && other.in_place());
}

template <class T>
void expect_the_rest_is_refused(const std::vector<Known>& known, const std::string& wanted) {
  const std::string data(8, '\0');
  for (const io::Dtype& dtype : io::kDtypes) {
    const bool converts =
        std::any_of(known.begin(), known.end(), [&](const Known& one) { return one.dtype == dtype.name; });
    const StoredTensor tensor{"w", dtype.name, {8 * 8 / dtype.bits - (dtype.bits == 6 ? 2 : 0)}, {}};
    StoredTensor filled = tensor;
    filled.bytes = testing::bytes_of(data).first(static_cast<std::size_t>(filled.shape[0] * dtype.bits / 8));
    if (converts)
      EXPECT_NO_THROW(Elements<T>{filled}) << dtype.name;
    else
      testing::expect_refusal(ErrorCode::unsupported, [&] { Elements<T>{filled}; },
                              {"Elements: tensor 'w' is stored as " + std::string(dtype.name) + "; " + wanted});
  }
  const StoredTensor unknown{"w", "F33\n", {1}, testing::bytes_of(data)};
  testing::expect_refusal(ErrorCode::unsupported, [&] { Elements<T>{unknown}; }, {"is stored as F33\\x0a"});
}

TEST(Elements, OfOtherDtypesAreRefusedByName) {
  expect_the_rest_is_refused<float>(kFloats, "float32 is had from F32, F64, F16 and BF16");
  expect_the_rest_is_refused<double>(kFloats, "float64 is had from F64, F32, F16 and BF16");
  expect_the_rest_is_refused<std::int64_t>(kIntegers, "int64 is had from I64, I32, I16, I8, U8, U16, U32 and BOOL");
}

TEST(Elements, ShapeAndBytesMustAgree) {
  const std::string data(12, '\0');
  for (const Shape& shape : {Shape{2}, Shape{4}, Shape{}, Shape{0}, Shape{3, 0}, Shape{-3}, Shape{-3, -1},
                             Shape{std::int64_t{1} << 62, 4}, Shape{3, std::int64_t{1} << 60}, Shape(65, 1)})
    testing::expect_refusal(ErrorCode::shape_mismatch,
                            [&] {
                              Elements<float>({"w", "F32", shape, testing::bytes_of(data)});
                            },
                            {"Elements: tensor 'w': shape "});
  const auto cut = [&] { Elements<float>({"w", "F32", {3}, testing::bytes_of(data).first(11)}); };
  testing::expect_refusal(ErrorCode::shape_mismatch, cut, {"shape [3] of F32 does not take just the 11 bytes given"});
}

}  // namespace
}  // namespace multihead
