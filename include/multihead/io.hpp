// SPDX-License-Identifier: Apache-2.0
// Files: .npy matrices and tensors in and out, trusting no byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "multihead/tensor.hpp"

namespace multihead {

enum class ElementType { float32, float64 };

// One array of a .npy file, row-major (C order), in the machine's byte order.
struct Array {
  ElementType type = ElementType::float32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;

  // The product of shape, 1 when it is empty; -1 when an extent is negative or the size passes 63 bits.
  std::int64_t count() const noexcept;
  // The elements as T, float or double. Throws bad_option when T is not the array's type, shape_mismatch when shape
  // and bytes were changed to disagree.
  template <class T>
  std::span<const T> values() const;
  // The elements converted to T (float to double is exact, double to float rounds to nearest).
  template <class T>
  std::vector<T> converted() const;
};

// Reads a NumPy .npy file, versions 1.0, 2.0 and 3.0. Accepted: little-endian float32 and float64, C order or Fortran
// order (transposed on the way in). Refused with file_malformed and a sentence that names file, byte offset and rule:
// anything else (structured or pickled data, big-endian, other types, headers over 10,000 characters, more than 64
// axes, sizes that do not match the file). file_missing: it cannot be opened or is not a regular file. Nothing larger
// than the file is allocated, and nothing before the header is checked; out_of_memory when that fails.
Array read_npy(const std::filesystem::path& path);
// The same from bytes; name stands for the file in sentences.
Array parse_npy(std::span<const std::byte> bytes, const std::string& name);

// Writes version 1.0, C order, data aligned to 64 bytes, through a temporary file beside it that is renamed when it is
// complete: the bytes numpy.save writes. Throws shape_mismatch when shape and values differ in count or shape has more
// than 64 axes, file_missing when it cannot be written; a file that was there before is then unchanged.
void write_npy(const std::filesystem::path& path, std::span<const float> values, std::span<const std::int64_t> shape);
void write_npy(const std::filesystem::path& path, std::span<const double> values, std::span<const std::int64_t> shape);

}  // namespace multihead
