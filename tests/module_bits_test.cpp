// SPDX-License-Identifier: Apache-2.0
// What changes no bit of a MultiHeadAttention: threads, neighbours, requests, storage, the fate of the weights given.
#include <gtest/gtest.h>

#include <atomic>
#include <cfenv>
#include <thread>

#include "allocations.hpp"
#include "layer_problem.hpp"
#include "module_problem.hpp"

namespace multihead::testing {
namespace {

template <class T>
class ModuleBits : public ::testing::Test {};
using AllTypes = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(ModuleBits, AllTypes);

template <class T>
class ModuleSums : public ::testing::Test {};
using SumTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ModuleSums, SumTypes);

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class T>
void expect_same(const ModuleResults<T>& a, const ModuleResults<T>& b, const std::string& where) {
  EXPECT_TRUE(same_bits(a.output, b.output)) << where;
  EXPECT_TRUE(same_bits(a.lse, b.lse)) << where;
  EXPECT_TRUE(same_bits(a.heads, b.heads)) << where;
  EXPECT_TRUE(same_bits(a.per_head, b.per_head)) << where;
  EXPECT_TRUE(same_bits(a.mean, b.mean)) << where;
  EXPECT_TRUE(same_bits(a.norm_weighted, b.norm_weighted)) << where;
  EXPECT_TRUE(same_bits(a.norms, b.norms)) << where;
}

int problems() { return quick_share() ? 8 : 40; }

void backwards(void*, std::int64_t count, ParallelFor::Task task, void* argument) {
  for (std::int64_t index = count; index-- > 0;) task(argument, index);
}

TYPED_TEST(ModuleBits, ThreadsRequestsAndScratch) {
  using T = TypeParam;
  for (int seed = 0; seed < problems(); ++seed) {
    ModuleProblem<T> p(static_cast<std::uint64_t>(seed));
    const MultiHeadAttention<T> layer = p.layer();
    ModuleResults<T> wanted, bare, got;
    wanted.run(layer, p, p.options, true);
    bare.run(layer, p, p.options, false);
    EXPECT_TRUE(same_bits(bare.output, wanted.output)) << "requests changed the output: " << p.describe();
    for (int threads : {2, 3, 8}) {
      MultiHeadOptions options = p.options;
      options.attention.threads = threads;
      got.run(layer, p, options, true);
      expect_same(got, wanted, p.describe());
      options.attention.parallel_for = {backwards, nullptr};
      const std::size_t bytes = layer.scratch_bytes(p.batch, p.q_len, p.kv_len, p.self, options, got.requests(p));
      std::vector<std::byte> memory(bytes + 64, std::byte{0xA5});
      options.attention.scratch = {memory.data() + threads, bytes};
      got.run(layer, p, options, true);
      expect_same(got, wanted, p.describe());
      EXPECT_EQ(
          std::count(memory.begin() + threads + static_cast<std::ptrdiff_t>(bytes), memory.end(), std::byte{0xA5}),
          64 - threads)
          << "written behind the scratch: " << p.describe();
      options.attention.scratch = {memory.data(), bytes - 1};
      EXPECT_THROW(got.run(layer, p, options, true), Error);
    }
  }
}

TYPED_TEST(ModuleBits, ConcurrentThreadsShareALayer) {
  using T = TypeParam;
  ModuleProblem<T> p(4);
  const MultiHeadAttention<T> layer = p.layer();
  ModuleResults<T> wanted;
  wanted.run(layer, p, p.options, true);
  std::vector<std::thread> threads;
  std::atomic<int> same = 0;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      const MultiHeadAttention<T> copy = layer;
      ModuleResults<T> got;
      got.run(copy, p, p.options, true);
      if (same_bits(got.output, wanted.output)) ++same;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, 4);
}

