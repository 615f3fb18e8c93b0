// SPDX-License-Identifier: Apache-2.0
// The rules of attention_backward(): extents that agree, gradients of what was given, memory that is apart.
#include <array>
#include <span>

#include "kernels/backward.hpp"
#include "kernels/operands.hpp"

namespace multihead {

namespace {

constexpr std::array<const char*, 4> kAxes{"batch", "heads", "q_len", "kv_len"};

void check_like(const char* function, const Operand& view, const Operand& model, const std::array<const char*, 4>& axes,
                const char* of) {
  check_view(function, view);
  check_contiguous(function, view);
  for (std::size_t axis = 0; axis < 4; ++axis)
    check_equal(function, view.name, std::string("has ") + axes[axis], view.extents[axis], of, model.extents[axis]);
}

// An option whose gradient is asked for must be there.
void check_option(const char* function, const char* gradient, const char* option, bool option_given) {
  if (!option_given)
    fail(ErrorCode::bad_option,
         std::string(function) + ": " + gradient + " is asked for without " + option + "; the option must be given");
}

void check_bias_gradient(const char* function, const Operand& view, const AttentionShape& shape, const Bias& bias) {
  check_option(function, view.name, "bias", bias.given());
  check_view(function, view);
  const std::array<std::int64_t, 4> whole{shape.batch, shape.heads, shape.q_len, shape.kv_len};
  for (std::size_t axis = 0; axis < 4; ++axis) {
    const std::int64_t extent = view.extents[axis];
    const bool repeats = bias.view.extents[axis] == 1 && whole[axis] != 1;
    if (extent == 1 || (extent == whole[axis] && !repeats)) continue;
    fail(ErrorCode::shape_mismatch,
         std::string(function) + ": " + view.name + " has " + kAxes[axis] + " " + std::to_string(extent) +
             (repeats ? ", along which bias repeats; it must be 1"
                      : ", q and k have " + std::to_string(whole[axis]) + "; it must be that or 1"));
  }
}

void check_by_head(const char* function, const char* gradient, const char* option, std::span<const double> values,
                   std::span<const double> of) {
  if (values.empty()) return;
  check_option(function, gradient, option, !of.empty());
  check_equal(function, gradient, "has", static_cast<std::int64_t>(values.size()), "heads is",
              static_cast<std::int64_t>(of.size()));
}

// The extents and strides of one number.
constexpr std::array<std::int64_t, 1> kOne{1};

// What a call reads, and where its gradients go. Operands point into views that outlive them.
template <class T>
struct BackwardOperands {
  Operand q, k, v, out, d_out, lse, d_lse;
  View<double, 1> slopes, sinks;
  std::array<Operand, 8> places;
  std::span<Operand> outputs;  // of them, what is asked for

  BackwardOperands(const AttentionForward<T>& forward, const AttentionGradients<T>& gradients)
      : q(operand("q", forward.q)),
        k(operand("k", forward.k)),
        v(operand("v", forward.v)),
        out(operand("out", forward.out)),
        d_out(operand("d_out", forward.d_out)),
        lse(operand("lse", forward.lse)),
        d_lse(operand("d_lse", forward.d_lse)),
        slopes(gradients.alibi_slopes.data(), {static_cast<std::int64_t>(gradients.alibi_slopes.size())}),
        sinks(gradients.sinks.data(), {static_cast<std::int64_t>(gradients.sinks.size())}) {
    std::size_t count = 0;
    const auto add = [&](const char* name, const auto& view) {
      if (given(view)) places[count++] = operand(name, view);
    };
    add("gradients.q", gradients.q), add("gradients.k", gradients.k), add("gradients.v", gradients.v);
    add("gradients.bias", gradients.bias), add("gradients.relative_bias", gradients.relative_bias);
    add("gradients.alibi_slopes", slopes), add("gradients.sinks", sinks);
    if (gradients.scale) places[count++] = {"gradients.scale", gradients.scale, sizeof(double), kOne, kOne};
    outputs = {places.data(), count};
  }
  BackwardOperands(const BackwardOperands&) = delete;

  void check_read(const char* function) const {
    for (const Operand* view : {&q, &k, &v}) {
      check_view(function, *view);
      check_contiguous(function, *view);
    }
    check_inputs(function, q, k, v);
    const std::array<std::int64_t, 4> wanted{q.extents[0], q.extents[1], q.extents[2], v.extents[3]};
    const Operand rows{"", nullptr, 0, wanted, wanted};
    for (const Operand* view : {&out, &d_out})
      check_like(function, *view, rows, {"batch", "heads", "q_len", "value_dim"}, "q and v have");
    const AttentionShape shape{.batch = wanted[0], .heads = wanted[1], .q_len = wanted[2]};
    check_rows_extents(function, lse, shape);
    if (d_lse.data || d_lse.extents[0] || d_lse.extents[1] || d_lse.extents[2])
      check_rows_extents(function, d_lse, shape);
  }
};

}  // namespace

template <class T>
void check_backward(const char* function, const AttentionForward<T>& forward, const AttentionGradients<T>& gradients,
                    const AttentionOptions& options) {
  const BackwardOperands<T> operands(forward, gradients);
  operands.check_read(function);
  const AttentionShape shape = shape_of(forward.q, forward.k, forward.v);
  check_attention(function, shape, options);
  const auto like = [&](const char* name, const View4<T>& view, const Operand& model, const char* heads,
                        const char* length, const char* width) {
    if (!given(view)) return;
    check_like(function, operand(name, view), model, {"batch", heads, length, width},
               (std::string(model.name) + " has").c_str());
  };
  like("gradients.q", gradients.q, operands.q, "heads", "q_len", "head_dim");
  like("gradients.k", gradients.k, operands.k, "kv_heads", "kv_len", "head_dim");
  like("gradients.v", gradients.v, operands.v, "kv_heads", "kv_len", "value_dim");
  if (given(gradients.bias))
    check_bias_gradient(function, operand("gradients.bias", gradients.bias), shape, options.bias);
  check_by_head(function, "gradients.alibi_slopes", "alibi_slopes", gradients.alibi_slopes, options.alibi_slopes);
  check_by_head(function, "gradients.sinks", "sinks", gradients.sinks, options.sinks);
  if (given(gradients.relative_bias)) {
    const Operand table = operand("gradients.relative_bias", gradients.relative_bias);
    check_option(function, table.name, "relative_bias", options.relative_bias.given());
    check_view(function, table);
    check_equal(function, table.name, "has buckets", table.extents[0], "relative_bias has",
                options.relative_bias.extents[0]);
    check_equal(function, table.name, "has heads", table.extents[1], "relative_bias has", shape.heads);
  }
  for (std::size_t i = 0; i < operands.outputs.size(); ++i) {
    check_output(function, operands.outputs[i],
                 {operands.q, operands.k, operands.v, operands.out, operands.lse, operands.d_out, operands.d_lse},
                 options);
    for (std::size_t j = 0; j < i; ++j) check_apart(function, operands.outputs[i], operands.outputs[j]);
  }
}

template void check_backward(const char*, const AttentionForward<float>&, const AttentionGradients<float>&,
                             const AttentionOptions&);
template void check_backward(const char*, const AttentionForward<double>&, const AttentionGradients<double>&,
                             const AttentionOptions&);
template void check_backward(const char*, const AttentionForward<BFloat16>&, const AttentionGradients<BFloat16>&,
                             const AttentionOptions&);
template void check_backward(const char*, const AttentionForward<Float16>&, const AttentionGradients<Float16>&,
                             const AttentionOptions&);

}  // namespace multihead
