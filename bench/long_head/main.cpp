// SPDX-License-Identifier: Apache-2.0
// One head of many tokens, causal, with every statistic: time and memory beside what N x N floats would take.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "multihead/attention.hpp"
#include "multihead/inspect.hpp"

namespace {

using namespace multihead;

constexpr std::int64_t kHeadDim = 64, kBin = 512, kTop = 8;

// The same numbers everywhere: splitmix64, as values around 0 with a deviation of 1.
void fill(std::vector<float>& values, std::uint64_t seed) {
  for (float& x : values) {
    std::uint64_t z = seed += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    x = static_cast<float>((static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53 - 0.5) * 3.4641);
  }
}

HeadStatsSpec spec_of(std::int64_t tokens) {
  HeadStatsSpec spec;
  spec.heads = 1, spec.q_len = spec.kv_len = tokens;
  spec.top = kTop, spec.received = true, spec.bin = kBin, spec.norm_weighted = true;
  spec.classes = {"even", "every seventh"};
  for (std::int64_t j = 0; j < tokens; ++j) {
    spec.key_classes.push_back((j % 2 == 0 ? 1u : 0u) | (j % 7 == 0 ? 2u : 0u));
    spec.q_tokens.push_back(j * j % 1009), spec.kv_tokens.push_back(j * j % 1009);
  }
  return spec;
}

// What passed on the clock, and what all threads took of the processor: others may be at work beside them.
struct Seconds {
  double wall, processor;
};

Seconds seconds(const auto& call) {
  const auto start = std::chrono::steady_clock::now();
  const std::clock_t before = std::clock();
  call();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
          static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC};
}

double peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

void run(std::int64_t tokens, int threads) {
  const auto count = static_cast<std::size_t>(tokens * kHeadDim);
  std::vector<float> q(count), k(count), v(count), out(count), norms(static_cast<std::size_t>(tokens));
  fill(q, 1), fill(k, 2), fill(v, 3), fill(norms, 4);
  for (float& norm : norms) norm = norm < 0 ? -norm : norm;
  const std::array<std::int64_t, 4> extents{1, 1, tokens, kHeadDim};
  const View4<const float> queries(q.data(), extents), keys(k.data(), extents), values(v.data(), extents);
  const View4<float> output(out.data(), extents);
  HeadStats stats(spec_of(tokens));
  StatisticsRequest<float> all = stats.request();
  all.norms = {norms.data(), {1, 1, tokens}};
  StatisticsRequest<float> in_pass = all, plain = all;
  plain.norm_weighted = in_pass.norm_weighted = {}, plain.norms = in_pass.norms = {};
  in_pass.plain.received = {}, in_pass.plain.map = {};
  const AttentionOptions options{.causal = true, .threads = threads};
  const auto with = [&](const StatisticsRequest<float>& request) {
    return seconds([&] { attention(queries, keys, values, output, {}, {}, request, options); });
  };
  std::printf("one head of %lld tokens, head_dim %lld, float32, causal, %d threads\n", static_cast<long long>(tokens),
              static_cast<long long>(kHeadDim), threads);
  const auto print = [](const char* what, Seconds time, Seconds base) {
    std::printf("%-52s %7.2f s, of the processor %7.2f s  x %4.2f\n", what, time.wall, time.processor,
                time.processor / base.processor);
    std::fflush(stdout);
  };
  const Seconds base = seconds([&] { attention(queries, keys, values, output, options); });
  print("attention alone", base, base);
  print("with statistics of rows, top-8, patterns", with(in_pass), base);
  print("with received and a map of bins of 512 as well", with(plain), base);
  print("with all of it norm-weighted as well", with(all), base);
  const AttentionShape shape{.q_len = tokens, .kv_len = tokens, .head_dim = kHeadDim, .value_dim = kHeadDim};
  std::printf("scratch %.1f MiB, peak memory of the process %.0f MiB; N x N floats would be %.1f GiB\n",
              static_cast<double>(attention_scratch_bytes(shape, options, false, all)) * 0x1p-20,
              peak_bytes() * 0x1p-20, static_cast<double>(tokens) * static_cast<double>(tokens) * 4 * 0x1p-30);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc > 1 ? std::atoll(argv[1]) : 131072, argc > 2 ? std::atoi(argv[2]) : 2);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
