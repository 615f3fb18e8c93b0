// SPDX-License-Identifier: Apache-2.0
// What the options of attention() cost: the rate of useful work with an option, as a share of the plain kernel's.
//
//   useful work = 4 x (query, key) pairs that ranges leave visible x head_dim
//   of_plain    = its rate / the rate of the same call without options, the two run in turn, medians of the turns
//   share       = its rate / ceiling_of(type), measured before the turns
//   allowed     = w / (w + 24) for a mean visible width of w keys
#include <string>
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

// What options point to.
struct Operands {
  std::vector<std::uint8_t> mask;
  std::vector<float> bias, table;
  std::vector<double> slopes, sinks;
  std::vector<std::int64_t> lengths, boundaries, segments;
};

// One option of a call with that many heads and tokens.
struct Option {
  const char* name;
  void (*set)(AttentionOptions&, Operands&, std::int64_t heads, std::int64_t length);
};

constexpr Option kOptions[] = {
    {"plain", [](AttentionOptions&, Operands&, std::int64_t, std::int64_t) {}},
    {"causal", [](AttentionOptions& o, Operands&, std::int64_t, std::int64_t) { o.causal = true; }},
    {"window_128",
     [](AttentionOptions& o, Operands&, std::int64_t, std::int64_t) {
       o.window = {64, 63};
     }},
    {"window_512",
     [](AttentionOptions& o, Operands&, std::int64_t, std::int64_t) {
       o.window = {256, 255};
     }},
    {"causal_window_128",
     [](AttentionOptions& o, Operands&, std::int64_t, std::int64_t) { o.causal = true, o.window.left = 127; }},
    {"causal_window_512",
     [](AttentionOptions& o, Operands&, std::int64_t, std::int64_t) { o.causal = true, o.window.left = 511; }},
    {"lengths",
     [](AttentionOptions& o, Operands& x, std::int64_t, std::int64_t n) {
       x.lengths = {n * 5 / 7};
       o.lengths = x.lengths;
     }},
    {"cu_seqlens",
     [](AttentionOptions& o, Operands& x, std::int64_t, std::int64_t n) {
       x.boundaries = {0, n / 9, n / 3, n / 2 + 1, n * 3 / 4, n};
       o.cu_seqlens_q = o.cu_seqlens_k = x.boundaries;
     }},
    {"segments",
     [](AttentionOptions& o, Operands& x, std::int64_t, std::int64_t n) {
       for (std::int64_t i = 0; i < n; ++i) x.segments.push_back(i * 5 / n);
       o.q_segments = o.kv_segments = MatrixView<const std::int64_t>(x.segments.data(), {1, n});
     }},
    {"keep_mask",
     [](AttentionOptions& o, Operands& x, std::int64_t, std::int64_t n) {
       Random random(4);
       x.mask.resize(static_cast<std::size_t>(n * n));
       for (std::uint8_t& keep : x.mask) keep = random.chance(80);
       o.keep_mask = View<const std::uint8_t, 2>(x.mask.data(), {n, n});
     }},
    {"bias",
     [](AttentionOptions& o, Operands& x, std::int64_t, std::int64_t n) {
       Random random(5);
       x.bias.resize(static_cast<std::size_t>(n * n));
       for (float& bias : x.bias) bias = static_cast<float>(random.uniform());
       o.bias = View<const float, 2>(x.bias.data(), {n, n});
     }},
    {"alibi_slopes",
     [](AttentionOptions& o, Operands& x, std::int64_t heads, std::int64_t) {
       x.slopes.assign(static_cast<std::size_t>(heads), 0.01);
       o.alibi_slopes = x.slopes;
     }},
    {"sinks",
     [](AttentionOptions& o, Operands& x, std::int64_t heads, std::int64_t) {
       x.sinks.assign(static_cast<std::size_t>(heads), 0.5);
       o.sinks = x.sinks;
     }},
    {"relative_bias",
     [](AttentionOptions& o, Operands& x, std::int64_t heads, std::int64_t) {
       x.table.assign(static_cast<std::size_t>(32 * heads), 0.25f);
       o.relative_bias = RelativeBias(View<const float, 2>(x.table.data(), {32, heads}), true);
     }},
    {"softcap", [](AttentionOptions& o, Operands&, std::int64_t, std::int64_t) { o.softcap = 30; }},
    {"dropout",
     [](AttentionOptions& o, Operands&, std::int64_t, std::int64_t) {
       o.dropout = {0.1, 7, 0};
     }},
};