// Targets of one family agree in every result.
TYPED_TEST(ModuleBits, TargetsOfAFamily) {
  using T = TypeParam;
  for (int seed = 0; seed < problems(); ++seed) {
    ModuleProblem<T> p(static_cast<std::uint64_t>(seed) + 300);
    const MultiHeadAttention<T> layer = p.layer();
    std::vector<ModuleResults<T>> results;
    for (Target target : available_targets()) {
      if (has_own_bits(target, kTypeOf<T>)) continue;
      MultiHeadOptions options = p.options;
      options.attention.target = target;
      results.emplace_back().run(layer, p, options, true);
    }
    for (const ModuleResults<T>& other : results) expect_same(other, results.front(), p.describe());
  }
}

// Each entry of the batch alone, and each row alone where no other row's number matters, has the bits it had.
TYPED_TEST(ModuleBits, NeighboursInTheBatchAndRows) {
  using T = TypeParam;
  int entries = 0, rows = 0;
  for (int seed = 0; seed < 2 * problems(); ++seed) {
    ModuleProblem<T> p(static_cast<std::uint64_t>(seed) + 600);
    const MultiHeadAttention<T> layer = p.layer();
    ModuleResults<T> wanted;
    wanted.run(layer, p, p.options, false);
    const std::int64_t width = p.e.out_dim;
    const auto at = [&](const View3<const T>& x, std::int64_t b, std::int64_t i, std::int64_t length) {
      const std::int64_t offset = b * x.stride(0) + i * x.stride(1);
      return View3<const T>(x.data() + offset, {1, length, x.extent(2)}, x.strides());
    };
    const auto expect = [&](std::int64_t b, std::int64_t i, std::int64_t length, const MultiHeadOptions& options) {
      std::vector<T> output(static_cast<std::size_t>(length * width));
      layer.forward(at(p.query.view, b, i, length), at(p.keys(), b, 0, p.kv_len), at(p.values(), b, 0, p.kv_len),
                    View3<T>(output.data(), {1, length, width}), options);
      const auto from = wanted.output.begin() + (b * p.q_len + i) * width;
      EXPECT_TRUE(same_bits(output, std::vector<T>(from, from + length * width))) << p.describe();
    };
    for (std::int64_t b = 0; b < p.batch; ++b) {
      MultiHeadOptions options = p.options;
      if (!p.lengths.empty()) options.attention.lengths = std::span(p.lengths).subspan(static_cast<std::size_t>(b), 1);
      const bool positions = !p.q_positions.empty();
      if (positions) {
        options.q_positions = {p.q_positions.data() + b * p.q_len, {1, p.q_len}};
        options.k_positions = {p.k_positions.data() + b * p.kv_len, {1, p.kv_len}};
      }
      expect(b, 0, p.q_len, options), ++entries;
      if (p.options.attention.causal || (p.spec.rotary && !positions)) continue;
      const std::int64_t row = p.q_len / 2;
      if (positions) options.q_positions = {p.q_positions.data() + b * p.q_len + row, {1, 1}};
      expect(b, row, 1, options), ++rows;
    }
  }
  EXPECT_GT(entries, problems());
  EXPECT_GT(rows, problems() / 4);
}

// The layer keeps nothing of what it was made from.
TYPED_TEST(ModuleBits, WeightsMayGo) {
  using T = TypeParam;
  for (int seed = 0; seed < problems(); ++seed) {
    ModuleProblem<T> p(static_cast<std::uint64_t>(seed) + 900);
    const MultiHeadAttention<T> layer = p.layer();
    ModuleResults<T> wanted, got;
    wanted.run(layer, p, p.options, true);
    for (auto& [name, values] : p.stored) std::fill(values.begin(), values.end(), T(float(NAN)));
    got.run(layer, p, p.options, true);
    expect_same(got, wanted, p.describe());
  }
}

