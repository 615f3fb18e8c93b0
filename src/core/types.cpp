// SPDX-License-Identifier: Apache-2.0
// The words for element types.
#include "multihead/types.hpp"

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

}  // namespace multihead
