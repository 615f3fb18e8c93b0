// SPDX-License-Identifier: Apache-2.0
// From exceptions to statuses: what only C can get wrong, and the sentence of a thread's last failure.
#pragma once

#include <stdexcept>
#include <string>

#include "multihead/error.hpp"
#include "multihead/multihead.h"

namespace multihead::c {

// A fault that the types of C++ rule out: its status is MH_BAD_TYPE or MH_BAD_ARGUMENT.
class Refusal : public std::runtime_error {
 public:
  Refusal(mh_status status, const std::string& sentence) : std::runtime_error(sentence), status_(status) {}
  mh_status status() const noexcept { return status_; }

 private:
  mh_status status_;
};

// "function: rule".
[[noreturn]] void bad_argument(const char* function, const std::string& rule);
[[noreturn]] void bad_type(const char* function, const std::string& rule);
[[noreturn]] void bad_option(const char* function, const std::string& rule);
[[noreturn]] void shape_mismatch(const char* function, const std::string& rule);

// The status of the exception that is being handled; its sentence is kept for this thread. Allocates nothing.
mh_status caught() noexcept;

// Runs body, through which no exception leaves.
template <class Body>
mh_status guarded(const Body& body) noexcept {
  try {
    body();
    return MH_OK;
  } catch (...) {
    return caught();
  }
}

// Throws for a pointer that must be given.
inline void wanted(const char* function, const char* name, const void* pointer) {
  if (!pointer) bad_argument(function, std::string(name) + " is NULL; it must be given");
}
// Throws for what is no value of an enumeration that counts from 0 or 1.
void check_enumerated(const char* function, const char* name, int32_t value, int32_t first, int32_t last);
void check_flag(const char* function, const char* name, int32_t value);
void check_reserved(const char* function, const char* name, int32_t value);

}  // namespace multihead::c
