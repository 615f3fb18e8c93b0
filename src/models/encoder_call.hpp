// SPDX-License-Identifier: Apache-2.0
// The rules of a call of Encoder.
#pragma once

#include "models/call_checks.hpp"
#include "models/encoder_state.hpp"

namespace multihead {

struct EncoderCall {
  const Encoder::State& encoder;
  const EncoderInput& input;
  const MatrixView<float>& output;
  const LayerOptions& options;
  const EncoderRequests& requests;

  std::int64_t tokens() const { return static_cast<std::int64_t>(input.ids.size()); }
  // Throws Error.
  void check() const;
};

}  // namespace multihead
