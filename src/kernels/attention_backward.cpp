// SPDX-License-Identifier: Apache-2.0
// attention_backward(): check, then gradients.
#include "multihead/attention_backward.hpp"

#include <vector>

#include "core/scratch.hpp"
#include "kernels/backward.hpp"
#include "kernels/backward_pass.hpp"
#include "kernels/explain.hpp"
#include "kernels/operands.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "attention_backward";

template <class T>
void run(const AttentionForward<T>& forward, const AttentionGradients<T>& gradients, const AttentionOptions& options) {
  check_backward(kName, forward, gradients, options);
  const AttentionShape shape = shape_of(forward.q, forward.k, forward.v);
  const KernelTable& table = choose_kernels(options.target);
  BackwardPass<T> pass(shape, options);
  Scratch scratch(pass.bytes(), options.scratch, kName);
  pass.prepare(kName, scratch.take<std::byte>(pass.bytes()));
  pass.run(forward, gradients, table);
}

// Calls use(pass) with the pass of a shape, whose segments are then known to be good.
template <class Function>
void with_pass(const char* function, const AttentionShape& shape, const AttentionOptions& options,
               const Function& use) {
  const auto prepared = [&]<class S>(S) {
    BackwardPass<S> pass(shape, options);
    std::vector<std::byte> tables(pass.table_bytes());
    pass.prepare_tables(function, tables.data());
    use(pass);
  };
  switch (shape.type) {
    case Type::float32:
      return prepared(float{});
    case Type::float64:
      return prepared(double{});
    case Type::bfloat16:
      return prepared(BFloat16{});
    case Type::float16:
      return prepared(Float16{});
  }
}

}  // namespace

void attention_backward(const AttentionForward<float>& forward, const AttentionGradients<float>& gradients,
                        const AttentionOptions& options) {
  run(forward, gradients, options);
}
void attention_backward(const AttentionForward<double>& forward, const AttentionGradients<double>& gradients,
                        const AttentionOptions& options) {
  run(forward, gradients, options);
}
void attention_backward(const AttentionForward<BFloat16>& forward, const AttentionGradients<BFloat16>& gradients,
                        const AttentionOptions& options) {
  run(forward, gradients, options);
}
void attention_backward(const AttentionForward<Float16>& forward, const AttentionGradients<Float16>& gradients,
                        const AttentionOptions& options) {
  run(forward, gradients, options);
}

std::size_t attention_backward_scratch_bytes(const AttentionShape& shape, const AttentionOptions& options) {
  constexpr const char* kFunction = "attention_backward_scratch_bytes";
  check_attention(kFunction, shape, options);
  choose_kernels(options.target);
  std::size_t bytes = 0;
  with_pass(kFunction, shape, options, [&](const auto& pass) { bytes = pass.bytes() + kCacheLine; });
  return bytes;
}

AttentionPlan explain_backward(const AttentionShape& shape, const AttentionOptions& options) {
  constexpr const char* kFunction = "explain_backward";
  AttentionPlan plan = plan_of(kFunction, "attention_backward", shape, options);
  plan.flops = 2 * plan.visible_pairs * static_cast<double>(3 * shape.head_dim + 2 * shape.value_dim);
  with_pass(kFunction, shape, options, [&](const auto& pass) {
    plan.tasks = pass.tasks();
    plan.scratch_bytes = pass.bytes() + kCacheLine;
  });
  return plan;
}

}  // namespace multihead
