// SPDX-License-Identifier: Apache-2.0
// One problem of instructions_test.py on one thread: instructions_runner TARGET PROBLEM. Its call stands in a function
// of its own, counted_call, which is what the counter of instructions looks at; the call before it has filled what is
// kept. Small, for valgrind takes a second for four million multiply-adds. Without a problem it prints their names,
// with one what the call computes and what it needs in memory.
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "multihead/attention_backward.hpp"
#include "multihead/multihead.hpp"
#include "tests/problem.hpp"

namespace {

using namespace multihead;
using testing::Random;
using testing::Tensor;

// A call, its operations, and the bytes of what it reads and writes and of its scratch.
struct Prepared {
  std::function<void()> call;
  double flops;
  std::size_t bytes;
};

template <class T>
struct Operands {
  Tensor<T> q, k, v, out, d_out, d_q, d_k, d_v;
  std::vector<Sum<T>> lse;
  AttentionShape shape;

  Operands(std::int64_t heads, std::int64_t length, std::int64_t head_dim)
      : q({1, heads, length, head_dim}),
        k(q.view.extents()),
        v(q.view.extents()),
        out(q.view.extents()),
        d_out(q.view.extents()),
        d_q(q.view.extents()),
        d_k(q.view.extents()),
        d_v(q.view.extents()),
        lse(static_cast<std::size_t>(heads * length)),
        shape{kTypeOf<T>, 1, heads, heads, length, length, head_dim, head_dim} {
    Random random(1);
    for (Tensor<T>* tensor : {&q, &k, &v, &d_out})
      tensor->each([&](T& x) { x = T(static_cast<float>(random.normal())); });
  }
  View3<Sum<T>> lse_view() { return {lse.data(), {1, shape.heads, shape.q_len}}; }
  std::size_t bytes(std::size_t tensors) const { return tensors * q.values.size() * sizeof(T); }
};

template <class T>
Prepared forward(const AttentionOptions& options, std::int64_t head_dim = 64) {
  const auto x = std::make_shared<Operands<T>>(1, 200, head_dim);
  const auto call = [x, options] {
    attention(View4<const T>(x->q.view), View4<const T>(x->k.view), View4<const T>(x->v.view), x->out.view, options);
  };
  return {call, explain(x->shape, options).flops, x->bytes(4) + attention_scratch_bytes(x->shape, options)};
}

template <class T>
Prepared backward(const AttentionOptions& options) {
  const auto x = std::make_shared<Operands<T>>(1, 200, 64);
  attention(View4<const T>(x->q.view), View4<const T>(x->k.view), View4<const T>(x->v.view), x->out.view, x->lse_view(),
            options);
  const auto call = [x, options] {
    const AttentionForward<T> before{x->q.view, x->k.view, x->v.view, x->out.view, x->lse_view(), x->d_out.view, {}};
    attention_backward(before, AttentionGradients<T>{.q = x->d_q.view, .k = x->d_k.view, .v = x->d_v.view}, options);
  };
  return {call, explain_backward(x->shape, options).flops,
          x->bytes(8) + x->lse.size() * sizeof(Sum<T>) + attention_backward_scratch_bytes(x->shape, options)};
}

// y = GELU(x W + bias), W packed before.
Prepared product(std::int64_t rows, Target target) {
  constexpr std::int64_t kInner = 300, kColumns = 200;
  Random random(2);
  const auto drawn = [&](std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>(random.normal());
    return values;
  };
  const std::vector<float> weight = drawn(kInner * kColumns);
  const auto x = std::make_shared<std::vector<float>>(drawn(rows * kInner));
  const auto bias = std::make_shared<std::vector<float>>(drawn(kColumns));
  const auto y = std::make_shared<std::vector<float>>(static_cast<std::size_t>(rows * kColumns));
  const Linear<float> linear(MatrixView<const float>(weight, {kInner, kColumns}), WeightOrder::in_out, *bias);
  const auto call = [x, bias, y, linear, rows, target] {
    linear.forward(MatrixView<const float>(*x, {rows, kInner}), MatrixView<float>(*y, {rows, kColumns}),
                   Activation::gelu, {.target = target});
  };
  return {call, 2.0 * static_cast<double>(rows * kInner * kColumns),
          (weight.size() + x->size() + bias->size() + y->size()) * sizeof(float)};
}

// The chapter's: X (2, 3), two heads, float64, into the caller's output.
Prepared sample(Target target) {
  const auto matrices = std::make_shared<std::vector<Matrix<double>>>();
  Random random(3);
  const std::int64_t extents[6][2] = {{2, 3}, {3, 6}, {3, 6}, {3, 6}, {6, 3}, {2, 3}};
  std::size_t bytes = 0;
  for (const auto& [rows, columns] : extents) {
    Matrix<double>& matrix = matrices->emplace_back(rows, columns);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j) matrix(i, j) = random.normal();
    bytes += static_cast<std::size_t>(rows * columns) * sizeof(double);
  }
  const auto call = [matrices, target] {
    std::vector<Matrix<double>>& m = *matrices;
    multi_head_attention(m[0], m[1], m[2], m[3], m[4], 2, m[5], {.target = target});
  };
  return {call, 2.0 * 2 * 3 * 6 * 4 + 2 * 4 * 2 * 2 * 3, bytes};
}

struct Problem {
  const char* name;
  Prepared (*prepare)(Target target);
};

constexpr Problem kProblems[] = {
    {"forward_f32", [](Target target) { return forward<float>({.target = target}); }},
    {"forward_f32_causal", [](Target target) { return forward<float>({.causal = true, .target = target}); }},
    {"forward_f32_window",
     [](Target target) {
       return forward<float>({.causal = true, .window = {63, 0}, .target = target});
     }},
    {"forward_f32_head_dim_128", [](Target target) { return forward<float>({.target = target}, 128); }},
    {"forward_bf16", [](Target target) { return forward<BFloat16>({.target = target}); }},
    {"forward_f64", [](Target target) { return forward<double>({.target = target}); }},
    {"backward_f32", [](Target target) { return backward<float>({.target = target}); }},
    {"backward_f32_causal", [](Target target) { return backward<float>({.causal = true, .target = target}); }},
    {"product_f32_60_rows", [](Target target) { return product(60, target); }},
    {"product_f32_4_rows", [](Target target) { return product(4, target); }},
    {"sample_f64", sample},
};

}  // namespace

extern "C" __attribute__((noinline)) void counted_call(const std::function<void()>& call) {
  call();
  asm volatile("" ::: "memory");
}

int main(int argc, char** argv) {
  if (argc == 1) {
    for (const Problem& problem : kProblems) std::printf("%s\n", problem.name);
    return 0;
  }
  for (const Problem& problem : kProblems) {
    if (argc != 3 || argv[2] != std::string(problem.name)) continue;
    const Prepared prepared = problem.prepare(target_from_name(argv[1]));
    prepared.call();
    counted_call(prepared.call);
    std::printf("{\"flops\": %.0f, \"bytes\": %zu}\n", prepared.flops, prepared.bytes);
    return 0;
  }
  std::fprintf(stderr, "usage: instructions_runner [TARGET PROBLEM]\n");
  return 2;
}
