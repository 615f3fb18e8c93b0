// SPDX-License-Identifier: Apache-2.0
// The groups of cases, in the order in which main registers and the library runs them; and what a case reports.
#pragma once

#include <benchmark/benchmark.h>

namespace multihead::bench {

void register_ceilings();
void register_attention();
void register_threads();
void register_products();
void register_backward();
void register_layer();
void register_options();
void register_columns();
void register_decode();
void register_statistics();

// GFLOPS, and share, of a ceiling that was measured just before on the same core.
inline void report_flops(benchmark::State& state, double flops, double ceiling) {
  state.counters["GFLOPS"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["share"] = benchmark::Counter(flops / ceiling, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["ceiling_GFLOPS"] = ceiling * 1e-9;
}

// GBps, and read_share, of the loop that reads as many bytes.
inline void report_bytes(benchmark::State& state, double bytes, double ceiling) {
  state.counters["GBps"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["read_share"] = benchmark::Counter(bytes / ceiling, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["ceiling_GBps"] = ceiling * 1e-9;
}

}  // namespace multihead::bench
