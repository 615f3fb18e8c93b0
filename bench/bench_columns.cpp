// SPDX-License-Identifier: Apache-2.0
// What the second pass costs: received, a map, and both, beside the plain call, in turn, medians of the turns.
#include <vector>

#include "cases.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"
#include "timed.hpp"

namespace multihead::bench {
namespace {

using testing::Random;
using testing::Tensor;

void columns_case(benchmark::State& state, bool received, bool map, bool causal) {
  const std::int64_t heads = 2, length = state.range(0), head_dim = state.range(1), bin = 64;
  const std::int64_t bins = (length + bin - 1) / bin;
  Tensor<float> q({1, heads, length, head_dim}), k(q.view.extents()), v(q.view.extents()), out(q.view.extents());
  Random random(1);
  for (Tensor<float>* tensor : {&q, &k, &v}) tensor->fill_normal(random);
  std::vector<float> sums(static_cast<std::size_t>(heads * length)),
      means(static_cast<std::size_t>(heads * bins * bins));
  StatisticsRequest<float> request;
  request.bin = bin;
  if (received) request.plain.received = {sums.data(), {1, heads, length}};
  if (map) request.plain.map = {means.data(), {1, heads, bins, bins}};
  const AttentionOptions options{.causal = causal};
  const auto run = [&](const StatisticsRequest<float>& asked) {
    attention(View4<const float>(q.view), View4<const float>(k.view), View4<const float>(v.view), out.view, {}, {},
              asked, options);
  };
  std::vector<double> ratios;
  for (auto _ : state) {
    double plain = seconds([&] { run({}); });
    const double with = seconds([&] { run(request); }) + seconds([&] { run(request); });
    plain += seconds([&] { run({}); });
    state.SetIterationTime(with / 2);
    ratios.push_back(with / plain);
  }
  state.counters["over_plain"] = median(ratios);
}

}  // namespace

void register_columns() {
  const auto add = [](const char* name, bool received, bool map, bool causal) {
    benchmark::RegisterBenchmark(name, columns_case, received, map, causal)
        ->ArgsProduct({{512, 2048}, {64, 128}})
        ->ArgNames({"length", "head_dim"})
        ->UseManualTime();
  };
  add("columns_f32/received", true, false, false);
  add("columns_f32/received_causal", true, false, true);
  add("columns_f32/map", false, true, false);
  add("columns_f32/both", true, true, false);
}

}  // namespace multihead::bench
