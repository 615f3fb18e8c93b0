// SPDX-License-Identifier: Apache-2.0
// ONNX's operators through the public functions of the library, one case at a time.
#pragma once

#include "case.hpp"
#include "judge.hpp"
#include "multihead/multihead.hpp"

namespace multihead::onnx {

// Each runs the case on the target and judges every output it names. Throws Malformed for a case that contradicts its
// operator, Skipped for what the library does not take, and Error where the library refuses the call.
void run_attention(const Case& c, Target target, Judge& judge);         // attention(), write_cache()
void run_rotary_embedding(const Case& c, Target target, Judge& judge);  // rotary_embedding()
void run_tensor_scatter(const Case& c, Judge& judge);                   // write_cache()

}  // namespace multihead::onnx
