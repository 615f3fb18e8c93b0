// SPDX-License-Identifier: Apache-2.0
// One problem of instructions_test.py on one thread: instructions_runner TARGET PROBLEM. Its call stands in a function
// of its own, counted_call, which is what the counter of instructions looks at; the call before it has filled what is
// kept. Small, for valgrind takes a second for four million multiply-adds. Without a problem it prints their names,
// with one what the call computes and what it needs in memory.
#include <array>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "multihead/attention_backward.hpp"
#include "multihead/kv_cache.hpp"
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

// The last queries of a sequence over what a cache holds of it: 4 heads a kv head of 2.
template <class T>
Prepared cached(KvStorage storage, std::int64_t q_len, Target target) {
  constexpr std::int64_t kKeys = 200, kHeadDim = 64, kKvHeads = 2, kHeads = 8, kPage = 32;
  struct Cached {
    KvCache cache;
    KvSequence sequence;
    Tensor<T> q, out;
  };
  const KvCacheSpec spec{.storage = storage,
                         .kv_heads = kKvHeads,
                         .head_dim = kHeadDim,
                         .pages = (kKeys + kPage - 1) / kPage,
                         .page_len = kPage};
  Tensor<T> k({1, kKvHeads, kKeys, kHeadDim}), v(k.view.extents());
  const std::array<std::int64_t, 4> extents{1, kHeads, q_len, kHeadDim};
  const std::shared_ptr<Cached> x(new Cached{KvCache(spec), {}, Tensor<T>(extents), Tensor<T>(extents)});
  Random random(4);
  for (Tensor<T>* tensor : {&x->q, &k, &v}) tensor->each([&](T& one) { one = T(static_cast<float>(random.normal())); });
  x->sequence = x->cache.add();
  x->cache.append(0, {&x->sequence, 1}, View4<const T>(k.view), View4<const T>(v.view));
  const auto call = [x, target] {
    attention(View4<const T>(x->q.view), x->cache, 0, {&x->sequence, 1}, x->out.view, {},
              {.causal = true, .target = target});
  };
  const std::int64_t pairs = q_len * kKeys - q_len * (q_len - 1) / 2;
  const std::int64_t stored = storage == KvStorage::int8 ? kHeadDim + 4 : kHeadDim * static_cast<int>(sizeof(T));
  return {call, 4.0 * static_cast<double>(kHeads * pairs * kHeadDim),
          static_cast<std::size_t>(2 * kKvHeads * kKeys * stored) + 2 * x->q.values.size() * sizeof(T)};
}

// y = GELU(x W + bias), W packed before.
template <class T>
Prepared product(std::int64_t rows, Target target) {
  constexpr std::int64_t kInner = 300, kColumns = 200;
  Random random(2);
  const auto drawn = [&](std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count));
    for (T& value : values) value = T(static_cast<float>(random.normal()));
    return values;
  };
  const std::vector<T> weight = drawn(kInner * kColumns);
  const auto x = std::make_shared<std::vector<T>>(drawn(rows * kInner));
  const auto bias = std::make_shared<std::vector<T>>(drawn(kColumns));
  const auto y = std::make_shared<std::vector<T>>(static_cast<std::size_t>(rows * kColumns));
  const Linear<T> linear(MatrixView<const T>(weight, {kInner, kColumns}), WeightOrder::in_out, *bias);
  const MatrixView<const T> from(*x, {rows, kInner});
  const MatrixView<T> to(*y, {rows, kColumns});
  const auto call = [x, y, from, to, linear, target] {
    linear.forward(from, to, Activation::gelu, {.target = target});
  };
  return {call, 2.0 * static_cast<double>(rows * kInner * kColumns),
          (weight.size() + x->size() + bias->size() + y->size()) * sizeof(T)};
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
    {"backward_bf16_causal", [](Target target) { return backward<BFloat16>({.causal = true, .target = target}); }},
    {"cached_f32_40_queries", [](Target target) { return cached<float>(KvStorage::float32, 40, target); }},
    {"decode_f32", [](Target target) { return cached<float>(KvStorage::float32, 1, target); }},
    {"decode_bf16", [](Target target) { return cached<BFloat16>(KvStorage::bfloat16, 1, target); }},
    {"decode_int8", [](Target target) { return cached<float>(KvStorage::int8, 1, target); }},
    {"product_f32_60_rows", [](Target target) { return product<float>(60, target); }},
    {"product_f32_4_rows", [](Target target) { return product<float>(4, target); }},
    {"product_f64_60_rows", [](Target target) { return product<double>(60, target); }},
    {"product_bf16_60_rows", [](Target target) { return product<BFloat16>(60, target); }},
    {"product_bf16_4_rows", [](Target target) { return product<BFloat16>(4, target); }},
    {"product_f16_60_rows", [](Target target) { return product<Float16>(60, target); }},
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
