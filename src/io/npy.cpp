// SPDX-License-Identifier: Apache-2.0
// NumPy .npy files to arrays and back.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <stdexcept>
#include <type_traits>

#include "io/file.hpp"
#include "io/npy_elements.hpp"
#include "io/npy_header.hpp"
#include "multihead/io.hpp"

namespace multihead {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are copied as they stand in the file");

template <class T>
constexpr ElementType kElement = ElementType::float64;
template <>
constexpr ElementType kElement<float> = ElementType::float32;
template <>
constexpr ElementType kElement<Float16> = ElementType::float16;
template <>
constexpr ElementType kElement<std::int8_t> = ElementType::int8;
template <>
constexpr ElementType kElement<std::uint8_t> = ElementType::uint8;
template <>
constexpr ElementType kElement<std::int32_t> = ElementType::int32;
template <>
constexpr ElementType kElement<std::int64_t> = ElementType::int64;

Array allocate(const npy::Header& header, const io::Origin& origin) try {
  Array array;
  array.type = header.type;
  array.shape.assign(header.shape().begin(), header.shape().end());
  array.bytes.resize(header.data_size);
  return array;
} catch (const std::bad_alloc&) {
  origin.out_of_memory(header.data_size);
} catch (const std::length_error&) {
  origin.out_of_memory(header.data_size);
}

// Element (i0, i1, ..) stands at i0 + n0 * (i1 + n1 * (..)) in from, Fortran order; to is filled in C order.
template <class T>
void transpose(std::span<const std::int64_t> extents, const std::byte* from, std::byte* to) {
  const std::size_t last = extents.size() - 1;
  std::array<std::int64_t, npy::kMaxRank> strides{}, index{};
  std::int64_t stride = 1;
  for (std::size_t axis = 0; axis <= last; stride *= extents[axis++]) strides[axis] = stride;
  std::int64_t offset = 0;
  for (;;) {
    for (std::int64_t i = 0; i < extents[last]; ++i, to += sizeof(T))
      std::memcpy(to, from + (offset + i * strides[last]) * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    std::size_t axis = last;
    for (;;) {
      if (axis-- == 0) return;
      offset += strides[axis];
      if (++index[axis] < extents[axis]) break;
      offset -= extents[axis] * strides[axis];
      index[axis] = 0;
    }
  }
}

bool needs_transpose(const npy::Header& header) noexcept {
  return header.fortran_order && header.rank > 1 && header.data_size > 0;
}

void transpose_into(Array& array, const std::byte* from) {
  switch (size_of(array.type)) {
    case 1:
      return transpose<std::uint8_t>(array.shape, from, array.bytes.data());
    case 2:
      return transpose<std::uint16_t>(array.shape, from, array.bytes.data());
    case 4:
      return transpose<std::uint32_t>(array.shape, from, array.bytes.data());
    default:
      return transpose<std::uint64_t>(array.shape, from, array.bytes.data());
  }
}

// The first byte of a bool that is neither 0 nor 1, or the end.
std::size_t first_odd_bool(ElementType type, std::span<const std::byte> bytes) noexcept {
  if (type != ElementType::boolean) return bytes.size();
  const auto odd = [](std::byte byte) { return byte > std::byte{1}; };
  return static_cast<std::size_t>(std::find_if(bytes.begin(), bytes.end(), odd) - bytes.begin());
}

void check_bools(const npy::Header& header, std::span<const std::byte> data, const io::Origin& origin) {
  const std::size_t at = first_odd_bool(header.type, data);
  if (at < data.size())
    origin.malformed(header.data_begin + at,
                     "a bool is 0 or 1, here it is " + std::to_string(std::to_integer<int>(data[at])));
}

void write(const std::filesystem::path& path, const npy::Elements& given) {
  npy::check_elements("write_npy", given);
  const std::string name = path.string();
  const io::Origin origin{"write_npy", name};
  const std::string header = npy::header_text(given.type, given.shape);
  io::OutputFile file(path, origin);
  file.write(header.data(), header.size());
  file.write(given.bytes.data(), given.bytes.size());
  file.commit();
}

template <class T, class From>
std::vector<T> convert(std::span<const From> from) {
  std::vector<T> to(from.size());
  std::transform(from.begin(), from.end(), to.begin(), [](From value) {
    if constexpr (std::is_same_v<From, Float16>)
      return static_cast<T>(static_cast<float>(value));
    else
      return static_cast<T>(value);
  });
  return to;
}

}  // namespace

std::string_view type_name(ElementType type) noexcept {
  constexpr std::array<std::string_view, 8> names{"float16", "float32", "float64", "bool",
                                                  "int8",    "uint8",   "int32",   "int64"};
  const auto place = static_cast<std::size_t>(type);
  return place < names.size() ? names[place] : "unknown";
}

std::int64_t Array::count() const noexcept {
  const auto size = npy::data_size(shape, type);
  return size ? *size / static_cast<std::int64_t>(size_of(type)) : -1;
}

template <class T>
std::span<const T> Array::values() const {
  const bool bool_bytes = type == ElementType::boolean && kElement<T> == ElementType::uint8;
  if (kElement<T> != type && !bool_bytes)
    throw Error(ErrorCode::bad_option, "values: the array holds " + std::string(type_name(type)) +
                                           ", the type asked for is " + std::string(type_name(kElement<T>)) +
                                           "; converted() converts");
  const auto size = npy::data_size(shape, type);
  if (!size || static_cast<std::uint64_t>(*size) != bytes.size())
    throw Error(ErrorCode::shape_mismatch, "values: shape " + npy::shape_text(shape) + " does not match the " +
                                               std::to_string(bytes.size()) + " bytes of the array");
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

template <class T>
std::vector<T> Array::converted() const {
  if constexpr (std::is_integral_v<T>)
    if (type == ElementType::float16 || type == ElementType::float32 || type == ElementType::float64)
      throw Error(ErrorCode::bad_option, "converted: the array holds " + std::string(type_name(type)) +
                                             ", the type asked for is " + std::string(type_name(kElement<T>)) +
                                             "; floating-point numbers are not made integers");
  switch (type) {
    case ElementType::float16:
      return convert<T>(values<Float16>());
    case ElementType::float32:
      return convert<T>(values<float>());
    case ElementType::float64:
      return convert<T>(values<double>());
    case ElementType::int8:
      return convert<T>(values<std::int8_t>());
    case ElementType::int32:
      return convert<T>(values<std::int32_t>());
    case ElementType::int64:
      return convert<T>(values<std::int64_t>());
    default:
      return convert<T>(values<std::uint8_t>());
  }
}

template std::span<const Float16> Array::values() const;
template std::span<const float> Array::values() const;
template std::span<const double> Array::values() const;
template std::span<const std::int8_t> Array::values() const;
template std::span<const std::uint8_t> Array::values() const;
template std::span<const std::int32_t> Array::values() const;
template std::span<const std::int64_t> Array::values() const;
template std::vector<float> Array::converted() const;
template std::vector<double> Array::converted() const;
template std::vector<std::int64_t> Array::converted() const;

void npy::check_elements(const char* function, const Elements& given) {
  const auto asked = data_size(given.shape, given.type);
  if (!asked || static_cast<std::uint64_t>(*asked) != given.bytes.size())
    throw Error(ErrorCode::shape_mismatch, std::string(function) + ": shape " + shape_text(given.shape) +
                                               " does not hold the " +
                                               std::to_string(given.bytes.size() / size_of(given.type)) +
                                               " values given; the product of its extents must be their number");
  if (given.shape.size() > kMaxRank)
    throw Error(ErrorCode::shape_mismatch, std::string(function) + ": shape has " + std::to_string(given.shape.size()) +
                                               " axes; at most " + std::to_string(kMaxRank) + " are accepted");
  const std::size_t odd = first_odd_bool(given.type, given.bytes);
  if (odd < given.bytes.size())
    throw Error(ErrorCode::bad_option, std::string(function) + ": element " + std::to_string(odd) + " is " +
                                           std::to_string(std::to_integer<int>(given.bytes[odd])) +
                                           "; a bool must be 0 or 1");
}

Array read_npy(const std::filesystem::path& path) {
  const std::string name = path.string();
  const io::Origin origin{"read_npy", name};
  io::InputFile file(path, origin);
  std::array<std::byte, npy::kMaxDataBegin> buffer;
  const auto start = std::span(buffer).first(std::min<std::uint64_t>(file.size(), buffer.size()));
  file.read(0, start);
  const npy::Header header = npy::read_header(start, file.size(), origin);
  Array array = allocate(header, origin);
  file.read(header.data_begin, array.bytes);
  file.expect_end();
  check_bools(header, array.bytes, origin);
  if (!needs_transpose(header)) return array;
  Array transposed = allocate(header, origin);
  transpose_into(transposed, array.bytes.data());
  return transposed;
}

Array parse_npy(std::span<const std::byte> bytes, const std::string& name) {
  const io::Origin origin{"parse_npy", name};
  const auto start = bytes.first(std::min(bytes.size(), npy::kMaxDataBegin));
  const npy::Header header = npy::read_header(start, bytes.size(), origin);
  Array array = allocate(header, origin);
  const auto data = bytes.subspan(header.data_begin);
  check_bools(header, data, origin);
  if (needs_transpose(header))
    transpose_into(array, data.data());
  else
    std::copy(data.begin(), data.end(), array.bytes.begin());
  return array;
}

void write_npy(const std::filesystem::path& path, const Array& array) {
  write(path, {array.type, array.bytes, array.shape});
}

void write_npy(const std::filesystem::path& path, std::span<const float> values, std::span<const std::int64_t> shape) {
  write(path, {ElementType::float32, std::as_bytes(values), shape});
}

void write_npy(const std::filesystem::path& path, std::span<const double> values, std::span<const std::int64_t> shape) {
  write(path, {ElementType::float64, std::as_bytes(values), shape});
}

void write_npy(const std::filesystem::path& path, std::span<const Float16> values,
               std::span<const std::int64_t> shape) {
  write(path, {ElementType::float16, std::as_bytes(values), shape});
}

void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const std::string name = path.string();
  const io::Origin origin{"write_bytes", name};
  io::OutputFile file(path, origin);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace multihead
