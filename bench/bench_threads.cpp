// SPDX-License-Identifier: Apache-2.0
// Two threads against one, run in turn, on the clock: what a second processor brings.
//
//   of_one = time of one thread / time of two, median of the turns        share = GFLOPS / twice the ceiling of one
//   thread
#include <vector>

#include "cases.hpp"
#include "ceilings.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"
#include "timed.hpp"

namespace multihead::bench {
namespace {

using testing::Random;
using testing::Tensor;

void report_turns(benchmark::State& state, double flops, const std::vector<double>& one,
                  const std::vector<double>& two) {
  std::vector<double> ratios;
  for (std::size_t turn = 0; turn < one.size(); ++turn) ratios.push_back(one[turn] / two[turn]);
  state.counters["of_one"] = median(ratios);
  state.counters["GFLOPS"] = flops / median(two) * 1e-9;
  state.counters["share"] = flops / median(two) / (2 * ceiling_of(Type::float32, chosen_target()));
}

void threads_f32(benchmark::State& state) {
  const std::int64_t heads = state.range(0), length = 1024, head_dim = 64;
  Tensor<float> q({1, heads, length, head_dim}), k(q.view.extents()), v(q.view.extents()), out(q.view.extents());
  Random random(1);
  for (Tensor<float>* tensor : {&q, &k, &v}) tensor->fill_normal(random);
  AttentionOptions options{.causal = state.range(1) != 0};
  const auto timed = [&](int threads) {
    options.threads = threads;
    return wall_seconds([&] {
      attention(View4<const float>(q.view), View4<const float>(k.view), View4<const float>(v.view), out.view, options);
    });
  };
  std::vector<double> one, two;
  for (auto _ : state) {
    // There and back, so that what drifts over the four calls weighs on both.
    double alone = timed(1);
    const double together = timed(2) + timed(2);
    alone += timed(1);
    one.push_back(alone / 2), two.push_back(together / 2);
    state.SetIterationTime(together / 2);
  }
  report_turns(state, explain({Type::float32, 1, heads, heads, length, length, head_dim, head_dim}, options).flops, one,
               two);
}

}  // namespace

void register_threads() {
  benchmark::RegisterBenchmark("threads_2_f32", threads_f32)
      ->ArgsProduct({{1, 8}, {0, 1}})
      ->ArgNames({"heads", "causal"})
      ->UseManualTime();
}

}  // namespace multihead::bench
