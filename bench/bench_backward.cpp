// SPDX-License-Identifier: Apache-2.0
// attention_backward(), as a rate and as a share of the ceiling measured beside it.
//
//   GFLOPS = 10 x visible (query, key) pairs x head_dim / time: five products
//   share  = GFLOPS / ceiling_of(type), of float32 multiply_adds(), measured just before on the same core
#include "cases.hpp"
#include "ceilings.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"

namespace multihead::bench {
namespace {

using testing::Random;
using testing::Tensor;

template <class T>
void backward_case(benchmark::State& state, std::int64_t heads, int threads) {
  const std::int64_t length = state.range(0), head_dim = state.range(1);
  const std::array<std::int64_t, 4> extents{1, heads, length, head_dim};
  Tensor<T> q(extents), k(extents), v(extents), out(extents), d_out(extents), d_q(extents), d_k(extents), d_v(extents);
  std::vector<Sum<T>> lse(static_cast<std::size_t>(heads * length));
  const View3<Sum<T>> lse_view(lse.data(), {1, heads, length});
  Random random(1);
  for (Tensor<T>* tensor : {&q, &k, &v, &d_out}) tensor->fill_normal(random);
  const AttentionOptions options{.causal = state.range(2) != 0, .threads = threads};
  attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, lse_view, options);
  const AttentionForward<T> forward{q.view, k.view, v.view, out.view, lse_view, d_out.view, {}};
  const AttentionGradients<T> gradients{.q = d_q.view, .k = d_k.view, .v = d_v.view};
  const AttentionShape shape{kTypeOf<T>, 1, heads, heads, length, length, head_dim, head_dim};
  const Target target = chosen_target();
  const bool plain = kTypeOf<T> == Type::float32;  // gradients have no parts on amx
  const double ceiling = (plain ? multiply_adds(kTypeOf<T>, target) : ceiling_of(kTypeOf<T>, target)) * threads;
  for (auto _ : state) attention_backward(forward, gradients, options);
  report_flops(state, explain_backward(shape, options).flops, ceiling);
}

void backward_f32(benchmark::State& state) { backward_case<float>(state, state.range(0) > 2048 ? 1 : 4, 1); }
void backward_bf16(benchmark::State& state) { backward_case<BFloat16>(state, state.range(0) > 2048 ? 1 : 4, 1); }
void backward_f32_threads_2(benchmark::State& state) { backward_case<float>(state, 4, 2); }
void backward_f64(benchmark::State& state) { backward_case<double>(state, 2, 1); }

}  // namespace

void register_backward() {
  const auto add = [](const char* name, void (*run)(benchmark::State&), const std::vector<std::int64_t>& lengths) {
    return benchmark::RegisterBenchmark(name, run)
        ->ArgsProduct({lengths, {64, 128}, {0, 1}})
        ->ArgNames({"length", "head_dim", "causal"});
  };
  add("backward_f32", backward_f32, {128, 512, 1024, 4096});
  add("backward_bf16", backward_bf16, {1024, 4096});
  add("backward_f64", backward_f64, {1024});
  add("backward_f32_threads_2", backward_f32_threads_2, {1024})->UseRealTime();
}

}  // namespace multihead::bench
