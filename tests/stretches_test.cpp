// SPDX-License-Identifier: Apache-2.0
// Long heads, whose keys several row blocks go through side by side, a stretch at a time, and heads of two bytes, or of
// rows that lie far apart, whose keys and values a worker keeps as floats side by side: the bits of rows that are asked
// for alone, of which nothing is kept.
#include <gtest/gtest.h>

#include "kernels/schedule.hpp"
#include "part.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kHeads = 4, kKvHeads = 2, kQueries = 180, kHeadDim = 136, kValueDim = 120;

// apart: rows of more than 2 KB lie side by side with those of other heads.
template <class T>
Problem long_problem(std::int64_t batch, std::int64_t keys, bool apart) {
  Problem p;
  if (apart) p.heads_inside = true, p.padding = 400;
  p.shape = {kTypeOf<T>, batch, kHeads, kKvHeads, kQueries, keys, kHeadDim, kValueDim};
  p.seed = 5;
  return p;
}

// Each block of rows of an entry, asked for alone: a call of no more rows than a task has.
template <class T>
void expect_bits_of_rows_alone(Tensors<T>& in, const Answer<T>& all, std::int64_t batch, std::int64_t keys,
                               AttentionOptions options) {
  options.threads = 1, options.lengths = {};
  for (std::int64_t begin = 0; begin < kQueries; begin += kRowBlock) {
    const Part part{batch, begin, std::min<std::int64_t>(begin + kRowBlock, kQueries), 0, keys};
    if (options.causal) options.alignment = Alignment::at(keys - kQueries + begin);
    const Answer<T> alone(in, part, options);
    EXPECT_EQ(alone.bits(), all.bits(part)) << target_name(*options.target) << ", entry " << batch << ", " << keys
                                            << " keys, causal " << options.causal << ", rows from " << begin;
  }
}

template <class T>
class StretchesOf : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(StretchesOf, Types);

TYPED_TEST(StretchesOf, BitsOfRowsAlone) {
  using T = TypeParam;
  for (bool apart : {false, true})
    for (std::int64_t keys : {300, 1100}) {  // few enough to be kept; of more, stretches
      Tensors<T> in(long_problem<T>(1, keys, apart));
      for (Target target : available_targets())
        for (int threads : {1, 3})  // 3: too few tasks for some to go side by side
          for (bool causal : {false, true}) {
            if (quick_share() && ((threads > 1) != apart || causal != (keys > 1000))) continue;
            AttentionOptions options{.causal = causal, .threads = threads, .target = target};
            if (causal) options.alignment = Alignment::bottom_right();
            const Answer<T> all(in, options);
            expect_bits_of_rows_alone(in, all, 0, keys, options);
          }
    }
}

// A worker meets heads whose blocks have the same number, and entries that end within a block, behind which stands what
// no row may see.
TYPED_TEST(StretchesOf, NothingOfAnotherHead) {
  using T = TypeParam;
  constexpr std::int64_t kKeys = 1100;
  const std::vector<std::int64_t> lengths{1090, 700};
  for (bool apart : {false, true}) {
    Tensors<T> in(long_problem<T>(2, kKeys, apart));
    for (std::int64_t b = 0; b < 2; ++b)
      for (std::int64_t h = 0; h < kKvHeads; ++h)
        for (std::int64_t j = lengths[static_cast<std::size_t>(b)]; j < kKeys; ++j)
          for (std::int64_t c = 0; c < kValueDim; ++c)
            in.v.view(b, h, j, c) = in.k.view(b, h, j, c) = T(std::numeric_limits<Sum<T>>::quiet_NaN());
    for (Target target : available_targets()) {
      const AttentionOptions options{.lengths = lengths, .target = target};
      const Answer<T> all(in, options);
      for (std::int64_t b = 0; b < 2; ++b)
        expect_bits_of_rows_alone(in, all, b, lengths[static_cast<std::size_t>(b)], options);
    }
  }
}

template <class T>
class StretchesInALayer : public ::testing::Test {};
using SumTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(StretchesInALayer, SumTypes);

// A layer's scratch has room for the tasks that a worker runs side by side: what is asked for is enough, and no byte
// behind it is touched.
TYPED_TEST(StretchesInALayer, NoByteBehindTheScratch) {
  using T = TypeParam;
  constexpr std::int64_t kRows = 530, kInputs = 4, kChannels = 2 * 256;
  Random random(6);
  const auto matrix = [&](std::int64_t rows, std::int64_t columns) {
    std::vector<T> values(static_cast<std::size_t>(rows * columns));
    for (T& x : values) x = static_cast<T>(random.normal());
    return values;
  };
  const std::vector<T> x = matrix(kRows, kInputs), wq = matrix(kInputs, kChannels), wk = matrix(kInputs, kChannels),
                       wv = matrix(kInputs, kChannels), wo = matrix(kChannels, kInputs);
  std::vector<T> out(static_cast<std::size_t>(kRows * kInputs)), wanted = out;
  const auto run = [&](std::span<std::byte> scratch, std::vector<T>& to) {
    const auto view = [](const std::vector<T>& values, std::int64_t rows, std::int64_t columns) {
      return MatrixView<const T>(values, {rows, columns});
    };
    LayerOptions options;
    options.scratch = scratch;
    multi_head_attention(view(x, kRows, kInputs), view(wq, kInputs, kChannels), view(wk, kInputs, kChannels),
                         view(wv, kInputs, kChannels), view(wo, kChannels, kInputs), 2,
                         MatrixView<T>(to, {kRows, kInputs}), options);
  };
  constexpr std::size_t kBehind = 1 << 20;
  const std::size_t bytes =
      multi_head_attention_scratch_bytes(sizeof(T), kRows, kInputs, kChannels, kChannels, kInputs, 2);
  std::vector<std::byte> memory(bytes + kBehind, std::byte{77});
  run({memory.data(), bytes}, out);
  run({}, wanted);
  EXPECT_EQ(out, wanted);
  EXPECT_EQ(std::count(memory.begin() + static_cast<std::ptrdiff_t>(bytes), memory.end(), std::byte{77}),
            static_cast<std::ptrdiff_t>(kBehind));
}

// What is above is that: blocks are kept, and not all of them.
TEST(Stretches, KeepsAndCuts) {
  const auto bytes = [](Type type, std::int64_t q_len, std::int64_t kv_len) {
    const AttentionShape shape{type, 1, kHeads, kKvHeads, q_len, kv_len, kHeadDim, kValueDim};
    const AttentionOptions options{.target = Target::baseline};
    return Schedule<float>(shape, options).task_bytes(false);
  };
  constexpr std::size_t kRow = (kHeadDim + kValueDim) * sizeof(float);
  for (Type type : {Type::bfloat16, Type::float16, Type::float32}) {
    EXPECT_GE(bytes(type, kQueries, 300), bytes(type, kRowBlock, 300) + 384 * kRow);
    EXPECT_LT(bytes(type, kQueries, 1100), bytes(type, kRowBlock, 1100) + 1100 * kRow);
    EXPECT_EQ(bytes(type, kQueries, 1100), bytes(type, kQueries, 100'000));
  }
}

}  // namespace
}  // namespace multihead::testing