// How weights are stored changes no bit: the same layer in the other order, its q, k and v apart or in one.
TYPED_TEST(ModuleBits, StorageOfWeights) {
  using T = TypeParam;
  for (int seed = 0; seed < problems(); ++seed) {
    ModuleProblem<T> p(static_cast<std::uint64_t>(seed) + 1200);
    ModuleResults<T> wanted, got;
    wanted.run(p.layer(), p, p.options, true);
    const bool one_input = p.e.kdim == p.e.model_dim && p.e.vdim == p.e.model_dim;
    for (WeightOrder order : {WeightOrder::in_out, WeightOrder::out_in})
      for (bool fused : {false, true})
        for (FusedOrder fused_order : {FusedOrder::blocks, FusedOrder::groups}) {
          if (fused && !one_input) continue;
          p.spec.order = order, p.spec.fused_order = fused_order, p.fused = fused;
          p.spec.value_dim = p.e.value_dim;
          got.run(p.layer(), p, p.options, true);
          expect_same(got, wanted, p.describe());
        }
  }
}

// With plain options the class is the function, bit for bit.
TYPED_TEST(ModuleSums, ClassIsTheFunctionBits) {
  using T = TypeParam;
  for (const LayerExtents& e : {LayerExtents{2, 3, 6, 6, 3, 2},
                                {50, 33, 24, 40, 17, 4},
                                {7, 700, 12, 20, 100, 2},
                                {quick_share() ? 60 : 500, 20, 16, 8, 12, 2}}) {
    const Inputs<T> in(e);
    const MultiHeadAttention<T> layer({.heads = e.heads, .order = WeightOrder::in_out},
                                      {.q = in.Wq, .k = in.Wk, .v = in.Wv, .out = in.Wo});
    for (Target target : available_targets()) {
      Matrix<T> output(e.n, e.out_dim);
      const View3<const T> X(in.X.data(), {1, e.n, e.model_dim});
      layer.forward(X, View3<T>(output.data(), {1, e.n, e.out_dim}), {.attention = {.target = target}});
      EXPECT_EQ(bits(output), bits(in.run({.target = target}))) << target_name(target) << " " << e.n;
    }
  }
}

// A layer is packed, its tables made and its norms' weights counted from 1 in the arithmetic of the kernels.
TYPED_TEST(ModuleBits, TheRoundingModeOfTheCallerBits) {
  using T = TypeParam;
  const std::int64_t width = 16;
  Random random(5);
  const auto normal = [&](std::int64_t count) {
    std::vector<T> values;
    for (std::int64_t i = 0; i < count; ++i) values.push_back(T(static_cast<Sum<T>>(random.normal() / 3)));
    return values;
  };
  const std::vector<T> weight = normal(width * width), norm = normal(width / 2), x = normal(9 * width);
  const auto run = [&](int mode) {
    std::fesetround(mode);
    const MatrixView<const T> w(weight, {width, width});
    const MultiHeadAttention<T> layer({.heads = 2,
                                       .order = WeightOrder::in_out,
                                       .q_norm = {HeadNorm::Kind::rms_plus_1},
                                       .k_norm = {HeadNorm::Kind::rms_plus_1},
                                       .rotary = RotaryOptions{}},
                                      {.q = w, .k = w, .v = w, .out = w, .q_norm = norm, .k_norm = norm});
    std::vector<T> output(x.size());
    layer.forward(View3<const T>(x, {1, 9, width}), View3<T>(output, {1, 9, width}));
    std::fesetround(FE_TONEAREST);
    return output;
  };
  const std::vector<T> wanted = run(FE_TONEAREST);
  for (int mode : {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO}) EXPECT_TRUE(same_bits(run(mode), wanted)) << mode;
}

TYPED_TEST(ModuleBits, NothingIsAllocatedAfterTheFirstCall) {
  using T = TypeParam;
  for (int seed = 0; seed < problems(); ++seed) {
    ModuleProblem<T> p(static_cast<std::uint64_t>(seed) + 1800);
    p.options.attention.threads = 2;
    const MultiHeadAttention<T> layer = p.layer();
    ModuleResults<T> results;
    const View3<T> output = results.output_view(p);
    const MultiHeadRequests<T> requests = results.requests(p);
    const auto run = [&] { layer.forward(p.query.view, p.keys(), p.values(), output, p.options, requests); };
    run();
    const std::int64_t before = allocations;
    run();
    EXPECT_EQ(allocations - before, 0) << p.describe();
  }
}

}  // namespace
}  // namespace multihead::testing
