// SPDX-License-Identifier: Apache-2.0
// Statuses, their words, and this thread's sentence.
#include "status.hpp"

#include <array>
#include <cstring>
#include <exception>
#include <new>

namespace multihead::c {

namespace {

constexpr std::size_t kSentence = 2048;  // bytes of a sentence that are kept, the last one 0
thread_local std::array<char, kSentence> last_sentence{};

void keep(const char* sentence) noexcept {
  std::size_t length = std::strlen(sentence);
  if (length >= kSentence) {
    length = kSentence - 1;
    while (length > 0 && (static_cast<unsigned char>(sentence[length]) & 0xC0u) == 0x80u) --length;  // whole letters
  }
  std::memcpy(last_sentence.data(), sentence, length);
  last_sentence[length] = 0;
}

mh_status status_of(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::shape_mismatch:
      return MH_SHAPE_MISMATCH;
    case ErrorCode::bad_option:
      return MH_BAD_OPTION;
    case ErrorCode::unsupported:
      return MH_UNSUPPORTED;
    case ErrorCode::file_missing:
      return MH_FILE_MISSING;
    case ErrorCode::file_malformed:
      return MH_FILE_MALFORMED;
    case ErrorCode::non_finite:
      return MH_NON_FINITE;
    case ErrorCode::out_of_memory:
      return MH_OUT_OF_MEMORY;
  }
  return MH_INTERNAL_ERROR;
}

std::string sentence_of(const char* function, const std::string& rule) { return std::string(function) + ": " + rule; }

}  // namespace

void bad_argument(const char* function, const std::string& rule) {
  throw Refusal(MH_BAD_ARGUMENT, sentence_of(function, rule));
}
void bad_type(const char* function, const std::string& rule) {
  throw Refusal(MH_BAD_TYPE, sentence_of(function, rule));
}
void bad_option(const char* function, const std::string& rule) {
  throw Error(ErrorCode::bad_option, sentence_of(function, rule));
}
void shape_mismatch(const char* function, const std::string& rule) {
  throw Error(ErrorCode::shape_mismatch, sentence_of(function, rule));
}

mh_status caught() noexcept {
  try {
    throw;
  } catch (const Refusal& refusal) {
    keep(refusal.what());
    return refusal.status();
  } catch (const Error& error) {
    keep(error.what());
    return status_of(error.code());
  } catch (const std::bad_alloc&) {
    keep("an allocation failed");
    return MH_OUT_OF_MEMORY;
  } catch (const std::exception& fault) {
    keep(fault.what());
    return MH_INTERNAL_ERROR;
  } catch (...) {
    keep("something was thrown that is no exception");
    return MH_INTERNAL_ERROR;
  }
}

void check_enumerated(const char* function, const char* name, int32_t value, int32_t first, int32_t last) {
  if (value < first || value > last)
    bad_argument(function, std::string(name) + " is " + std::to_string(value) + "; it must be " +
                               std::to_string(first) + " to " + std::to_string(last));
}

void check_flag(const char* function, const char* name, int32_t value) {
  if (value != 0 && value != 1)
    bad_argument(function, std::string(name) + " is " + std::to_string(value) + "; it must be 0 or 1");
}

void check_reserved(const char* function, const char* name, int32_t value) {
  if (value != 0) bad_argument(function, std::string(name) + " is " + std::to_string(value) + "; it must be 0");
}

}  // namespace multihead::c

const char* mh_last_error_message(void) { return multihead::c::last_sentence.data(); }

const char* mh_status_string(mh_status status) {
  constexpr std::array<const char*, 11> kWords{"ok",           "shape_mismatch", "bad_option",    "unsupported",
                                               "file_missing", "file_malformed", "out_of_memory", "bad_type",
                                               "bad_argument", "internal_error", "non_finite"};
  return status >= 0 && status < static_cast<mh_status>(kWords.size()) ? kWords[static_cast<std::size_t>(status)]
                                                                       : "unknown";
}
