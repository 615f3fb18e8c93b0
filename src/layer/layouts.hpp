// SPDX-License-Identifier: Apache-2.0
// The table of layouts: which names a family gives to which parameter, and with which extents.
#pragma once

#include <span>
#include <string_view>

#include "multihead/multi_head_attention.hpp"

namespace multihead {

enum class Slot { q, k, v, qkv, out, q_bias, k_bias, v_bias, qkv_bias, out_bias, bias_k, bias_v, q_norm, k_norm };
constexpr int kSlots = 14;

// Extents by letters, outermost first:
//   E model_dim   k kdim   v vdim   O out_dim   H heads   G kv_heads   d head_dim   D value_dim   1 one
//   Q heads * head_dim   K kv_heads * head_dim   V kv_heads * value_dim   X heads * value_dim   F the three of qkv
struct LayoutTensor {
  Slot slot;
  std::string_view name;  // dots and slashes are the same
  std::string_view shape;
  bool required = true;
};

// A form of a layout. A layout may have several; the first whose sign is among the tensors is taken, else the last.
struct LayoutForm {
  std::string_view layout, sign;
  WeightOrder order;
  std::span<const LayoutTensor> tensors;
  std::span<const std::string_view> not_parameters = {};  // what stands beside them and is no parameter of attention
  FusedOrder fused_order = FusedOrder::blocks;
  bool rotary = false;    // half-split, always
  bool unscaled = false;  // scores have scale 1
  HeadNorm::Kind head_norm = HeadNorm::Kind::none;
};

// In alphabetical order of layouts.
std::span<const LayoutForm> layout_forms() noexcept;

}  // namespace multihead
