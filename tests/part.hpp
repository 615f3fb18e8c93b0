// SPDX-License-Identifier: Apache-2.0
// Parts of a problem as problems of their own: a sequence, some of its rows, some of its keys; and what they answer.
#pragma once

#include <memory>

#include "oracle.hpp"

namespace multihead::testing {

// Rows [q_begin, q_end) and keys [k_begin, k_end) of one sequence in batch entry b. At least one row.
struct Part {
  std::int64_t b, q_begin, q_end, k_begin, k_end;
};

// Every sequence of a problem that has queries: its rows, and the keys that are valid.
std::vector<Part> sequences_of(const Problem& p);
// The problem of a part alone: one batch entry, nothing packed or dropped, its query offset named.
Problem part_of(const Problem& p, const Part& part);
// The problem without dropout, which goes by places in the whole's tensors.
Problem undropped(Problem p);
// The problem, which packs nothing, with one keep mask in the place of ranges, masks and hiding biases.
Problem as_one_mask(const Problem& p);
// The spread with every element written out, in order.
Spread expanded(const Spread& from, const AttentionShape& shape);

template <class T>
View4<T> rows_of(const View4<T>& x, std::int64_t b, std::int64_t begin, std::int64_t end) {
  const std::int64_t offset = begin < end ? b * x.stride(0) + begin * x.stride(2) : 0;
  return View4<T>(x.data() + offset, {1, x.extent(1), end - begin, x.extent(3)}, x.strides());
}

// Tensors as a problem's seed gives them.
template <class T>
struct Tensors {
  Tensor<T> q, k, v;

  explicit Tensors(const Problem& p, bool in_order = false)
      : q({p.shape.batch, p.shape.heads, p.shape.q_len, p.shape.head_dim}, !in_order && p.heads_inside,
          in_order ? 0 : p.padding),
        k({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.head_dim}, !in_order && p.heads_inside,
          in_order ? 0 : p.padding),
        v({p.shape.batch, p.shape.kv_heads, p.shape.kv_len, p.shape.value_dim}, !in_order && p.heads_inside,
          in_order ? 0 : p.padding) {
    Random random(p.seed + 1);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random, p.input_scale);
  }
};

// out and lse of one call.
template <class T>
struct Answer {
  Tensor<T> out;
  std::vector<Sum<T>> lse_values;
  View3<Sum<T>> lse;

  Answer(View4<T> q, View4<T> k, View4<T> v, const AttentionOptions& options)
      : out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)}),
        lse_values(static_cast<std::size_t>(q.extent(0) * q.extent(1) * q.extent(2)) + 1),
        lse(lse_values.data(), {q.extent(0), q.extent(1), q.extent(2)}) {
    attention(View4<const T>(q), View4<const T>(k), View4<const T>(v), out.view, lse, options);
  }
  Answer(Tensors<T>& in, const AttentionOptions& options) : Answer(in.q.view, in.k.view, in.v.view, options) {}
  // Of a part, from the inputs of the whole.
  Answer(Tensors<T>& in, const Part& part, const AttentionOptions& options)
      : Answer(rows_of(in.q.view, part.b, part.q_begin, part.q_end),
               rows_of(in.k.view, part.b, part.k_begin, part.k_end),
               rows_of(in.v.view, part.b, part.k_begin, part.k_end), options) {}

  std::uint64_t bits() const { return hash_bits(lse, hash_bits(out.view)); }
  // Of a part's rows.
  std::uint64_t bits(const Part& part) const {
    const std::int64_t offset = part.b * lse.stride(0) + part.q_begin;
    const View3<Sum<T>> own(lse.data() + offset, {1, lse.extent(1), part.q_end - part.q_begin}, lse.strides());
    return hash_bits(own, hash_bits(rows_of(out.view, part.b, part.q_begin, part.q_end)));
  }
};

}  // namespace multihead::testing
