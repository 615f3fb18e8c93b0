// SPDX-License-Identifier: Apache-2.0
// attention_backward(), as a rate and as a share of the peak measured beside it.
//
//   GFLOPS = 10 x visible (query, key) pairs x head_dim / time: five products
//   share  = GFLOPS / peak, the peak loop run just before on the same core
#include <benchmark/benchmark.h>

#include "multihead/attention_backward.hpp"
#include "peak.hpp"
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
  const double peak = measure_peak(chosen_target()).flops * (sizeof(Sum<T>) == 4 ? 1 : 0.5) * threads;
  for (auto _ : state) attention_backward(forward, gradients, options);
  const double flops = explain_backward(shape, options).flops;
  state.counters["GFLOPS"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["share"] = benchmark::Counter(flops / peak, benchmark::Counter::kIsIterationInvariantRate);
}

void backward_f32(benchmark::State& state) { backward_case<float>(state, state.range(0) > 2048 ? 1 : 4, 1); }
void backward_bf16(benchmark::State& state) { backward_case<BFloat16>(state, state.range(0) > 2048 ? 1 : 4, 1); }
void backward_f32_threads_2(benchmark::State& state) { backward_case<float>(state, 4, 2); }
void backward_f64(benchmark::State& state) { backward_case<double>(state, 2, 1); }

const std::vector<std::string> kNames{"length", "head_dim", "causal"};
BENCHMARK(backward_f32)->ArgsProduct({{128, 512, 1024, 4096}, {64, 128}, {0, 1}})->ArgNames(kNames);
BENCHMARK(backward_bf16)->ArgsProduct({{1024, 4096}, {64, 128}, {0, 1}})->ArgNames(kNames);
BENCHMARK(backward_f32_threads_2)->ArgsProduct({{1024}, {64}, {0, 1}})->ArgNames(kNames)->UseRealTime();
BENCHMARK(backward_f64)->ArgsProduct({{1024}, {64, 128}, {0, 1}})->ArgNames(kNames);

}  // namespace
}  // namespace multihead::bench
