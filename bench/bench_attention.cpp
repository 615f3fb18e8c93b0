// SPDX-License-Identifier: Apache-2.0
// attention(), the matrix product and the chapter's sample, as rates and as shares of the peak measured beside them.
//
//   GFLOPS = 4 x visible (query, key) pairs x head_dim / time        (2 x rows x inner x columns for the product)
//   share  = GFLOPS / peak, the peak loop run just before on the same core
#include <benchmark/benchmark.h>

#include <memory>

#include "kernels/matmul.hpp"
#include "multihead/multihead.hpp"
#include "peak.hpp"
#include "problem.hpp"

namespace multihead::bench {
namespace {

using testing::Random;
using testing::Tensor;

void report(benchmark::State& state, double flops, double peak_flops) {
  state.counters["GFLOPS"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["share"] = benchmark::Counter(flops / peak_flops, benchmark::Counter::kIsIterationInvariantRate);
}

template <class T>
void attention_case(benchmark::State& state, std::int64_t heads, int threads) {
  const std::int64_t length = state.range(0), head_dim = state.range(1);
  Tensor<T> q({1, heads, length, head_dim}), k({1, heads, length, head_dim}), v({1, heads, length, head_dim});
  Tensor<T> out({1, heads, length, head_dim});
  Random random(1);
  for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random);
  const AttentionOptions options{.causal = state.range(2) != 0, .threads = threads};
  const AttentionShape shape{
      sizeof(T) == 4 ? Type::float32 : Type::float64, 1, heads, heads, length, length, head_dim, head_dim};
  const double peak = measure_peak(chosen_target()).flops * (sizeof(T) == 4 ? 1 : 0.5) * threads;
  for (auto _ : state)
    attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, options);
  report(state, explain(shape, options).flops, peak);
}

void attention_f32(benchmark::State& state) { attention_case<float>(state, state.range(0) > 2048 ? 2 : 8, 1); }
void attention_f32_threads_2(benchmark::State& state) { attention_case<float>(state, 8, 2); }
void attention_f64(benchmark::State& state) { attention_case<double>(state, 2, 1); }

void matmul_f32(benchmark::State& state) {
  const std::int64_t rows = state.range(0), inner = state.range(1), columns = state.range(2);
  Tensor<float> a({1, 1, rows, inner}), b({1, 1, inner, columns}), c({1, 1, rows, columns});
  Random random(2);
  a.fill_normal(random), b.fill_normal(random);
  const Product<float> product{MatrixView<const float>(a.values.data(), {rows, inner}),
                               MatrixView<const float>(b.values.data(), {inner, columns}),
                               MatrixView<float>(c.values.data(), {rows, columns})};
  Scratch scratch(product_scratch<float>(), {}, "bench");
  std::byte* memory = scratch.take<std::byte>(product_scratch<float>());
  const KernelTable& table = choose_kernels({});
  const double peak = measure_peak(chosen_target()).flops;
  for (auto _ : state) run_products<float>({&product, 1}, 1, {}, table, memory);
  report(state, 2.0 * static_cast<double>(rows * inner * columns), peak);
}

// The chapter's shape through the public function: float64, unpacked weights, validation, two inputs in turn.
void sample_f64(benchmark::State& state) {
  Random random(3);
  const auto normal = [&](std::int64_t rows, std::int64_t columns) {
    Matrix<double> matrix(rows, columns);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j) matrix(i, j) = random.normal();
    return matrix;
  };
  const Matrix<double> X[2] = {normal(2, 3), normal(2, 3)};
  const Matrix<double> Wq = normal(3, 6), Wk = normal(3, 6), Wv = normal(3, 6), Wo = normal(6, 3);
  Matrix<double> output(2, 3);
  std::size_t turn = 0;
  for (auto _ : state) {
    multi_head_attention(X[turn ^= 1], Wq, Wk, Wv, Wo, 2, output);
    benchmark::DoNotOptimize(output.data());
  }
}

const std::vector<std::vector<std::int64_t>> kShapes{{128, 512, 1024, 4096}, {64, 128}, {0, 1}};
BENCHMARK(attention_f32)->ArgsProduct(kShapes)->ArgNames({"length", "head_dim", "causal"});
BENCHMARK(attention_f32_threads_2)
    ->ArgsProduct({{1024}, {64}, {0, 1}})
    ->ArgNames({"length", "head_dim", "causal"})
    ->UseRealTime();
BENCHMARK(attention_f64)->ArgsProduct({{1024}, {64, 128}, {0, 1}})->ArgNames({"length", "head_dim", "causal"});
BENCHMARK(matmul_f32)
    ->Args({8, 768, 768})
    ->Args({64, 768, 768})
    ->Args({512, 768, 768})
    ->Args({512, 768, 3072})
    ->ArgNames({"rows", "inner", "columns"});
BENCHMARK(sample_f64);

}  // namespace
}  // namespace multihead::bench

int main(int argc, char** argv) {
  using namespace multihead;
  const bench::Peak peak = bench::measure_peak(chosen_target());
  benchmark::AddCustomContext("processor", processor_name());
  benchmark::AddCustomContext("target", std::string(target_name(chosen_target())));
  benchmark::AddCustomContext("peak GFLOPS, float32", std::to_string(peak.flops * 1e-9));
  benchmark::AddCustomContext("peak loop, FMAs per cycle", std::to_string(peak.fmas_per_cycle));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
