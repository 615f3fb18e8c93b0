// SPDX-License-Identifier: Apache-2.0
// The rules of a call of Decoder.
#pragma once

#include <cstdint>
#include <vector>

#include "models/call_checks.hpp"
#include "models/decoder_state.hpp"

namespace multihead {

struct DecoderCall {
  const Decoder::State& decoder;
  const DecoderInput& input;
  KvCache& cache;
  const MatrixView<float>& logits;
  const LayerOptions& options;
  const DecoderRequests& requests;
  // Filled by check.
  std::vector<std::int64_t> starts = {};     // cu_seqlens, of one sequence too
  std::vector<std::int64_t> positions = {};  // of each token in its sequence

  std::int64_t tokens() const { return static_cast<std::int64_t>(input.ids.size()); }
  // Throws Error.
  void check();
  // Takes from the cache what the call appended to it.
  void undo() noexcept;

 private:
  void check_cache() const;
  void check_outputs() const;
  void place_tokens();
};

}  // namespace multihead
