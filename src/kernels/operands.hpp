// SPDX-License-Identifier: Apache-2.0
// The operands of attention(): what their extents say, and the rules they keep to.
#pragma once

#include "core/validate.hpp"
#include "multihead/attention.hpp"

namespace multihead {

template <class T>
AttentionShape shape_of(View4<const T> q, View4<const T> k, View4<const T> v) {
  return {.type = sizeof(T) == sizeof(float) ? Type::float32 : Type::float64,
          .batch = q.extent(0),
          .heads = q.extent(1),
          .kv_heads = k.extent(1),
          .q_len = q.extent(2),
          .kv_len = k.extent(2),
          .head_dim = q.extent(3),
          .value_dim = v.extent(3)};
}

// Extents that agree, contiguous last axes, outputs that are writable and apart from what is read. lse may be null.
template <class T>
void check_operands(const char* function, View4<const T> q, View4<const T> k, View4<const T> v, View4<T> out,
                    const View3<T>* lse) {
  for (const Operand& view : {operand("q", q), operand("k", k), operand("v", v), operand("out", out)}) {
    check_view(function, view);
    check_contiguous(function, view);
  }
  check_equal(function, "k", "has batch", k.extent(0), "q has", q.extent(0));
  check_equal(function, "v", "has batch", v.extent(0), "q has", q.extent(0));
  check_equal(function, "k", "has head_dim", k.extent(3), "q has", q.extent(3));
  check_equal(function, "v", "has kv_heads", v.extent(1), "k has", k.extent(1));
  check_equal(function, "v", "has kv_len", v.extent(2), "k has", k.extent(2));
  check_equal(function, "out", "has batch", out.extent(0), "q has", q.extent(0));
  check_equal(function, "out", "has heads", out.extent(1), "q has", q.extent(1));
  check_equal(function, "out", "has q_len", out.extent(2), "q has", q.extent(2));
  check_equal(function, "out", "has value_dim", out.extent(3), "v has", v.extent(3));
  const auto check_output = [&](const Operand& output) {
    check_writable(function, output);
    for (const Operand& input : {operand("q", q), operand("k", k), operand("v", v)})
      check_apart(function, output, input);
  };
  check_output(operand("out", out));
  if (!lse) return;
  check_view(function, operand("lse", *lse));
  check_equal(function, "lse", "has batch", lse->extent(0), "q has", q.extent(0));
  check_equal(function, "lse", "has heads", lse->extent(1), "q has", q.extent(1));
  check_equal(function, "lse", "has q_len", lse->extent(2), "q has", q.extent(2));
  check_output(operand("lse", *lse));
  check_apart(function, operand("lse", *lse), operand("out", out));
}

}  // namespace multihead
