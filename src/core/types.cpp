// SPDX-License-Identifier: Apache-2.0
// The words for element types, and one element of a type known at run time.
#include "multihead/types.hpp"

#include "core/element.hpp"

namespace multihead {

std::string_view type_name(Type type) noexcept {
  switch (type) {
    case Type::float32:
      return "float32";
    case Type::float64:
      return "float64";
    case Type::bfloat16:
      return "bfloat16";
    case Type::float16:
      return "float16";
  }
  return "unknown";
}

double element_as_double(const void* data, Type type, std::int64_t i) noexcept {
  switch (type) {
    case Type::float32:
      return static_cast<double>(static_cast<const float*>(data)[i]);
    case Type::float64:
      return static_cast<const double*>(data)[i];
    case Type::bfloat16:
      return static_cast<double>(static_cast<float>(static_cast<const BFloat16*>(data)[i]));
    case Type::float16:
      return static_cast<double>(static_cast<float>(static_cast<const Float16*>(data)[i]));
  }
  return 0;
}

}  // namespace multihead
