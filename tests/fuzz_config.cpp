// SPDX-License-Identifier: Apache-2.0
// libFuzzer entry of config.json's reader: what it accepts keeps the rules that callers build on.
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>

#include "multihead/error.hpp"
#include "multihead/model_files.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void require_from(std::int64_t low, const std::optional<std::int64_t>& value) { require(!value || *value >= low); }

void require_real(double high, const std::optional<double>& value) {
  require(!value || (*value >= 0 && *value <= high));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  multihead::ModelConfig config;
  try {
    config = multihead::parse_config(std::as_bytes(std::span(data, size)), "input");
  } catch (const multihead::Error& error) {
    require(error.code() == multihead::ErrorCode::file_malformed || error.code() == multihead::ErrorCode::unsupported);
    return 0;
  }
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  for (const std::int64_t extent : {config.model_dim, config.layers, config.heads, config.kv_heads, config.head_dim})
    require(extent >= 1 && extent <= kMost);
  require(config.heads % config.kv_heads == 0);
  require(config.layer_types.empty() || config.layer_types.size() == static_cast<std::size_t>(config.layers));
  for (const auto& extent : {config.intermediate_dim, config.vocab_size, config.max_positions, config.sliding_window,
                             config.relative_buckets, config.relative_max_distance})
    require_from(1, extent);
  require_from(0, config.token_types);
  require_from(0, config.pad_token_id);
  require_real(1, config.norm_eps);
  require_real(1, config.partial_rotary_factor);
  for (const auto& real : {config.softcap, config.query_pre_attn_scalar, config.rope_theta}) require_real(1e30, real);
  if (!config.rope_scaling) return 0;
  require_real(1e30, config.rope_scaling->factor);
  require_real(1e30, config.rope_scaling->low_freq_factor);
  require_real(1e30, config.rope_scaling->high_freq_factor);
  require_from(1, config.rope_scaling->original_max_position_embeddings);
  return 0;
}
