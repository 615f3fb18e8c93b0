// SPDX-License-Identifier: Apache-2.0
// The operands of attention(): what their extents say, and the rules they keep to.
#pragma once

#include <initializer_list>
#include <optional>

#include "core/validate.hpp"
#include "multihead/attention.hpp"

namespace multihead {

template <class S>
AttentionShape shape_of(const View4<const S>& q, const View4<const S>& k, const View4<const S>& v) {
  return {.type = kTypeOf<S>,
          .batch = q.extent(0),
          .heads = q.extent(1),
          .kv_heads = k.extent(1),
          .q_len = q.extent(2),
          .kv_len = k.extent(2),
          .head_dim = q.extent(3),
          .value_dim = v.extent(3)};
}

// What a call reads and writes. The views must outlive it.
struct AttentionOperands {
  Operand q, k, v, out;
  std::optional<Operand> lse;
};

template <class S>
AttentionOperands operands_of(const View4<const S>& q, const View4<const S>& k, const View4<const S>& v,
                              const View4<S>& out, const View3<Sum<S>>& lse) {
  return {operand("q", q), operand("k", k), operand("v", v), operand("out", out),
          given(lse) ? std::optional(operand("lse", lse)) : std::nullopt};
}

// Queries, keys and values whose extents agree.
void check_inputs(const char* function, const Operand& q, const Operand& k, const Operand& v);

// Extents that agree, contiguous last axes, outputs that are writable and apart from each other and from what is read.
void check_operands(const char* function, const AttentionOperands& operands, const AttentionOptions& options);

// A list that a call reads as it goes, as a view, which an Operand must not outlive.
template <class T>
View<const T, 1> view_of(std::span<const T> list) {
  return {list.data(), {static_cast<std::int64_t>(list.size())}};
}
using ListView = View<const std::int64_t, 1>;

// An output is apart from such a list.
template <class T>
void check_apart_from_list(const char* function, const Operand& output, const char* name, std::span<const T> list) {
  if (!list.empty()) check_apart(function, output, operand(name, view_of(list)));
}

// An output is writable and apart from q, k, v, and from everything that the options point to.
void check_output(const char* function, const Operand& output, std::initializer_list<Operand> inputs,
                  const AttentionOptions& options);

// (batch, heads, q_len) of what is written or read a row.
void check_rows_extents(const char* function, const Operand& view, const AttentionShape& shape);

}  // namespace multihead
