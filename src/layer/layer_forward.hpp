// SPDX-License-Identifier: Apache-2.0
// The steps of MultiHeadAttention::forward for those who keep what lies between them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/parallel.hpp"
#include "kernels/table.hpp"
#include "layer/layer_buffers.hpp"

namespace multihead {

// All of a checked call.
template <class T>
void run_layer(const LayerCall<T>& call, const KernelTable& table, const LayerBuffers<T>& buffers);

// Whether key and value are query itself.
template <class T>
bool is_self(const View3<const T>& query, const View3<const T>& key, const View3<const T>& value) {
  const auto same = [&](const View3<const T>& x) {
    return x.data() == query.data() && x.extents() == query.extents() && x.strides() == query.strides();
  };
  return same(key) && same(value);
}

// Queries or keys, (batch, length, heads * head_dim), and their positions as a call gives them, or none.
struct HeadRows {
  std::int64_t length, heads;
  MatrixView<const std::int64_t> positions;
};

constexpr std::int64_t kTurnedTogether = 48;  // rows of a task

// The heads turned in place by their positions, where the layer has a rotary embedding; back: by the negative angles.
template <class T, class S>
void turn_heads(const LayerCall<T>& call, const KernelTable& table, S* x, const HeadRows& rows, bool back) {
  const auto& layer = call.layer;
  if (layer.rotary_half == 0) return;
  MatrixView<const std::int64_t> positions = rows.positions;
  if (positions.data() == nullptr) positions = {layer.positions.data(), {call.batch, rows.length}, {0, 1}};
  const std::int64_t blocks = chunks(rows.length, kTurnedTogether), width = rows.heads * layer.e.head_dim;
  const AttentionOptions& options = call.options.attention;
  parallel_for(call.batch * blocks, options.threads, options.parallel_for, [&](int, std::int64_t index) {
    const std::int64_t b = index / blocks, first = index % blocks * kTurnedTogether;
    const std::int64_t count = std::min(kTurnedTogether, rows.length - first);
    S* const vectors = x + (b * rows.length + first) * width;
    table.kernels<S>().rotate({{vectors, width, layer.e.head_dim, count, rows.heads},
                               {vectors, width, layer.e.head_dim, count, rows.heads},
                               layer.e.head_dim,
                               layer.rotary_half,
                               layer.spec.rotary->pairing == RotaryPairing::interleaved,
                               layer.cos.data(),
                               layer.sin.data(),
                               layer.rotary_half,
                               layer.rotary_half,
                               positions.data() + b * positions.stride(0) + first * positions.stride(1),
                               positions.stride(1),
                               back});
  });
}

}  // namespace multihead