template <class T>
struct Call {
  Tensor<T> q, k, v, out;
  AttentionShape shape;

  Call(std::int64_t heads, std::int64_t length, std::int64_t head_dim)
      : q({1, heads, length, head_dim}),
        k(q.view.extents()),
        v(q.view.extents()),
        out(q.view.extents()),
        shape{kTypeOf<T>, 1, heads, heads, length, length, head_dim, head_dim} {
    Random random(1);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->each([&](T& x) { x = T(static_cast<float>(random.normal())); });
  }
  void run(const AttentionOptions& options) {
    attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), out.view, options);
  }
  double flops(const AttentionOptions& options) const { return explain(shape, options).flops; }
};

// Runs the option and the plain call in turn; the counters say what came of it.
template <class T>
void option_case(benchmark::State& state, const Option& option) {
  const std::int64_t heads = 2, length = state.range(0), head_dim = state.range(1);
  Call<T> call(heads, length, head_dim);
  AttentionOptions options;
  Operands operands;
  option.set(options, operands, heads, length);
  const double useful = call.flops(options), all = call.flops({}), ceiling = ceiling_of(kTypeOf<T>, chosen_target());
  std::vector<double> ratios, times;
  for (auto _ : state) {
    // There and back, so that what drifts over the four calls weighs on both.
    double plain = seconds([&] { call.run({}); });
    const double with = seconds([&] { call.run(options); }) + seconds([&] { call.run(options); });
    plain += seconds([&] { call.run({}); });
    state.SetIterationTime(with / 2);
    ratios.push_back(useful / with / (all / plain)), times.push_back(with / 2);
  }
  const double width = explain(call.shape, options).visible_pairs / static_cast<double>(heads * length);
  state.counters["GFLOPS"] = useful / median(times) * 1e-9;
  state.counters["share"] = useful / median(times) / ceiling;
  state.counters["of_plain"] = median(ratios);
  state.counters["allowed"] = width / (width + 24);
}

// The normalised weights of all rows of one head of eight, beside the attention of all.
void weights_of_one_head(benchmark::State& state) {
  const std::int64_t length = state.range(0);
  Call<float> call(8, length, 64);
  std::vector<float> weights(static_cast<std::size_t>(length * length));
  const std::vector<std::int64_t> heads{3};
  WeightsRequest<float> request;
  request.heads = heads;
  request.per_head = View4<float>(weights.data(), {1, 1, length, length});
  std::vector<double> ratios;
  for (auto _ : state) {
    const double plain = seconds([&] { call.run({}); });
    const double with = seconds([&] {
      attention(View4<const float>(call.q.view), View4<const float>(call.k.view), View4<const float>(call.v.view),
                call.out.view, {}, request, {});
    });
    state.SetIterationTime(with);
    ratios.push_back(plain / with);
  }
  state.counters["of_plain"] = median(ratios);
}

}  // namespace

void register_options() {
  for (const Option& option : kOptions) {
    const auto add = [&](const std::string& type, auto run) {
      benchmark::RegisterBenchmark((type + "/" + option.name).c_str(), run, option)
          ->ArgsProduct({{1024, 4096}, {64, 128}})
          ->ArgNames({"length", "head_dim"})
          ->UseManualTime();
    };
    add("options_f32", option_case<float>);
    if (option.name == std::string("plain")) {
      add("options_bf16", option_case<BFloat16>);
      add("options_f16", option_case<Float16>);
    }
  }
  benchmark::RegisterBenchmark("weights_of_one_head", weights_of_one_head)
      ->Arg(1024)
      ->Arg(4096)
      ->ArgName("length")
      ->UseManualTime();
}

}  // namespace multihead::bench
