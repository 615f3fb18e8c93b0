// SPDX-License-Identifier: Apache-2.0
// Files: .npy matrices and tensors in and out, trusting no byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

// What a file may hold.
enum class ElementType { float16, float32, float64, boolean, int8, uint8, int32, int64 };

// "float32", "bool". Never throws.
std::string_view type_name(ElementType type) noexcept;

// Bytes of one element.
constexpr std::size_t size_of(ElementType type) noexcept {
  switch (type) {
    case ElementType::float64:
    case ElementType::int64:
      return 8;
    case ElementType::float32:
    case ElementType::int32:
      return 4;
    case ElementType::float16:
      return 2;
    default:
      return 1;
  }
}

// One array of a .npy file, row-major (C order), in the machine's byte order.
struct Array {
  ElementType type = ElementType::float32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;

  // The product of shape, 1 when it is empty; -1 when an extent is negative or the size passes 63 bits.
  std::int64_t count() const noexcept;
  // The elements as T: Float16, float, double, std::int8_t, std::uint8_t (also of bool, as 0 and 1), std::int32_t,
  // std::int64_t. Throws bad_option when the array holds another type, shape_mismatch when shape and bytes were changed
  // to disagree.
  template <class T>
  std::span<const T> values() const;
  // The elements converted to T: to float or double from every type, exact or rounded to nearest, bool as 0 and 1; to
  // std::int64_t from bool and integers. Throws bad_option for std::int64_t from a floating-point type.
  template <class T>
  std::vector<T> converted() const;
};

// Reads a NumPy .npy file, versions 1.0, 2.0 and 3.0. Accepted: the types of ElementType, little-endian, C order or
// Fortran order (transposed on the way in). Refused with file_malformed and a sentence that names file, byte offset and
// rule: anything else (structured or pickled data, big-endian, other types, a bool that is neither 0 nor 1, headers
// over 10,000 characters, more than 64 axes, sizes that do not match the file). file_missing: it cannot be opened or is
// not a regular file. Nothing larger than the file is allocated, and nothing before the header is checked;
// out_of_memory when that fails.
Array read_npy(const std::filesystem::path& path);
// The same from bytes; name stands for the file in sentences.
Array parse_npy(std::span<const std::byte> bytes, const std::string& name);

// Writes version 1.0, C order, data aligned to 64 bytes, through a temporary file beside it that is renamed when it is
// complete: the bytes numpy.save writes. Throws shape_mismatch when shape and values differ in count or shape has more
// than 64 axes, bad_option for a bool that is neither 0 nor 1, file_missing when it cannot be written; a file that was
// there before is then unchanged.
void write_npy(const std::filesystem::path& path, const Array& array);
void write_npy(const std::filesystem::path& path, std::span<const float> values, std::span<const std::int64_t> shape);
void write_npy(const std::filesystem::path& path, std::span<const double> values, std::span<const std::int64_t> shape);
void write_npy(const std::filesystem::path& path, std::span<const Float16> values, std::span<const std::int64_t> shape);

// An array of an archive; the elements stay where they are.
struct NamedArray {
  std::string name;  // what numpy.load(path)[name] finds it by
  ElementType type = ElementType::float32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

// Writes arrays as an uncompressed .npz, as numpy.savez does: a zip archive of .npy files. The same arrays give the
// same bytes: every file in it is of 1 January 1980. Through a temporary file, as write_npy. Throws as write_npy does,
// and bad_option: a name that is empty, stands twice or has other characters than A-Z a-z 0-9 _ . -, or ends in .npy;
// more than 65,535 arrays, or 4 GiB of them, which is what a zip archive holds.
void write_npz(const std::filesystem::path& path, std::span<const NamedArray> arrays);

// Writes a file of any kind as write_npy does: through a temporary file beside it. Throws file_missing likewise.
void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace multihead
