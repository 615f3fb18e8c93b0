// SPDX-License-Identifier: Apache-2.0
// Weights in files: .safetensors, mapped into memory and written, and the folder of a model that holds one or several.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "multihead/types.hpp"

namespace multihead {

// A tensor of a file, where it lies.
struct StoredTensor {
  std::string_view name;
  std::string_view dtype;  // as the file writes it: "F32", "F64", "F16", "BF16", "I64", "BOOL" ..
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;  // row-major, little-endian, at any address
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

// What a reader accepts at most.
struct SafetensorsLimits {
  std::uint64_t header_bytes = std::uint64_t{16} << 20;  // also of an index; 100,000,000 is the format's own limit
  std::size_t tensors = 1'000'000;
};

// A .safetensors file, open to be read (docs/formats.md has every rule). Opening maps it and reads the header; tensors
// stay in the file until they are touched, unchanged as long as the file is replaced by renaming, as writers of the
// format do. Copies share the map; immutable, safe to use from many threads.
class Safetensors {
 public:
  // Throws file_missing: it cannot be opened or is not a regular file. file_malformed: it breaks a rule; the sentence
  // names file, byte offset or tensor, and rule. bad_option: limits beyond the format's. Nothing is allocated that the
  // size of the file does not justify.
  explicit Safetensors(const std::filesystem::path& path, const SafetensorsLimits& limits = {});
  // The same from bytes, which stay the caller's and must outlive the object; name stands for the file in sentences.
  static Safetensors parse(std::span<const std::byte> bytes, const std::string& name,
                           const SafetensorsLimits& limits = {});

  std::span<const StoredTensor> tensors() const noexcept;          // in ascending order of names
  const StoredTensor* find(std::string_view name) const noexcept;  // null: there is none
  const Metadata& metadata() const noexcept;                       // in ascending order of keys

  struct State;

 private:
  explicit Safetensors(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

// A model's folder: the tensors of model.safetensors or, where that is absent, of the files that
// model.safetensors.index.json names. Copies share the maps.
class Checkpoint {
 public:
  // Throws as Safetensors does; file_missing when the folder holds neither. The index must name a file in the folder
  // for each tensor, without a separator in its name, and each file must hold just the tensors that the index says: so
  // no tensor is in two files. model.safetensors alone is read where there is one.
  explicit Checkpoint(const std::filesystem::path& folder, const SafetensorsLimits& limits = {});

  const std::filesystem::path& folder() const noexcept;
  std::span<const StoredTensor> tensors() const noexcept;  // in ascending order of names
  const StoredTensor* find(std::string_view name) const noexcept;

  struct State;

 private:
  std::shared_ptr<const State> state_;
};

// The elements of a tensor as T: where they lie if they are stored as T and aligned for it, otherwise a copy.
//   float, double                from F64, F32, F16, BF16: exact or rounded to nearest
//   std::int64_t                 from I64, I32, I16, I8, U8, U16, U32, BOOL (1 for any byte but 0)
template <class T>
class Elements {
 public:
  // Throws, naming the tensor: unsupported for any other dtype, shape_mismatch when shape and bytes disagree.
  explicit Elements(const StoredTensor& tensor);
  std::span<const T> values() const noexcept { return copy_.empty() ? in_place_ : std::span<const T>(copy_); }
  bool in_place() const noexcept { return copy_.empty(); }

 private:
  std::span<const T> in_place_;  // valid as long as the tensor's file is open
  std::vector<T> copy_;
};

extern template class Elements<float>;
extern template class Elements<double>;
extern template class Elements<std::int64_t>;

// Writes tensors byte for byte as the reference writer does: header padded with spaces to 8 bytes, tensors by dtype,
// wide ones first (U64, I64, F64, C64, F32, U32, I32, BF16, F16, U16, I16, then smaller ones), then by name. Keys of
// metadata, which that writer leaves in any order, ascend. The file is written under another name beside it and renamed
// when it is complete. Throws bad_option for a dtype that is not one; a name that is empty, __metadata__, given twice,
// not UTF-8 or has a NUL; metadata that are not UTF-8 or have a key twice; a header beyond 100,000,000 bytes.
// shape_mismatch when shape and bytes disagree. file_missing when it cannot be written: a file that was there before is
// then unchanged.
void write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                       const Metadata& metadata = {});

}  // namespace multihead
