// SPDX-License-Identifier: Apache-2.0
// Few queries over keys and values that lie row by row, which attention() leaves to the decode kernel: the bits of the
// same rows in a call of more, which the attention kernel takes.
#include <gtest/gtest.h>

#include "allocations.hpp"
#include "kernels/schedule.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kBatch = 2, kHeads = 6, kKvHeads = 2, kQueries = 40, kKeys = 300, kHeadDim = 40, kValueDim = 24;
constexpr std::int64_t kOffset = 230;  // of the first query: causal rows see some blocks in whole, one in part

template <class T>
Problem problem(bool apart) {
  Problem p;
  p.shape = {kTypeOf<T>, kBatch, kHeads, kKvHeads, kQueries, kKeys, kHeadDim, kValueDim};
  p.seed = 11;
  if (apart) p.heads_inside = true, p.padding = 7;
  return p;
}

// Whether the kernel is there for a type of tensors.
template <class T>
bool decodes(Target target) {
  return sizeof(Sum<T>) == sizeof(float) && find_kernels(target)->decode;
}

const std::vector<double> kSlopes{0.5, 0.25, 0.125, 0.1, 0.05, 0.0}, kSinks{0.1, -1, 2, 0, 0.5, -3};

// Everything that the kernel knows, alone and together.
std::vector<AttentionOptions> all_options() {
  std::vector<AttentionOptions> found(1);
  found.push_back({.causal = true});
  found.push_back({.window = {.left = 100, .right = 3}});
  found.push_back({.causal = true, .window = {.left = 50, .first = 20}});
  found.push_back({.softcap = 3, .alibi_slopes = kSlopes});
  found.push_back({.softcap = 2, .causal = true, .window = {.left = 140, .first = 4}, .alibi_slopes = kSlopes});
  found.push_back({.causal = true});
  found.back().sinks = kSinks;
  return found;
}

template <class T>
class FewQueries : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(FewQueries, Types);

TYPED_TEST(FewQueries, BitsOfACallOfMore) {
  using T = TypeParam;
  for (bool apart : {false, true}) {
    Tensors<T> in(problem<T>(apart));
    for (Target target : available_targets())
      for (AttentionOptions options : all_options()) {
        options.target = target, options.alignment = Alignment::at(kOffset);
        const Answer<T> all(in, options);
        for (std::int64_t begin = 0, count = 1; begin + count <= kQueries; begin += count, count = count % 12 + 1) {
          const Part part{begin % kBatch, begin, begin + count, 0, kKeys};
          options.alignment = Alignment::at(kOffset + begin);
          options.threads = begin % 3 == 0 ? 5 : 1;
          const Answer<T> few(in, part, options);
          EXPECT_EQ(few.bits(), all.bits(part)) << target_name(target) << ", " << count << " rows from " << begin;
        }
      }
  }
}

// Sequences of one call, some of few queries and some of more, some without keys; behind their keys stands what no row
// may see.
TYPED_TEST(FewQueries, BesideLongerSequences) {
  using T = TypeParam;
  const std::vector<std::int64_t> queries{0, 1, 1, 14, 20, 32, 40}, keys{0, 130, 131, 140, 140, 290, 300};
  Tensors<T> in(problem<T>(false));
  for (Target target : available_targets()) {
    AttentionOptions options{.causal = true, .target = target};
    options.cu_seqlens_q = queries, options.cu_seqlens_k = keys, options.alignment = Alignment::bottom_right();
    View4<T> q = rows_of(in.q.view, 0, 0, kQueries), k = rows_of(in.k.view, 0, 0, kKeys);
    View4<T> v = rows_of(in.v.view, 0, 0, kKeys);
    const Answer<T> all(q, k, v, options);
    for (std::size_t s = 1; s < queries.size(); ++s) {
      const std::int64_t rows = queries[s] - queries[s - 1], length = keys[s] - keys[s - 1];
      if (rows == 0) continue;
      const Answer<T> alone(in, {0, queries[s - 1], queries[s], keys[s - 1], keys[s]},
                            {.causal = true, .alignment = Alignment::at(length - rows), .target = target});
      EXPECT_EQ(alone.bits(), all.bits({0, queries[s - 1], queries[s], 0, 0})) << target_name(target) << " " << s;
    }
  }
}

