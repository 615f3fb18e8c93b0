// SPDX-License-Identifier: Apache-2.0
// MultiHeadAttention's forward at the size of a base encoder: 768 wide, 12 heads.
//
//   GFLOPS = (2 x tokens x 768 x 768 x 4 + 4 x tokens^2 x 768) / time
//   share  = GFLOPS / ceiling_of(type), measured just before on the same core
#include "cases.hpp"
#include "ceilings.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"

namespace multihead::bench {
namespace {

using testing::Random;

// What stands between the products and the output, one kind a run.
enum class Extras { none, norm_and_rotary, bias_kv };

template <class T>
void layer_case(benchmark::State& state) {
  const std::int64_t tokens = state.range(0), width = 768, heads = 12;
  const auto extras = static_cast<Extras>(state.range(1));
  Random random(1);
  const auto normal = [&](std::int64_t count, double scale) {
    std::vector<T> values(static_cast<std::size_t>(count));
    for (T& x : values) x = T(static_cast<float>(random.normal() * scale));
    return values;
  };
  const std::vector<T> w = normal(width * width, 0.03), bias = normal(width, 1), x = normal(tokens * width, 1);
  std::vector<T> y(x.size());
  const MatrixView<const T> W(w, {width, width});
  MultiHeadSpec spec{.heads = heads, .order = WeightOrder::out_in};
  MultiHeadWeights<T> weights;
  weights.q = weights.k = weights.v = weights.out = W, weights.q_bias = weights.out_bias = bias;
  if (extras == Extras::norm_and_rotary)
    spec.q_norm.kind = spec.k_norm.kind = HeadNorm::Kind::rms, spec.rotary = RotaryOptions{};
  if (extras == Extras::bias_kv) weights.bias_k = weights.bias_v = bias;
  const MultiHeadAttention<T> layer(spec, weights);
  const View3<const T> input(x, {1, tokens, width});
  const View3<T> output(y, {1, tokens, width});
  const double ceiling = ceiling_of(kTypeOf<T>, chosen_target());
  for (auto _ : state) layer.forward(input, output);
  const double rows = static_cast<double>(tokens), columns = static_cast<double>(width);
  report_flops(state, 8 * rows * columns * columns + 4 * rows * rows * columns, ceiling);
}

}  // namespace

void register_layer() {
  const auto add = [](const char* name, void (*run)(benchmark::State&)) {
    benchmark::RegisterBenchmark(name, run)->ArgsProduct({{128, 512}, {0, 1, 2}})->ArgNames({"tokens", "extras"});
  };
  add("layer_f32", layer_case<float>);
  add("layer_bf16", layer_case<BFloat16>);
  add("layer_f16", layer_case<Float16>);
}

}  // namespace multihead::bench
