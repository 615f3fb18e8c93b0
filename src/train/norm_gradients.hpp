// SPDX-License-Identifier: Apache-2.0
// Gradients of norms over many vectors, their parameters' summed in fixed blocks of rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "kernels/table.hpp"
#include "multihead/layer.hpp"

namespace multihead {

constexpr std::int64_t kNormBlock = 256;  // rows whose sums are one chain

// Bytes of scratch for the sums of each block.
template <class T>
std::size_t norm_back_scratch(const NormBackTask<T>& task) {
  const std::int64_t blocks = (task.x.rows + kNormBlock - 1) / kNormBlock;
  const std::int64_t vectors = blocks * ((task.d_weight ? 1 : 0) + (task.d_bias ? 1 : 0));
  return round_to_line(static_cast<std::size_t>(vectors * task.width) * sizeof(T));
}

// The whole task, its rows shared out: each block of rows sums to memory of its own, and the blocks are added to
// d_weight and d_bias in order.
template <class T>
void run_norm_back(const NormBackTask<T>& task, const LayerOptions& options, const KernelTable& table, T* memory) {
  const std::int64_t rows = task.x.rows, width = task.width, blocks = (rows + kNormBlock - 1) / kNormBlock;
  T* const weights = task.d_weight ? memory : nullptr;
  T* const biases = task.d_bias ? memory + (task.d_weight ? blocks * width : 0) : nullptr;
  parallel_for(blocks, options.threads, options.parallel_for, [&](int, std::int64_t block) {
    const std::int64_t first = block * kNormBlock, count = std::min(kNormBlock, rows - first);
    NormBackTask<T> part = task;
    const auto cut = [&](auto& grid) {
      if (grid.data) grid.data += first * grid.row_stride;
      grid.rows = count;
    };
    cut(part.x), cut(part.d_y), cut(part.d_x);
    part.d_weight = weights ? weights + block * width : nullptr;
    part.d_bias = biases ? biases + block * width : nullptr;
    if (weights) std::fill_n(part.d_weight, width, T(0));
    if (biases) std::fill_n(part.d_bias, width, T(0));
    table.kernels<T>().normalise_back(part);
  });
  const FloatMode mode;
  for (std::int64_t block = 0; block < blocks; ++block)
    for (std::int64_t i = 0; i < width; ++i) {
      if (weights) task.d_weight[i] += weights[block * width + i];
      if (biases) task.d_bias[i] += biases[block * width + i];
    }
}

}  // namespace multihead
