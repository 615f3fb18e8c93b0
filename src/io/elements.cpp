// SPDX-License-Identifier: Apache-2.0
// The elements of stored tensors, in place or converted.
#include <array>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "io/dtypes.hpp"
#include "io/file.hpp"
#include "io/stored_tensor.hpp"
#include "multihead/error.hpp"
#include "multihead/safetensors.hpp"

namespace multihead {

namespace {

struct Bool {
  std::uint8_t byte;
  explicit operator std::int64_t() const noexcept { return byte != 0; }
};

template <class T, class Stored>
T converted(Stored value) noexcept {
  if constexpr (std::is_same_v<Stored, Float16> || std::is_same_v<Stored, BFloat16>)
    return static_cast<T>(static_cast<float>(value));
  else
    return static_cast<T>(value);
}

// A dtype that can be had as T, and how.
template <class T>
struct Source {
  std::string_view dtype;
  std::size_t width;
  void (*copy)(const std::byte* from, std::span<T> to);
};

template <class T, class Stored>
constexpr Source<T> source(std::string_view dtype) {
  return {dtype, sizeof(Stored), [](const std::byte* from, std::span<T> to) {
            if constexpr (std::is_same_v<T, Stored>) {
              std::memcpy(to.data(), from, to.size_bytes());  // a NaN keeps its payload
            } else {
              for (T& element : to) {
                Stored value;
                std::memcpy(&value, from, sizeof value);
                element = converted<T>(value);
                from += sizeof value;
              }
            }
          }};
}

// The first one is T itself.
template <class T>
constexpr auto sources() {
  if constexpr (std::is_same_v<T, std::int64_t>)
    return std::array{source<T, std::int64_t>("I64"),  source<T, std::int32_t>("I32"), source<T, std::int16_t>("I16"),
                      source<T, std::int8_t>("I8"),    source<T, std::uint8_t>("U8"),  source<T, std::uint16_t>("U16"),
                      source<T, std::uint32_t>("U32"), source<T, Bool>("BOOL")};
  else if constexpr (std::is_same_v<T, double>)
    return std::array{source<T, double>("F64"), source<T, float>("F32"), source<T, Float16>("F16"),
                      source<T, BFloat16>("BF16")};
  else
    return std::array{source<T, float>("F32"), source<T, double>("F64"), source<T, Float16>("F16"),
                      source<T, BFloat16>("BF16")};
}

template <class T>
const Source<T>& source_of(const StoredTensor& tensor) {
  static constexpr auto kSources = sources<T>();
  std::string accepted;
  for (const Source<T>& known : kSources) {
    if (known.dtype == tensor.dtype) return known;
    if (!accepted.empty()) accepted += &known == &kSources.back() ? " and " : ", ";
    accepted += known.dtype;
  }
  const char* const wanted = std::is_same_v<T, std::int64_t> ? "int64"
                             : std::is_same_v<T, double>     ? "float64"
                                                             : "float32";
  throw Error(ErrorCode::unsupported, "Elements: " + io::tensor_text(tensor.name) + " is stored as " +
                                          io::printable(tensor.dtype) + "; " + wanted + " is had from " + accepted);
}

}  // namespace

template <class T>
Elements<T>::Elements(const StoredTensor& tensor) {
  const Source<T>& source = source_of<T>(tensor);
  const io::Dtype& dtype = io::kDtypes[io::dtype_of(tensor.dtype)];
  io::check_size("Elements", tensor, dtype);
  const std::size_t count = tensor.bytes.size() / source.width;
  const bool aligned = reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % alignof(T) == 0;
  if (count == 0) return;
  if (dtype.name == sources<T>().front().dtype && aligned) {
    in_place_ = {reinterpret_cast<const T*>(tensor.bytes.data()), count};
    return;
  }
  try {
    copy_.resize(count);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::out_of_memory, "Elements: " + io::tensor_text(tensor.name) + ": " +
                                              std::to_string(count * sizeof(T)) + " bytes could not be allocated");
  }
  source.copy(tensor.bytes.data(), copy_);
}

template class Elements<float>;
template class Elements<double>;
template class Elements<std::int64_t>;

}  // namespace multihead
