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
#include "io/npy_header.hpp"
#include "multihead/io.hpp"

namespace multihead {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are copied as they stand in the file");

template <class T>
constexpr ElementType kTypeOf = std::is_same_v<T, float> ? ElementType::float32 : ElementType::float64;

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
  if (array.type == ElementType::float32)
    transpose<float>(array.shape, from, array.bytes.data());
  else
    transpose<double>(array.shape, from, array.bytes.data());
}

template <class T>
void write(const std::filesystem::path& path, std::span<const T> values, std::span<const std::int64_t> shape) {
  const auto asked = npy::data_size(shape, kTypeOf<T>);
  if (!asked || static_cast<std::uint64_t>(*asked) != values.size_bytes())
    throw Error(ErrorCode::shape_mismatch, "write_npy: shape " + npy::shape_text(shape) + " does not hold the " +
                                               std::to_string(values.size()) +
                                               " values given; the product of its extents must be their number");
  if (shape.size() > npy::kMaxRank)
    throw Error(ErrorCode::shape_mismatch, "write_npy: shape has " + std::to_string(shape.size()) + " axes; at most " +
                                               std::to_string(npy::kMaxRank) + " are accepted");
  const std::string name = path.string();
  const io::Origin origin{"write_npy", name};
  const std::string header = npy::header_text(kTypeOf<T>, shape);
  io::OutputFile file(path, origin);
  file.write(header.data(), header.size());
  file.write(values.data(), values.size_bytes());
  file.commit();
}

}  // namespace

std::int64_t Array::count() const noexcept {
  const auto size = npy::data_size(shape, type);
  return size ? *size / npy::width(type) : -1;
}

template <class T>
std::span<const T> Array::values() const {
  if (kTypeOf<T> != type) {
    const char* const held = type == ElementType::float32 ? "float32" : "float64";
    throw Error(ErrorCode::bad_option, std::string("values: the array holds ") + held + ", the type asked for is " +
                                           (sizeof(T) == 4 ? "float32" : "float64") + "; converted() converts");
  }
  const auto size = npy::data_size(shape, type);
  if (!size || static_cast<std::uint64_t>(*size) != bytes.size())
    throw Error(ErrorCode::shape_mismatch, "values: shape " + npy::shape_text(shape) + " does not match the " +
                                               std::to_string(bytes.size()) + " bytes of the array");
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

template <class T>
std::vector<T> Array::converted() const {
  const auto convert = [](const auto& from) {
    std::vector<T> to(from.size());
    std::transform(from.begin(), from.end(), to.begin(), [](auto value) { return static_cast<T>(value); });
    return to;
  };
  return type == ElementType::float32 ? convert(values<float>()) : convert(values<double>());
}

template std::span<const float> Array::values() const;
template std::span<const double> Array::values() const;
template std::vector<float> Array::converted() const;
template std::vector<double> Array::converted() const;

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
  if (needs_transpose(header))
    transpose_into(array, data.data());
  else
    std::copy(data.begin(), data.end(), array.bytes.begin());
  return array;
}

void write_npy(const std::filesystem::path& path, std::span<const float> values, std::span<const std::int64_t> shape) {
  write(path, values, shape);
}

void write_npy(const std::filesystem::path& path, std::span<const double> values, std::span<const std::int64_t> shape) {
  write(path, values, shape);
}

}  // namespace multihead
