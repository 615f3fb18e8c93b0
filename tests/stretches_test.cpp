// SPDX-License-Identifier: Apache-2.0
// Long heads, whose keys several row blocks go through side by side, a stretch at a time, and heads of two bytes, whose
// keys and values a worker keeps as floats: the bits of rows that are asked for alone, of which nothing is kept.
#include <gtest/gtest.h>

#include <memory>

#include "kernels/schedule.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kHeads = 4, kKvHeads = 2, kQueries = 180, kHeadDim = 136, kValueDim = 120;

template <class T>
struct Long {
  Tensor<T> q, k, v;

  explicit Long(std::int64_t batch, std::int64_t keys)
      : q({batch, kHeads, kQueries, kHeadDim}),
        k({batch, kKvHeads, keys, kHeadDim}),
        v({batch, kKvHeads, keys, kValueDim}) {
    Random random(5);
    for (Tensor<T>* tensor : {&q, &k, &v}) tensor->fill_normal(random);
  }
};

// Rows [begin, begin + count) of one batch entry.
template <class T>
View4<T> rows_of(const View4<T>& x, std::int64_t batch, std::int64_t begin, std::int64_t count) {
  return View4<T>(&x(batch, 0, begin, 0), {1, x.extent(1), count, x.extent(3)}, x.strides());
}

template <class T>
struct Result {
  Tensor<T> out;
  std::vector<Sum<T>> lse;

  Result(View4<T> q, View4<T> k, View4<T> v, const AttentionOptions& options)
      : out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)}),
        lse(static_cast<std::size_t>(q.extent(0) * q.extent(1) * q.extent(2))) {
    attention(View4<const T>(q), View4<const T>(k), View4<const T>(v), out.view,
              View3<Sum<T>>(lse.data(), {q.extent(0), q.extent(1), q.extent(2)}), options);
  }
  std::uint64_t bits(std::int64_t batch, std::int64_t begin, std::int64_t count) const {
    const auto lines = static_cast<std::int64_t>(lse.size()) / out.view.extent(0);
    const View<const Sum<T>, 2> all(lse.data() + batch * lines + begin, {kHeads, count}, {lines / kHeads, 1});
    return hash_bits(all, hash_bits(rows_of(out.view, batch, begin, count)));
  }
};

// Each block of rows, asked for alone: a call of no more rows than a task has.
template <class T>
void expect_bits_of_rows_alone(Long<T>& p, const Result<T>& all, std::int64_t batch, std::int64_t keys,
                               AttentionOptions options, const std::string& what) {
  const bool causal = options.causal;
  options.threads = 1, options.lengths = {};
  const View4<T> k = rows_of(p.k.view, batch, 0, keys), v = rows_of(p.v.view, batch, 0, keys);
  for (std::int64_t begin = 0; begin < kQueries; begin += kRowBlock) {
    const std::int64_t count = std::min<std::int64_t>(kRowBlock, kQueries - begin);
    if (causal) options.alignment = Alignment::at(keys - kQueries + begin);
    const Result<T> alone(rows_of(p.q.view, batch, begin, count), k, v, options);
    EXPECT_EQ(alone.bits(0, 0, count), all.bits(batch, begin, count)) << what << ", rows from " << begin;
  }
}

template <class T>
class StretchesOf : public ::testing::Test {};
using Types = ::testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(StretchesOf, Types);

TYPED_TEST(StretchesOf, BitsOfRowsAlone) {
  using T = TypeParam;
  for (std::int64_t keys : {300, 1100}) {  // kept whole in two bytes; in stretches in all types
    Long<T> p(1, keys);
    for (Target target : available_targets())
      for (int threads : {1, 3})
        for (bool causal : {false, true}) {
          AttentionOptions options{.causal = causal, .threads = threads, .target = target};
          if (causal) options.alignment = Alignment::bottom_right();
          const Result<T> all(p.q.view, p.k.view, p.v.view, options);
          expect_bits_of_rows_alone(
              p, all, 0, keys, options,
              std::string(target_name(target)) + " " + std::to_string(keys) + (causal ? " causal" : ""));
        }
  }
}

// A worker meets heads whose blocks have the same number, and entries that end within a block, behind which stands what
// no row may see.
TYPED_TEST(StretchesOf, NothingOfAnotherHead) {
  using T = TypeParam;
  constexpr std::int64_t kKeys = 1100;
  const std::vector<std::int64_t> lengths{1090, 700};
  Long<T> p(2, kKeys);
  for (std::int64_t b = 0; b < 2; ++b)
    for (std::int64_t h = 0; h < kKvHeads; ++h)
      for (std::int64_t j = lengths[static_cast<std::size_t>(b)]; j < kKeys; ++j)
        for (std::int64_t c = 0; c < kValueDim; ++c)
          p.k.view(b, h, j, c) = p.v.view(b, h, j, c) = T(std::numeric_limits<Sum<T>>::quiet_NaN());
  for (Target target : available_targets()) {
    const AttentionOptions options{.lengths = lengths, .target = target};
    const Result<T> all(p.q.view, p.k.view, p.v.view, options);
    for (std::int64_t b = 0; b < 2; ++b)
      expect_bits_of_rows_alone(p, all, b, lengths[static_cast<std::size_t>(b)], options,
                                std::string(target_name(target)) + " entry " + std::to_string(b));
  }
}

// A layer's scratch has room for the tasks that a worker runs side by side: what is asked for is enough, and no byte
// behind it is touched.
TYPED_TEST(StretchesOf, InALayer) {
  using T = TypeParam;
  if constexpr (sizeof(T) >= 4) {
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
}

// What is above is that: blocks are kept, and not all of them.
TEST(Stretches, KeepsAndCuts) {
  const auto bytes = [](Type type, std::int64_t q_len, std::int64_t kv_len) {
    const AttentionShape shape{type, 1, kHeads, kKvHeads, q_len, kv_len, kHeadDim, kValueDim};
    const AttentionOptions options{.target = Target::baseline};
    return Schedule<float>(shape, options).task_bytes(false);
  };
  constexpr std::size_t kRow = (kHeadDim + kValueDim) * sizeof(float);
  for (Type type : {Type::bfloat16, Type::float16}) {
    EXPECT_GE(bytes(type, kQueries, 300), bytes(type, kRowBlock, 300) + 384 * kRow);
    EXPECT_LT(bytes(type, kQueries, 1100), bytes(type, kRowBlock, 1100) + 1100 * kRow);
  }
  EXPECT_EQ(bytes(Type::float32, kQueries, 300), bytes(Type::float32, kRowBlock, 300));
  EXPECT_GT(bytes(Type::float32, kQueries, 1100), bytes(Type::float32, kRowBlock, 1100));  // of tasks side by side
  EXPECT_EQ(bytes(Type::float32, kQueries, 1100), bytes(Type::float32, kQueries, 100'000));
}

}  // namespace
}  // namespace multihead::testing
