// SPDX-License-Identifier: Apache-2.0
// The ceilings as rows, before all others: what every share is a share of.
#include <benchmark/benchmark.h>

#include "cases.hpp"
#include "ceilings.hpp"
#include "timed.hpp"

namespace multihead::bench {
namespace {

void ceiling_case(benchmark::State& state, const Ceiling& ceiling) {
  const std::vector<float> operands = random_bytes(ceiling.bytes);
  double best = 0;
  for (auto _ : state) best = std::max(best, measure(ceiling, operands));
  state.counters[ceiling.unit] = best;
  if (ceiling.bytes > 0) state.counters["bytes"] = static_cast<double>(ceiling.bytes);
}

}  // namespace

void register_ceilings() {
  for (const Ceiling& ceiling : ceilings())
    benchmark::RegisterBenchmark(("ceiling/" + ceiling.name).c_str(), ceiling_case, ceiling)
        ->Iterations(ceiling.bytes > 0 ? 2 : 4);
}

}  // namespace multihead::bench
