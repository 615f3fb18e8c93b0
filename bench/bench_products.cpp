// SPDX-License-Identifier: Apache-2.0
// The matrix product: packed once with bias and GELU in its last step, as layers use it, and unpacked; and the
// chapter's sample, which is mostly the way to it.
//
//   GFLOPS = 2 x rows x inner x columns / time
//   GBps   = bytes of the weights / time, for fewer than 16 rows, where reading them may be what takes the time
#include <vector>

#include "cases.hpp"
#include "ceilings.hpp"
#include "kernels/matmul.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"

namespace multihead::bench {
namespace {

using testing::Random;

constexpr std::int64_t kFewRows = 16;

template <class T>
std::vector<T> normal(Random& random, std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = T(static_cast<Sum<T>>(random.normal()));
  return values;
}

// y = GELU(x W + bias), W packed before.
template <class T>
void linear_case(benchmark::State& state) {
  const std::int64_t rows = state.range(0), inner = state.range(1), columns = state.range(2);
  Random random(2);
  const std::vector<T> x = normal<T>(random, rows * inner), weight = normal<T>(random, inner * columns),
                       bias = normal<T>(random, columns);
  std::vector<T> y(static_cast<std::size_t>(rows * columns));
  const Linear<T> linear(MatrixView<const T>(weight, {inner, columns}), WeightOrder::in_out, bias);
  const auto bytes = static_cast<std::size_t>(inner * columns) * sizeof(T);
  const bool few = rows < kFewRows;
  const double ceiling = ceiling_of(kTypeOf<T>, chosen_target());
  const double reading = few ? reads(random_bytes(bytes), chosen_target()) : 0;
  for (auto _ : state)
    linear.forward(MatrixView<const T>(x, {rows, inner}), MatrixView<T>(y, {rows, columns}), Activation::gelu);
  report_flops(state, 2.0 * static_cast<double>(rows * inner * columns), ceiling);
  if (few) report_bytes(state, static_cast<double>(bytes), reading);
}

void matmul_f32(benchmark::State& state) {
  const std::int64_t rows = state.range(0), inner = state.range(1), columns = state.range(2);
  Random random(2);
  const std::vector<float> a = normal<float>(random, rows * inner), b = normal<float>(random, inner * columns);
  std::vector<float> c(static_cast<std::size_t>(rows * columns));
  const Product<float> product{MatrixView<const float>(a, {rows, inner}), MatrixView<const float>(b, {inner, columns}),
                               MatrixView<float>(c, {rows, columns})};
  Scratch scratch(product_scratch<float>(), {}, "bench");
  std::byte* memory = scratch.take<std::byte>(product_scratch<float>());
  const KernelTable& table = choose_kernels({});
  const double ceiling = ceiling_of(Type::float32, chosen_target());
  for (auto _ : state) run_products<float>({&product, 1}, 1, {}, table, memory);
  report_flops(state, 2.0 * static_cast<double>(rows * inner * columns), ceiling);
}

// The chapter's shape through the public function: float64, unpacked weights, validation, two inputs in turn.
void sample_f64(benchmark::State& state) {
  Random random(3);
  const auto matrix = [&](std::int64_t rows, std::int64_t columns) {
    Matrix<double> drawn(rows, columns);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j) drawn(i, j) = random.normal();
    return drawn;
  };
  const Matrix<double> X[2] = {matrix(2, 3), matrix(2, 3)};
  const Matrix<double> Wq = matrix(3, 6), Wk = matrix(3, 6), Wv = matrix(3, 6), Wo = matrix(6, 3);
  Matrix<double> output(2, 3);
  std::size_t turn = 0;
  for (auto _ : state) {
    multi_head_attention(X[turn ^= 1], Wq, Wk, Wv, Wo, 2, output);
    benchmark::DoNotOptimize(output.data());
  }
}

}  // namespace

void register_products() {
  const std::vector<std::string> names{"rows", "inner", "columns"};
  const auto add = [&](const char* name, void (*run)(benchmark::State&)) {
    benchmark::RegisterBenchmark(name, run)->ArgsProduct({{1, 8, 15, 64, 512}, {768}, {768, 3072}})->ArgNames(names);
  };
  add("linear_gelu_f32", linear_case<float>);
  add("linear_gelu_f64", linear_case<double>);
  add("linear_gelu_bf16", linear_case<BFloat16>);
  add("linear_gelu_f16", linear_case<Float16>);
  benchmark::RegisterBenchmark("matmul_f32", matmul_f32)
      ->ArgsProduct({{8, 64, 512}, {768}, {768, 3072}})
      ->ArgNames(names);
  benchmark::RegisterBenchmark("sample_f64", sample_f64);
}

}  // namespace multihead::bench
