// SPDX-License-Identifier: Apache-2.0
// A step of the backward pass: up to kRowBlock query rows of a head against one block of keys.
#pragma once

#include <cstdint>

#include "kernels/table.hpp"

namespace multihead {

// Where the rows' dS go: element (row, key), both of the step, at data[row * row_stride + key * key_stride], a sum that
// grows; of an axis that is summed over, the first element alone. data null: nowhere.
template <class T>
struct BiasGradient {
  T* data = nullptr;
  std::int64_t row_stride = 0, key_stride = 0;
  bool sums_rows = false, sums_keys = false;
};

// T: the type of the sums. Gradients are unscaled, and null where nobody asks.
template <class T>
struct BackwardTask {
  AttentionTask<T> attention;  // q, k, v and terms; with needs.type that of the sums, and its scratch
  StoredRows d_out;            // (rows, value_dim)
  const T* lse;                // (rows) with a stride
  std::int64_t lse_stride;
  const T* row_terms;  // (rows): D
  std::int64_t key;    // of the sequence: the block's first
  bool opens;          // the first step of its block: keys and values are to be read
  T* d_q;              // (rows, head_dim), grows
  std::int64_t d_q_stride;
  T *d_k, *d_v;       // (kKeyBlock, padded_width()), grow
  bool wants_scores;  // dS is needed
  BiasGradient<T> bias;
  double* slope;                // grows
  double* table;                // (buckets), grows
  const std::int32_t* buckets;  // at distance key - position from -max_distance to max_distance
  T* work;                      // backward_work_elements()
};

// D of up to kRowBlock rows: sum over the channels of d_out out, less d_lse.
template <class T>
struct RowTermsTask {
  StoredRows out, d_out;  // (rows, value_dim)
  const T* d_lse;         // (rows) with a stride, or null
  std::int64_t d_lse_stride;
  int rows, value_dim;
  T* row_terms;  // (rows)
  T* work;       // row_terms_work_elements()
};

// Rows that every step reads whole registers of: a multiple of the widest one.
constexpr std::int64_t padded_width(std::int64_t width) { return (width + kSumChains - 1) / kSumChains * kSumChains; }

// What a step's operands take, which end with whole registers or, where products are those of tiles
// (backward_tiles.inl.hpp), with whole tiles.
struct BackwardExtents {
  std::int64_t inner;             // elements that a tile's product adds up, or 1
  std::int64_t rows;              // of a step, the last ones being zeros
  std::int64_t q_width, v_width;  // of a row of q or k, of d_out or v
  // Of tiles alone, in elements: panels of q and d_out; P Z, dx and dx turned, two to an element; an edge of dQ.
  std::int64_t panels, factors, edge;

  constexpr BackwardExtents(std::int64_t head_dim, std::int64_t value_dim, bool tiles)
      : inner(tiles ? 32 : 1),
        rows((kRowBlock + inner - 1) / inner * inner),
        q_width((padded_width(head_dim) + inner - 1) / inner * inner),
        v_width((padded_width(value_dim) + inner - 1) / inner * inner),
        panels(tiles ? (q_width + v_width) / 2 * kRowBlock : 0),
        factors(tiles ? kKeyBlock * (rows + kRowBlock / 2) : 0),
        edge(tiles ? inner * inner : 0) {}

  constexpr std::int64_t elements() const { return (rows + kKeyBlock) * (q_width + v_width) + panels + factors + edge; }
};

// BackwardRows takes its memory in this order.
constexpr std::int64_t kBackwardLines = 2;
constexpr std::size_t backward_work_elements(const BackwardExtents& extents, bool softcap) {
  const std::int64_t lines = kBackwardLines + kKeyBlock * (softcap ? 2 : 1) + kDistanceLines;
  return static_cast<std::size_t>(lines * kRowBlock + extents.elements() + kSumChains);
}
constexpr std::size_t row_terms_work_elements(std::int64_t value_dim) {
  return static_cast<std::size_t>(kRowBlock * (3 * padded_width(value_dim) + 1));
}

}  // namespace multihead
