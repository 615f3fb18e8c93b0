// SPDX-License-Identifier: Apache-2.0
// Layouts by name: a MultiHeadAttention from the tensors of a known family of checkpoints.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/multi_head_attention.hpp"

namespace multihead {

// A tensor of a checkpoint: row-major, contiguous, the caller's.
template <class T>
struct NamedTensor {
  std::string_view name;
  const T* data = nullptr;
  std::vector<std::int64_t> shape;
};

struct LayoutOptions {
  // What stands before the layer's own names, such as "model.layers.3.self_attn."; tensors whose names begin otherwise
  // belong to something else and are not read.
  std::string_view prefix = {};
  // Names after the prefix that the caller takes care of; without it each is an error.
  std::span<const std::string_view> aside = {};
};

// The layer that these tensors describe (docs/layer.md has the names of each layout). The layout fixes the order of
// weights, the fused order and the kinds of norms; spec gives what tensors do not say: heads, kv_heads, eps, rotary
// (which layouts of models with rotary demand). Throws Error: an unknown layout (the sentence lists the known ones), a
// tensor that is missing, surplus, given twice or of another shape, each by its name; a spec that contradicts the
// layout.
MultiHeadAttention<float> load_layer(std::string_view layout, std::span<const NamedTensor<float>> tensors,
                                     const MultiHeadSpec& spec, const LayoutOptions& options = {});
MultiHeadAttention<double> load_layer(std::string_view layout, std::span<const NamedTensor<double>> tensors,
                                      const MultiHeadSpec& spec, const LayoutOptions& options = {});
MultiHeadAttention<BFloat16> load_layer(std::string_view layout, std::span<const NamedTensor<BFloat16>> tensors,
                                        const MultiHeadSpec& spec, const LayoutOptions& options = {});
MultiHeadAttention<Float16> load_layer(std::string_view layout, std::span<const NamedTensor<Float16>> tensors,
                                       const MultiHeadSpec& spec, const LayoutOptions& options = {});

// The names of layouts, in alphabetical order.
std::vector<std::string_view> layout_names();

// Which output of Wq or Wk for interleaved pairs stands at place `output` of the weight for half-split pairs, and the
// other way round: reorder both weights and their biases so, and the layer with the other pairing gives the same
// scores. 0 <= output, rotary_dim even, at most head_dim.
std::int64_t interleaved_from_half_split(std::int64_t output, std::int64_t head_dim, std::int64_t rotary_dim) noexcept;
std::int64_t half_split_from_interleaved(std::int64_t output, std::int64_t head_dim, std::int64_t rotary_dim) noexcept;

}  // namespace multihead
