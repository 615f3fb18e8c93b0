// SPDX-License-Identifier: Apache-2.0
// MultiHeadAttention's forward at the size of a base encoder: 768 wide, 12 heads.
//
//   GFLOPS = (2 x tokens x 768 x 768 x 4 + 4 x tokens^2 x 768) / time
//   share  = GFLOPS / ceiling_of(float32), measured just before on the same core
#include "cases.hpp"
#include "ceilings.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"

namespace multihead::bench {
namespace {

using testing::Random;

// What stands between the products and the output, one kind a run.
enum class Extras { none, norm_and_rotary, bias_kv };

void layer_f32(benchmark::State& state) {
  const std::int64_t tokens = state.range(0), width = 768, heads = 12;
  const auto extras = static_cast<Extras>(state.range(1));
  Random random(1);
  const auto normal = [&](std::int64_t count, double scale) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& x : values) x = static_cast<float>(random.normal() * scale);
    return values;
  };
  const std::vector<float> w = normal(width * width, 0.03), bias = normal(width, 1), x = normal(tokens * width, 1);
  std::vector<float> y(x.size());
  const MatrixView<const float> W(w, {width, width});
  MultiHeadSpec spec{.heads = heads, .order = WeightOrder::out_in};
  MultiHeadWeights<float> weights{.q = W, .k = W, .v = W, .out = W, .q_bias = bias, .out_bias = bias};
  if (extras == Extras::norm_and_rotary)
    spec.q_norm.kind = spec.k_norm.kind = HeadNorm::Kind::rms, spec.rotary = RotaryOptions{};
  if (extras == Extras::bias_kv) weights.bias_k = weights.bias_v = bias;
  const MultiHeadAttention<float> layer(spec, weights);
  const View3<const float> input(x, {1, tokens, width});
  const View3<float> output(y, {1, tokens, width});
  const double ceiling = ceiling_of(Type::float32, chosen_target());
  for (auto _ : state) layer.forward(input, output);
  const double rows = static_cast<double>(tokens), columns = static_cast<double>(width);
  report_flops(state, 8 * rows * columns * columns + 4 * rows * rows * columns, ceiling);
}

}  // namespace

void register_layer() {
  benchmark::RegisterBenchmark("layer_f32", layer_f32)
      ->ArgsProduct({{128, 512}, {0, 1, 2}})
      ->ArgNames({"tokens", "extras"});
}

}  // namespace multihead::bench
