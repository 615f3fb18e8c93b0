// SPDX-License-Identifier: Apache-2.0
// The rules about extents that must agree and memory that must be apart.
#include "kernels/operands.hpp"

namespace multihead {

void check_output(const char* function, const Operand& output, std::initializer_list<Operand> inputs,
                  const AttentionOptions& options) {
  check_writable(function, output);
  for (const Operand& input : inputs) check_apart(function, output, input);
  const auto check_broadcast = [&](const char* name, const BroadcastView& view, std::size_t element) {
    if (view.data) check_apart(function, output, {name, view.data, element, view.extents, view.strides});
  };
  check_broadcast("keep_mask", options.keep_mask.view, 1);
  check_broadcast("drop_mask", options.drop_mask.view, 1);
  check_broadcast("bias", options.bias.view, size_of(options.bias.type));
  const RelativeBias& relative = options.relative_bias;
  if (relative.data)
    check_apart(function, output,
                {"relative_bias", relative.data, size_of(relative.type), relative.extents, relative.strides});
  check_apart_from_list(function, output, "lengths", options.lengths);
  check_apart_from_list(function, output, "prefixes", options.prefixes);
  check_apart_from_list(function, output, "the query offsets", options.alignment.offsets());
  check_apart_from_list(function, output, "cu_seqlens_q", options.cu_seqlens_q);
  check_apart_from_list(function, output, "cu_seqlens_k", options.cu_seqlens_k);
  check_apart_from_list(function, output, "alibi_slopes", options.alibi_slopes);
  check_apart_from_list(function, output, "sinks", options.sinks);
  if (options.q_segments.data()) check_apart(function, output, operand("q_segments", options.q_segments));
  if (options.kv_segments.data()) check_apart(function, output, operand("kv_segments", options.kv_segments));
}

void check_rows_extents(const char* function, const Operand& view, const AttentionShape& shape) {
  check_view(function, view);
  check_equal(function, view.name, "has batch", view.extents[0], "q has", shape.batch);
  check_equal(function, view.name, "has heads", view.extents[1], "q has", shape.heads);
  check_equal(function, view.name, "has q_len", view.extents[2], "q has", shape.q_len);
}

void check_inputs(const char* function, const Operand& q, const Operand& k, const Operand& v) {
  check_equal(function, "k", "has batch", k.extents[0], "q has", q.extents[0]);
  check_equal(function, "v", "has batch", v.extents[0], "q has", q.extents[0]);
  check_equal(function, "k", "has head_dim", k.extents[3], "q has", q.extents[3]);
  check_equal(function, "v", "has kv_heads", v.extents[1], "k has", k.extents[1]);
  check_equal(function, "v", "has kv_len", v.extents[2], "k has", k.extents[2]);
}

void check_operands(const char* function, const AttentionOperands& operands, const AttentionOptions& options) {
  const auto& [q, k, v, out, lse] = operands;
  for (const Operand* view : {&q, &k, &v, &out}) {
    check_view(function, *view);
    check_contiguous(function, *view);
  }
  check_inputs(function, q, k, v);
  check_equal(function, "out", "has batch", out.extents[0], "q has", q.extents[0]);
  check_equal(function, "out", "has heads", out.extents[1], "q has", q.extents[1]);
  check_equal(function, "out", "has q_len", out.extents[2], "q has", q.extents[2]);
  check_equal(function, "out", "has value_dim", out.extents[3], "v has", v.extents[3]);
  check_output(function, out, {q, k, v}, options);
  if (!lse) return;
  const AttentionShape rows{.batch = q.extents[0], .heads = q.extents[1], .q_len = q.extents[2]};
  check_rows_extents(function, *lse, rows);
  check_output(function, *lse, {q, k, v, out}, options);
}

}  // namespace multihead
