// SPDX-License-Identifier: Apache-2.0
// The rules of GenerateOptions.
#pragma once

#include <cmath>
#include <string>

#include "models/call_checks.hpp"
#include "multihead/generate.hpp"

namespace multihead {

inline void check_generate_options(const char* function, const GenerateOptions& options) {
  const auto refuse = [&](const std::string& rule) { fail(function, ErrorCode::bad_option, rule); };
  if (options.max_tokens < 1) refuse("max_tokens is " + std::to_string(options.max_tokens) + "; it must be at least 1");
  if (!std::isfinite(options.temperature) || options.temperature < 0)
    refuse("temperature is " + std::to_string(options.temperature) + "; it must be finite and at least 0");
  if (options.top_k && *options.top_k < 1)
    refuse("top_k is " + std::to_string(*options.top_k) + "; it must be at least 1");
  if (options.top_p && !(*options.top_p > 0 && *options.top_p <= 1))
    refuse("top_p is " + std::to_string(*options.top_p) + "; it must be above 0 and at most 1");
  for (const std::string& stop : options.stop)
    if (stop.empty()) refuse("a stop text is empty; it must have a letter");
}

}  // namespace multihead
