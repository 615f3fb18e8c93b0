// SPDX-License-Identifier: Apache-2.0
// The ceilings as rows, before all others: what every share is a share of.
#include <benchmark/benchmark.h>

#include "cases.hpp"
#include "ceilings.hpp"
#include "timed.hpp"

namespace multihead::bench {
namespace {

// One measurement of a rate of operations an iteration, the best of which counts.
void products_case(benchmark::State& state, double (*measure)()) {
  double best = 0;
  for (auto _ : state) best = std::max(best, measure());
  state.counters["GFLOPS"] = best * 1e-9;
}

void reads_case(benchmark::State& state, std::size_t bytes) {
  const std::vector<float> values = random_bytes(bytes);
  double best = 0;
  for (auto _ : state) best = std::max(best, reads(values, chosen_target()));
  state.counters["GBps"] = best * 1e-9;
  state.counters["bytes"] = static_cast<double>(bytes);
}

}  // namespace

void register_ceilings() {
  const auto add = [](const char* name, double (*measure)()) {
    benchmark::RegisterBenchmark(name, products_case, measure)->Iterations(8);
  };
  add("ceiling/fma_f32", [] { return multiply_adds(Type::float32, chosen_target()); });
  add("ceiling/fma_f64", [] { return multiply_adds(Type::float64, chosen_target()); });
  if (bfloat16_dots() > 0) add("ceiling/bf16_dot", bfloat16_dots);
  if (bfloat16_tiles() > 0) add("ceiling/bf16_tile", bfloat16_tiles);
  for (const ReadLevel& level : read_levels())
    benchmark::RegisterBenchmark(("ceiling/read_" + level.name).c_str(), reads_case, level.bytes)->Iterations(2);
}

}  // namespace multihead::bench