TYPED_TEST(FewQueries, WhatIsHiddenNeverShows) {
  using T = TypeParam;
  Tensors<T> in(problem<T>(false));
  const std::vector<std::int64_t> lengths{170, 5};
  for (std::int64_t b = 0; b < kBatch; ++b)
    for (std::int64_t h = 0; h < kKvHeads; ++h)
      for (std::int64_t j = lengths[static_cast<std::size_t>(b)]; j < kKeys; ++j)
        in.k.view(b, h, j, 1) = in.v.view(b, h, j, 3) = T(std::numeric_limits<Sum<T>>::quiet_NaN());
  in.v.view(0, 1, 120, 2) = T(std::numeric_limits<Sum<T>>::infinity());  // seen by some rows of a causal call
  for (Target target : available_targets())
    for (bool causal : {false, true}) {
      AttentionOptions options{.causal = causal, .alignment = Alignment::at(100), .target = target};
      options.lengths = lengths;
      const Answer<T> all(in, options);
      for (std::int64_t b = 0; b < kBatch; ++b)
        for (std::int64_t begin = 0; begin + 9 <= kQueries; begin += 9) {
          options.alignment = Alignment::at(100 + begin), options.lengths = {};
          const Part part{b, begin, begin + 9, 0, lengths[static_cast<std::size_t>(b)]};
          EXPECT_EQ(Answer<T>(in, part, options).bits(), all.bits(part)) << target_name(target) << " from " << begin;
        }
    }
}

// The plan names the kernel and counts its tasks, which are those that run: a kv head's rows, up to 48 of them, fewer
// where threads would be without one. Whatever it does not read goes to the attention kernel.
TYPED_TEST(FewQueries, ThePlanIsWhatRuns) {
  using T = TypeParam;
  struct Case {
    std::int64_t rows;
    int threads;
    std::int64_t tasks;
  };
  Tensors<T> in(problem<T>(false));
  const std::vector<float> bias(kKeys, 0.5f);
  for (Target target : available_targets())
    for (const auto& [rows, threads, tasks] :
         {Case{1, 1, kKvHeads}, Case{1, 3, 2 * kKvHeads}, Case{1, 9, kHeads}, Case{12, 1, kKvHeads}, Case{13, 1, 0}}) {
      const Part part{0, 0, rows, 0, kKeys};
      const AttentionShape shape{kTypeOf<T>, 1, kHeads, kKvHeads, rows, kKeys, kHeadDim, kValueDim};
      AttentionOptions options{.threads = threads, .target = target};
      for (bool biased : {false, true}) {
        if (biased) options.bias = View<const float, 1>(bias.data(), {kKeys});
        const bool few = decodes<T>(target) && tasks > 0 && !biased;
        const AttentionPlan plan = explain(shape, options);
        EXPECT_EQ(plan.kernel.starts_with("decode_"), few) << plan.kernel;
        if (few) {
          EXPECT_EQ(plan.tasks, tasks);
          EXPECT_GE(plan.row_block * plan.tasks, rows * kHeads);
        }
        const std::uint64_t before = tasks_run(target);
        const Answer<T> answer(in, part, options);
        EXPECT_EQ(static_cast<std::int64_t>(tasks_run(target) - before), plan.tasks) << plan.kernel << " " << threads;
      }
    }
}

TYPED_TEST(FewQueries, ScratchOfTheAskedSizeIsEnoughAndNothingIsAllocated) {
  using T = TypeParam;
  Tensors<T> in(problem<T>(false));
  const View4<T> q = rows_of(in.q.view, 1, 3, 10), k = rows_of(in.k.view, 1, 0, kKeys);
  const View4<T> v = rows_of(in.v.view, 1, 0, kKeys);
  const AttentionShape shape{kTypeOf<T>, 1, kHeads, kKvHeads, 7, kKeys, kHeadDim, kValueDim};
  for (Target target : available_targets()) {
    AttentionOptions options{.target = target};
    const Answer<T> wanted(q, k, v, options);
    const std::size_t bytes = attention_scratch_bytes(shape, options), behind = 1 << 16;
    std::vector<std::byte> memory(bytes + behind, std::byte{77});
    options.scratch = {memory.data(), bytes};
    Tensor<T> out({1, kHeads, 7, kValueDim});
    const std::int64_t before = allocations;
    attention(View4<const T>(q), View4<const T>(k), View4<const T>(v), out.view, options);
    EXPECT_EQ(allocations, before);
    EXPECT_EQ(hash_bits(out.view), hash_bits(wanted.out.view)) << target_name(target);
    EXPECT_EQ(std::count(memory.begin() + static_cast<std::ptrdiff_t>(bytes), memory.end(), std::byte{77}),
              static_cast<std::ptrdiff_t>(behind));
  }
}

}  // namespace
}  // namespace multihead::testing
