// SPDX-License-Identifier: Apache-2.0
// multihead_bench: the ceilings of this core first, then every case with its rate and its share of the ceiling that is
// its own. Data is random, its pages written.
//
//   build/release/multihead_bench --benchmark_out=rates.json --benchmark_out_format=json
//   build/release/multihead_bench --benchmark_filter='ceiling|attention_f32'
#include "cases.hpp"
#include "ceilings.hpp"
#include "multihead/multihead.hpp"

int main(int argc, char** argv) {
  using namespace multihead;
  const Target target = chosen_target();
  const double per_cycle = bench::multiply_adds(Type::float32, target) / bench::clock_rate();
  benchmark::AddCustomContext("processor", processor_name());
  benchmark::AddCustomContext("target", std::string(target_name(target)));
  benchmark::AddCustomContext("float32 operations a cycle, ceiling", std::to_string(per_cycle));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  bench::register_ceilings();
  bench::register_attention();
  bench::register_threads();
  bench::register_products();
  bench::register_backward();
  bench::register_layer();
  bench::register_options();
  bench::register_columns();
  bench::register_decode();
  bench::register_statistics();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
