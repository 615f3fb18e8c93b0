// SPDX-License-Identifier: Apache-2.0
// The words of the error codes, the version, and the compiler.
#include "multihead/error.hpp"

#include <array>
#include <utility>

#include "multihead/multihead.hpp"

namespace multihead {

namespace {

constexpr std::array<std::pair<ErrorCode, std::string_view>, 7> kNames{{
    {ErrorCode::shape_mismatch, "shape_mismatch"},
    {ErrorCode::bad_option, "bad_option"},
    {ErrorCode::unsupported, "unsupported"},
    {ErrorCode::file_missing, "file_missing"},
    {ErrorCode::file_malformed, "file_malformed"},
    {ErrorCode::non_finite, "non_finite"},
    {ErrorCode::out_of_memory, "out_of_memory"},
}};

#define MULTIHEAD_TEXT_OF(x) #x
#define MULTIHEAD_TEXT(x) MULTIHEAD_TEXT_OF(x)

}  // namespace

std::string_view error_name(ErrorCode code) noexcept {
  for (const auto& [known, name] : kNames)
    if (known == code) return name;
  return "unknown";
}

const char* version() noexcept {
  return MULTIHEAD_TEXT(MULTIHEAD_VERSION_MAJOR) "." MULTIHEAD_TEXT(MULTIHEAD_VERSION_MINOR) "." MULTIHEAD_TEXT(
      MULTIHEAD_VERSION_PATCH);
}

const char* compiler() noexcept {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "g++ " __VERSION__;
#else
  return "unknown";
#endif
}

}  // namespace multihead
