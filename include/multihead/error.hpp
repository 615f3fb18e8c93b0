// SPDX-License-Identifier: Apache-2.0
// The one exception of the library: a code to branch on and a sentence to read.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace multihead {

enum class ErrorCode {
  shape_mismatch,  // extents, strides or sizes do not fit together
  bad_option,      // an option is out of range or contradicts another
  unsupported,     // a combination that is not built, or a target this machine lacks
  file_missing,    // a file cannot be opened, read or written
  file_malformed,  // a file breaks a rule of its format
  non_finite,      // a training met NaN or infinity
  out_of_memory,   // scratch given is too small, or an allocation failed
};

// The word of a code: "shape_mismatch". Never throws.
std::string_view error_name(ErrorCode code) noexcept;

// Thrown at the door only: from argument checks and from files, before any output is written. The sentence
// names function, argument, value and rule: "attention: k has head_dim 64, q has 80; they must be equal".
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace multihead
